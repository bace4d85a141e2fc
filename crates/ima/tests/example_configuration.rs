//! The example configuration that is packaged: accepted, and its comments show the defaults.

use ima::config::Config;

const EXAMPLE: &str = include_str!("../../../docs/examples/ima-init.conf");

#[test]
fn what_is_commented_out_is_the_default() {
    let shown: String = EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.contains('=') && !line.starts_with(' '))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(shown.lines().count() >= 8, "{shown}");
    assert_eq!(Config::parse(shown.as_bytes()).unwrap(), Config::default());
}

#[test]
fn it_differs_from_the_default_by_the_keyring_alone() {
    let set: Vec<&str> = EXAMPLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert_eq!(set, ["keyring=_ima"]);
    Config::parse(EXAMPLE.as_bytes()).unwrap();
}
