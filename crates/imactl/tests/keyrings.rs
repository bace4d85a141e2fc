//! Certificates onto keyrings of the kernel that runs the tests, in a session of their own. It must have asymmetric keys, as
//! every kernel has that signs its modules.

mod common;

use std::path::Path;

use common::{Ended, IMACTL, imactl, run, shell, shell_as_nobody};

/// A directory everybody may enter, with RSA keys, which every kernel knows.
fn with_keys() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    shell("chmod 755 .", directory.path()).good();
    imactl(
        "keygen --out keys --unencrypted --type rsa2048",
        directory.path(),
    )
    .good();
    directory
}

/// A shell script in a session with a keyring `_ima`, whose serial number is in `$RING`.
fn in_session(script: &str, directory: &Path) -> Ended {
    let script = format!("IMACTL={IMACTL}; RING=$(keyctl newring _ima @s)\n{script}");
    run("keyctl", ["session", "-", "sh", "-euc", &script], directory)
}

#[test]
fn certificates_go_where_they_belong() {
    let directory = with_keys();
    let at = directory.path();
    let ended = in_session(
        "$IMACTL import --keyring _ima keys/ima.der; $IMACTL import --keyring $RING keys/ca.pem
             $IMACTL import --keyring @s --json keys/ima.pem >import.json
             $IMACTL keys _ima; $IMACTL keys _ima --json >keys.json
             $IMACTL keys >all; keyctl list $RING",
        at,
    )
    .good();
    assert!(
        ended.out.contains("`CN=Local IMA`") && ended.out.contains("2 keys"),
        "{ended:?}"
    );
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(at.join(name)).unwrap()).unwrap()
    };
    let certificate = imactl("cert --json keys/ima.der", at).good().out;
    let certificate: serde_json::Value = serde_json::from_str(&certificate).unwrap();
    let key_id = &certificate[0]["key_id"];
    let key = &json("keys.json")[0]["keys"][0];
    assert_eq!(key["key_id"], *key_id, "{key}");
    let algorithm = key["algorithm"].as_str().unwrap();
    assert!(algorithm.contains("rsa"), "{key}");
    assert!(key["name"].as_str().unwrap().contains("Local IMA"), "{key}");
    assert_eq!(json("import.json")["imported"][0]["key_id"], *key_id);
    let serial = json("import.json")["imported"][0]["serial"]
        .as_i64()
        .unwrap();
    assert!(serial > 0);
    let all = std::fs::read_to_string(at.join("all")).unwrap();
    assert!(all.contains("_ima ("), "{all}");
}

/// A keyring that takes what a CA signed, as .ima does, and one that trusts the kernel's own alone.
#[test]
fn refusals_have_their_reason() {
    let directory = with_keys();
    let at = directory.path();
    let other = with_keys();
    let other = other.path().display();
    in_session(
        "ca=$(keyctl padd asymmetric '' @s <keys/ca.der)
         keyctl restrict_keyring $RING asymmetric key_or_keyring:$ca
         $IMACTL import --keyring _ima keys/ima.der",
        at,
    )
    .good();
    for (name, script, code, cause) in [
        (
            "another CA",
            format!(
                "ca=$(keyctl padd asymmetric '' @s <keys/ca.der)
                 keyctl restrict_keyring $RING asymmetric key_or_keyring:$ca
                 exec $IMACTL import --keyring _ima {other}/keys/ima.der"
            ),
            "IMA-504",
            "is not among the CAs",
        ),
        (
            "the kernel's own CAs alone",
            "keyctl restrict_keyring $RING asymmetric builtin_trusted; exec $IMACTL import --keyring _ima keys/ima.der"
                .to_owned(),
            "IMA-504",
            "its issuer, CN=Local CA",
        ),
        (
            "CA:FALSE written out",
            "printf 'basicConstraints=DER:30:03:01:01:00\\n' >extensions
             openssl req -new -key keys/ima.key -subj /CN=x -out x.csr
             openssl x509 -req -in x.csr -CA keys/ca.pem -CAkey keys/ca.key -extfile extensions -out x.pem
             exec $IMACTL import --keyring _ima x.pem"
                .to_owned(),
            "IMA-504",
            "spell out CA:FALSE",
        ),
        (
            "no such keyring",
            "exec $IMACTL import --keyring _none keys/ima.der".to_owned(),
            "IMA-505",
            "no keyring of that name",
        ),
        (
            "no such keyring of the kernel",
            "exec $IMACTL keys .none".to_owned(),
            "IMA-505",
            "only the kernel makes",
        ),
        (
            "no certificate",
            "exec $IMACTL import --keyring _ima keys/ima.key".to_owned(),
            "IMA-906",
            "malformed",
        ),
    ] {
        let ended = in_session(&script, at).refused(code);
        assert!(ended.err.contains(cause), "{name}: {ended:?}");
    }
    let serial = shell(
        "printf %d 0x$(grep -w '.builtin_trusted_keys:' /proc/keys | cut -d' ' -f1)",
        at,
    )
    .good()
    .out;
    let ended = shell_as_nobody(
        &format!("exec $IMACTL import --keyring {serial} keys/ima.der"),
        at,
    )
    .refused("IMA-504");
    assert!(ended.err.contains("run it as root"), "{ended:?}");
}
