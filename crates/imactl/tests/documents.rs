//! What the documentation says of the tests is true.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory whose names end so.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(project().join(directory))
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// Words in backticks, with whether a colon stands before the first of them.
fn quoted(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut pieces = text.split('`');
    let mut before = pieces.next().unwrap_or_default();
    std::iter::from_fn(move || {
        let word = pieces.next()?;
        let attempt = before.ends_with(':');
        before = pieces.next().unwrap_or_default();
        Some((attempt, word))
    })
}

/// Every test that the threat model names exists, and every attempt is one that the guest program makes.
#[test]
fn the_threat_model_names_tests_that_exist() {
    let mut tests = files("tests/boots", ".rs");
    tests.extend(files("crates/ima/tests", ".rs"));
    tests.extend(files("crates/imactl/src/uki", ".rs"));
    let boots: String = tests.iter().map(|path| read(path)).collect();
    let guest: String = files("crates/testbed/src/bin/guest", ".rs")
        .iter()
        .map(|path| read(path))
        .collect();
    let page = read(&project().join("docs/explanation/threat-model.md"));
    let mut names = BTreeSet::new();
    for line in page.lines() {
        let named = match line.strip_suffix('|') {
            Some(row) => row.rsplit('|').next().unwrap_or_default(),
            None => line,
        };
        let tests = quoted(named).filter(|(_, word)| {
            let is_name =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            // In prose, only names with several underscores are meant.
            word.chars().all(is_name)
                && (line.starts_with('|') && !line.starts_with("| not ")
                    || word.matches('_').count() > 3)
        });
        names.extend(tests.map(|(attempt, word)| (attempt, word.to_owned())));
    }
    names.retain(|(_, name)| !["shown", "include", "everything_signed"].contains(&name.as_str()));
    assert!(names.len() > 60, "{} names are few", names.len());
    let missing: Vec<_> = names
        .iter()
        .filter(|(attempt, name)| {
            if *attempt {
                !guest.contains(&format!("\"{name}\""))
            } else {
                !boots.contains(&format!("fn {name}("))
                    && !boots.contains(&format!(" {name}: \"IMA-"))
            }
        })
        .collect();
    assert!(
        missing.is_empty(),
        "docs/explanation/threat-model.md: {missing:?}"
    );
}
