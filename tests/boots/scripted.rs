//! Roots whose init is a script that runs programs of the host, such as package managers and updaters.

use std::process::Command;

use crate::built::busybox;
use crate::keys::RSA;
use crate::setup::console_tail;
use crate::tree::{INIT, Tree};
use ima_testbed::Outcome;

const APPLETS: [&str; 11] = [
    "cat", "dmesg", "echo", "mkdir", "mount", "poweroff", "sh", "stty", "sync", "test", "umount",
];

/// The last `stty` waits until the console has taken everything.
///
/// `try WORD COMMAND...` runs a command, and prints its result in one line: the word, the exit status, and what it printed.
const SCRIPT: &str = r#"#!/bin/busybox sh
export PATH=/bin:/usr/bin HOME=/
dmesg -n 1
exec </dev/console >/dev/console 2>&1
stty -onlcr
mount -t proc proc /proc
try() {
    name=$1
    shift
    output=$("$@" 2>&1)
    echo "result|$name|$?|$(echo $output)|"
}
COMMANDS
sync
stty onlcr
poweroff -f
"#;

/// Adds a program of the host, or something that it loads, with the libraries that it needs, all signed.
pub fn add_program(root: &mut Tree, program: &str) {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let content = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        root.add_signed(path.trim_start_matches('/'), 0o755, &content, &RSA);
    }
}

/// Puts a signed script in the place of the init, that runs these commands and powers off.
pub fn add_script(root: &mut Tree, commands: &str) {
    root.add_signed("bin/busybox", 0o755, &busybox(), &RSA);
    for applet in APPLETS {
        root.link(&format!("bin/{applet}"), "busybox");
    }
    root.remove(INIT);
    let script = SCRIPT.replace("COMMANDS", commands);
    root.add_signed(INIT, 0o755, script.as_bytes(), &RSA);
}

/// Compares the results in their order: the word, whether the command succeeded, and a part of what it printed.
pub fn assert_results(outcome: &Outcome, expected: &[(&str, bool, &str)]) {
    let results: Vec<Vec<&str>> = outcome
        .console
        .lines()
        .filter_map(|line| line.strip_prefix("result|"))
        .map(|line| line.split('|').collect())
        .collect();
    let names: Vec<&str> = results.iter().map(|result| result[0]).collect();
    let expected_names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, expected_names, "{}", console_tail(outcome));
    for (result, (name, succeeds, says)) in results.iter().zip(expected) {
        assert_eq!(result[1] == "0", *succeeds, "{name}: {result:?}");
        assert!(result[2].contains(says), "{name}: {result:?}");
    }
}
