//! RPM packages that carry signatures of their files, read by rpm itself.

mod common;

use std::path::Path;

use common::{shell, with_keys};
use imactl::rpm::header::Header;

/// A package with a program under two names, a link, an empty file, and one that it does not bring.
const PACKAGE: &str = r"
    cat >demo.spec <<'END'
Name: demo
Version: 1
Release: 1
Summary: A demonstration
License: MIT
BuildArch: noarch
%description
A demonstration.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/var/log
printf '#!/bin/sh\necho one\n' >%{buildroot}/usr/bin/demo
ln %{buildroot}/usr/bin/demo %{buildroot}/usr/bin/demo-again
ln -s demo %{buildroot}/usr/bin/demo-soft
touch %{buildroot}/etc/demo.conf %{buildroot}/var/log/demo.log
%files
%attr(0755,root,root) /usr/bin/demo
%attr(0755,root,root) /usr/bin/demo-again
/usr/bin/demo-soft
%config /etc/demo.conf
%ghost /var/log/demo.log
END
    rpmbuild --quiet -bb --define '_topdir '$PWD/build demo.spec >&2
    cp build/RPMS/noarch/demo-1-1.noarch.rpm demo.rpm
    echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy";

/// A directory with keys and that package.
fn with_package(kind: &str) -> tempfile::TempDir {
    let directory = with_keys(kind);
    shell(PACKAGE, directory.path()).good();
    directory
}

/// The signatures as rpm shows them: the path and the value of each file.
fn signatures(package: &str, at: &Path) -> Vec<(String, String)> {
    let query = format!("rpm -qp --qf '[%{{FILENAMES}}|%{{FILESIGNATURES}}\\n]' {package}");
    let lines = shell(&query, at).good().out;
    lines
        .lines()
        .map(|line| {
            let (path, value) = line.split_once('|').unwrap();
            (path.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn rpm_reads_the_signatures_and_finds_the_package_sound() {
    for kind in ["rsa2048", "p256"] {
        let directory = with_package(kind);
        let at = directory.path();
        shell(
            "mkdir signed; cp demo.rpm before.rpm
             $IMACTL rpm sign --key keys/ima.key --cert keys/ima.der --out signed demo.rpm | grep -q ': 3 files signed'
             cmp demo.rpm before.rpm
             rpmkeys --checksig signed/demo.rpm >&2
             test \"$(rpm2archive --nocompression - <signed/demo.rpm | tar -xO ./usr/bin/demo | tail -1)\" = 'echo one'
             $IMACTL rpm verify --cert keys/ima.der signed/demo.rpm | grep -q '3 files are good'",
            at,
        )
        .good();
        let found = signatures("signed/demo.rpm", at);
        let signed: Vec<&str> = found
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(
            signed,
            ["/etc/demo.conf", "/usr/bin/demo", "/usr/bin/demo-again"]
        );
        let value = |name: &str| &found.iter().find(|(path, _)| path == name).unwrap().1;
        assert_eq!(value("/usr/bin/demo"), value("/usr/bin/demo-again"));
        // What rpm shows is a signature of the file.
        let bytes = ima::hex::decode(value("/usr/bin/demo")).unwrap();
        std::fs::write(at.join("program"), "#!/bin/sh\necho one\n").unwrap();
        std::fs::write(at.join("program.sig"), bytes).unwrap();
        shell("$IMACTL verify --sidecar --cert keys/ima.der program", at).good();
    }
}

#[test]
fn only_what_the_policy_appraises_is_signed_and_signing_again_replaces() {
    let directory = with_package("rsa2048");
    let at = directory.path();
    shell(
        "$IMACTL rpm sign --key keys/ima.key --cert keys/ima.der --for-policy policy demo.rpm | grep -q ': 2 files signed'
         $IMACTL rpm verify --cert keys/ima.der --for-policy policy demo.rpm
         cp demo.rpm once.rpm
         $IMACTL rpm sign --key keys/ima.key --cert keys/ima.der --for-policy policy demo.rpm
         cmp demo.rpm once.rpm
         rpmkeys --checksig demo.rpm >&2",
        at,
    )
    .good();
    let verify = |arguments: &str| shell(&format!("$IMACTL rpm verify {arguments} demo.rpm"), at);
    // Without the policy, the file that is no program needs a signature too.
    verify("--cert keys/ima.der").refused("IMA-910");
    shell(
        "$IMACTL keygen --out others --unencrypted --ca-type p256",
        at,
    )
    .good();
    verify("--cert others/ima.der --for-policy policy").refused("IMA-910");
}

#[test]
fn what_is_changed_or_no_package_is_refused_and_left_alone() {
    let directory = with_package("rsa2048");
    let at = directory.path();
    let package = std::fs::read(at.join("demo.rpm")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    write("text.rpm", b"text");
    write("cut.rpm", &package[..100]);
    write("half.rpm", &package[..1000]);
    // A digest in the header that is not that of the content.
    let digest = ima::hash::HashAlgorithm::Sha256.digest(b"#!/bin/sh\necho one\n");
    let digest = ima::hex::encode(&digest.unwrap());
    let place = package
        .windows(64)
        .position(|bytes| bytes == digest.as_bytes())
        .unwrap();
    let mut other = package.clone();
    other[place] = if other[place] == b'0' { b'1' } else { b'0' };
    write("other.rpm", &other);
    for (name, code) in [
        ("text", "IMA-961"),
        ("cut", "IMA-961"),
        ("half", "IMA-961"),
        ("other", "IMA-961"),
    ] {
        let before = std::fs::read(at.join(format!("{name}.rpm"))).unwrap();
        let sign = format!("$IMACTL rpm sign --key keys/ima.key --cert keys/ima.der {name}.rpm");
        shell(&sign, at).refused(code);
        assert_eq!(
            std::fs::read(at.join(format!("{name}.rpm"))).unwrap(),
            before,
            "{name}"
        );
    }
    shell("$IMACTL rpm verify --cert keys/ima.der demo.rpm", at).refused("carries no signatures");
}

/// The package with other signatures of its files.
fn with_signatures(package: &[u8], signatures: &[String]) -> Vec<u8> {
    const LEAD: usize = 96;
    let (mut header, length) = Header::parse(&package[LEAD..], 62).unwrap();
    let rest = LEAD + length + Header::padding(length);
    header.set_strings(274, signatures.iter().map(String::as_bytes));
    let header = header.encode(62);
    let padding = vec![0; Header::padding(header.len())];
    [&package[..LEAD], &header, &padding, &package[rest..]].concat()
}

/// What faulty versions of rpmsign have written: signatures that are padded with zeros, of zeros alone, cut off, or of another file.
#[test]
fn signatures_that_are_none_are_found() {
    let directory = with_package("rsa2048");
    let at = directory.path();
    shell(
        "$IMACTL rpm sign --key keys/ima.key --cert keys/ima.der demo.rpm",
        at,
    )
    .good();
    let package = std::fs::read(at.join("demo.rpm")).unwrap();
    let values: Vec<String> = signatures("demo.rpm", at)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let verify = |values: &[String]| {
        std::fs::write(at.join("changed.rpm"), with_signatures(&package, values)).unwrap();
        shell("rpmkeys --checksig changed.rpm >&2", at).good();
        shell("$IMACTL rpm verify --cert keys/ima.der changed.rpm", at)
    };
    verify(&values).good();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut values = values.clone();
        change(&mut values);
        values
    };
    // The files are sorted: the configuration, the program, its other name.
    for values in [
        changed(&|values| values[1].push_str(&"00".repeat(100))),
        changed(&|values| values[1] = "0".repeat(values[1].len())),
        changed(&|values| values[1].truncate(100)),
        changed(&|values| values[1].clear()),
        changed(&|values| values.swap(0, 1)),
    ] {
        verify(&values).refused("IMA-910");
    }
    verify(&changed(&|values| values[1] = "xy".to_owned())).refused("IMA-961");
    verify(&changed(&|values| values.truncate(2))).refused("IMA-961");
}

/// Any byte of the headers changed: an error, or the package that it is; never a panic.
#[test]
fn damaged_headers_do_no_harm() {
    let directory = with_package("rsa2048");
    let at = directory.path();
    shell(
        "$IMACTL rpm sign --key keys/ima.key --cert keys/ima.der demo.rpm",
        at,
    )
    .good();
    let package = std::fs::read(at.join("demo.rpm")).unwrap();
    let (mut refused, mut taken) = (0, 0);
    for place in (0..package.len()).step_by(7) {
        let mut damaged = package.clone();
        damaged[place] ^= 0x81;
        let path = at.join("damaged.rpm");
        std::fs::write(&path, &damaged).unwrap();
        match imactl::rpm::Package::open(&path).and_then(|package| package.signatures()) {
            Ok(_) => taken += 1,
            Err(fault) => {
                assert_eq!(fault.code(), ima::fault::Code::PackageMalformed);
                refused += 1;
            }
        }
    }
    assert!(
        refused > 10 && taken > 10,
        "{refused} refused, {taken} taken"
    );
}
