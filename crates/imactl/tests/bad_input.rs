//! Disks that fill up, runs that are killed, passwords at the prompt, files of unusual size.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ended, IMACTL, imactl, listing, measurement_list, need_root, run, shell, with_keys};

const SIGN: &str = "sign --key keys/ima.key --cert keys/ima.der --sidecar";

/// What `verify` counts of the sidecars below `tree`.
fn counts(at: &Path) -> serde_json::Map<String, serde_json::Value> {
    let found = imactl("verify --sidecar --json --cert keys/ima.der tree", at);
    let json: serde_json::Value = serde_json::from_str(&found.out).unwrap();
    json["counts"].as_object().unwrap().clone()
}

#[test]
fn what_compares_nothing_is_no_success() {
    let directory = with_keys("p256");
    let at = directory.path();
    let head = r#"{"manifest":"imactl","version":1,"algorithm":"sha256","over":"content"}"#;
    std::fs::write(at.join("manifest"), format!("{head}\n")).unwrap();
    let weak = head.replace("sha256", "md5");
    std::fs::write(at.join("weak"), format!("{weak}\n")).unwrap();
    std::fs::write(at.join("list"), measurement_list().list).unwrap();
    shell(
        "mkdir empty tree; echo text >tree/text; : >zero; tar -cf empty.tar empty
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy",
        at,
    )
    .good();
    let sign = "--key keys/ima.key --cert keys/ima.der";
    for (arguments, code) in [
        ("verify --cert keys/ima.der empty", "IMA-917"),
        ("verify --cert keys/ima.der --json empty", "IMA-917"),
        ("verify --cert keys/ima.der --sidecar empty", "IMA-917"),
        ("verify --cert keys/ima.der --image empty.tar", "IMA-917"),
        (
            "verify --cert keys/ima.der --for-policy policy --root tree tree",
            "IMA-917",
        ),
        ("verify --cert empty tree", "IMA-906"),
        (
            "policy simulate --root empty --cert keys/ima.der policy",
            "IMA-917",
        ),
        (
            "policy simulate --root tree --cert keys/ima.der --json policy",
            "IMA-917",
        ),
        ("manifest make --from empty --out x", "IMA-921"),
        (
            "manifest make --from tree --for-policy policy --out x",
            "IMA-921",
        ),
        (&format!("manifest sign {sign} manifest --out x"), "IMA-921"),
        ("manifest apply --root tree manifest", "IMA-921"),
        (
            "manifest apply --root tree --cert keys/ima.der manifest",
            "IMA-921",
        ),
        ("manifest apply --root tree weak", "IMA-921"),
        ("image --from tree --manifest manifest --out x", "IMA-921"),
        ("measurement zero", "IMA-986"),
        // Of the template ima-ng, which has no signatures.
        ("measurement --cert keys/ima.der list", "IMA-917"),
        ("kernel check --config zero", "IMA-916"),
        ("cert empty", "IMA-906"),
    ] {
        imactl(arguments, at).refused(code);
    }
    assert!(!at.join("x").exists());
    let checked = imactl("policy check zero", at);
    assert_eq!(checked.code, 1, "{checked:?}");
}

/// What is given for a kernel or its configuration, and is neither, is named by both commands.
#[test]
fn what_is_no_kernel_is_named() {
    let directory = with_keys("p256");
    let at = directory.path();
    let image = |place: usize, magic: &[u8]| {
        let mut image = vec![0; 1 << 16];
        image[place..place + magic.len()].copy_from_slice(magic);
        image
    };
    std::fs::write(at.join("zImage"), image(0x24, b"\x18\x28\x6f\x01")).unwrap();
    // An EFI program too.
    let mut compressed = image(4, b"zimg");
    compressed[..2].copy_from_slice(b"MZ");
    std::fs::write(at.join("vmlinuz.efi"), compressed).unwrap();
    std::fs::write(at.join("Image"), image(0x38, b"ARM\x64")).unwrap();
    // A PE header with one section of that name.
    let mut unified = image(0, b"MZ");
    unified[0x3c] = 0x80;
    unified[0x80..0x84].copy_from_slice(b"PE\0\0");
    unified[0x86] = 1;
    unified[0x98..0x9e].copy_from_slice(b".linux");
    std::fs::write(at.join("linux.efi"), unified).unwrap();
    shell(
        "gzip -k zImage Image; : >init; echo init | cpio -o -H newc --quiet >initrd
         gzip -k initrd; zstd -q initrd
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy",
        at,
    )
    .good();
    for (file, named) in [
        ("vmlinuz.efi", "a compressed EFI image"),
        ("zImage.gz", "an ARM zImage, compressed with gzip"),
        ("linux.efi", "a unified kernel image"),
        ("initrd", "an initramfs (a cpio archive)"),
        (
            "initrd.gz",
            "an initramfs (a cpio archive), compressed with gzip",
        ),
        (
            "initrd.zst",
            "an initramfs (a cpio archive), compressed with zstd",
        ),
    ] {
        for (command, code) in [
            (format!("check --initramfs initrd --kernel {file}"), "IMA-9"),
            (
                format!("kernel check --policy policy --config {file}"),
                "IMA-916",
            ),
            (
                format!("kernel add-ca --image {file} --cert keys/ca.der --out out"),
                "IMA-914",
            ),
        ] {
            let refused = imactl(&command, at).refused(code);
            assert!(refused.err.contains(named), "{command}: {refused:?}");
            assert!(refused.err.contains(file), "{command}: {refused:?}");
            let remedy = refused.err.split("remedy: ").nth(1).unwrap_or_default();
            assert!(
                remedy.contains("vmlinux") && remedy.contains("only-section=.linux"),
                "{command}: {refused:?}"
            );
        }
    }
    let add = "kernel add-ca --image zImage --cert keys/ca.der --out out";
    let refused = imactl(add, at).refused("IMA-914");
    assert!(
        refused.err.contains("the zImage does not say where"),
        "{refused:?}"
    );
    // A kernel that is read, but has no symbols.
    for file in ["Image", "Image.gz"] {
        let config = format!("kernel check --policy policy --config {file}");
        let refused = imactl(&config, at).refused("IMA-916");
        assert!(refused.err.contains("an arm64 Image"), "{refused:?}");
        let add = format!("kernel add-ca --image {file} --cert keys/ca.der --out out");
        let refused = imactl(&add, at).refused("IMA-914");
        assert!(refused.err.contains("extra-cert.json"), "{refused:?}");
    }
}

#[test]
fn keys_without_a_password_are_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("none"), "\n").unwrap();
    for arguments in ["", "--password-file none"] {
        let refused = imactl(&format!("keygen --out keys {arguments}"), at).refused("IMA-917");
        assert!(
            refused.err.contains("no password for the new private keys"),
            "{refused:?}"
        );
        assert!(!refused.err.contains("decrypt"), "{refused:?}");
    }
    assert!(!at.join("keys").exists());
}

#[test]
fn a_disk_that_fills_up_keeps_no_half_signature() {
    need_root();
    let directory = with_keys("rsa4096");
    let at = directory.path();
    let script = "mkdir tree; mount -t tmpfs -o size=600k none tree
        for n in $(seq 100); do echo $n >tree/$n; done
        status=0; $IMACTL sign --key keys/ima.key --cert keys/ima.der --sidecar tree || status=$?
        cp -r tree copy; umount tree; rmdir tree; mv copy tree; exit $status";
    let ended = run(
        "unshare",
        ["-m", "sh", "-euc", &format!("IMACTL={IMACTL}\n{script}")],
        at,
    )
    .refused("IMA-902");
    assert!(ended.err.contains("full"), "{ended:?}");
    let counts = counts(at);
    assert!(
        counts
            .keys()
            .all(|word| word == "good" || word == "unsigned")
            && counts.len() == 2,
        "{counts:?}"
    );
    assert!(
        listing(&at.join("tree"))
            .iter()
            .all(|name| !name.to_string_lossy().starts_with(".imactl")),
        "something half written was left"
    );
}

#[test]
fn a_file_system_without_room_for_attributes_keeps_no_half_signature() {
    need_root();
    let directory = with_keys("rsa2048");
    let at = directory.path();
    // Inodes with no room for attributes: each signature takes a block, and there are fewer blocks than files.
    let script = "truncate -s 512K image; mke2fs -q -t ext4 -I 128 -O ^has_journal -b 1024 -N 128 -m 0 image 2>/dev/null
        mkdir tree; mount -o loop image tree; for n in $(seq 80); do echo $n >tree/$n; done
        sync; fallocate -l $((($(stat -f -c %f tree) - 40) * 1024)) tree/fill
        status=0; $IMACTL sign --key keys/ima.key --cert keys/ima.der tree || status=$?
        $IMACTL verify --json --cert keys/ima.der tree >counts.json || true; umount tree; e2fsck -fn image >&2; exit $status";
    let ended = run(
        "unshare",
        ["-m", "sh", "-euc", &format!("IMACTL={IMACTL}\n{script}")],
        at,
    )
    .refused("IMA-908");
    assert!(ended.err.contains("No space left"), "{ended:?}");
    let json = std::fs::read(at.join("counts.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let counts = json["counts"].as_object().unwrap();
    assert!(
        counts["good"].as_u64() > Some(5) && counts["unsigned"].as_u64() > Some(5),
        "{counts:?}"
    );
    assert_eq!(counts.len(), 2, "{counts:?}");
}

#[test]
fn a_run_that_is_killed_leaves_whole_signatures_or_none() {
    let directory = with_keys("rsa4096");
    let at = directory.path();
    shell(
        "mkdir tree; for n in $(seq 1000); do echo $n >tree/$n; done",
        at,
    )
    .good();
    let mut child = Command::new(IMACTL)
        .args(SIGN.split(' '))
        .arg("tree")
        .current_dir(at)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let signed = || {
        std::fs::read_dir(at.join("tree"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().ends_with(".sig")
            })
            .count()
    };
    while signed() < 20 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was being written has another name.
    shell("find tree -name '.imactl-*' -delete", at).good();
    let first = counts(at);
    assert!(
        first
            .keys()
            .all(|word| word == "good" || word == "unsigned")
            && first.len() == 2,
        "{first:?}"
    );
    let again = imactl(&format!("{SIGN} --incremental --json tree"), at).good();
    let again: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(again["signed"], first["unsigned"]);
    assert_eq!(counts(at).keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn four_gib_and_a_byte_of_holes() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell("truncate -s 4294967296 sparse; printf x >>sparse", at).good();
    imactl(&format!("{SIGN} sparse"), at).good();
    // By somebody else's digest, and RSA signatures have but one form.
    let digest = run("sha256sum", ["sparse"], at).good().out;
    let digest = digest.split(' ').next().unwrap();
    let arguments = format!("sign --key keys/ima.key --cert keys/ima.der --digest sha256:{digest}");
    let expected = imactl(&arguments, at).good().out;
    let sidecar = std::fs::read(at.join("sparse.sig")).unwrap();
    assert_eq!(imactl::hex::encode(&sidecar), expected.trim());
}

/// Runs a command on a terminal, answering its questions as soon as the terminal shows no more of what is typed.
fn on_a_terminal(command: &str, answers: &[(&str, &str)], at: &Path) -> Ended {
    let mut script = format!("set timeout 60; spawn -noecho {IMACTL} {command}\n");
    for (question, answer) in answers {
        script.push_str(&format!(
            "expect -ex {{{question}}} {{}} timeout {{ exit 98 }} eof {{ exit 97 }}\n\
             while {{ ![string match {{* -echo *}} [exec stty -a < $spawn_out(slave,name)]] }} {{ after 10 }}\n\
             send {{{answer}}}; send \\r\n"
        ));
    }
    script.push_str("expect eof; exit [lindex [wait] 3]\n");
    run("expect", ["-c", &script], at)
}

#[test]
fn passwords_at_the_prompt() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    shell("echo content >file", at).good();
    let made = on_a_terminal(
        "keygen --out keys --type p256",
        &[
            ("Password for the new", "ge heim"),
            ("Once more", "ge heim"),
        ],
        at,
    );
    assert_eq!(made.code, 0, "{made:?}");
    assert!(
        !made.out.contains("heim"),
        "the password is shown: {made:?}"
    );
    let asked = "Password of keys/ima.key";
    let good = on_a_terminal(&format!("{SIGN} file"), &[(asked, "ge heim")], at);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(
        !good.out.contains("heim"),
        "the password is shown: {good:?}"
    );
    imactl("verify --sidecar --cert keys/ima.der file", at).good();
    std::fs::remove_file(at.join("file.sig")).unwrap();
    for wrong in ["geheim", ""] {
        let ended = on_a_terminal(&format!("{SIGN} file"), &[(asked, wrong)], at);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.out.contains("IMA-904"), "{ended:?}");
    }
    let different = on_a_terminal(
        "keygen --out other --type p256",
        &[("Password for the new", "one"), ("Once more", "another")],
        at,
    );
    assert!(
        different.code == 2 && different.out.contains("not the same"),
        "{different:?}"
    );
    assert!(!at.join("other").exists() && !at.join("file.sig").exists());
}

#[test]
fn attributes_that_are_no_signature() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    for (value, code, words) in [
        ("0x", 5, "malformed"),
        ("0x00", 5, "malformed"),
        ("0x030204", 5, "malformed"),
        ("0x03020400000000000100", 4, "of which no certificate"),
        ("0x030104000000000001ff", 5, "version"),
        ("0x0302ff000000000001ff", 5, "algorithm"),
        ("0x0302040000000000ffff", 5, "says 255"),
        (
            "0x020000000000000000000000000000000000000000",
            5,
            "security.evm",
        ),
        (
            "0x01000102030405060708090a0b0c0d0e0f10111213",
            6,
            "other content",
        ),
    ] {
        shell(
            &format!("echo content >file; setfattr -n security.ima -v {value} file"),
            at,
        )
        .good();
        let found = imactl("verify --cert keys/ima.der file", at);
        assert_eq!(found.code, code, "{value}: {found:?}");
        assert!(found.out.contains(words), "{value}: {found:?}");
        // Signing does not care what was there.
        shell("$IMACTL sign --incremental --key keys/ima.key --cert keys/ima.der file; $IMACTL verify --cert keys/ima.der file", at).good();
    }
}
