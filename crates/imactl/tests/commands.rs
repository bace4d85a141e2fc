//! The commands, mostly with input that is wrong.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{IMACTL, imactl, listing, need_root, run, shell, shell_as_nobody, with_keys};

const SIGN: &str = "sign --key keys/ima.key --cert keys/ima.der";

#[test]
fn keys_that_cannot_be_used() {
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "$IMACTL keygen --out other --unencrypted --type p256
         printf 'secret\\n' >password; printf wrong >wrong
         $IMACTL keygen --out encrypted --password-file password --type p256
         head -c 100 keys/ima.key >truncated; : >empty; echo hello >text; echo content >file
         head -c 200 keys/ima.der >truncated.der; mkdir out",
        at,
    )
    .good();
    for (arguments, code) in [
        ("--key missing --cert keys/ima.der", "IMA-901"),
        ("--key keys --cert keys/ima.der", "IMA-901"),
        ("--key truncated --cert keys/ima.der", "IMA-903"),
        ("--key empty --cert keys/ima.der", "IMA-903"),
        ("--key text --cert keys/ima.der", "IMA-903"),
        ("--key keys/ima.der --cert keys/ima.der", "IMA-903"),
        ("--key other/ima.key --cert keys/ima.der", "IMA-905"),
        ("--key keys/ima.key --cert truncated.der", "IMA-906"),
        ("--key keys/ima.key --cert empty", "IMA-906"),
        ("--key keys/ima.key --cert keys/ima.key", "IMA-906"),
        ("--key keys/ima.key --cert missing", "IMA-901"),
        (
            "--key encrypted/ima.key --cert encrypted/ima.der",
            "IMA-904",
        ),
        (
            "--key encrypted/ima.key --cert encrypted/ima.der --password-file wrong",
            "IMA-904",
        ),
        (
            "--key encrypted/ima.key --cert encrypted/ima.der --password-file missing",
            "IMA-901",
        ),
        (
            "--key keys/ima.key --cert keys/ima.der --hash sha1",
            "IMA-907",
        ),
        ("--cert keys/ima.der", "IMA-917"),
    ] {
        let ended = imactl(&format!("sign {arguments} --sidecar file"), at);
        assert!(!at.join("file.sig").exists(), "{arguments}");
        ended.refused(code);
    }
    imactl("sign --key encrypted/ima.key --cert encrypted/ima.der --password-file password --sidecar file", at).good();
    assert_eq!(imactl("sign --no-such-option file", at).code, 2);
}

#[test]
fn keygen_is_careful() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    imactl("keygen --out keys --type p256", at).refused("IMA-917");
    assert_eq!(
        listing(at),
        Vec::<std::path::PathBuf>::new(),
        "nothing is made before the password is there"
    );
    shell(": >empty; umask 0; $IMACTL keygen --out keys --unencrypted --type p256; test $(stat -c %a keys/ima.key) = 600", at).good();
    imactl("keygen --out other --password-file empty --type p256", at).refused("IMA-917");
    let before = std::fs::read(at.join("keys/ima.key")).unwrap();
    imactl("keygen --out keys --unencrypted --type p256", at).refused("IMA-902");
    assert_eq!(std::fs::read(at.join("keys/ima.key")).unwrap(), before);
    imactl("keygen --out keys --unencrypted --type p256 --force", at).good();
    // Another certificate of the same CA; not of one whose key is another, nor of a leaf.
    imactl("keygen --out second --unencrypted --type rsa2048 --ca-key keys/ca.key --ca-cert keys/ca.der", at).good();
    assert_eq!(
        listing(&at.join("second")),
        ["ima.der", "ima.key", "ima.pem"].map(Path::new)
    );
    run(
        "openssl",
        ["verify", "-CAfile", "keys/ca.pem", "second/ima.pem"],
        at,
    )
    .good();
    imactl(
        "keygen --out third --unencrypted --ca-key keys/ima.key --ca-cert keys/ca.der",
        at,
    )
    .refused("IMA-905");
    imactl(
        "keygen --out third --unencrypted --ca-key keys/ima.key --ca-cert keys/ima.der",
        at,
    )
    .refused("IMA-906");
    assert_eq!(imactl("keygen --out third --type rsa1024", at).code, 2);
    // An expired one can be made: the kernel takes it.
    imactl("keygen --out expired --unencrypted --type p256 --not-before 1000000000 --not-after 1000086400", at).good();
    let dates = run(
        "openssl",
        ["x509", "-in", "expired/ima.pem", "-noout", "-enddate"],
        at,
    )
    .good()
    .out;
    assert!(dates.contains("2001"), "{dates}");
}

#[test]
fn openssl_reads_what_the_kernel_wants_of_certificates() {
    for kind in ["rsa2048", "p256", "p384", "p521"] {
        let directory = with_keys(kind);
        let at = directory.path();
        let extensions = |name: &str| {
            let wanted = "basicConstraints,keyUsage,subjectKeyIdentifier,authorityKeyIdentifier";
            let script = format!("openssl x509 -in keys/{name}.pem -noout -ext {wanted}");
            let text = shell(&script, at).good().out;
            text.lines()
                .map(|line| line.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let id = |name: &str| {
            let script = format!(
                "openssl x509 -in keys/{name}.pem -noout -ext subjectKeyIdentifier | tail -n 1"
            );
            shell(&script, at).good().out.trim().to_owned()
        };
        for (name, constraints, usage) in [
            ("ca", "CA:TRUE", "Certificate Sign"),
            ("ima", "CA:FALSE", "Digital Signature"),
        ] {
            let expected = [
                "X509v3 Basic Constraints: critical",
                constraints,
                "X509v3 Key Usage: critical",
                usage,
                "X509v3 Subject Key Identifier:",
                &id(name),
                "X509v3 Authority Key Identifier:",
                &id("ca"),
            ];
            assert_eq!(extensions(name), expected, "{kind}");
        }
        let sha1 =
            "openssl x509 -in keys/ima.pem -noout -pubkey | openssl pkey -pubin -outform DER |
                    openssl asn1parse -inform DER -strparse $1 -noout -out key; sha1sum key";
        let header = [("rsa2048", 19), ("p256", 23), ("p384", 20), ("p521", 21)];
        let offset = header.iter().find(|(name, _)| *name == kind).unwrap().1;
        let digest = shell(&sha1.replace("$1", &offset.to_string()), at)
            .good()
            .out;
        assert_eq!(id("ima").replace(':', "").to_lowercase(), digest[..40]);
        let verify = "openssl verify -x509_strict -CAfile keys/ca.pem keys/ca.pem keys/ima.pem";
        shell(verify, at).good();
    }
}

#[test]
fn renewals_and_requests() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(
        "echo content >file; $IMACTL sign --key keys/ima.key --cert keys/ima.der --sidecar file
         CA='--ca-key keys/ca.key --ca-cert keys/ca.der'
         $IMACTL keygen --out new --key keys/ima.key --renew keys/ima.der $CA --days 9000
         test \"$(ls new)\" = \"$(printf 'ima.der\\nima.pem')\"
         $IMACTL verify --sidecar --cert new --ca keys/ca.der file
         $IMACTL cert new/ima.der --key keys/ima.key --ca keys/ca.der
         openssl verify -CAfile keys/ca.pem new/ima.pem
         for what in subject serial enddate; do
             openssl x509 -in new/ima.pem -noout -$what >new.$what; openssl x509 -in keys/ima.pem -noout -$what >old.$what
         done
         cmp new.subject old.subject; ! cmp -s new.serial old.serial; ! cmp -s new.enddate old.enddate",
        at,
    )
    .good();
    // A company's CA of openssl: one certificate as asked for, one as it comes without care.
    for kind in ["rsa3072", "p256", "p384", "p521"] {
        shell(
            &format!(
                "rm -rf request; $IMACTL keygen --out request --csr --unencrypted --type {kind} --evm --name Device
                 test \"$(ls request)\" = \"$(printf 'evm.csr\\nevm.key\\nima.csr\\nima.key')\"
                 openssl req -in request/ima.csr -noout -verify -text | grep -q 'CN = Device IMA'
                 openssl x509 -req -in request/ima.csr -CA keys/ca.pem -CAkey keys/ca.key -copy_extensions copy -days 9 -out good.pem
                 $IMACTL cert good.pem --key request/ima.key --ca keys/ca.der
                 printf 'basicConstraints=DER:30:03:01:01:00\\n' >extensions
                 openssl x509 -req -in request/ima.csr -CA keys/ca.pem -CAkey keys/ca.key -extfile extensions -days 9 -out bad.pem"
            ),
            at,
        )
        .good();
        let found = imactl("cert bad.pem --key request/evm.key --ca new/ima.der", at);
        assert_eq!(found.code, 1, "{found:?}");
        for finding in [
            "spell out CA:FALSE",
            "does not allow digitalSignature",
            "the private key is not this certificate's",
            "none of the CAs given",
        ] {
            assert!(found.out.contains(finding), "{finding}: {found:?}");
        }
    }
    for (arguments, code) in [
        (
            "--key missing --ca-key keys/ca.key --ca-cert keys/ca.der",
            "IMA-901",
        ),
        (
            "--key keys/ca.key --renew keys/ima.der --ca-key keys/ca.key --ca-cert keys/ca.der",
            "IMA-905",
        ),
        (
            "--key keys/ima.key --renew keys/ima.der --ca-key keys/ima.key --ca-cert keys/ima.der",
            "IMA-906",
        ),
    ] {
        imactl(&format!("keygen --out refused {arguments}"), at).refused(code);
        assert!(!at.join("refused/ima.der").exists(), "{arguments}");
    }
    let found = imactl("cert keys --for ca", at);
    assert!(
        found.out.contains("it is not a CA certificate"),
        "{found:?}"
    );
    imactl("cert keys/ca.pem --for ca --json", at).good();
}

#[test]
fn trees_with_everything_in_them() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "mkdir -p tree/sub; cd tree; echo a >file; ln file hard; ln -s file soft; ln -s loop loop; ln -s / sub/up; mkfifo pipe
         printf x >\"$(printf 'not-utf8-\\377')\"; printf x >\"$(printf 'new\\nline')\"; truncate -s 100M sparse",
        at,
    )
    .good();
    let start = Instant::now();
    let signed = imactl(&format!("{SIGN} tree"), at).good();
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "a pipe was opened"
    );
    assert!(signed.out.contains("signed 4 files"), "{signed:?}");
    assert!(
        signed.out.contains("skipped 1: another name")
            && signed.out.contains("skipped 4: no regular file"),
        "{signed:?}"
    );
    imactl("verify --cert keys/ima.der tree", at).good();
    let again = imactl(&format!("{SIGN} --incremental tree --json"), at).good();
    let again: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(
        (
            &again["signed"],
            &again["skipped"]["signed already and unchanged"]
        ),
        (&0.into(), &4.into())
    );
    shell("echo b >>tree/hard; setfattr -n security.ima -v 0x0301 \"$(printf 'tree/new\\nline')\"; setfattr -x security.ima tree/sparse", at).good();
    let found = imactl("verify --cert keys/ima.der tree", at);
    assert_eq!(found.code, 6, "{found:?}");
    for line in [
        "tree/file: changed since",
        "tree/new\\nline: security.ima is malformed",
        "tree/sparse: no signature",
    ] {
        assert!(found.out.contains(line), "{line}: {found:?}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&imactl("verify --json --cert keys/ima.der tree", at).out).unwrap();
    assert_eq!(
        json["counts"],
        serde_json::json!({"changed": 1, "good": 1, "malformed": 1, "unsigned": 1})
    );
    let other = with_keys("p256");
    let found = imactl(
        &format!("verify --cert {}/keys/ima.der tree", other.path().display()),
        at,
    );
    assert!(
        found.out.contains("of which no certificate was given"),
        "{found:?}"
    );
    for (path, code) in [("tree/loop", "IMA-901"), ("tree/missing", "IMA-901")] {
        imactl(&format!("{SIGN} {path}"), at).refused(code);
        imactl(&format!("verify --cert keys/ima.der {path}"), at).refused(code);
    }
    assert!(
        imactl(&format!("{SIGN} tree/pipe"), at)
            .good()
            .err
            .contains("tree/pipe: skipped")
    );
    assert!(
        imactl(&format!("{SIGN} tree/soft"), at)
            .good()
            .out
            .contains("signed 1 files")
    );
}

/// What packages brought is signed, of all owners, and what is named; not what somebody put beside it, nor in its place.
#[test]
fn what_packages_brought_is_signed() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "mkdir -p root/usr/bin root/usr/local/bin root/home/user root/etc/cron.daily root/var/lib/dpkg/info; cd root; ln -s usr/bin bin
         for program in usr/bin/tool usr/bin/game usr/bin/replaced etc/cron.daily/job etc/cron.daily/edited home/user/own usr/local/bin/named; do
             printf '#!/bin/sh\\n' >$program; chmod 755 $program
         done
         chown 1000:1000 usr/bin/game home/user/own
         echo text >usr/bin/data; ln -s tool usr/bin/link
         cd var/lib/dpkg
         printf '/.\\n/usr\\n/bin/tool\\n/usr/bin/game\\n/usr/bin/replaced\\n/usr/bin/data\\n/usr/bin/link\\n/usr/bin/gone\\n/etc/cron.daily/job\\n/etc/cron.daily/edited\\n' >info/a.list
         (cd ../../..; md5sum bin/tool usr/bin/game usr/bin/replaced) >info/a.md5sums
         printf '#!/bin/sh\\n' >info/a.postinst; chmod 755 info/a.postinst
         sum=$(md5sum <../../../etc/cron.daily/job | cut -c1-32)
         printf 'Package: a\\nConffiles:\\n /etc/cron.daily/job %s\\n /etc/cron.daily/edited %s\\n' $sum $sum >status
         cd ../../..; echo mine >>usr/bin/replaced; echo mine >>etc/cron.daily/edited
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >../policy",
        at,
    )
    .good();
    let sign = format!(
        "{SIGN} --incremental --packages --for-policy policy --root root root/usr/local/bin"
    );
    let signed = imactl(&sign, at).good();
    assert!(signed.out.contains("signed 5 files"), "{signed:?}");
    for changed in ["usr/bin/replaced", "etc/cron.daily/edited"] {
        let line = format!("{changed}: skipped: changed since its package brought it");
        assert!(signed.err.contains(&line), "{line}: {signed:?}");
    }
    let has = shell("cd root; getfattr -R -h --absolute-names -n security.ima . 2>/dev/null | sed -n 's/^# file: //p' | sort", at).good();
    let expected = [
        "./etc/cron.daily/job",
        "./usr/bin/game",
        "./usr/bin/tool",
        "./usr/local/bin/named",
        "./var/lib/dpkg/info/a.postinst",
    ];
    assert_eq!(has.out.lines().collect::<Vec<_>>(), expected);
    let again = imactl(&sign, at).good();
    assert!(again.out.contains("signed 0 files"), "{again:?}");
    imactl(&format!("{SIGN} --packages --root root/home"), at).refused("IMA-970");
}

#[test]
fn places_that_take_no_signature() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "mkdir mount; echo content >file; chmod 644 file keys/ima.key; chmod 777 mount",
        at,
    )
    .good();
    for (name, script, code) in [
        (
            "no xattrs",
            "mount -t ramfs none mount; cp file mount/file; exec $IMACTL $SIGN mount/file",
            "IMA-908",
        ),
        (
            "read-only",
            "mount -t tmpfs none mount; cp file mount/file; mount -o remount,ro mount; exec $IMACTL $SIGN mount/file",
            "IMA-908",
        ),
        (
            "no room for a sidecar",
            "mount -t tmpfs -o size=8k none mount; cp file mount/file; head -c 100k /dev/zero >mount/full || :; exec $IMACTL $SIGN --sidecar mount/file",
            "IMA-902",
        ),
    ] {
        let script = format!(
            "unshare -m sh -euc \"IMACTL=$IMACTL; SIGN='{SIGN}'; {script}\"",
            script = script.replace('$', "\\$")
        );
        let ended = shell(&script, at);
        assert!(ended.err.contains("cause: "), "{name}: {ended:?}");
        ended.refused(code);
    }
    let ended = shell_as_nobody(&format!("exec $IMACTL {SIGN} file"), at).refused("IMA-908");
    assert!(ended.err.contains("CAP_SYS_ADMIN"), "{ended:?}");
}

#[test]
fn images_that_cannot_be_written() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "mkdir mount source; head -c 8M /dev/urandom >source/noise",
        at,
    )
    .good();
    let full = "mount -t tmpfs -o size=2M none mount; $IMACTL image --from source --out mount/root.img || { status=$?; ls -A mount >listing; exit $status; }";
    let script = format!(
        "unshare -m sh -euc \"IMACTL=$IMACTL; {}\"",
        full.replace('$', "\\$")
    );
    shell(&script, at).refused("IMA-902");
    assert_eq!(
        std::fs::read_to_string(at.join("listing")).unwrap(),
        "",
        "a disk that is full keeps nothing"
    );
    for (arguments, code) in [
        ("--from source --out missing/root.img", "IMA-902"),
        ("--from missing --out root.img", "IMA-901"),
        ("--from keys/ima.der --out root.img", "IMA-918"),
        ("--from source --size 1M --out root.img", "IMA-912"),
        (
            "--from source --for-policy keys/ima.pem --out root.img",
            "IMA-917",
        ),
        (
            "--from source --key keys/ima.key --cert keys/ima.der --for-policy keys/ima.pem --out root.img",
            "IMA-603",
        ),
        (
            "--from source --label 12345678901234567 --out root.img",
            "IMA-917",
        ),
    ] {
        imactl(&format!("image {arguments}"), at).refused(code);
        assert!(!at.join("root.img").exists(), "{arguments}");
    }
    assert!(
        listing(at)
            .iter()
            .all(|name| !name.to_string_lossy().starts_with(".imactl")),
        "{:?}",
        listing(at)
    );
    // Killed in the middle: the name is never given to half an image.
    let mut child = std::process::Command::new(IMACTL)
        .args([
            "image",
            "--from",
            "source",
            "--from",
            "/usr/lib",
            "--out",
            "killed.img",
        ])
        .current_dir(at)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !listing(at)
        .iter()
        .any(|name| name.to_string_lossy().starts_with(".imactl"))
    {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!at.join("killed.img").exists());
}

/// veritysetup takes what is printed.
#[test]
fn images_with_a_hash_tree() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    shell("mkdir source; head -c 3M /dev/urandom >source/noise", at).good();
    let options =
        "--verity --verity-salt abcdef --verity-uuid 5e1f0e4a-7c1b-4a57-9d0c-8f6f4be2a001";
    let made = imactl(&format!("image --from source {options} --out root.img"), at).good();
    let value = |key: &str| {
        let mut lines = made.out.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value
            .unwrap_or_else(|| panic!("{key}: {made:?}"))
            .to_owned()
    };
    let (hash, offset) = (value("verity"), value("verity_hash_offset"));
    let verify = format!("verify root.img root.img {hash} --hash-offset={offset}");
    run("veritysetup", verify.split(' '), at).good();
    let apart = imactl(
        &format!("image --from source {options} --verity-out tree --out data --json"),
        at,
    )
    .good();
    let json: serde_json::Value = serde_json::from_str(&apart.out).unwrap();
    assert_eq!(json["verity"]["root_hash"], hash.as_str());
    let verify = format!("verify data tree {hash}");
    run("veritysetup", verify.split(' '), at).good();
    // Random without the two.
    let other = imactl("image --from source --verity --out other --json", at).good();
    let json: serde_json::Value = serde_json::from_str(&other.out).unwrap();
    assert_ne!(json["verity"]["root_hash"], hash.as_str());
    for (arguments, code) in [
        ("--verity --format tar --out bad", "IMA-917"),
        ("--verity --verity-out missing/tree --out bad", "IMA-902"),
        ("--verity --out missing/bad", "IMA-902"),
    ] {
        imactl(&format!("image --from source {arguments}"), at).refused(code);
        assert!(!at.join("bad").exists(), "{arguments}");
    }
    let names = listing(at);
    assert_eq!(names.len(), 5, "{names:?}");
}

/// fsverity computes the same digests, and fsck.erofs takes the image.
#[test]
fn composefs_images() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let source = "mkdir source; head -c 300K /dev/urandom >source/a; cp source/a source/b; ln source/a source/c
                  printf x >source/d; touch source/empty; truncate -s 1M source/holes";
    shell(source, at).good();
    let command = "image --from source --all-root --format erofs --objects objects";
    let made = imactl(&format!("{command} --out root.cfs"), at).good();
    let digest = made
        .out
        .lines()
        .find_map(|line| line.strip_prefix("composefs_digest="));
    let measured = shell("fsverity digest --compact root.cfs", at).good();
    assert_eq!(digest, Some(measured.out.trim()));
    // a, d and holes; each under its digest.
    let named = "find objects -type f | while read -r object; do
                     test \"objects/$(fsverity digest --compact $object | sed 's|^..|&/|')\" = $object && cat $object | wc -c
                 done | sort -n | xargs";
    assert_eq!(shell(named, at).good().out.trim(), "1 307200 1048576");
    shell("fsck.erofs root.cfs", at).good();
    assert!(std::fs::metadata(at.join("root.cfs")).unwrap().len() <= 8192);
    let json = imactl(&format!("{command} --out again.cfs --json"), at).good();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["composefs_digest"], measured.out.trim());

    imactl("image --from source --objects o --out bad", at).refused("IMA-917");
    assert!(!at.join("bad").exists());
}

#[test]
fn images_and_initramfs_without_privilege_twice_the_same() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(
        "mkdir root; cd root; mkdir -p bin etc dev; cp /bin/true bin/program; chmod 4755 bin/program; echo text >etc/text
         ln bin/program bin/link; ln -s bin soft; mknod dev/null c 1 3; chown 12345:54321 etc/text
         setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 bin/program
         tar --xattrs --xattrs-include='*' --format=pax --sort=name -cf ../root.tar .; cd ..
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >ima_policy; echo 'root=/dev/vda' >conf
         printf '#!/bin/sh\\n' >init; chmod 644 keys/ima.key; mkdir nobody; chown 65534 nobody; chmod -R a+rX .",
        at,
    )
    .good();
    let image = "$IMACTL image --from root.tar --key keys/ima.key --cert keys/ima.der --for-policy ima_policy --json --out";
    let initramfs =
        "$IMACTL initramfs --init init --cert keys/ima.der --policy ima_policy --config conf --out";
    for (command, out) in [(image, "root.img"), (initramfs, "initramfs")] {
        shell(&format!("{command} {out}"), at).good();
        shell_as_nobody(&format!("{command} nobody/{out}"), at).good();
        std::thread::sleep(Duration::from_millis(1100)); // a second later nothing may be different
        shell_as_nobody(&format!("{command} nobody/{out}.again"), at).good();
        shell(
            &format!("cmp {out} nobody/{out}; cmp {out} nobody/{out}.again"),
            at,
        )
        .good();
    }
    run("e2fsck", ["-fn", "nobody/root.img"], at).good();
    for (request, expected) in [
        (
            "stat /bin/program",
            &[
                "Mode:  04755",
                "Links: 2",
                "security.ima",
                "security.capability",
            ][..],
        ),
        ("stat /etc/text", &["User: 12345", "Group: 54321"]),
        ("stat /dev/null", &["character special", "01:03"]),
    ] {
        let shown = run("debugfs", ["-R", request, "nobody/root.img"], at)
            .good()
            .out;
        for text in expected {
            assert!(shown.contains(text), "{request}: no {text} in {shown}");
        }
    }
    assert!(
        !run("debugfs", ["-R", "stat /etc/text", "nobody/root.img"], at)
            .good()
            .out
            .contains("security.ima")
    );
    // The same tree as a directory, by root, and over another tree.
    shell("$IMACTL image --from root --from keys --unsigned 'bin/p*' --key keys/ima.key --cert keys/ima.der --size 16M --label r --uuid 01234567-89ab-cdef-0123-456789abcdef --out dir.img; e2fsck -fn dir.img", at).good();
    let stats = run("debugfs", ["-R", "stats", "dir.img"], at).good().out;
    assert!(
        stats.contains("01234567-89ab-cdef-0123-456789abcdef"),
        "{stats}"
    );
    assert!(
        !run("debugfs", ["-R", "stat /bin/program", "dir.img"], at)
            .good()
            .out
            .contains("security.ima")
    );
    assert!(
        run("debugfs", ["-R", "stat /ima.der", "dir.img"], at)
            .good()
            .out
            .contains("security.ima")
    );
}

#[test]
fn initramfs_images_the_init_would_refuse() {
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "echo 'appraise func=BPRM_CHECK' >good; echo '# none' >none; echo 'appraise func=NOTHING' >bad; : >empty; echo a=b >conf
         printf '#!/bin/sh\\n' >init; head -c 100 keys/ima.der >cut.der; echo text >text.ko",
        at,
    )
    .good();
    for (arguments, code) in [
        (
            "--init missing --cert keys/ima.der --policy good",
            "IMA-901",
        ),
        ("--init good --cert keys/ima.der --policy good", "IMA-911"),
        ("--init init --policy good", "IMA-502"),
        ("--init init --cert cut.der --policy good", "IMA-503"),
        ("--init init --cert empty --policy good", "IMA-503"),
        ("--init init --cert keys/ca.der --policy good", "IMA-504"),
        ("--init init --cert keys/ima.der", "IMA-601"),
        ("--init init --cert keys/ima.der --policy none", "IMA-602"),
        ("--init init --cert keys/ima.der --policy empty", "IMA-602"),
        ("--init init --cert keys/ima.der --policy bad", "IMA-603"),
        (
            "--init init --cert keys/ima.der --policy good --config conf",
            "IMA-202",
        ),
        (
            "--init init --cert keys/ima.der --policy good --module text.ko",
            "IMA-901",
        ),
        (
            "--init init --cert keys/ima.der --policy good --file nothing",
            "IMA-917",
        ),
    ] {
        imactl(&format!("initramfs {arguments} --out out"), at).refused(code);
        assert!(!at.join("out").exists(), "{arguments}");
        if !["IMA-901", "IMA-917"].contains(&code) {
            imactl(&format!("initramfs {arguments} --unchecked --out out"), at).good();
            std::fs::remove_file(at.join("out")).unwrap();
        }
    }
    imactl("initramfs --init init --cert keys/ima.der --cert keys/ima.pem --evm-cert keys/ima.der --policy good --out out", at).good();
    let mut archive = Vec::new();
    let packed = std::fs::File::open(at.join("out")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut archive).unwrap();
    let names: Vec<_> = ima::cpio::entries(&archive)
        .map(|entry| String::from_utf8_lossy(entry.unwrap().name).into_owned())
        .collect();
    for name in [
        "etc/keys/x509_ima.der",
        "etc/keys/x509_ima-2.pem",
        "etc/keys/x509_evm.der",
        "etc/ima/ima_policy",
        "dev/console",
        "init",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
}

#[test]
fn policies_codes_and_kernels() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    shell("echo 'appraise func=BPRM_CHECK' >good; printf 'appraise func=A\\n\\nappraise\\tfunc=FILE_CHECK uid=x\\n' >bad; echo '#' >none; echo CONFIG_IMA=y >config", at).good();
    imactl("policy check good", at).good();
    let bad = imactl("policy check good bad none", at);
    assert_eq!(bad.code, 1);
    for text in ["bad: ", "none: no rules"] {
        assert!(bad.out.contains(text), "{bad:?}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&imactl("policy check --json bad", at).out).unwrap();
    let lines: Vec<i64> = json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["line"].as_i64().unwrap())
        .collect();
    assert_eq!(lines, [1, 3]);
    imactl("policy check missing", at).refused("IMA-901");
    assert!(
        imactl("explain 904", at)
            .good()
            .out
            .starts_with("[IMA-904]")
    );
    assert!(imactl("explain", at).good().out.lines().count() > 100);
    imactl("explain nonsense", at).refused("IMA-917");
    let check = imactl("kernel check --config config --policy good", at);
    assert_eq!(check.code, 1);
    assert!(
        check.out.contains("required: CONFIG_IMA_APPRAISE=y (is n)"),
        "{check:?}"
    );
    imactl("kernel check --config good", at).refused("IMA-916");
    imactl("kernel check --config config --policy none", at).refused("IMA-602");
    imactl("kernel add-ca --image good --cert good --out out", at).refused("IMA-906");
}

#[test]
fn pages_completions_and_closed_pipes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    imactl("generate man man", at).good();
    imactl("generate completions completions", at).good();
    for page in [
        "imactl.1",
        "imactl-keygen.1",
        "imactl-kernel-add-ca.1",
        "imactl-image.1",
    ] {
        let text = std::fs::read_to_string(at.join("man").join(page))
            .unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH"), "{page}");
    }
    assert!(at.join("completions/imactl.bash").exists());
    let ended = shell(
        "$IMACTL explain | head -1 >/dev/null; $IMACTL --help >help; $IMACTL --version",
        at,
    )
    .good();
    assert!(!ended.err.contains("panicked"), "{ended:?}");
    for command in [
        "keygen",
        "sign",
        "verify",
        "initramfs",
        "image",
        "kernel add-ca",
        "kernel check",
        "policy check",
        "explain",
    ] {
        let help = imactl(&format!("{command} --help"), at).good().out;
        assert!(help.contains("Examples:"), "{command}");
    }
    assert_eq!(imactl("", at).code, 2);
}

/// Its programs are in the list, with signatures by the key whose certificate is in it; `check` follows them.
#[test]
fn files_of_an_initramfs_are_signed() {
    let directory = with_keys("p256");
    let at = directory.path();
    shell(
        "cp /bin/true init; cp /bin/false program; echo text >text",
        at,
    )
    .good();
    shell(
        "printf 'appraise func=BPRM_CHECK appraise_type=imasig\\n' >ima_policy",
        at,
    )
    .good();
    let made = "initramfs --init init --cert keys/ima.der --policy ima_policy --unchecked --compress none \
        --file program:sbin/modprobe --file text:etc/text";
    imactl(&format!("{made} --out plain"), at).good();
    imactl(&format!("{made} --key keys/ima.key --out signed"), at).good();
    shell("mkdir tree; cd tree; cpio -id --quiet <../signed", at).good();
    let list = std::fs::read(at.join("tree/etc/ima/initramfs.signatures")).unwrap();
    let list = ima::signatures::Signatures::parse(&list).unwrap();
    let [(path, attributes)] = list.files().collect::<Vec<_>>()[..] else {
        panic!("{list:?}");
    };
    assert_eq!(path, b"sbin/modprobe");
    std::fs::write(at.join("program.sig"), &attributes.ima).unwrap();
    imactl("verify --sidecar --cert keys/ima.der program", at).good();
    assert!(
        !run("grep", ["-c", "initramfs.signatures", "plain"], at)
            .out
            .contains('1')
    );
    // The list is of other content.
    shell(
        "cd tree; echo >>sbin/modprobe; find . | cpio -o -H newc --quiet >../changed",
        at,
    )
    .good();
    let check = |image: &str| imactl(&format!("check --initramfs {image}"), at);
    assert!(
        check("changed").out.contains("IMA-922"),
        "{:?}",
        check("changed")
    );
    assert!(
        !check("signed").out.contains("IMA-922"),
        "{:?}",
        check("signed")
    );

    imactl(
        &format!("{made} --evm-cert keys/ima.der --key keys/ima.key --out x"),
        at,
    )
    .refused("IMA-917");
    imactl(&format!("{made} --key keys/ca.key --out x"), at).refused("IMA-905");
    assert!(!at.join("x").exists());
}

#[test]
fn images_are_signed_and_verified_without_privilege() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell(
        "mkdir root; cd root; mkdir -p bin etc; cp /bin/true bin/program; echo text >etc/text; cd ..
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >ima_policy
         mke2fs -q -t ext4 -d root ext4 16M; mkfs.erofs --quiet erofs root; mksquashfs root squashfs -quiet >log
         chmod 644 keys/ima.key ext4 erofs squashfs; mkdir nobody; chown 65534 nobody; chmod -R a+rX .",
        at,
    )
    .good();
    let verify = "$IMACTL verify --cert keys/ima.der --for-policy ima_policy --json --image";
    for kind in ["ext4", "erofs", "squashfs"] {
        let ended = shell_as_nobody(&format!("{verify} {kind}"), at);
        assert_eq!(ended.code, 3, "{kind}: {ended:?}");
        assert!(ended.out.contains("/bin/program"), "{kind}: {ended:?}");
        shell_as_nobody(
            &format!("$IMACTL image sign --key keys/ima.key --cert keys/ima.der --for-policy ima_policy --out nobody/{kind} {kind}"),
            at,
        )
        .good();
        let ended = shell_as_nobody(&format!("{verify} nobody/{kind}"), at).good();
        assert!(ended.out.contains("\"good\": 1"), "{kind}: {}", ended.out);
        // Over itself, and no file is left beside it.
        shell_as_nobody(
            &format!("cp {kind} nobody/own; $IMACTL image sign --key keys/ima.key --cert keys/ima.der --for-policy ima_policy nobody/own; cmp nobody/own nobody/{kind}; rm nobody/own; ! ls -A nobody | grep imactl"),
            at,
        )
        .good();
    }
    shell("$IMACTL image sign --cert keys/ima.der ext4", at).refused("IMA-917");
    shell(
        "$IMACTL image sign --key keys/ima.key --cert keys/ima.der ima_policy",
        at,
    )
    .refused("IMA-918");
}

/// Of each command that judges keys: P-521, which no kernel before 6.10 knows.
#[test]
fn keys_are_judged_by_the_kernels_release() {
    need_root();
    let directory = with_keys("p521");
    let at = directory.path();
    shell("echo content >file", at).good();
    let signed = imactl("sign --key keys/ima.key --cert keys/ima.der file", at).good();
    assert!(signed.err.contains("from Linux 6.10 on"), "{signed:?}");
    for (arguments, code, said) in [
        ("cert keys/ima.der", 0, "from Linux 6.10 on"),
        ("cert --kernel 6.12 keys/ima.der", 0, "from Linux 6.10 on"),
        (
            "cert --kernel 6.1 keys/ima.der",
            1,
            "needs Linux 6.10, and this is for 6.1",
        ),
        (
            "cert --kernel 5.12 --for ca keys/ca.der",
            1,
            "needs Linux 5.13",
        ),
        ("verify --cert keys/ima.der file", 0, "1 good"),
        ("verify --cert keys/ima.der --kernel 6.12 file", 0, "1 good"),
        (
            "verify --cert keys/ima.der --kernel 6.1 file",
            5,
            "needs Linux 6.10",
        ),
    ] {
        let found = imactl(arguments, at);
        assert_eq!(found.code, code, "{arguments}: {found:?}");
        assert!(found.out.contains(said), "{arguments}: {found:?}");
    }
}
