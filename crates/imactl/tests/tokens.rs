//! Keys in tokens, with SoftHSM's.

mod common;

use std::path::Path;

use common::{Ended, imactl, run, shell, with_keys};

/// A token `test` with the PIN 1234, beside the keys of that kind.
fn with_token(kind: &str) -> tempfile::TempDir {
    let directory = with_keys(kind);
    in_token(
        "softhsm2-util --init-token --free --label test --pin 1234 --so-pin 5678
         softhsm2-util --import keys/ima.key --token test --label ima --id 01 --pin 1234
         softhsm2-util --import keys/ca.key --token test --label ca --id 02 --pin 1234",
        directory.path(),
    )
    .good();
    directory
}

/// A shell script that finds the token, in which `$URI` names its key and `$IMACTL` is the program.
fn in_token(script: &str, directory: &Path) -> Ended {
    let module = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .expect("softhsm2 is needed by this test");
    shell(
        &format!(
            "export SOFTHSM2_CONF=$PWD/softhsm.conf; mkdir -p tokens
             printf 'directories.tokendir = %s/tokens\\nlog.level = ERROR\\n' \"$PWD\" >softhsm.conf
             MODULE=module-path={module}; URI=\"pkcs11:token=test;object=ima?$MODULE&pin-value=1234\"
             {script}"
        ),
        directory,
    )
}

#[test]
fn tokens_sign_as_files_do() {
    for kind in ["rsa2048", "p256", "p384", "p521"] {
        let directory = with_token(kind);
        let at = directory.path();
        shell("mkdir tree; for n in $(seq 40); do echo $n >tree/$n; done; printf 1234 >pin; cp -r tree theirs", at).good();
        for hash in ["sha256", "sha384", "sha512", "sha3-256"] {
            in_token(
                &format!(
                    "$IMACTL sign --key \"$URI\" --cert keys/ima.der --hash {hash} --sidecar tree
                     $IMACTL verify --sidecar --cert keys/ima.der tree"
                ),
                at,
            )
            .good();
            if kind == "rsa2048" {
                shell(
                    &format!(
                        "$IMACTL sign --key keys/ima.key --cert keys/ima.der --hash {hash} --sidecar theirs; diff -r tree theirs"
                    ),
                    at,
                )
                .good();
            }
        }
        // The same key by its id, the PIN from a file, from --password-file, from the environment; without a certificate.
        in_token(
            "$IMACTL sign --key \"pkcs11:token=test;id=%01?$MODULE&pin-source=file:$PWD/pin\" --cert keys/ima.der --sidecar tree/1
             $IMACTL sign --key \"pkcs11:object=ima?$MODULE\" --password-file pin --cert keys/ima.der --sidecar tree/2
             EVMCTL_KEY_PASSWORD=1234 $IMACTL sign --key \"pkcs11:object=ima?$MODULE\" --sidecar tree/3
             $IMACTL verify --sidecar --cert keys/ima.der tree/1 tree/2 tree/3",
            at,
        )
        .good();
    }
}

#[test]
fn tokens_sign_for_secure_boot_as_files_do() {
    let directory = with_token("rsa2048");
    in_token(
        "stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
         $IMACTL uki sign --key \"$URI\" --cert keys/ima.der --out token.efi $stub
         $IMACTL uki sign --key keys/ima.key --cert keys/ima.der --out file.efi $stub
         cmp token.efi file.efi
         openssl x509 -inform DER -in keys/ima.der -out cert.pem
         sbverify --cert cert.pem token.efi",
        directory.path(),
    )
    .good();
}

#[test]
fn tokens_that_cannot_be_used() {
    let directory = with_token("p256");
    let at = directory.path();
    in_token(
        "softhsm2-util --init-token --free --label other --pin 1234 --so-pin 5678
         softhsm2-util --import keys/ca.key --token other --label ima --id 01 --pin 1234
         echo content >file",
        at,
    )
    .good();
    for (uri, code) in [
        (
            "pkcs11:token=test;object=ima?module-path=/nonexistent.so",
            "IMA-920",
        ),
        (
            "pkcs11:token=test;object=ima?module-path=/etc/passwd",
            "IMA-920",
        ),
        (
            "pkcs11:token=none;object=ima?$MODULE&pin-value=1234",
            "IMA-920",
        ),
        ("pkcs11:object=ima?$MODULE&pin-value=1234", "IMA-920"),
        (
            "pkcs11:token=test;object=none?$MODULE&pin-value=1234",
            "IMA-920",
        ),
        ("pkcs11:token=test?$MODULE&pin-value=1234", "IMA-920"),
        (
            "pkcs11:token=test;object=ima?$MODULE&pin-value=9999",
            "IMA-904",
        ),
        ("pkcs11:token=test;object=ima?$MODULE", "IMA-904"),
        (
            "pkcs11:token=test;object=ima?$MODULE&pin-source=missing",
            "IMA-901",
        ),
        (
            "pkcs11:token=test;object=ca?$MODULE&pin-value=1234",
            "IMA-905",
        ),
        (
            "pkcs11:token=other;object=ima?$MODULE&pin-value=1234",
            "IMA-905",
        ),
        ("pkcs11:colour=red?$MODULE&pin-value=1234", "IMA-917"),
    ] {
        let ended = in_token(
            &format!("exec $IMACTL sign --key \"{uri}\" --cert keys/ima.der --sidecar file"),
            at,
        )
        .refused(code);
        assert!(!ended.err.contains("1234"), "the PIN is shown: {ended:?}");
        assert!(!at.join("file.sig").exists(), "{uri}");
    }
}

#[test]
fn a_ca_in_a_token() {
    let directory = with_token("rsa2048");
    let at = directory.path();
    in_token(
        "CA=\"pkcs11:token=test;object=ca?$MODULE&pin-value=1234\"
         $IMACTL keygen --out new --unencrypted --type p384 --ca-key \"$CA\"
         test ! -e new/ca.key
         $IMACTL keygen --out more --unencrypted --type p256 --ca-key \"$CA\" --ca-cert new/ca.der
         $IMACTL keygen --out request --csr --key \"$URI\"
         $IMACTL keygen --out token --key \"$URI\" --ca-key \"$CA\" --ca-cert new/ca.der
         $IMACTL cert token/ima.der --key \"$URI\" --ca new/ca.der
         test \"$(ls token)\" = \"$(printf 'ima.der\\nima.pem')\"",
        at,
    )
    .good();
    run(
        "openssl",
        [
            "verify",
            "-CAfile",
            "new/ca.pem",
            "new/ima.pem",
            "more/ima.pem",
            "token/ima.pem",
        ],
        at,
    )
    .good();
    run(
        "openssl",
        ["req", "-in", "request/ima.csr", "-verify", "-noout"],
        at,
    )
    .good();
    imactl("cert new/ca.der --for ca", at).good();
}
