//! The reference of the configuration, as the text of a manual page.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::Error;

/// Print the reference of the configuration as Markdown for a manual page
///
/// Its title is left out, and its headings are one level up, below the usual ones of a manual page. Links to other pages become
/// the names that these are installed under.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// docs/reference/configuration.md
    #[arg(value_name = "FILE")]
    reference: PathBuf,
}

const HEAD: &str = "# Name\n\nima-init.conf - configuration of ima-init\n\n# Description\n";

const TAIL: &str = "\n# See also\n\n**ima-init**(8), **imactl**(1)\n";

/// Where the packages put `docs/` (the lists of files in `Cargo.toml`).
const INSTALLED: &str = "/usr/share/doc/ima-init";

/// Prints the page.
pub fn main(options: &Options) -> Result<ExitCode, Error> {
    let file = options.reference.display();
    let text =
        fs::read_to_string(&options.reference).map_err(|error| format!("{file}: {error}"))?;
    let page = page(&text).map_err(|error| format!("{file}: {error}"))?;
    print!("{page}");
    Ok(ExitCode::SUCCESS)
}

/// Returns the page that is made of a reference.
fn page(reference: &str) -> Result<String, Error> {
    let mut text = HEAD.to_owned();
    for line in reference.lines().skip(1) {
        text += &converted(line)?;
        text.push('\n');
    }
    Ok(text + TAIL)
}

/// Returns a line of the page. Code, which is indented, stays as it is.
fn converted(line: &str) -> Result<String, Error> {
    if line.starts_with("    ") {
        return Ok(line.to_owned());
    }
    let hashes = line.len() - line.trim_start_matches('#').len();
    let is_heading = hashes >= 2 && line[hashes..].starts_with(' ');
    let mut rest = if is_heading { &line[1..] } else { line };
    let mut text = String::new();
    while let Some((before, title, target, after)) = next_link(rest) {
        text += before;
        match installed(target)? {
            Some(path) => text += &format!("{} ({path})", without_backticks(title)),
            None => text += &format!("[{title}]({target})"),
        }
        rest = after;
    }
    Ok(text + rest)
}

/// Returns what is before the first link of a line, its title, its target, and what is behind it.
fn next_link(line: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = line.split_once("](")?;
    let (before, title) = before.rsplit_once('[')?;
    let (target, after) = rest.split_once(')')?;
    Some((before, title, target, after))
}

/// Returns the path that a page of `docs/` is installed under; nothing for a target that is no other page.
fn installed(target: &str) -> Result<Option<String>, Error> {
    let page = target.split('#').next().unwrap_or_default();
    if page.is_empty() || page.contains("://") {
        return Ok(None);
    }
    // The targets are relative to docs/reference/.
    let path = match page.strip_prefix("../") {
        Some(path) => path.to_owned(),
        None => format!("reference/{page}"),
    };
    if path.contains("..") || !path.ends_with(".md") {
        return Err(format!("{target}: a link to what is not installed").into());
    }
    Ok(Some(format!("{INSTALLED}/{path}")))
}

/// Returns a title without the marks of code around it.
fn without_backticks(title: &str) -> &str {
    let inner = title
        .strip_prefix('`')
        .and_then(|title| title.strip_suffix('`'));
    inner.unwrap_or(title)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn headings_are_one_level_up_and_the_title_is_left_out() {
        let text = "# Configuration\n\nText.\n\n## Keys\n\n### root\n\n#### More\n\n##no heading\n    ## code\n";
        let page = page(text).unwrap();
        let body = page
            .strip_prefix(HEAD)
            .and_then(|text| text.strip_suffix(TAIL));
        assert_eq!(
            body,
            Some("\nText.\n\n# Keys\n\n## root\n\n### More\n\n##no heading\n    ## code\n")
        );
    }

    #[test]
    fn links_to_pages_become_installed_names() {
        for (line, expected) in [
            (
                "see [policies.md](../how-to/policies.md#what-a-policy-must-cover).",
                "see policies.md (/usr/share/doc/ima-init/how-to/policies.md).",
            ),
            (
                "| any form of [`root=`](command-line.md#root) | [b](x.md) |",
                "| any form of root= (/usr/share/doc/ima-init/reference/command-line.md) \
                 | b (/usr/share/doc/ima-init/reference/x.md) |",
            ),
            (
                "[the key `a`](x.md)",
                "the key `a` (/usr/share/doc/ima-init/reference/x.md)",
            ),
            (
                "a[0] of [`cmdline`](#cmdline) and [it](https://example.org/a.md)",
                "a[0] of [`cmdline`](#cmdline) and [it](https://example.org/a.md)",
            ),
            ("    [code](x.md)", "    [code](x.md)"),
            ("no link](x.md), [none(x.md)", "no link](x.md), [none(x.md)"),
        ] {
            assert_eq!(converted(line).unwrap(), expected);
        }
    }

    #[test]
    fn links_to_what_is_not_installed_are_an_error() {
        for target in ["../../README.md", "x.conf", "../how-to"] {
            let error = converted(&format!("[x]({target})")).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{target}: a link to what is not installed")
            );
        }
    }

    #[test]
    fn the_reference_can_be_converted() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
        let page = page(&fs::read_to_string(path).unwrap()).unwrap();
        assert!(page.contains("\n# Keys\n") && page.contains("\n## enforce\n"));
        assert!(!page.contains(".md#"), "a link to a page is left");
    }
}
