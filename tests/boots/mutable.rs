//! What the kernel does for files that change while the system runs. docs/how-to/mutable-files.md names each of these tests.

use ima::hash::HashAlgorithm;

use crate::attacks::{assert_said, attacked_by, said};
use crate::built::source;
use crate::keys::{P256, RSA};
use crate::setup::{DEFAULT_POLICY, EVM_CERTIFICATE, Setup, console_tail};

/// A boot whose policy begins with these rules, for files of the user 1001.
fn under(rules: &str, script: &str) -> Setup {
    let mut setup = attacked_by(script);
    let mut policy = format!("{rules}\n").into_bytes();
    policy.extend(source("policy/ima_policy.default"));
    setup.put(DEFAULT_POLICY, policy);
    setup.append("rw");
    setup
}

fn add(setup: &mut Setup, path: &str, content: &[u8], attribute: Option<Vec<u8>>) {
    setup.root.add(path, 0o644, content);
    let file = setup.root.file(path);
    file.owner = 1001;
    file.signature = attribute;
}

/// security.ima that is a digest and no signature: IMA_XATTR_DIGEST_NG, the number of SHA-256 (security/integrity/integrity.h,
/// include/uapi/linux/hash_info.h).
fn digest_of(content: &[u8]) -> Vec<u8> {
    let digest = HashAlgorithm::Sha256.digest(content).expect("a digest");
    [&[4, 4], digest.as_slice()].concat()
}

/// Where reading needs a signature, a signed file cannot be written to, and what takes its place cannot be read.
#[test]
fn signed_file_is_written_and_replaced() {
    let mut setup = under(
        "appraise func=FILE_CHECK fowner=1001 appraise_type=imasig",
        "cat /data/signed >/tmp/x && say 'read'
        echo more >>/data/signed || say 'not written'
        cat /data/signed >/tmp/x && say 'read again'
        cat /data/unsigned >/tmp/x || say 'unsigned: not read'
        cp /data/other /data/new; busybox chown 1001 /data/new; mv /data/new /data/signed
        cat /data/signed >/tmp/x || say 'replaced: not read'",
    );
    add(
        &mut setup,
        "data/signed",
        b"data\n",
        Some(RSA.sign(b"data\n")),
    );
    add(&mut setup, "data/unsigned", b"data\n", None);
    setup.root.add("data/other", 0o644, b"other\n");
    assert_said(
        &setup,
        &[
            "read",
            "not written",
            "read again",
            "unsigned: not read",
            "replaced: not read",
        ],
    );
}

/// EVM's portable signature: owner, mode and security.ima cannot be changed, not even by root. The content can, and is no longer
/// what was signed.
#[test]
fn attributes_under_a_portable_signature() {
    let mut setup = attacked_by(
        "try() { name=$1; shift; if \"$@\" 2>/tmp/error; then say \"$name: changed\"; else say \"$name: refused\"; fi; }
        /usr/bin/victim tool status; say \"run: $?\"
        try mode chmod 4755 /usr/bin/victim
        try owner busybox chown 1001 /usr/bin/victim
        try signature guest copy /other /usr/bin
        try 'unsealed mode' chmod 600 /etc/plain
        /usr/bin/victim tool status; say \"content of another: $?\"",
    );
    setup.append("rw");
    // Its content is copied first, then its signature.
    let content = setup.root.file("usr/bin/victim").content.clone();
    setup
        .root
        .add_signed("other/victim", 0o755, b"another", &RSA);
    setup
        .root
        .add_signed("usr/bin/victim", 0o755, &content, &RSA);
    setup.root.add("etc/plain", 0o644, b"");
    setup.put(EVM_CERTIFICATE, P256.der());
    setup.root.sign_all_evm(&P256);
    let outcome = setup.boot();
    let said = said(&outcome);
    assert_eq!(
        said,
        [
            "run: 0",
            "mode: refused",
            "owner: refused",
            "signature: refused",
            "unsealed mode: changed",
            "content of another: 126",
        ],
        "{}",
        console_tail(&outcome)
    );
}

/// Rules that appraise and demand no signature: the kernel keeps a digest of the file, and renews it when the file is written to. A
/// file whose content was changed without the digest is not read; one that came with the digest of another content is.
#[test]
fn digest_that_the_kernel_keeps() {
    let mut setup = under(
        "appraise func=FILE_CHECK fowner=1001",
        "cat /data/right >/tmp/x && say 'right: read'
        cat /data/changed >/tmp/x || say 'changed: not read'
        cat /data/forged >/tmp/x && say 'forged with its digest: read'
        cat /data/none >/tmp/x || say 'without digest: not read'
        echo more >>/data/right && cat /data/right >/tmp/x && say 'written: read'
        mkdir /data/own; busybox chown 1001 /data/own
        busybox start-stop-daemon -S -c user -n none -a /bin/busybox -- sh -c 'echo new >/data/own/new' && cat /data/own/new >/tmp/x && say 'new: read'",
    );
    add(
        &mut setup,
        "data/right",
        b"data\n",
        Some(digest_of(b"data\n")),
    );
    add(
        &mut setup,
        "data/changed",
        b"other\n",
        Some(digest_of(b"data\n")),
    );
    add(
        &mut setup,
        "data/forged",
        b"forged\n",
        Some(digest_of(b"forged\n")),
    );
    add(&mut setup, "data/none", b"data\n", None);
    let user = b"user:x:1001:1001::/:/bin/sh\n";
    setup.root.add("etc/passwd", 0o644, user);
    assert_said(
        &setup,
        &[
            "right: read",
            "changed: not read",
            "forged with its digest: read",
            "without digest: not read",
            "written: read",
            "new: read",
        ],
    );
}

/// `measure`: each content that is read is in the list once, and nothing is denied.
#[test]
fn changed_file_is_measured() {
    let mut setup = under(
        "measure func=FILE_CHECK mask=MAY_READ fowner=1001",
        "mount -t sysfs sysfs /sys; mount -t securityfs none /sys/kernel/security
        list() { grep -c /data/log /sys/kernel/security/ima/ascii_runtime_measurements; }
        cat /data/log >/tmp/x; say \"read: $(list)\"
        cat /data/log >/tmp/x; say \"read again: $(list)\"
        echo more >>/data/log; cat /data/log >/tmp/x; say \"changed: $(list)\"",
    );
    add(&mut setup, "data/log", b"data\n", None);
    assert_said(&setup, &["read: 1", "read again: 1", "changed: 2"]);
}

/// `audit`: each content that is read is in the log with its digest, and nothing is denied.
#[test]
fn changed_file_is_audited() {
    let mut setup = under(
        "audit func=FILE_CHECK mask=MAY_READ fowner=1001",
        "cat /data/log >/tmp/x; cat /data/log >/tmp/x
        echo more >>/data/log; cat /data/log >/tmp/x && say read",
    );
    add(&mut setup, "data/log", b"data\n", None);
    let outcome = setup.boot();
    assert_eq!(said(&outcome), ["read"], "{}", console_tail(&outcome));
    let records = outcome
        .console
        .lines()
        .filter(|line| line.contains("audit: type=1805") && line.contains("file=\"/data/log\""));
    let digests: Vec<&str> = records
        .filter_map(|line| line.split_once("hash=\"")?.1.split('"').next())
        .collect();
    let expected: Vec<String> = [&b"data\n"[..], b"data\nmore\n"]
        .iter()
        .map(|content| {
            let digest = HashAlgorithm::Sha256.digest(content).expect("a digest");
            format!("sha256:{}", ima::hex::encode(&digest))
        })
        .collect();
    assert_eq!(digests, expected, "{}", console_tail(&outcome));
}
