//! The links between the pages of the documentation lead somewhere.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    path.canonicalize().expect("the project's directory")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// Returns the pages whose links are checked: those of the top directory, of `docs/` and of the crates.
fn pages() -> Vec<PathBuf> {
    let project = project();
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|name| project.join(name))
        .into();
    let docs = walkdir::WalkDir::new(project.join("docs")).sort_by_file_name();
    pages.extend(
        docs.into_iter()
            .map(|entry| entry.expect("an entry of docs").into_path())
            .filter(|path| is_markdown(path)),
    );
    let crates = walkdir::WalkDir::new(project.join("crates"))
        .min_depth(1)
        .max_depth(1)
        .sort_by_file_name();
    pages.extend(
        crates
            .into_iter()
            .map(|entry| entry.expect("a crate").into_path().join("README.md")),
    );
    pages
}

/// Returns the lines of a page outside its fenced code blocks, without the code spans.
fn prose(page: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in page.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if !fenced && !fence {
            let outside = line.split('`').step_by(2).collect::<Vec<_>>();
            prose.push_str(&outside.join("code"));
            prose.push('\n');
        }
    }
    prose
}

/// Returns the targets of the links of a page: `[text](target)`, `[text](target "title")` and `[name]: target`.
fn targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    let inline = prose
        .match_indices("](")
        .filter_map(|(at, opening)| prose.get(at + opening.len()..)?.split(')').next());
    let named = prose.lines().filter_map(|line| {
        let (name, target) = line.strip_prefix('[')?.split_once("]:")?;
        (!name.contains(']')).then_some(target)
    });
    inline
        .chain(named)
        .map(|target| target.split_whitespace().next().unwrap_or_default())
        .map(|target| target.trim_matches(['<', '>']).to_owned())
        .collect()
}

/// Returns the anchors of a page as GitHub makes them: of each heading, in lower case, with hyphens for blanks and without
/// punctuation; a heading that is there already gets a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let text = line.trim_start_matches('#');
        let level = line.len() - text.len();
        if fenced || !(1..=6).contains(&level) || !text.starts_with(' ') {
            continue;
        }
        let anchor: String = text
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let before = seen.entry(anchor.clone()).or_default();
        anchors.insert(match *before {
            0 => anchor,
            number => format!("{anchor}-{number}"),
        });
        *before += 1;
    }
    anchors
}

/// Returns why a link of a page leads nowhere.
fn defect(page: &Path, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    if target.starts_with('/') {
        return Some("is an absolute path");
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let file = match path {
        "" => page.to_owned(),
        path => page.parent().expect("a directory").join(path),
    };
    if !file.exists() {
        return Some("names a file that does not exist");
    }
    match anchor {
        Some(_) if !is_markdown(&file) => Some("has an anchor into a file that has no headings"),
        Some(anchor) if !anchors(&read(&file)).contains(anchor) => {
            Some("names a heading that does not exist")
        }
        _ => None,
    }
}

/// Returns how many links a page has, and those that lead nowhere.
fn check(page: &Path) -> (usize, Vec<String>) {
    let targets = targets(&read(page));
    let name = page.strip_prefix(project()).unwrap_or(page).display();
    let broken = targets
        .iter()
        .filter_map(|target| defect(page, target).map(|why| format!("{name}: {target} {why}")))
        .collect();
    (targets.len(), broken)
}

/// Every relative link and every anchor of the documentation exists.
#[test]
fn links_lead_somewhere() {
    let (counts, broken): (Vec<_>, Vec<_>) = pages().iter().map(|page| check(page)).unzip();
    let links: usize = counts.iter().sum();
    let broken = broken.concat();
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(links > 100, "only {links} links were found");
}

/// The index names every page of the documentation.
#[test]
fn the_index_names_every_page() {
    let docs = project().join("docs");
    let index = docs.join("README.md");
    let named: BTreeSet<PathBuf> = targets(&read(&index))
        .iter()
        .filter_map(|target| docs.join(target.split('#').next()?).canonicalize().ok())
        .collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&docs) && !page.starts_with(docs.join("man")))
        .filter(|page| *page != index && !named.contains(page))
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:#?}");
}

/// The check finds what it is for, and takes what is right.
#[test]
fn broken_links_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("page.md");
    std::fs::write(directory.path().join("program"), "").expect("a file");
    let cases = [
        ("[a](#first-part)", 0),
        ("[a](page.md#first-part-1)", 0),
        ("[a](page.md#a-key_with-code)", 0),
        ("[a](program \"title\")", 0),
        ("[a]: page.md", 0),
        ("[a](https://example.org/missing)", 0),
        ("`[a](missing.md)`", 0),
        ("```\n[a](missing.md)\n```", 0),
        ("[a](missing.md)", 1),
        ("[a]: missing.md", 1),
        ("[a](#third-part)", 1),
        ("[a](page.md#first-part-2)", 1),
        ("[a](#not-a-heading)", 1),
        ("[a](program#first-part)", 1),
        ("[a](/program)", 1),
        ("[a](missing.md) and [b](page.md) and [c](#none)", 2),
    ];
    let headings =
        "# First part\n## First part\n## A `key_with` code\n```\n# not a heading\n```\n\n";
    for (text, expected) in cases {
        std::fs::write(&page, format!("{headings}{text}\n")).expect("a page");
        let (_, broken) = check(&page);
        assert_eq!(broken.len(), expected, "{text}: {broken:?}");
    }
}
