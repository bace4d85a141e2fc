//! Unified kernel images on the distribution's stub, compared with what sbsigntool and binutils make of them.

mod common;

use std::path::Path;

use common::{Ended, IMACTL, run};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Any program for UEFI serves as a kernel; this one is in the same package as the stub.
const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// Returns the options for the stub, the kernel and the initramfs.
fn inputs() -> String {
    format!("--stub {STUB} --kernel {KERNEL} --initramfs initramfs")
}

/// A directory with keys, an initramfs, and what else a unified kernel image has in it.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        for file in [STUB, KERNEL] {
            let is_there = Path::new(file).exists();
            assert!(is_there, "{file} (systemd-boot-efi) is needed by this test");
        }
        let directory = tempfile::tempdir().unwrap();
        let files = Self { directory };
        files.shell(
            "for name in db other; do
                 openssl req -new -x509 -newkey rsa:2048 -nodes -keyout $name.key -out $name.crt -days 30 -subj /CN=$name
             done 2>/dev/null
             seq 100000 >initramfs; printf 'ID=test\\n' >os-release; echo logo >logo; echo '{}' >pcrsig; echo key >pcrpkey",
        );
        files
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a shell script, which must succeed; in it `$IMACTL` is the program.
    #[track_caller]
    fn shell(&self, script: &str) -> Ended {
        common::shell(script, self.path()).good()
    }

    /// Runs imactl with arguments separated by blanks.
    fn imactl(&self, arguments: &str) -> Ended {
        common::imactl(arguments, self.path())
    }

    /// Builds an image with a command line, and further arguments separated by blanks.
    fn build(&self, more: &str) -> Ended {
        let words = format!("uki build {} {more}", inputs());
        let line = ["--cmdline", "root=/dev/vda ro"];
        run(IMACTL, words.split_whitespace().chain(line), self.path())
    }

    /// Asserts that `uki verify` with these arguments finds no signature that the certificate verifies, and says why.
    #[track_caller]
    fn assert_not_verified(&self, arguments: &str, why: &str) {
        let ended = self.imactl(&format!("uki verify {arguments}"));
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            ended.err.contains("IMA-993") && ended.err.contains(why),
            "{ended:?}"
        );
    }
}

#[test]
fn sbsigntool_and_binutils_read_what_is_made() {
    let files = Files::new();
    let all = "--uname 6.1.0-test --os-release os-release --pcrsig pcrsig --pcrpkey pcrpkey --key db.key --cert db.crt";
    files.build(&format!("{all} --out linux.efi")).good();
    files.build(&format!("{all} --out again.efi")).good();
    files.shell(
        "cmp linux.efi again.efi
         printf 'root=/dev/vda ro' >cmdline; printf 6.1.0-test >uname
         for pair in initrd:initramfs osrel:os-release cmdline:cmdline uname:uname pcrsig:pcrsig pcrpkey:pcrpkey; do
             objcopy -O binary --only-section=.${pair%:*} linux.efi section
             cmp section ${pair#*:}
         done
         objcopy -O binary --only-section=.linux linux.efi section
         kernel=/usr/lib/systemd/boot/efi/systemd-bootx64.efi
         truncate -s $(stat -c %s $kernel) section; cmp section $kernel
         sbverify --cert db.crt linux.efi",
    );
    let ended = run(
        "sbverify",
        ["--cert", "other.crt", "linux.efi"],
        files.path(),
    );
    assert_eq!(ended.code, 1, "{ended:?}");
    let ended = files.imactl("uki verify --cert db.crt linux.efi").good();
    assert!(ended.out.contains("`CN=db`"), "{ended:?}");
    files.assert_not_verified("--cert other.crt linux.efi", "CN=db");
}

#[test]
fn what_sbsign_signs_is_verified() {
    let files = Files::new();
    files.build("--out unsigned.efi").good();
    files.assert_not_verified("--cert db.crt unsigned.efi", "no signature");
    files.shell("sbsign --key db.key --cert db.crt --output theirs.efi unsigned.efi");
    files.imactl("uki verify --cert db.crt theirs.efi").good();
    // Of two signatures one is enough.
    files.shell("sbsign --key other.key --cert other.crt --output both.efi theirs.efi");
    for certificate in ["db.crt", "other.crt"] {
        files
            .imactl(&format!("uki verify --cert {certificate} both.efi"))
            .good();
    }
    let ended = files
        .imactl("uki sign --key db.key --cert db.crt --out signed.efi both.efi")
        .good();
    assert!(ended.out.contains("`CN=db`"), "{ended:?}");
    files.shell("sbverify --cert db.crt signed.efi; ! sbverify --cert other.crt signed.efi");
    // Signed by a command, the image is the same.
    files.shell(
        "printf '#!/bin/sh\\nprintf %%s \"$2\" | xxd -r -p | openssl pkeyutl -sign -inkey db.key -pkeyopt digest:$1\\n' >sign
         chmod 755 sign
         $IMACTL uki sign --sign-command ./sign --cert db.crt --out command.efi unsigned.efi
         cmp command.efi signed.efi",
    );
}

#[test]
fn every_length_of_key_that_firmware_takes() {
    let files = Files::new();
    for bits in [3072, 4096] {
        files.shell(&format!(
            "openssl req -new -x509 -newkey rsa:{bits} -nodes -keyout key -out crt -days 30 -subj /CN=long 2>/dev/null"
        ));
        files.build("--key key --cert crt --out linux.efi").good();
        files.shell("sbverify --cert crt linux.efi");
    }
    let before = std::fs::read(files.path().join("linux.efi")).unwrap();
    for (more, code, why) in [
        ("--key db.key --cert other.crt", "IMA-905", "CN=other"),
        (
            "--key db.key --cert db.crt --hash sha512",
            "IMA-907",
            "SHA-256",
        ),
        ("--key db.key", "IMA-917", "--cert"),
        ("--section logo", "IMA-917", "NAME:FILE"),
        ("--section .cmdline:logo", "IMA-991", ".cmdline"),
        ("--section .splash:missing", "IMA-901", "missing"),
    ] {
        let ended = files
            .build(&format!("{more} --out linux.efi"))
            .refused(code);
        assert!(ended.err.contains(why), "{more}: {ended:?}");
        assert_eq!(
            std::fs::read(files.path().join("linux.efi")).unwrap(),
            before,
            "{more}"
        );
    }
    let elliptic = "openssl ecparam -name prime256v1 -genkey -noout -out key
        openssl req -new -x509 -key key -out crt -days 30 -subj /CN=short";
    files.shell(elliptic);
    files
        .build("--key key --cert crt --out linux.efi")
        .refused("IMA-907");
}

#[test]
fn what_is_in_an_image() {
    let files = Files::new();
    let more = "--os-release os-release --section .splash:logo --key db.key --cert db.crt";
    let ended = files.build(&format!("{more} --out linux.efi")).good();
    assert!(ended.err.contains("--uname"), "{ended:?}");
    let shown = files.imactl("uki show linux.efi").good();
    for text in [
        "command line: root=/dev/vda ro",
        "  ID=test",
        "  systemd,1,",
        "signed by `CN=db`",
    ] {
        assert!(shown.out.contains(text), "{text}: {shown:?}");
    }
    let shown = files.imactl("uki show --json linux.efi").good().out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["command_line"], "root=/dev/vda ro");
    assert_eq!(shown["signers"][0], "CN=db");
    assert_eq!(shown["uname"], serde_json::Value::Null);
    let sections = shown["sections"].as_array().unwrap();
    let splash = sections.iter().find(|section| section["name"] == ".splash");
    let digest = files.shell("sha256sum logo | cut -d ' ' -f 1").out;
    assert_eq!(splash.unwrap()["sha256"], digest.trim());
    files.imactl("uki show initramfs").refused("IMA-992");
    // Nothing of the .sbat section is lost, which shim looks at.
    files.shell(&format!(
        "for file in {STUB} linux.efi; do objcopy -O binary --only-section=.sbat $file ${{file##*/}}.sbat; done
         cmp linuxx64.efi.stub.sbat linux.efi.sbat"
    ));
}

#[test]
fn an_image_without_a_command_line_is_made_with_a_warning() {
    let files = Files::new();
    let ended = files
        .imactl(&format!("uki build {} --out linux.efi", inputs()))
        .good();
    assert!(ended.err.contains("IMA-994"), "{ended:?}");
    assert!(ended.out.contains("not signed"), "{ended:?}");
}

/// The same check as of kernel, initramfs and command line one by one, and of the signature.
#[test]
fn the_check_of_a_system_reads_an_image() {
    let files = Files::new();
    files
        .imactl("keygen --out keys --unencrypted --type rsa2048")
        .good();
    files.shell(
        "echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy; printf '#!/bin/sh\\n' >init
         $IMACTL initramfs --unchecked --init init --cert keys/ima.der --policy policy --out initramfs
         printf 'CONFIG_X86=y\\nCONFIG_IMA=y\\nCONFIG_SECURITYFS=y\\n' >config",
    );
    files
        .build("--key db.key --cert db.crt --out linux.efi")
        .good();
    let rest = "--ca keys/ca.der --kernel-config config --json";
    let parse = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let of_uki = |more: &str| {
        let arguments = format!("check --uki linux.efi {rest} {more}");
        parse(&files.imactl(&arguments).out)
    };
    let apart = [
        "check",
        "--initramfs",
        "initramfs",
        "--append",
        "root=/dev/vda ro",
        "--ca",
        "keys/ca.der",
        "--kernel-config",
        "config",
        "--json",
    ];
    let apart = parse(&run(IMACTL, apart, files.path()).out);
    let codes = |found: &serde_json::Value| -> Vec<String> {
        let faults = found["faults"].as_array().unwrap();
        let codes = faults.iter().map(|fault| fault["code"].as_str().unwrap());
        codes.map(str::to_owned).collect()
    };
    assert!(codes(&apart).contains(&"IMA-402".to_owned()), "{apart}");
    assert_eq!(apart["command_line_fixed_by"], serde_json::Value::Null);
    let found = of_uki("--secure-boot-cert db.crt");
    assert_eq!(codes(&found), codes(&apart));
    assert_eq!(found["command_line_fixed_by"], "unified kernel image");
    let found = of_uki("");
    assert_eq!(
        codes(&found),
        [vec!["IMA-994".to_owned()], codes(&apart)].concat()
    );
    let found = of_uki("--secure-boot-cert other.crt");
    assert_eq!(found["refusal"], "IMA-993");
    let text = files.imactl("check --uki linux.efi --secure-boot-cert db.crt --ca keys/ca.der");
    assert!(
        text.out
            .contains("kernel command line: fixed by the signature"),
        "{text:?}"
    );

    // The command line inside is what the init will see.
    files.shell(&format!(
        "$IMACTL uki build {} --cmdline 'root=/dev/vda evm=fix ima_appraise=off' \
             --key db.key --cert db.crt --out linux.efi",
        inputs()
    ));
    let found = of_uki("--secure-boot-cert db.crt");
    assert!(codes(&found).contains(&"IMA-204".to_owned()), "{found}");

    // A kernel that cannot be unpacked, such as Debian's: what is given beside it counts. Without its CAs there is no check.
    files.shell(&format!(
        "cp {KERNEL} kernel; printf HdrS | dd of=kernel bs=1 seek=514 conv=notrunc status=none
         $IMACTL uki build --stub {STUB} --kernel kernel --initramfs initramfs --cmdline 'root=/dev/vda ro' \
             --key db.key --cert db.crt --out packed.efi"
    ));
    let packed = "check --uki packed.efi --secure-boot-cert db.crt";
    let found = parse(&files.imactl(&format!("{packed} {rest}")).out);
    assert_eq!(codes(&found), codes(&apart));
    let refused = files.imactl(packed).refused("IMA-914");
    assert!(refused.err.contains("--ca FILE"), "{refused:?}");

    for (arguments, code) in [
        ("check --uki initramfs", "IMA-992"),
        ("check --uki linux.efi --secure-boot-cert config", "IMA-906"),
    ] {
        files.imactl(arguments).refused(code);
    }
    for arguments in [
        "check --uki linux.efi --append ro",
        "check --uki linux.efi --initramfs initramfs",
        "check --initramfs initramfs --secure-boot-cert db.crt",
        "check",
    ] {
        assert_eq!(files.imactl(arguments).code, 2, "{arguments}");
    }
}

#[test]
fn the_check_of_a_kernel_says_what_fixes_the_command_line() {
    let files = Files::new();
    files
        .build("--key db.key --cert db.crt --out linux.efi")
        .good();
    files.shell(
        "echo CONFIG_X86=y >open
         printf 'CONFIG_CMDLINE_BOOL=y\\nCONFIG_CMDLINE_OVERRIDE=y\\n' >x86; echo CONFIG_CMDLINE_FORCE=y >arm64",
    );
    let image = "--uki linux.efi --secure-boot-cert db.crt";
    for (arguments, text, name) in [
        (
            "--config open".to_owned(),
            "kernel command line: open",
            None,
        ),
        (
            format!("--config open {image}"),
            "kernel command line: fixed by the signature",
            Some("unified kernel image"),
        ),
        (
            "--config x86".to_owned(),
            "kernel command line: fixed by CONFIG_CMDLINE_OVERRIDE",
            Some("CONFIG_CMDLINE_OVERRIDE"),
        ),
        (
            format!("--config arm64 {image}"),
            "kernel command line: fixed by CONFIG_CMDLINE_FORCE",
            Some("CONFIG_CMDLINE_FORCE"),
        ),
    ] {
        let found = files.imactl(&format!("kernel check {arguments}"));
        assert!(found.out.contains(text), "{arguments}: {found:?}");
        let advised = found.out.contains("advised: CONFIG_CMDLINE_OVERRIDE=y");
        assert_eq!(advised, name.is_none(), "{arguments}: {found:?}");
        let found = files.imactl(&format!("kernel check --json {arguments}"));
        let found: serde_json::Value = serde_json::from_str(&found.out).unwrap();
        assert_eq!(found["command_line_fixed_by"].as_str(), name, "{arguments}");
    }
    files
        .imactl("kernel check --config open --uki linux.efi --secure-boot-cert other.crt")
        .refused("IMA-993");
}
