//! What imactl signs, evmctl verifies, and the other way round.

mod common;

use common::{imactl, need_root, run, shell, with_keys};

const SIGN: &str = "sign --key keys/ima.key --cert keys/ima.der";

#[test]
fn both_verify_what_the_other_signed() {
    need_root();
    for kind in ["rsa2048", "rsa3072", "rsa4096", "p256", "p384", "p521"] {
        let directory = with_keys(kind);
        let at = directory.path();
        shell(
            "head -c 100000 /dev/urandom >ours; cp ours theirs; : >empty",
            at,
        )
        .good();
        for hash in ["sha256", "sha384", "sha512"] {
            imactl(&format!("{SIGN} --hash {hash} ours empty"), at).good();
            for file in ["ours", "empty"] {
                let verified =
                    run("evmctl", ["ima_verify", "--key", "keys/ima.der", file], at).good();
                assert!(
                    verified.err.contains("OK") || verified.out.contains("OK"),
                    "{kind} {hash}: {verified:?}"
                );
            }
            let sign = [
                "ima_sign",
                "--hashalgo",
                hash,
                "--key",
                "keys/ima.key",
                "--keyid-from-cert",
                "keys/ima.pem",
                "theirs",
            ];
            run("evmctl", sign, at).good();
            imactl("verify --cert keys/ima.der ours theirs empty", at).good();
            let get = |file: &str| {
                run(
                    "getfattr",
                    [
                        "-d",
                        "-m",
                        "security.ima",
                        "-e",
                        "hex",
                        "--only-values",
                        file,
                    ],
                    at,
                )
                .good()
                .out
            };
            let (ours, theirs) = (get("ours"), get("theirs"));
            assert!(!ours.is_empty());
            if kind.starts_with("rsa") {
                assert_eq!(
                    ours, theirs,
                    "{kind} {hash}: an RSA signature has but one form"
                );
            }
        }
        shell("printf x >>ours", at).good();
        assert_ne!(
            run(
                "evmctl",
                ["ima_verify", "--key", "keys/ima.der", "ours"],
                at
            )
            .code,
            0
        );
        let found = imactl("verify --cert keys/ima.der ours", at);
        assert_eq!(
            (found.code, found.out.contains("changed since key")),
            (6, true),
            "{found:?}"
        );
    }
}

#[test]
fn sidecars_are_evmctls() {
    for kind in ["rsa2048", "p384"] {
        let directory = with_keys(kind);
        let at = directory.path();
        shell("echo content >ours; cp ours theirs", at).good();
        imactl(&format!("{SIGN} --sidecar ours"), at).good();
        let sign = [
            "ima_sign",
            "--sigfile",
            "-f",
            "--hashalgo",
            "sha256",
            "--key",
            "keys/ima.key",
            "--keyid-from-cert",
            "keys/ima.pem",
            "theirs",
        ];
        let signed = run("evmctl", sign, at);
        assert!(at.join("theirs.sig").exists(), "{signed:?}");
        run(
            "evmctl",
            ["ima_verify", "--sigfile", "--key", "keys/ima.der", "ours"],
            at,
        )
        .good();
        imactl("verify --sidecar --cert keys/ima.der ours theirs", at).good();
        if kind == "rsa2048" {
            assert_eq!(
                std::fs::read(at.join("ours.sig")).unwrap(),
                std::fs::read(at.join("theirs.sig")).unwrap()
            );
        }
    }
}

#[test]
fn a_bare_digest_gets_the_same_value() {
    let directory = with_keys("rsa2048");
    let at = directory.path();
    shell("echo content >file", at).good();
    imactl(&format!("{SIGN} --sidecar file"), at).good();
    let digest = run("sha256sum", ["file"], at).good().out;
    let digest = digest.split(' ').next().unwrap();
    let value = imactl(&format!("{SIGN} --digest sha256:{digest}"), at)
        .good()
        .out;
    let sidecar = imactl::hex::encode(&std::fs::read(at.join("file.sig")).unwrap());
    assert_eq!(value.trim(), sidecar);
    for bad in [
        "sha256",
        "sha256:00",
        "sha256:zz",
        "md6:00",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ] {
        let code = if bad.starts_with("sha1") {
            "IMA-907"
        } else {
            "IMA-917"
        };
        imactl(&format!("{SIGN} --digest {bad}"), at).refused(code);
    }
}

#[test]
fn evmctl_takes_encrypted_keys_and_openssl_the_chain() {
    need_root();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    imactl(
        "keygen --sample --evm --out keys --type p384 --ca-type rsa2048",
        at,
    )
    .good();
    shell(
        "echo content >file; EVMCTL_KEY_PASSWORD=password evmctl ima_sign --hashalgo sha256 --key keys/ima.key \
         --keyid-from-cert keys/ima.pem file; openssl verify -CAfile keys/ca.pem keys/ima.pem keys/evm.pem; \
         grep -q 'ENCRYPTED PRIVATE KEY' keys/ima.key; test $(stat -c %a keys/ima.key) = 600",
        at,
    )
    .good();
    imactl("verify --cert keys/ima.pem file", at).good();
}

#[test]
fn digests_by_evmctl_are_no_signatures() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    shell("echo content >file; evmctl ima_hash --hashalgo sha256 file; cp --preserve=xattr file changed; echo >>changed", at).good();
    let found = imactl("verify --cert keys/ima.der file changed", at);
    assert_eq!(found.code, 6);
    assert!(
        found.out.contains("file: a digest, no signature"),
        "{found:?}"
    );
    assert!(
        found.out.contains("changed: a digest of other content"),
        "{found:?}"
    );
}

#[test]
fn digests_are_evmctls() {
    need_root();
    let directory = with_keys("p256");
    let at = directory.path();
    for hash in ["sha256", "sha384", "sha512"] {
        shell(
            &format!(
                "head -c 100000 /dev/urandom >ours; cp ours theirs
                 $IMACTL hash --algorithm {hash} ours; evmctl ima_hash --hashalgo {hash} theirs
                 test \"$(getfattr -n security.ima -e hex --only-values ours)\" = \\
                      \"$(getfattr -n security.ima -e hex --only-values theirs)\"
                 $IMACTL hash --incremental --algorithm {hash} ours | grep 'skipped 1: signed already'"
            ),
            at,
        )
        .good();
    }
    let found = imactl("verify --cert keys/ima.der ours", at);
    assert_eq!(found.code, 3, "{found:?}");
    imactl("hash --algorithm sha1 ours", at).refused("IMA-917");
}

/// evmctl of Debian 12 knows neither SHA-3 nor version 3: openssl checks those.
#[test]
fn sha3_by_openssl() {
    need_root();
    for kind in ["rsa2048", "p256", "p521"] {
        let directory = with_keys(kind);
        let at = directory.path();
        for (hash, id) in [("sha3-256", "14"), ("sha3-384", "15"), ("sha3-512", "16")] {
            shell(
                &format!(
                    "head -c 100000 /dev/urandom >file; $IMACTL {SIGN} --hash {hash} file
                     $IMACTL {SIGN} --hash {hash} --sidecar file
                     test $(head -c 3 file.sig | od -An -tx1 | tr -d ' ') = 0302{id}
                     tail -c +10 file.sig >signature; openssl x509 -in keys/ima.pem -noout -pubkey >public
                     openssl dgst -{hash} -verify public -signature signature file
                     $IMACTL verify --cert keys/ima.der file; $IMACTL verify --sidecar --cert keys/ima.der file
                     $IMACTL hash --algorithm {hash} --sidecar file
                     test $(od -An -v -tx1 file.sig | tr -d ' \\n') = 04{id}$(openssl dgst -{hash} -r file | cut -d' ' -f1)"
                ),
                at,
            )
            .good();
        }
    }
}

#[test]
fn fs_verity_digests_by_fsverity_signed_for_openssl() {
    need_root();
    for (kind, hash, id) in [
        ("rsa2048", "sha256", "04"),
        ("rsa3072", "sha512", "06"),
        ("p256", "sha256", "04"),
        ("p384", "sha512", "06"),
    ] {
        let directory = with_keys(kind);
        let at = directory.path();
        shell("head -c 1000000 /dev/urandom >file; truncate -s 700M sparse; printf end >>sparse; : >empty", at).good();
        for file in ["file", "sparse", "empty"] {
            // What is signed is type, algorithm and digest, hashed once more (ima_appraise.c, calc_file_id_hash).
            shell(
                &format!(
                    "$IMACTL {SIGN} --verity --hash {hash} --sidecar {file}; $IMACTL {SIGN} --verity --hash {hash} {file}
                     $IMACTL verify --cert keys/ima.der {file} | grep -x '1 good-verity'
                     $IMACTL verify --sidecar --cert keys/ima.der {file}
                     digest=$(fsverity digest --compact --hash-alg={hash} {file})
                     printf '06{id}%s' $digest | sed 's/../\\\\x&/g' | xargs -0 printf >signed
                     test $(wc -c <signed) -gt 33
                     test $(head -c 3 {file}.sig | od -An -tx1 | tr -d ' ') = 0603{id}
                     tail -c +10 {file}.sig >signature; openssl x509 -in keys/ima.pem -noout -pubkey >public
                     openssl dgst -{hash} -verify public -signature signature signed"
                ),
                at,
            )
            .good();
        }
        shell(
            "printf changed | dd of=file bs=1 seek=5000 conv=notrunc",
            at,
        )
        .good();
        let found = imactl("verify --cert keys/ima.der file", at);
        assert_eq!(found.code, 6, "{found:?}");
        for hash in ["sha384", "sha3-256"] {
            imactl(&format!("{SIGN} --verity --hash {hash} file"), at).refused("IMA-907");
        }
    }
}

#[test]
fn portable_evm_signatures() {
    need_root();
    for kind in ["rsa2048", "p256"] {
        let directory = with_keys(kind);
        let at = directory.path();
        shell(
            "echo content >ours; chmod 4750 ours; chown 12:34567 ours
             setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 ours
             setfattr -n user.note -v text ours; cp -a ours theirs",
            at,
        )
        .good();
        imactl(
            &format!("{SIGN} --evm-key keys/ima.key --evm-cert keys/ima.der ours"),
            at,
        )
        .good();
        let sign = [
            "sign",
            "--imasig",
            "--portable",
            "--hashalgo",
            "sha256",
            "--key",
            "keys/ima.key",
            "--keyid-from-cert",
            "keys/ima.pem",
            "theirs",
        ];
        run("evmctl", sign, at).good();
        let get = |file: &str| {
            run(
                "getfattr",
                ["-n", "security.evm", "-e", "hex", "--only-values", file],
                at,
            )
            .good()
            .out
        };
        assert!(!get("ours").is_empty() && !get("theirs").is_empty());
        if kind == "rsa2048" {
            assert_eq!(
                get("ours"),
                get("theirs"),
                "an RSA signature has but one form"
            );
        }
        for file in ["ours", "theirs"] {
            run("evmctl", ["verify", "--key", "keys/ima.der", file], at).good();
        }
        let both = "verify --cert keys/ima.der --evm-cert keys/ima.der ours";
        imactl(&format!("{both} theirs"), at).good();
        shell("chmod 755 ours", at).good();
        let found = imactl(both, at);
        assert_eq!(found.code, 6, "{found:?}");
        assert!(
            found.out.contains("owner, mode or attributes changed"),
            "{found:?}"
        );
        imactl("verify --cert keys/ima.der ours", at).good();
        assert_ne!(
            run("evmctl", ["verify", "--key", "keys/ima.der", "ours"], at).code,
            0
        );
        // The same in an image, tried on a file of the same owner and mode.
        shell(
            "mkdir root; echo content >root/file; chown 12:34 root/file; chmod 640 root/file
             $IMACTL image --from root --key keys/ima.key --cert keys/ima.der --evm-key keys/ima.key \
                 --evm-cert keys/ima.der --out root.img
             e2fsck -fn root.img
             for name in ima evm; do
                 debugfs -R \"ea_get -f $name.value /file security.$name\" root.img
                 setfattr -n security.$name -v 0x$(od -An -v -tx1 $name.value | tr -d ' \\n') root/file
             done
             evmctl verify --key keys/ima.der root/file
             chown 12:35 root/file
             ! evmctl verify --key keys/ima.der root/file",
            at,
        )
        .good();
    }
}
