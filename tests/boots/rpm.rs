//! RPM packages whose files `imactl rpm sign` has signed, installed by Debian's rpm with its plugin `ima` in a root under ima-init.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use imactl::rpm::Package;
use imactl::sign::ImaValue;

use crate::built::busybox;
use crate::keys::{Pair, RSA, leaf};
use crate::setup::{Setup, console_tail};
use crate::tree::INIT;
use imactl::key::KeyKind;

const RPM: &str = "/usr/bin/rpm";
const PLUGIN: &str = "/usr/lib/x86_64-linux-gnu/rpm-plugins/ima.so";
const CONFIGURATION: [&str; 2] = ["/usr/lib/rpm/rpmrc", "/usr/lib/rpm/macros"];
const APPLETS: [&str; 10] = [
    "cat", "dmesg", "echo", "mkdir", "mount", "poweroff", "sh", "stty", "test", "umount",
];

/// Runs a command, and prints its result in one line: a word, the exit status, and what it printed.
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
/usr/bin/rpm --initdb
COMMANDS
poweroff -f
"#;

/// Builds a package with a program and a scriptlet that runs it.
fn built(directory: &Path, name: &str, version: u32) -> PathBuf {
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: A program\nLicense: MIT\nBuildArch: noarch\n\
         %description\nA program.\n%install\nmkdir -p %{{buildroot}}/usr/bin\n\
         printf '#!/bin/sh\\necho {name} {version}\\n' >%{{buildroot}}/usr/bin/{name}\n\
         %post\n/usr/bin/{name}\n%files\n%attr(0755,root,root) /usr/bin/{name}\n"
    );
    let path = directory.join(format!("{name}-{version}.spec"));
    std::fs::write(&path, spec).expect("a file");
    let output = Command::new("rpmbuild")
        .args(["--quiet", "-bb", "--define"])
        .arg(format!("_topdir {}", directory.display()))
        .arg(path)
        .output()
        .expect("rpmbuild");
    assert!(output.status.success(), "{output:?}");
    directory.join(format!("RPMS/noarch/{name}-{version}-1.noarch.rpm"))
}

/// The content of a package that is signed by a key.
fn signed(path: &Path, key: &Pair) -> Vec<u8> {
    let package = Package::open(path).expect("a package");
    let mark = ImaValue::Signature(key.identity());
    let signatures = package.sign(None, &mark).expect("signatures");
    assert_eq!(signatures.count(), 1);
    let out = path.with_extension("signed");
    package.write(&signatures, &out).expect("a package");
    std::fs::read(out).expect("a package")
}

/// A root with rpm, all that is appraised of it signed, that runs these commands.
fn with_rpm(commands: &str) -> Setup {
    let mut setup = Setup::new();
    setup.append("rw");
    let mut files: BTreeSet<String> = [RPM, PLUGIN].into_iter().map(str::to_owned).collect();
    for program in [RPM, PLUGIN] {
        let listed = Command::new("ldd").arg(program).output().expect("ldd");
        let listed = String::from_utf8(listed.stdout).expect("text");
        let paths = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(paths.map(str::to_owned));
    }
    for path in files {
        let content = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let path = path.trim_start_matches('/');
        setup.root.add_signed(path, 0o755, &content, &RSA);
    }
    for path in CONFIGURATION {
        let content = std::fs::read(path).expect("rpm's configuration");
        setup
            .root
            .add(path.trim_start_matches('/'), 0o644, &content);
    }
    // Debian's macros find its directory by programs that are not here.
    let plugins = Path::new(PLUGIN).parent().expect("a directory");
    let macros = format!("%__plugindir {}\n", plugins.display());
    setup.root.add("etc/rpm/macros", 0o644, macros.as_bytes());
    setup
        .root
        .add("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    setup.root.add("etc/group", 0o644, b"root:x:0:\n");
    setup
        .root
        .add_signed("bin/busybox", 0o755, &busybox(), &RSA);
    for applet in APPLETS {
        setup.root.link(&format!("bin/{applet}"), "busybox");
    }
    for directory in ["var/lib/rpm", "var/tmp", "var/cache", "packages"] {
        setup.root.other(directory, imactl::tree::Kind::Directory);
    }
    setup.root.remove(INIT);
    let script = SCRIPT.replace("COMMANDS", commands);
    setup.root.add_signed(INIT, 0o755, script.as_bytes(), &RSA);
    setup
}

/// Boots, and compares the results in their order: the word, whether the command succeeded, and a part of what it printed.
fn assert_results(setup: &Setup, expected: &[(&str, bool, &str)]) {
    let outcome = setup.boot_with(|_| ()).1;
    let results: Vec<Vec<&str>> = outcome
        .console
        .lines()
        .filter_map(|line| line.strip_prefix("result|"))
        .map(|line| line.split('|').collect())
        .collect();
    let names: Vec<&str> = results.iter().map(|result| result[0]).collect();
    let expected_names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, expected_names, "{}", console_tail(&outcome));
    for (result, (name, succeeds, says)) in results.iter().zip(expected) {
        assert_eq!(result[1] == "0", *succeeds, "{name}: {result:?}");
        assert!(result[2].contains(says), "{name}: {result:?}");
    }
}

/// Updated programs run while the package is installed, from its scriptlet, and afterwards; also after going back to the older version.
#[test]
fn signed_packages_are_installed_updated_taken_back_and_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut setup = with_rpm(
        "try install /usr/bin/rpm -i --nodeps /packages/1.rpm
try first demo
try update /usr/bin/rpm -U --nodeps /packages/2.rpm
try second demo
try back /usr/bin/rpm -U --nodeps --oldpackage /packages/1.rpm
try first-again demo
try remove /usr/bin/rpm -e demo
try gone test ! -e /usr/bin/demo",
    );
    for version in [1, 2] {
        let content = signed(&built(directory.path(), "demo", version), &RSA);
        let path = format!("packages/{version}.rpm");
        setup.root.add(&path, 0o644, &content);
    }
    assert_results(
        &setup,
        &[
            ("install", true, "demo 1"),
            ("first", true, "demo 1"),
            ("update", true, "demo 2"),
            ("second", true, "demo 2"),
            ("back", true, "demo 1"),
            ("first-again", true, "demo 1"),
            ("remove", true, ""),
            ("gone", true, ""),
        ],
    );
}

/// A package without signatures, and one that another key has signed, are installed, and their programs are denied. A shell says so with
/// status 126, and rpm that the scriptlet failed.
#[test]
fn programs_of_other_packages_are_denied() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut setup = with_rpm(
        "try signed /usr/bin/rpm -i --nodeps /packages/signed.rpm
try runs signed
try unsigned /usr/bin/rpm -i --nodeps /packages/unsigned.rpm
try denied unsigned
try foreign /usr/bin/rpm -i --nodeps /packages/foreign.rpm
try denied-too foreign",
    );
    let path = |name: &str| built(directory.path(), name, 1);
    let other = leaf(KeyKind::P256, "another key");
    for (name, content) in [
        ("signed", signed(&path("signed"), &RSA)),
        (
            "unsigned",
            std::fs::read(path("unsigned")).expect("a package"),
        ),
        ("foreign", signed(&path("foreign"), &other)),
    ] {
        setup
            .root
            .add(&format!("packages/{name}.rpm"), 0o644, &content);
    }
    assert_results(
        &setup,
        &[
            ("signed", true, "signed 1"),
            ("runs", true, "signed 1"),
            ("unsigned", true, "Permission denied"),
            ("denied", false, "Permission denied"),
            ("foreign", true, "Permission denied"),
            ("denied-too", false, "Permission denied"),
        ],
    );
}
