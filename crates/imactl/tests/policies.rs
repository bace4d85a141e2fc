//! `imactl policy`: what is warned of, said, tried out and formatted.

mod common;

use common::{imactl, need_root, shell, with_keys};

const TRAPS: &str = "\
dont_appraise fsmagic=0x01021994
appraise func=BPRM_CHECK appraise_type=imasig
# the same again, narrower
appraise func=BPRM_CHECK uid=0 appraise_type=imasig
measure func=MMAP_CHECK_REQPROT
appraise func=MMAP_CHECK appraise_type=imasig
appraise func=MODULE_CHECK appraise_type=imasig
appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig
appraise func=KEXEC_INITRAMFS_CHECK appraise_type=imasig
appraise func=POLICY_CHECK appraise_type=imasig";

#[test]
fn traps_have_codes_and_the_exit_status_tells() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("traps"), TRAPS).unwrap();
    let found = imactl("policy check --kernel 6.1 traps", at).good();
    for warning in [
        "line 1: IMA-656",
        "line 4: IMA-940",
        "line 5: IMA-943",
        "line 10: IMA-947",
    ] {
        assert!(found.out.contains(warning), "{warning}: {found:?}");
    }
    assert_eq!(found.out.matches("warning").count(), 4, "{found:?}");
    assert_eq!(found.out.matches("remedy: ").count(), 4, "{found:?}");
    assert_eq!(imactl("policy check --strict traps", at).code, 1);
    assert!(
        !imactl("policy check --kernel 6.3 traps", at)
            .good()
            .out
            .contains("IMA-943")
    );
    let json = imactl("policy check --json traps", at).good().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["warnings"][0]["code"], "IMA-656");
    assert_eq!(json["warnings"][0]["line"], 1);
    assert_eq!(json["errors"].as_array().unwrap().len(), 0);
    shell("echo 'appraise func=NOTHING' >bad; : >empty", at).good();
    let bad = imactl("policy check bad empty", at);
    assert_eq!(bad.code, 1);
    assert!(bad.out.contains("bad: line 1, `func=NOTHING`"), "{bad:?}");
    assert!(bad.out.contains("empty: no rules"), "{bad:?}");
    assert_eq!(imactl("policy check --kernel six traps", at).code, 2);
}

#[test]
fn one_form_written_whole() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("traps"), TRAPS).unwrap();
    shell(
        "chmod 640 traps; ln -s traps link; echo 'measure nonsense' >bad",
        at,
    )
    .good();
    let check = imactl("policy fmt --check traps", at);
    assert_eq!((check.code, check.out.as_str()), (1, "traps\n"));
    imactl("policy fmt link", at).good();
    let formatted = std::fs::read_to_string(at.join("traps")).unwrap();
    assert!(
        formatted.starts_with("dont_appraise fsmagic=0x1021994\n"),
        "{formatted}"
    );
    assert!(formatted.contains("# the same again, narrower\n") && formatted.ends_with("imasig\n"));
    shell("test -L link; test $(stat -c %a traps) = 640", at).good();
    imactl("policy fmt --check traps", at).good();
    imactl("policy fmt bad", at).refused("IMA-603");
    shell("test \"$(cat bad)\" = 'measure nonsense'", at).good();
}

#[test]
fn what_a_policy_would_deny() {
    need_root();
    let keys = with_keys("p256");
    let at = keys.path();
    imactl(
        "keygen --out other --unencrypted --type p256 --ca-type p256",
        at,
    )
    .good();
    shell(
        "mkdir -p root/usr/bin root/etc; cd root
         for name in good unsigned digest other changed plain; do printf '#!/bin/sh\\n# %s\\n' $name >usr/bin/$name; done
         chmod 755 usr/bin/*; chmod 644 usr/bin/plain; echo text >etc/digest
         cd ..
         $IMACTL sign --key keys/ima.key --cert keys/ima.der root/usr/bin/good root/usr/bin/changed
         $IMACTL sign --key other/ima.key --cert other/ima.der root/usr/bin/other
         $IMACTL hash root/usr/bin/digest root/etc/digest
         echo >>root/usr/bin/changed
         printf 'appraise func=BPRM_CHECK appraise_type=imasig\\nappraise func=FILE_CHECK fowner=0\\n' >policy
         echo 'appraise func=BPRM_CHECK appraise_type=imasig' >programs",
        at,
    )
    .good();
    let denied = |policy: &str, root: &str| {
        let found = imactl(
            &format!("policy simulate --root {root} --cert keys/ima.der --json {policy}"),
            at,
        );
        let json: serde_json::Value = serde_json::from_str(&found.out).unwrap();
        let denied: Vec<String> = json["denied"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| {
                let hooks: Vec<&str> = file["denied"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|hook| hook["hook"].as_str().unwrap())
                    .collect();
                format!(
                    "{} {} {}",
                    file["path"].as_str().unwrap(),
                    file["verdict"].as_str().unwrap(),
                    hooks.join("+")
                )
            })
            .collect();
        assert_eq!(found.code, i32::from(!denied.is_empty()), "{found:?}");
        denied
    };
    assert_eq!(
        denied("policy", "root"),
        [
            "/usr/bin/changed changed FILE_CHECK+BPRM_CHECK",
            "/usr/bin/digest digest-only BPRM_CHECK",
            "/usr/bin/other unknown-key FILE_CHECK+BPRM_CHECK",
            "/usr/bin/plain unsigned FILE_CHECK",
            "/usr/bin/unsigned unsigned FILE_CHECK+BPRM_CHECK",
        ]
    );
    let programs = [
        "/usr/bin/changed changed BPRM_CHECK",
        "/usr/bin/digest digest-only BPRM_CHECK",
        "/usr/bin/other unknown-key BPRM_CHECK",
        "/usr/bin/unsigned unsigned BPRM_CHECK",
    ];
    assert_eq!(denied("programs", "root"), programs);
    // The same in an image, where nothing is signed anew.
    imactl("image --from root --out root.img", at).good();
    assert_eq!(denied("programs", "root.img"), programs);
    // What --for-policy signs is what would be denied without.
    imactl(
        "sign --key keys/ima.key --cert keys/ima.der --for-policy policy --root root root",
        at,
    )
    .good();
    assert!(denied("policy", "root").is_empty());
}

#[test]
fn in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(
        at.join("policy"),
        "dont_appraise fsname=rootfs\nappraise func=BPRM_CHECK euid=0 appraise_type=imasig\nmeasure func=MODULE_CHECK pcr=11\n",
    )
    .unwrap();
    let said = imactl("policy explain policy", at).good().out;
    assert_eq!(
        said,
        "\
When a program, script or interpreter is executed (BPRM_CHECK):
  line 1    let through unchecked, if its file system is rootfs, the initramfs
  line 2    denied without a good signature, if the process acts as root
  otherwise let through unchecked
When a kernel module is loaded (MODULE_CHECK) (measuring):
  line 3    measured into PCR 11
Everything else is let through unchecked and is not measured.
"
    );
    let json = imactl("policy explain --json policy", at).good().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["hooks"][1]["line"], 2);
}

/// An error in one line hides nothing of the others; 6.1 takes appraise_flag= with appended signatures only.
#[test]
fn errors_do_not_hide_what_a_kernel_does_not_take() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let policy = "appraise func=BPRM_CHECK appraise_type=imasig appraise_flag=check_blacklist\n\
        nonsense\n\
        appraise func=MODULE_CHECK appraise_type=imasig|modsig appraise_flag=check_blacklist\n";
    std::fs::write(at.join("policy"), policy).unwrap();
    let found = imactl("policy check --kernel 6.1 policy", at);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("line 1: IMA-943"), "{found:?}");
    assert!(!found.out.contains("line 3: IMA-943"), "{found:?}");
    let found = imactl("policy check --kernel 6.12 policy", at);
    assert!(!found.out.contains("IMA-943"), "{found:?}");
    std::fs::write(at.join("large"), vec![b'\n'; (1 << 20) + 1]).unwrap();
    let found = imactl("policy check large", at);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(
        found.out.contains("the kernel has no such limit"),
        "{found:?}"
    );
}

#[test]
fn signing_an_immutable_file_says_so() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    for attribute in ["i", "a"] {
        shell(&format!("echo x > file && chattr +{attribute} file"), at).good();
        let found = imactl("sign --key keys/ima.key --cert keys/ima.der file", at);
        shell("chattr -i -a file && rm file", at).good();
        assert!(found.err.contains("chattr -i -a"), "{found:?}");
        found.refused("IMA-908");
    }
}
