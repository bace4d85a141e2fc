//! The steps that are more than one command.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::run::{Context, say};
use crate::steps::Ended;
use crate::tables;

/// Runs shellcheck on each script of the project.
pub fn scripts(context: &Context) -> Result<Ended, Error> {
    let listed = context.command("git", &["ls-files", "-z"]).output()?;
    if !listed.status.success() {
        return Err("git ls-files failed".into());
    }
    let mut scripts = Vec::new();
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let path = context.top.join(name);
        // A link to a script would be checked twice; a file that was deleted is still listed.
        if path.symlink_metadata().is_ok_and(|data| data.is_file()) && is_script(&path)? {
            scripts.push(name.to_owned());
        }
    }
    if scripts.is_empty() {
        return Err("no scripts were found".into());
    }
    let passed = context
        .command("shellcheck", &["-x"])
        .args(&scripts)
        .status()?
        .success();
    Ok(Ended::when(passed))
}

/// Returns whether a file is a shell script, by its name or its first line.
fn is_script(path: &Path) -> Result<bool, Error> {
    if path.extension().is_some_and(|extension| extension == "sh") {
        return Ok(true);
    }
    let mut first = Vec::new();
    BufReader::new(File::open(path)?.take(64)).read_until(b'\n', &mut first)?;
    Ok(first.starts_with(b"#!") && first.trim_ascii_end().ends_with(b"sh"))
}

/// Runs rustdoc with warnings as errors.
pub fn documentation(context: &Context) -> Result<Ended, Error> {
    let status = context
        .command(
            "cargo",
            &[
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
                "--locked",
                "--quiet",
            ],
        )
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    Ok(Ended::when(status.success()))
}

/// Checks the advisories. Without the network, with the database that was fetched last; deny.toml limits its age.
pub fn advisories(context: &Context) -> Result<Ended, Error> {
    let deny = |arguments: &[&str]| context.passes("tests/cargo-deny", arguments);
    if !deny(&["fetch", "db"])? && !fetched_before() {
        return Ok(Ended::Skipped(
            "the database of RustSec cannot be fetched, see above".to_owned(),
        ));
    }
    Ok(Ended::when(deny(&["--offline", "check", "advisories"])?))
}

fn fetched_before() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("advisory-db-")
        })
}

/// Returns the options that choose the test programs of these directories. Always with `--workspace`: with other packages
/// selected, cargo would compile the dependencies again with other features.
fn test_programs(context: &Context, directories: &[&str]) -> Result<Vec<String>, Error> {
    let mut options = Vec::new();
    for directory in directories {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(context.top.join(directory))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(
                    path.file_stem()
                        .map(|name| name.to_string_lossy().into_owned()),
                );
            }
        }
        names.sort();
        options.extend(
            names
                .into_iter()
                .flat_map(|name| ["--test".to_owned(), name]),
        );
    }
    Ok(options)
}

/// Runs `cargo test` for the workspace with these options.
fn cargo_test(context: &Context, options: &[String], arguments: &[&str]) -> Result<bool, Error> {
    let mut command = context.command(
        "cargo",
        &["test", "--locked", "--no-fail-fast", "--workspace"],
    );
    command
        .args(options)
        .arg("--")
        .args(arguments)
        .args(&context.name);
    context.run(command)
}

/// Runs the tests that start no machine. Those of the documentation in a run of their own: cargo combines `--doc` with no
/// other kind.
pub fn units(context: &Context) -> Result<Ended, Error> {
    let mut options = vec!["--lib".to_owned(), "--bins".to_owned()];
    options.extend(test_programs(
        context,
        &[
            "tests",
            "crates/ima/tests",
            "crates/imactl/tests",
            "crates/scripts/tests",
        ],
    )?);
    let programs = cargo_test(context, &options, &[])?;
    let documentation = cargo_test(context, &["--doc".to_owned()], &[])?;
    Ok(Ended::when(programs && documentation))
}

/// Runs the tests of crates/ima for other processors, with `--all`: an emulated processor takes some minutes for them.
pub fn emulated(context: &Context) -> Result<Ended, Error> {
    with_all("tests/emulated", context)
}

/// Makes a release twice, with `--all`: it compiles everything twice.
pub fn release(context: &Context) -> Result<Ended, Error> {
    with_all("tests/release", context)
}

fn with_all(script: &str, context: &Context) -> Result<Ended, Error> {
    if !context.all {
        return Ok(Ended::Skipped("run with --all".to_owned()));
    }
    Ok(Ended::when(context.passes(script, &[])?))
}

/// Builds what the boots start, so that its progress is shown and no test waits for it.
pub fn build(context: &Context) -> Result<Ended, Error> {
    // One boot at least is made with each.
    let commands = [
        &["build/ship", "guest"][..],
        &["build/ship", "--target", "aarch64", "guest"],
        &["build/ship", "--target", "armv7", "guest"],
        &["build/ship", "--target", "riscv64", "guest"],
        &["qemu/build-kernel"],
        &["qemu/build-kernel", "--series", "6.1", "--lean"],
        &["qemu/build-kernel", "--series", "7.2", "--lean"],
        &["qemu/build-kernel", "--series", "7.3", "--lean"],
        &["qemu/build-kernel", "--architecture", "aarch64"],
        &["qemu/build-kernel", "--architecture", "armv7"],
        &["qemu/build-kernel", "--architecture", "riscv64"],
        &["qemu/build-kernel", "--ca", "tests/boots/built-in-ca.pem"],
        &[
            "qemu/build-kernel",
            "--fragment",
            "efi",
            "--fragment",
            "tests/boots/arch-policy.config",
        ],
        &[
            "qemu/build-kernel",
            "--fragment",
            "efi",
            "--fragment",
            "tests/boots/strict.config",
        ],
        &["qemu/debian-kernel"],
        &["qemu/policy-parsers"],
    ];
    for command in commands {
        if let [program, arguments @ ..] = command
            && !context.quietly(program, arguments)?
        {
            return Ok(Ended::Failed);
        }
    }
    // Those of boards and other processors are in directories.
    let mut fragments = Vec::new();
    for entry in std::fs::read_dir(context.top.join("qemu/kernel"))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_fragment = path
            .extension()
            .is_some_and(|extension| extension == "config");
        if is_fragment && !["base", "ima"].contains(&name.as_str()) {
            fragments.push(name);
        }
    }
    if context.all {
        // Without these options nearly all of the kernel is compiled again.
        fragments.push("tests/boots/no-ima.config".to_owned());
        fragments.push("tests/boots/no-securityfs.config".to_owned());
    }
    fragments.sort();
    for fragment in fragments {
        if !context.quietly("qemu/build-kernel", &["--fragment", &fragment])? {
            return Ok(Ended::Failed);
        }
    }
    let board = [
        "--architecture",
        "aarch64",
        "--fragment",
        "board/raspberry-pi",
    ];
    Ok(Ended::when(
        !context.all || context.quietly("qemu/build-kernel", &board)?,
    ))
}

/// Runs the boots, two at a time, and prints the tables that they write. Those that are marked `#[ignore]` vary a fault that another
/// boot has too; they are run with `--all`, or if they are chosen by name.
pub fn boots(context: &Context) -> Result<Ended, Error> {
    let mut options = vec!["--test".to_owned(), "boots".to_owned()];
    options.extend(test_programs(context, &["crates/testbed/tests"])?);
    let mut arguments = vec!["--test-threads=2"];
    if context.all || context.name.is_some() {
        arguments.push("--include-ignored");
    }
    let passed = cargo_test(context, &options, &arguments)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let made = context.top.join(target).join("tmp/boots");
    let read = |name: &str| {
        let path = made.join(name);
        Some((std::fs::read_to_string(&path).ok()?, path))
    };
    if let Some((text, path)) = read("refusals.tsv") {
        say(format_args!("refusals, also in {}:", path.display()));
        print!("{}", tables::refusals(&text));
    }
    let mut kills: Vec<PathBuf> = std::fs::read_dir(&made)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("kills-") && name.ends_with(".txt")
        })
        .collect();
    kills.sort();
    for path in kills {
        print!("{}", std::fs::read_to_string(path)?);
    }
    for name in [
        "faults",
        "faults-in-front",
        "faults-of-switch-root",
        "faults-aarch64",
        "faults-armv7",
        "faults-riscv64",
    ] {
        if let Some((text, path)) = read(&format!("{name}.tsv")) {
            say(format_args!(
                "system calls of the init that failed, also in {}:",
                path.display()
            ));
            print!("{}", tables::failed_calls(&text));
        }
        if let Some((sums, _)) = read(&format!("{name}.txt")) {
            print!("{sums}");
        }
    }
    let page = std::fs::read_to_string(context.top.join("docs/reference/support.md"))?;
    say(format_args!("what docs/reference/support.md lists:"));
    print!("{}", tables::support(&page, &context.output().results));
    Ok(Ended::when(passed))
}

/// Boots the Debian systems.
pub fn debian(context: &Context) -> Result<Ended, Error> {
    let passed = if context.all {
        context.passes("qemu/debian", &[])?
            && context.passes("qemu/debian", &["--suite", "trixie"])?
    } else {
        context.passes("qemu/debian", &["initramfs-tools", "dracut-systemd"])?
    };
    Ok(Ended::when(passed))
}

/// Boots the Debian systems with something changed.
pub fn debian_refusals(context: &Context) -> Result<Ended, Error> {
    let passed = if context.all {
        context.passes("qemu/debian", &["--all-refusals"])?
            && context.passes("qemu/debian", &["--suite", "trixie", "--refusals"])?
    } else {
        context.passes("qemu/debian", &["--refusals"])?
    };
    Ok(Ended::when(passed))
}

/// Returns a command of the project's own by its path, or another by its name.
pub fn program(top: &Path, name: &str) -> Command {
    if name.contains('/') {
        Command::new(top.join(name))
    } else {
        Command::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_recognised_by_name_or_first_line() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("a.sh", "x\n", true),
            ("a", "#!/bin/sh\nx\n", true),
            ("b", "#!/bin/bash\n", true),
            ("c", "#!/usr/bin/python3\n", false),
            ("d", "text that ends in sh\n", false),
            ("e", "", false),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_script(&path).unwrap(), expected, "{name}");
        }
    }
}
