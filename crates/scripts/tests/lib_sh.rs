//! The functions of `qemu/lib.sh` that run programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a script with the functions of `qemu/lib.sh` and a cache of its own.
fn run(cache: &Path, script: &str) -> Output {
    let script = format!(". '{}/qemu/lib.sh'\n{script}", project().display());
    Command::new("bash")
        .args(["-c", &script, "script"])
        .env("IMA_INIT_CACHE", cache)
        .env(
            "IMA_INIT_SCRIPT_HELPER",
            env!("CARGO_BIN_EXE_script-helper"),
        )
        .output()
        .expect("bash runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the names in a directory, but for the lock of the cache.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".lock").collect()
}

/// Fails in the middle.
const FAILING: &str = "sh -euc 'echo half >\"$1/half\"; false; echo whole >\"$1/whole\"' sh {}";

#[test]
fn a_program_makes_a_directory_once() {
    let cache = tempfile::tempdir().unwrap();
    let script = "for time in 1 2; do made things key -- sh -c 'echo \"made\" >&2; echo x >\"$1/file\"' sh {}; done";
    let output = run(cache.path(), script);
    let path = cache.path().join("things/key");
    let line = format!("{}\n", path.display());
    assert_eq!(text(&output.stdout), line.repeat(2));
    assert_eq!(text(&output.stderr), "made\n");
    assert!(output.status.success());
    assert!(path.join("file").exists());
}

#[test]
fn a_program_that_fails_ends_the_script_and_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    for script in [
        format!("made things key -- {FAILING}\necho reached"),
        format!("directory=$(made things key -- {FAILING})\necho reached \"$directory\""),
        format!(
            "progress title '{}/log' sh -c 'exit 3'\necho reached",
            cache.path().display()
        ),
        format!(
            "made things key --title title --log '{}/log' -- {FAILING}\necho reached",
            cache.path().display()
        ),
        "made things key -- true\necho reached".to_owned(),
        "f() { echo whole >\"$1/whole\"; }\nmade things key -- f {}\necho reached".to_owned(),
    ] {
        let output = run(cache.path(), &script);
        assert!(!output.status.success(), "{script}");
        assert_eq!(text(&output.stdout), "", "{script}");
        assert_eq!(names(&cache.path().join("things")), [""; 0], "{script}");
    }
}

#[test]
fn progress_takes_programs_only() {
    let cache = tempfile::tempdir().unwrap();
    for (command, helper) in [
        ("f", ""),
        ("cd", ""),
        ("f", "unset IMA_INIT_SCRIPT_HELPER\n"),
    ] {
        let log = cache.path().join("log");
        let script = format!(
            "{helper}f() {{ echo run; }}\nprogress title '{}' {command} / >&2\necho reached",
            log.display()
        );
        let output = run(cache.path(), &script);
        let error = text(&output.stderr);
        assert!(!output.status.success());
        assert!(
            error.contains(&format!("{command} is not a program")),
            "{error}"
        );
        assert_eq!(text(&output.stdout), "");
        assert!(!log.exists());
    }
}

/// Before the program of this crate is built, the functions run programs themselves.
#[test]
fn progress_needs_no_helper() {
    let cache = tempfile::tempdir().unwrap();
    let log = cache.path().join("directory/log");
    let script = format!(
        "unset IMA_INIT_SCRIPT_HELPER\nprogress title '{0}' printenv HOME\nprogress title '{0}' sh -c 'echo bad; exit 3'\necho reached",
        log.display()
    );
    let output = run(cache.path(), &script);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let error = text(&output.stderr);
    assert!(
        error.contains("script: title ...") && error.contains("    bad"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(log).unwrap(), "bad\n");
}

/// The check that finds functions in conditions is on, and finds one.
#[test]
fn shellcheck_finds_a_function_in_a_condition() {
    let script = "#!/bin/bash\nset -e\nf() {\n    false\n    echo went on\n}\nf || echo failed\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script");
    std::fs::write(&path, script).unwrap();
    std::fs::copy(
        project().join(".shellcheckrc"),
        directory.path().join(".shellcheckrc"),
    )
    .unwrap();
    let output = Command::new("shellcheck")
        .args(["-f", "gcc"])
        .arg(&path)
        .output();
    let found = text(&output.expect("shellcheck runs").stdout);
    assert!(
        found.contains("script:7:1:") && found.contains("[SC2310]"),
        "{found}"
    );
}
