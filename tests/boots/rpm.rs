//! RPM packages whose files `imactl rpm sign` has signed, installed by Debian's rpm with its plugin `ima` in a root under ima-init.

use std::path::{Path, PathBuf};
use std::process::Command;

use imactl::rpm::Package;
use imactl::sign::ImaValue;

use crate::keys::{Pair, RSA, leaf};
use crate::scripted::{add_program, add_script, assert_results};
use crate::setup::Setup;
use imactl::key::KeyKind;

const RPM: &str = "/usr/bin/rpm";
const PLUGIN: &str = "/usr/lib/x86_64-linux-gnu/rpm-plugins/ima.so";
const CONFIGURATION: [&str; 2] = ["/usr/lib/rpm/rpmrc", "/usr/lib/rpm/macros"];
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
    for program in [RPM, PLUGIN] {
        add_program(&mut setup.root, program);
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
    for directory in ["var/lib/rpm", "var/tmp", "var/cache", "packages"] {
        setup.root.other(directory, imactl::tree::Kind::Directory);
    }
    add_script(&mut setup.root, &format!("{RPM} --initdb\n{commands}"));
    setup
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
        &setup.boot(),
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
        &setup.boot(),
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
