//! Under the name evmctl, imactl prints and leaves behind what evmctl does.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{
    Ended, IMACTL, MeasurementList, measurement_list, need_root, pcrs_with_10, run, shell,
    with_keys,
};

/// The link that makes imactl evmctl.
fn link(at: &Path) -> String {
    let link = at.join("evmctl");
    if !link.exists() {
        symlink(IMACTL, &link).unwrap();
    }
    link.display().to_string()
}

fn ours(arguments: &str, at: &Path) -> Ended {
    run(&link(at), arguments.split_whitespace(), at)
}

fn theirs(arguments: &str, at: &Path) -> Ended {
    run("evmctl", arguments.split_whitespace(), at)
}

/// Every attribute of the files of a directory.
fn attributes(at: &Path) -> String {
    shell("getfattr -R -h -d -m - -e hex . | sort", at)
        .good()
        .out
}

#[test]
fn every_command_says_and_does_the_same() {
    need_root();
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell(
        "cat keys/ima.key keys/ima.pem >keys/both.pem; openssl pkey -in keys/ima.key -pubout -out keys/ima.pub
         openssl genrsa -out keys/short.key 1024; openssl req -x509 -new -key keys/short.key -subj /CN=s -outform DER -out keys/short.der
         openssl rsa -in keys/short.key -aes128 -passout pass:word -out keys/locked.key 2>/dev/null",
        at,
    )
    .good();
    let key = "--key ../keys/ima.key";
    let bound = "--uuid --generation 7 --ino 99";
    // Of each line: what is run, and whether standard error is the same too.
    for (arguments, errors) in [
        ("ima_hash file".to_owned(), true),
        ("ima_hash -a sha1 file".to_owned(), true),
        ("ima_hash -a sha512 -n file".to_owned(), true),
        ("ima_hash --hashalgo md5 --xattr-user file".to_owned(), true),
        ("ima_hash -a nosuch file".to_owned(), true),
        ("ima_hash".to_owned(), true),
        ("ima_hash nosuch".to_owned(), false),
        ("ima_hash tree".to_owned(), false),
        ("ima_hash -r tree".to_owned(), true),
        ("ima_hash -r -t f tree".to_owned(), true),
        ("ima_hash -r -t fxm tree".to_owned(), true),
        ("ima_hash -r -t x tree".to_owned(), true),
        ("ima_hash -r -tm tree".to_owned(), true),
        ("ima_hash -r -t f -t d tree".to_owned(), true),
        ("ima_hash -t d file".to_owned(), true),
        ("import nosuch".to_owned(), false),
        ("import file @u".to_owned(), false),
        ("convert nosuch".to_owned(), false),
        ("ima_verify --rsa --key nosuch file".to_owned(), false),
        ("ima_hash link".to_owned(), false),
        (format!("ima_sign {key} file"), true),
        (format!("ima_sign {key} -a sha1 file"), true),
        (format!("ima_sign {key} -a sha224 empty"), true),
        (format!("ima_sign {key} -n file"), true),
        (format!("ima_sign {key} -f file"), true),
        (format!("ima_sign {key} --keyid aabbccdd file"), true),
        (
            format!("ima_sign {key} --keyid-from-cert ../keys/ima.der file"),
            true,
        ),
        (format!("ima_sign {key} --keyid 0 file"), true),
        ("ima_sign --key ../keys/both.pem file".to_owned(), false),
        ("ima_sign --key ../keys/short.key file".to_owned(), true),
        (
            "ima_sign --key ../keys/locked.key -pword file".to_owned(),
            true,
        ),
        (
            "ima_sign --key ../keys/locked.key -pother file".to_owned(),
            false,
        ),
        ("ima_sign --key nosuch file".to_owned(), false),
        (format!("ima_sign {key}"), true),
        (format!("sign {key} {bound} file"), true),
        (format!("sign {key} {bound} --m32 file"), true),
        (
            format!("sign {key} {bound} --uid 5 --gid 6 --mode 33188 file"),
            true,
        ),
        (
            format!("sign {key} {bound} --selinux label --caps --ima 0404aa file"),
            true,
        ),
        (
            format!(
                "sign {key} --uuid=11223344-5566-7788-99aa-bbccddeeff00 --generation 0 --ino 5 file"
            ),
            false,
        ),
        (format!("sign {key} -u- file"), false),
        (format!("sign {key} --uuid=bad --generation 7 file"), false),
        (format!("sign {key} --uuid= --generation 7 file"), false),
        (format!("verify {key} --uuid=bad file"), false),
        (format!("sign {key} -i file"), false),
        (format!("sign {key} --imahash --portable file"), false),
        (
            format!("sign {key} --imasig --portable --smack file"),
            false,
        ),
        (format!("sign {key} --portable empty"), false),
        ("nosuch file".to_owned(), true),
        ("--nosuch".to_owned(), true),
        ("ima_sign --hash".to_owned(), true),
        ("ima_sign -k".to_owned(), true),
        ("help ima_sign".to_owned(), true),
        ("ima_setxattr -f ../value file".to_owned(), true),
        ("ima_clear file".to_owned(), true),
        ("ima_fix file".to_owned(), true),
        ("ima_verify".to_owned(), true),
    ] {
        let prepare = |name: &str| {
            let directory = at.join(name);
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir(&directory).unwrap();
            shell(
                "echo content >file; chmod 640 file; chown 12:34 file; : >empty; ln -s file link
                 mkdir tree; echo 1 >tree/1; printf '\\003\\002signature' >../value",
                &directory,
            )
            .good();
            directory
        };
        let (first, second) = (prepare("theirs"), prepare("ours"));
        let expected = theirs(&arguments, &first);
        let found = run(&link(at), arguments.split_whitespace(), &second);
        assert_eq!(
            found.code, expected.code,
            "{arguments}: {found:?} {expected:?}"
        );
        assert_eq!(found.out, expected.out, "{arguments}: {found:?}");
        if errors {
            // evmctl appends errno to some.
            let lines = |ended: &Ended| -> Vec<String> {
                let lines = ended
                    .err
                    .lines()
                    .filter(|line| !line.starts_with("errno: "));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(lines(&found), lines(&expected), "{arguments}");
        }
        assert_eq!(attributes(&second), attributes(&first), "{arguments}");
        let sidecar = |directory: &Path| std::fs::read(directory.join("file.sig")).ok();
        assert_eq!(sidecar(&second), sidecar(&first), "{arguments}");
    }
}

/// The same bytes on standard input, which is a pipe.
#[test]
fn a_password_on_a_pipe() {
    need_root();
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell(
        "openssl rsa -in keys/ima.key -aes128 -passout pass:word -out locked.key 2>/dev/null; echo content >file",
        at,
    )
    .good();
    link(at);
    for (input, arguments, code) in [
        ("word\\n", "ima_sign --key locked.key -p file", 0),
        ("word\\nmore\\n", "ima_sign --key locked.key --pass file", 0),
        ("word\\n", "ima_sign --key locked.key file", 0),
        ("other\\n", "ima_sign --key locked.key -p file", 125),
        ("", "ima_sign --key locked.key -p file", 125),
    ] {
        let mut signatures = Vec::new();
        for program in ["/usr/bin/evmctl", "./evmctl"] {
            // Without a controlling terminal, on which OpenSSL would ask.
            let script = format!(
                "setfattr -x security.ima file 2>/dev/null || true
                 printf '{input}' | setsid -w {program} {arguments} 2>err"
            );
            let ended = shell(&script, at);
            assert_eq!(ended.code, code, "{program} {arguments}: {ended:?}");
            signatures.push((ended.out, attributes(at)));
        }
        assert_eq!(signatures[0], signatures[1], "{arguments}");
    }
}

/// Curves that no kernel verifies.
#[test]
fn keys_that_no_kernel_knows_do_not_sign() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    shell(
        "openssl ecparam -name brainpoolP256r1 -genkey -noout -out brainpool.key
         openssl ecparam -name secp256k1 -genkey -noout -out koblitz.key
         openssl genpkey -algorithm ed25519 -out ed25519.key; echo content >file
         openssl req -x509 -new -key brainpool.key -subj /CN=b -outform DER -out brainpool.der
         /usr/bin/evmctl ima_sign --key brainpool.key --xattr-user file",
        at,
    )
    .good();
    for key in ["brainpool", "koblitz", "ed25519"] {
        let refused = ours(&format!("ima_sign -n --key {key}.key file"), at);
        assert_eq!(refused.code, 125, "{refused:?}");
        assert!(refused.err.contains("IMA-903"), "{refused:?}");
    }
    let refused = ours("ima_verify --xattr-user --key brainpool.der file", at);
    assert_eq!(refused.code, 1, "{refused:?}");
}

#[test]
fn each_verifies_what_the_other_signed() {
    need_root();
    for kind in ["rsa2048", "p256", "p384"] {
        let keys = with_keys(kind);
        let at = keys.path();
        for (sign, verify) in [
            ("ima_sign", "ima_verify"),
            ("ima_sign -a sha1", "ima_verify"),
            ("sign --uuid", "verify --uuid"),
            ("sign --imasig -o", "verify"),
        ] {
            shell("rm -f file; echo content >file", at).good();
            for (signer, verifier) in [
                (
                    ours as fn(&str, &Path) -> Ended,
                    theirs as fn(&str, &Path) -> Ended,
                ),
                (theirs, ours),
                (ours, ours),
            ] {
                signer(&format!("{sign} --key keys/ima.key file"), at).good();
                let good = verifier(&format!("{verify} --key keys/ima.der file"), at).good();
                assert!(good.err.contains("file: verification is OK"), "{good:?}");
                // A list of keys with one that is none.
                verifier(&format!("{verify} --key /dev/null,keys/ima.der file"), at).good();
                let unknown = verifier(&format!("{verify} --key keys/ca.der file"), at);
                assert_ne!(unknown.code, 0);
                assert!(unknown.err.contains("(unknown keyid)"), "{unknown:?}");
            }
            let change = if sign.starts_with("ima") {
                "echo >>file"
            } else {
                "chmod 600 file"
            };
            shell(change, at).good();
            for verifier in [ours as fn(&str, &Path) -> Ended, theirs] {
                let changed = verifier(&format!("{verify} --key keys/ima.der file"), at);
                assert_eq!(changed.code, 1, "{kind} {verify} {changed:?}");
                assert!(
                    changed.err.contains("file: verification failed"),
                    "{changed:?}"
                );
            }
        }
    }
}

#[test]
fn signatures_of_version_1() {
    need_root();
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell(
        "echo content >file; openssl pkey -in keys/ima.key -pubout -out keys/ima.pub",
        at,
    )
    .good();
    for (signer, verifier) in [
        (
            ours as fn(&str, &Path) -> Ended,
            theirs as fn(&str, &Path) -> Ended,
        ),
        (theirs, ours),
    ] {
        for hash in ["sha1", "sha256"] {
            signer(
                &format!("ima_sign --rsa -a {hash} --key keys/ima.key file"),
                at,
            )
            .good();
            verifier("ima_verify --rsa --key keys/ima.pub file", at).good();
        }
    }
    shell("echo >>file", at).good();
    assert_eq!(ours("ima_verify --rsa --key keys/ima.pub file", at).code, 1);
    let refused = ours("ima_sign --rsa -a sha512 --key keys/ima.key file", at);
    assert_eq!(refused.code, 125, "{refused:?}");
    let reason = "Signature version 1 does not support";
    assert!(refused.err.contains(reason), "{refused:?}");
    // A byte behind the signature, which the header does not announce.
    let signed = ours("ima_sign -n --rsa -a sha1 --key keys/ima.key file", at).good();
    let longer = signed.out.trim().to_owned() + "00";
    shell(&format!("setfattr -n security.ima -v 0x{longer} file"), at).good();
    let refused = ours("ima_verify --rsa --key keys/ima.pub file", at);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("Invalid signature"), "{refused:?}");
    // The key as the kernel takes it.
    ours("convert keys/ima.pub", at).good();
    shell("mv keys/ima.pub.bin bin; mv keys/ima.pub.keyid keyid", at).good();
    theirs("convert keys/ima.pub", at).good();
    shell("cmp bin keys/ima.pub.bin; cmp keyid keys/ima.pub.keyid", at).good();
}

#[test]
fn certificates_onto_a_keyring() {
    need_root();
    let keys = with_keys("rsa2048");
    let at = keys.path();
    for ring in ["", "@u", "@us"] {
        let mut serials = Vec::new();
        for command in [ours as fn(&str, &Path) -> Ended, theirs] {
            let imported = command(&format!("import keys/ima.der {ring}"), at).good();
            let serial: i32 = imported.out.trim().parse().unwrap();
            let shown = run("keyctl", ["describe", &serial.to_string()], at).good();
            assert!(shown.out.contains("asymmetric"), "{shown:?}");
            serials.push(serial);
            let name = if ring.is_empty() { "@u" } else { ring };
            run("keyctl", ["unlink", &serial.to_string(), name], at).good();
        }
    }
    let ring = run("keyctl", ["newring", "ima_test", "@u"], at).good();
    let serial = ring.out.trim();
    ours(&format!("import keys/ima.der {serial}"), at).good();
    let listed = run("keyctl", ["rlist", serial], at).good();
    assert_eq!(listed.out.split_whitespace().count(), 1, "{listed:?}");
    run("keyctl", ["unlink", serial, "@u"], at).good();
    let failed = ours("import keys/ima.key", at);
    assert_eq!(failed.code, 1, "{failed:?}");
    let failed = ours("import --rsa keys/ima.pem", at);
    assert_eq!(failed.code, 125, "{failed:?}");
}

#[test]
fn trees_are_signed_whole_and_a_failure_is_told() {
    need_root();
    let keys = with_keys("p256");
    let at = keys.path();
    shell(
        "mkdir -p tree/below; for n in $(seq 3000); do echo $n >tree/below/$n; done; : >'tree/a b'; ln -s 'a b' tree/link; mkfifo tree/fifo",
        at,
    )
    .good();
    let signed = ours("ima_sign -r --key keys/ima.key tree", at).good();
    assert_eq!(signed.out.lines().count(), 3001);
    shell("for f in tree/below/1 tree/below/3000 'tree/a b'; do evmctl ima_verify --key keys/ima.der \"$f\"; done", at).good();
    ours("ima_clear -r tree", at).good();
    assert!(!attributes(at).contains("security.ima"));
    // evmctl ends with 0 here.
    shell("chattr +i tree/below/7", at).good();
    let failed = ours("ima_sign -r --key keys/ima.key tree", at);
    shell("chattr -i tree/below/7", at).good();
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.err.contains("setxattr failed: tree/below/7"),
        "{failed:?}"
    );
}

#[test]
fn below_what_is_no_directory_there_is_nothing_to_sign() {
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell(
        "mkdir empty; echo text >file; ln -s file link; ln -s empty directory",
        at,
    )
    .good();
    for command in [
        "ima_sign -r --key keys/ima.key",
        "ima_hash -r",
        "sign -r --portable --key keys/ima.key",
        "ima_clear -r",
        "ima_fix -r",
        "ima_hash -r -t f",
        "ima_hash -r -t x",
    ] {
        for operand in ["file", "link", "nosuch"] {
            let arguments = format!("{command} {operand}");
            let (mine, other) = (ours(&arguments, at), theirs(&arguments, at));
            assert_eq!(
                (mine.code, other.code),
                (125, 125),
                "{arguments}: {mine:?} {other:?}"
            );
            assert_eq!(mine.out, other.out, "{arguments}");
            let said = format!("Failed to open directory {operand}");
            assert!(other.err.contains(&said), "{arguments}: {other:?}");
            assert!(mine.err.contains(&said), "{arguments}: {mine:?}");
        }
        for operand in ["empty", "directory"] {
            let arguments = format!("{command} {operand}");
            let (mine, other) = (ours(&arguments, at), theirs(&arguments, at));
            assert_eq!(
                (mine.code, other.code),
                (0, 0),
                "{arguments}: {mine:?} {other:?}"
            );
        }
    }
}

#[test]
fn what_is_made_nowhere_is_refused_with_the_reason() {
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell("echo text >file", at).good();
    let plain = ours("ima_sign -n --key keys/ima.key file", at).good();
    let v2 = ours("ima_sign -n --v2 --key keys/ima.key file", at).good();
    assert_eq!(plain.out, v2.out);
    for (arguments, code, reason) in [
        (
            "ima_sign -n --v3 --key keys/ima.key file",
            1,
            "no kernel before 7.1",
        ),
        (
            "sign -n --v3 --portable --key keys/ima.key file",
            1,
            "no kernel before 7.1",
        ),
        ("hmac file", 125, "the kernel writes HMACs itself"),
    ] {
        let refused = ours(arguments, at);
        assert_eq!(refused.code, code, "{arguments}: {refused:?}");
        assert!(refused.err.contains(reason), "{arguments}: {refused:?}");
        assert_eq!(theirs(arguments, at).code, code, "{arguments}");
    }
}

#[test]
fn digests_on_standard_input() {
    let keys = with_keys("rsa2048");
    let at = keys.path();
    shell(
        "echo content >file; sha256sum file >sums; echo 00 >>bad
         ln -sf $IMACTL evmctl
         ./evmctl sign_hash -a sha256 --key keys/ima.key <sums >ours
         /usr/bin/evmctl sign_hash -a sha256 --key keys/ima.key <sums >theirs
         cmp ours theirs
         ! ./evmctl sign_hash --key keys/ima.key <bad
         ! ./evmctl sign_hash --key keys/ima.key </dev/null
         printf 'sha256:%064d file\\n' 0 | ./evmctl sign_hash --veritysig --key keys/ima.key | grep -q ' 060304'",
        at,
    )
    .good();
}

#[test]
fn measurement_lists_and_boot_aggregates() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList {
        list,
        sha1,
        sha256,
        padded,
    } = measurement_list();
    let pcrs =
        |name: &str, value: &[u8]| std::fs::write(at.join(name), pcrs_with_10(value)).unwrap();
    std::fs::write(at.join("list"), &list).unwrap();
    pcrs("sha1", &sha1);
    pcrs("sha256", &sha256);
    pcrs("padded", &padded);
    pcrs("other", &[9; 32]);
    let mut changed = list.clone();
    *changed.last_mut().unwrap() = 1;
    std::fs::write(at.join("changed"), &changed).unwrap();
    for (arguments, code, said) in [
        ("--pcrs sha1 list", 0, "Matched per TPM bank"),
        ("--pcrs sha256,sha256 list", 0, "Matched per TPM bank"),
        (
            "--pcrs sha1,sha1 --pcrs sha256,sha256 list",
            0,
            "Matched per TPM bank",
        ),
        ("--pcrs sha256,padded list", 0, "Matched SHA1 padded"),
        (
            "--pcrs sha256,other list",
            1,
            "Failed to match per TPM bank",
        ),
        (
            "--pcrs sha256,sha256 changed",
            1,
            "Failed to verify template data digest.",
        ),
        (
            "--pcrs sha1 nosuch",
            125,
            "Failed to open measurement file: nosuch",
        ),
        ("", 125, "Parameters missing"),
    ] {
        for command in [ours as fn(&str, &Path) -> Ended, theirs] {
            let found = command(&format!("ima_measurement {arguments}"), at);
            assert_eq!(found.code, code, "{arguments}: {found:?}");
            assert!(found.err.contains(said), "{arguments}: {found:?}");
        }
    }
    // This machine has no TPM, or another list than this one.
    let nothing = ours("ima_measurement list", at);
    assert_ne!(nothing.code, 0, "{nothing:?}");
    // evmctl goes on without PCRs when it cannot read those it was asked to.
    let missing = ours("ima_measurement --pcrs nosuch list", at);
    assert_eq!(missing.code, 125, "{missing:?}");
    for arguments in ["--pcrs sha1", "--pcrs sha1 --pcrs sha256,sha256"] {
        let arguments = format!("ima_boot_aggregate {arguments}");
        let (found, expected) = (ours(&arguments, at).good(), theirs(&arguments, at).good());
        assert_eq!(found.out, expected.out);
        assert!(found.out.contains("sha1:"), "{found:?}");
    }
}

#[test]
fn imactl_evmctl_is_the_same_program() {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    shell(
        "echo content >file; $IMACTL evmctl ima_hash -a sha512 -n file >named; /usr/bin/evmctl ima_hash -a sha512 -n file >theirs; cmp named theirs
         $IMACTL evmctl --help | grep -q '^Usage: evmctl'",
        at,
    )
    .good();
    let version = ours("--version", at).good();
    assert!(version.out.starts_with("evmctl 1."), "{version:?}");
    let engine = ours("--engine gost ima_hash file", at);
    assert_eq!(engine.code, 1, "{engine:?}");
    assert!(engine.err.contains("isn't available"), "{engine:?}");
}
