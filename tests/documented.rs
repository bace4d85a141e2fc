//! The tests that the documentation names exist. It names them in slanted code: a page says what is tested, and by which test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files below a directory that have this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The names in slanted code, such as those of ``*`one`, `module::another`*``, without their modules.
fn named(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, start) in text.match_indices("*`") {
        let is_bold = text[..at].ends_with('*');
        let slanted = text[at + start.len()..].split('*').next();
        let Some(slanted) = slanted.and_then(|slanted| slanted.strip_suffix('`')) else {
            continue;
        };
        if !is_bold {
            let parts = slanted.split('`').step_by(2);
            names.extend(parts.map(|name| name.rsplit("::").next().unwrap_or(name)));
        }
    }
    names
}

/// The tests of a source, and the rows of its tables of tests.
fn tests(source: &str) -> BTreeSet<&str> {
    let functions = source.split("fn ").skip(1);
    let functions = functions.filter_map(|rest| rest.split_once('('));
    let rows = source.split(": \"IMA-").map(|before| {
        let start = before.rfind(|character| !is_word(character));
        start.map_or(before, |start| &before[start + 1..])
    });
    functions.map(|(name, _)| name).chain(rows).collect()
}

#[test]
fn tests_that_are_named_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = files(&top.join("docs"), "md");
    pages.push(top.join("README.md"));
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a file");
    let sources: Vec<String> = ["tests", "crates"]
        .iter()
        .flat_map(|directory| files(&top.join(directory), "rs"))
        .map(|path| read(&path))
        .collect();
    let tests: BTreeSet<&str> = sources.iter().flat_map(|source| tests(source)).collect();
    let mut count = 0;
    let mut missing = Vec::new();
    for page in &pages {
        for name in named(&read(page)) {
            count += 1;
            if !tests.contains(name) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 50, "{count} names");
}

#[test]
fn only_whole_names_of_tests_count() {
    let text = "see *`one`*, **`bold`**, *`module::two`,\n  `three`* and `four`, *slanted*";
    assert_eq!(named(text), BTreeSet::from(["one", "two", "three"]));
    let source = "fn one() {}\nfn tw() {}\nthree: \"IMA-100\",\n four: \"x\"";
    let found = tests(source);
    assert!(
        ["one", "tw", "three"]
            .iter()
            .all(|name| found.contains(name))
    );
    assert!(
        ["on", "two", "four"]
            .iter()
            .all(|name| !found.contains(name))
    );
}
