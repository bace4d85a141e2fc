//! RSA keys of lengths that the kernel does not compute with: every command says so, before a device does not boot.

mod common;

use common::{imactl, need_root, run, shell, with_keys};

/// Makes `key.pem` of that length and `leaf.der`, which the CA of `keys` signed.
fn with_length(bits: u32) -> tempfile::TempDir {
    let directory = with_keys("p256");
    shell(
        &format!(
            "openssl genrsa -out key.pem {bits} 2>/dev/null
             openssl req -new -key key.pem -subj /CN=leaf -out leaf.csr
             printf 'keyUsage=critical,digitalSignature\\nsubjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\n' >extensions
             openssl x509 -req -in leaf.csr -CA keys/ca.pem -CAkey keys/ca.key -set_serial 7 -days 30 \\
                 -extfile extensions -outform DER -out leaf.der 2>/dev/null
             echo content >file"
        ),
        directory.path(),
    )
    .good();
    directory
}

#[test]
fn a_length_that_the_kernel_computes_with() {
    let directory = with_length(3072);
    let at = directory.path();
    imactl("cert leaf.der --ca keys/ca.der", at).good();
    imactl("sign --key key.pem --cert leaf.der --sidecar file", at).good();
    imactl("verify --cert leaf.der --sidecar file", at).good();
}

#[test]
fn lengths_that_it_does_not_compute_with() {
    for bits in [2560, 5120] {
        let directory = with_length(bits);
        let at = directory.path();
        let ended = imactl("cert leaf.der --ca keys/ca.der", at);
        assert_eq!(ended.code, 1, "{ended:?}");
        let why = format!("its key is RSA-{bits}");
        assert!(ended.out.contains(&why), "{ended:?}");
        let ended = imactl("sign --key key.pem --cert leaf.der --sidecar file", at);
        assert!(!at.join("file.sig").exists());
        assert!(ended.refused("IMA-906").err.contains(&why));
        let initramfs = "initramfs --init init --cert leaf.der --policy policy --out initramfs.img";
        shell(
            "echo '#!/bin/sh' >init; echo 'appraise func=BPRM_CHECK appraise_type=imasig' >policy",
            at,
        )
        .good();
        let ended = imactl(initramfs, at).refused("IMA-504");
        assert!(ended.err.contains(&why), "{ended:?}");
    }
}

#[test]
fn under_the_name_evmctl() {
    need_root();
    let directory = with_length(2560);
    let at = directory.path();
    // What evmctl signs verifies nowhere.
    run(
        "evmctl",
        [
            "ima_sign",
            "--sigfile",
            "-f",
            "--key",
            "key.pem",
            "-a",
            "sha256",
            "file",
        ],
        at,
    )
    .good();
    let ended = imactl("verify --cert leaf.der --sidecar file", at);
    assert_eq!(ended.code, 5, "{ended:?}");
    assert!(ended.err.contains("RSA-2560") || ended.out.contains("RSA-2560"));
    let verified = imactl("evmctl ima_verify --sigfile --key leaf.der file", at);
    assert_eq!(verified.code, 1, "{verified:?}");
    let ended = imactl("evmctl ima_sign --sigfile --key key.pem -a sha256 file", at);
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.err.contains("RSA-2560"), "{ended:?}");
}
