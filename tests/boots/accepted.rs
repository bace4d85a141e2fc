//! What must boot, and what is in force then.

use ima::measurement::{Bank, ByteOrder, MeasurementList, PcrMatch};
use ima::policy::Policy;
use ima_testbed::report::{MARK, Report, decode_hex};
use ima_testbed::{Outcome, Tpm};
use imactl::key::{KeyKind, Signer};
use imactl::x509::Template;
use serde_json::Value;

use crate::built::{Kernel, PROGRAMS, busybox, source, util_linux_switch_root};
use crate::initramfs::{RULES, TMPFS_FREE};
use crate::keys::{BUILT_IN_CA, CA, P256, Pair, RSA, leaf, pem};
use crate::setup::{
    CERTIFICATE, DEFAULT_POLICY, EVM_CERTIFICATE, EVM_KEY, MASTER_KEY, POLICY, Setup, TIME_LIMIT,
    assert_booted, console_tail,
};
use crate::tree::{INIT, SWITCH_ROOT, Tree};

/// The report of the init, which it hands to the root.
pub fn init_report(report: &Report) -> &Value {
    report.init.as_ref().expect("/run/ima-init/report.json")
}

pub fn assert_warned(outcome: &Outcome, code: &str) {
    assert!(
        outcome.console_contains(&format!("[{code}]")),
        "{code}: {}",
        console_tail(outcome)
    );
    let report = assert_booted(outcome);
    let warnings = init_report(report)["warnings"]
        .as_array()
        .expect("warnings")
        .clone();
    assert!(
        warnings.iter().any(|warning| warning["code"] == code),
        "{code}: {warnings:?}"
    );
}

pub fn assert_all_attempts_passed(report: &Report) {
    assert!(!report.attempts.is_empty());
    let wrong: Vec<_> = report
        .attempts
        .iter()
        .filter(|attempt| !attempt.passed)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The default set-up on a kernel of another release.
fn enforced_on(kernel: Kernel, release: &str) {
    let mut setup = Setup::on(kernel);
    setup.tpm = Tpm::Swtpm;
    setup.root = Tree::with_attempts(Some(&kernel.module("dummy")));
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(report.kernel.starts_with(release), "{}", report.kernel);
    assert_all_attempts_passed(report);
    assert_eq!(report.attempts.len(), 29);
}

#[test]
fn enforced_on_6_1() {
    enforced_on(Kernel::Older, "6.1.");
}

#[test]
fn enforced_on_7_2() {
    enforced_on(Kernel::Newer, "7.2.");
}

#[test]
fn enforced_on_7_3() {
    enforced_on(Kernel::Newest, "7.3.");
}

/// The whole of it: everything in the report is what was asked for, and nothing unsigned runs.
#[test]
fn everything_signed() {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.configure("require_tpm=yes");
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    setup
        .root
        .add_firmware(&Kernel::Full.module("test_firmware"));
    setup.configure("forward=single");
    setup.append("-- single 'two words'");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    assert_eq!(report.attempts.len(), 31);
    assert_eq!(report.arguments[1..], ["single"]);

    let keys = &report.keyrings[".ima"].keys;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].contains("boots RSA"), "{keys:?}");
    let policy = report
        .policy
        .as_ref()
        .expect("this kernel lets the policy be read");
    // As the init reads it back: the kernel shows the words of a rule in an order that it does not always take itself.
    let shown = Policy::parse_known(policy.as_bytes());
    let written = Policy::parse(&source("policy/ima_policy.default")).expect("a policy");
    assert!(shown.rules().eq(written.rules()), "{policy}");

    // The real system has the API file systems, and its own root, read-only.
    for (point, fstype) in [
        ("/dev", "devtmpfs"),
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/run", "tmpfs"),
    ] {
        let mount = report.mounts.iter().find(|mount| mount.point == point);
        assert_eq!(
            mount.map(|mount| mount.fstype.as_str()),
            Some(fstype),
            "{point}"
        );
    }
    assert!(
        !report
            .mounts
            .iter()
            .any(|mount| mount.point.contains("rootfs")),
        "{:?}",
        report.mounts
    );

    let init = init_report(report);
    assert_eq!(init["version"], 1);
    assert_eq!(init["tpm"], true);
    assert_eq!(init["enforce"], "required");
    assert_eq!(init["kernel"], report.kernel.as_str());
    assert_eq!(init["root"]["device"], "/dev/vda");
    assert_eq!(init["root"]["fstype"], "ext4");
    assert_eq!(init["switch_root"], "/usr/sbin/switch_root.static");
    assert_eq!(init["init"], "/sbin/init");
    let key = &init["keys"][0];
    assert_eq!(key["keyring"], ".ima");
    assert_eq!(key["accepted"], true);
    assert_eq!(key["key_id"], RSA.certificate.key_id().to_string());
    assert_eq!(init["policy"]["path"], "/etc/ima/ima_policy.default");
    assert_eq!(
        init["policy"]["proofs"],
        serde_json::json!(["record", "read-back", "canary"])
    );
    assert_eq!(init["warnings"].as_array().map(Vec::len), Some(0), "{init}");

    assert_eq!(measured(report)[0], "boot_aggregate");
}

/// A root whose files are signed with `key`, and the certificate that comes with it.
fn signed_with(key: &Pair) -> Setup {
    let mut setup = Setup::new();
    setup.root.sign(key);
    setup.put(CERTIFICATE, key.der());
    setup
}

fn key_kind(kind: KeyKind) {
    let key = leaf(kind, &format!("boots {kind}"));
    let outcome = signed_with(&key).boot();
    let report = assert_booted(&outcome);
    assert_eq!(
        init_report(report)["keys"][0]["key_id"],
        key.certificate.key_id().to_string()
    );
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn rsa_3072() {
    key_kind(KeyKind::Rsa(3072));
}

#[test]
fn rsa_4096() {
    key_kind(KeyKind::Rsa(4096));
}

#[test]
fn ecdsa_p256() {
    key_kind(KeyKind::P256);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn ecdsa_p384() {
    key_kind(KeyKind::P384);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn certificate_as_pem() {
    let mut setup = Setup::new();
    setup.drop_file(CERTIFICATE);
    setup.put("etc/keys/x509_ima.pem", pem(&RSA.der()));
    assert_booted(&setup.boot());
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn certificate_in_the_directory() {
    let mut setup = Setup::new();
    setup.drop_file(CERTIFICATE);
    setup.put("etc/keys/ima/any-name.der", RSA.der());
    assert_booted(&setup.boot());
}

/// Both count: switch_root is signed with one, init with the other.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn two_certificates() {
    let mut setup = Setup::new();
    setup.put("etc/keys/x509_ima_second.der", P256.der());
    let init = setup.root.file(INIT).content.clone();
    setup.root.add_signed(INIT, 0o755, &init, &P256);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(report.keyrings[".ima"].keys.len(), 2);
}

/// One bad certificate among good ones is said and passed over.
#[test]
fn one_certificate_of_two() {
    let mut setup = Setup::new();
    setup.put("etc/keys/x509_ima_bad.der", "no certificate");
    let outcome = setup.boot();
    assert_warned(&outcome, "IMA-554");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn expired_certificate() {
    let template = Template {
        not_before: 1_000_000_000,
        not_after: 1_100_000_000,
        ..Template::leaf("expired")
    };
    let key = Pair::new(KeyKind::P256, &template, Some(&CA));
    assert_warned(&signed_with(&key).boot(), "IMA-552");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn sample_certificate() {
    let template = Template {
        sample: true,
        ..Template::leaf("sample")
    };
    let key = Pair::new(KeyKind::P256, &template, Some(&CA));
    assert_warned(&signed_with(&key).boot(), "IMA-551");
}

/// A certificate of the real root that the CA has signed is as good as one of the initramfs where it is wanted; that others are
/// revoked changes nothing.
#[test]
fn certificate_of_the_root() {
    let mut setup = Setup::new();
    setup.configure("root_certificates=yes");
    setup.configure("revoked_keys=00112233");
    setup.configure(&format!("revoked_serials=01 00112233/{}", P256.serial()));
    setup.trust_root_s_own(&P256);
    assert_booted(&setup.boot());
}

/// A revoked certificate of the real root, which the kernel would take, is not offered to it.
#[test]
fn revoked_certificate_of_the_root_is_warned_of() {
    let mut setup = Setup::new();
    setup.configure("root_certificates=yes");
    setup.configure(&format!("revoked_serials={}", P256.serial()));
    setup.root.add("etc/keys/x509_ima.der", 0o644, &P256.der());
    let outcome = setup.boot();
    assert_warned(&outcome, "IMA-558");
    assert_eq!(assert_booted(&outcome).keyrings[".ima"].keys.len(), 1);
}

/// Any user can have /proc/keys show lines that forge keyrings: the init finds the kernel's own all the same.
#[test]
fn forged_lines_in_the_list_of_keys() {
    let mut setup = Setup::new();
    setup.put(EVM_CERTIFICATE, P256.der());
    setup.root.sign_evm(&P256);
    setup
        .programs
        .push(("guest".into(), PROGRAMS.guest.clone()));
    crate::initramfs::script(&mut setup, "/guest forge-keys\nexec /ima-init");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(report.keyrings[".ima"].keys.len(), 1);
    assert_eq!(report.keyrings[".evm"].keys.len(), 1);
}

/// What the init sets of the kernel's log, it gives back: the real init finds what it would find without.
#[test]
fn limits_of_the_log_are_given_back() {
    for (line, devkmsg, ratelimit) in [
        ("quiet", "ratelimit", "5"),
        (
            "printk.devkmsg=off sysctl.kernel.printk_ratelimit=7",
            "off",
            "7",
        ),
    ] {
        let mut setup = Setup::new();
        setup.append(line);
        let outcome = setup.boot();
        let limits = &assert_booted(&outcome).log_limits;
        assert_eq!(limits["printk_devkmsg"], devkmsg, "{line}");
        assert_eq!(limits["printk_ratelimit"], ratelimit, "{line}");
    }
}

/// Where enforcement is not required, an EVM that the command line switched off is a warning.
#[test]
fn evm_switched_off_where_it_is_permitted() {
    let mut setup = with_evm();
    setup.root.sign_evm(&P256);
    setup.configure("enforce=permissive");
    setup.append("initcall_blacklist=init_evm");
    assert_warned(&setup.boot(), "IMA-556");
}

/// A further CA, signed by the kernel's, comes from the real root onto .secondary_trusted_keys and may sign for `.ima`.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn secondary_certificate_of_the_root() {
    let secondary = Pair::new(KeyKind::P256, &Template::ca("boots second CA"), Some(&CA));
    let key = Pair::new(
        KeyKind::P256,
        &Template::leaf("of the second CA"),
        Some(&secondary),
    );
    let mut setup = Setup::new();
    setup.configure("root_certificates=yes");
    setup
        .root
        .add("etc/keys/x509_secondary_1.der", 0o644, &secondary.der());
    setup.root.add("etc/keys/x509_ima_2.der", 0o644, &key.der());
    let init = setup.root.file(INIT).content.clone();
    setup.root.add_signed(INIT, 0o755, &init, &key);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let keys = &report.keyrings[".secondary_trusted_keys"].keys;
    assert!(
        keys.iter().any(|key| key.contains("boots second CA")),
        "{keys:?}"
    );
    assert_eq!(report.keyrings[".ima"].keys.len(), 2);
}

/// With a certificate for `.evm` owner, mode and attributes count too: the root carries portable signatures.
#[test]
fn evm() {
    let mut setup = with_evm();
    setup.root.sign_evm(&P256);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let keys = &report.keyrings[".evm"].keys;
    assert!(
        keys.len() == 1 && keys[0].contains("boots P-256"),
        "{keys:?}"
    );
}

/// With EVM's HMAC key the kernel itself gives a new file its security.evm with its security.ima; without, nobody can give it
/// the latter.
#[test]
fn evm_hmac_key() {
    let evm = |keys: &dyn Fn(&mut Setup)| {
        let mut setup = with_evm();
        setup.root.sign_evm(&P256);
        setup.append("rw testbed.mark=yes");
        keys(&mut setup);
        let (outcome, [before, after]) = setup.boot_on_a_disk();
        assert_booted(&outcome);
        let tree = imactl::image::read_ext4(&after).expect("the root");
        for path in [before, after] {
            std::fs::remove_file(path).expect("a disk");
        }
        let mark = tree.get(MARK.trim_start_matches('/').as_bytes());
        let xattrs = &mark.expect("the mark").xattrs;
        (outcome, xattrs.get(&b"security.evm"[..]).cloned())
    };
    let (_, without) = evm(&|_| ());
    assert_eq!(without, None);
    // A key of the root's, which the command line names, is not loaded: whoever writes the disk could seal any file.
    let (outcome, attacker_s) = evm(&crate::initramfs::hmac_of_the_root);
    assert_eq!(attacker_s, None);
    assert_warned(&outcome, "IMA-251");
    let hmacs = [
        evm(&crate::initramfs::hmac),
        // As dracut's modules have them elsewhere; the certificate too.
        evm(&|setup| {
            crate::initramfs::hmac(setup);
            for (from, to) in [
                (EVM_KEY, "etc/keys/other.blob"),
                (MASTER_KEY, "etc/keys/master.blob"),
                (EVM_CERTIFICATE, "etc/keys/of-evm.der"),
            ] {
                let file = setup.initramfs.remove(from).expect(from);
                setup.put(to, file);
            }
            setup.configure("cmdline=root rw evmkey masterkey evmx509");
            setup.append("evmkey=/etc/keys/other.blob masterkey=/etc/keys/master.blob evmx509=/etc/keys/of-evm.der");
        }),
    ];
    for (outcome, value) in hmacs {
        // EVM_XATTR_HMAC and a SHA-1 (security/integrity/integrity.h).
        let value = value.expect("security.evm");
        assert_eq!((value.len(), value[0]), (21, 2), "{value:?}");
        assert!(
            outcome.console_contains("keys: EVM: HMAC key loaded"),
            "{}",
            console_tail(&outcome)
        );
        let keyrings = &assert_booted(&outcome).keyrings;
        assert_eq!(keyrings[".evm"].keys.len(), 1);
    }
}

/// A boot with a certificate for EVM in its initramfs.
fn with_evm() -> Setup {
    let mut setup = Setup::new();
    setup.put(EVM_CERTIFICATE, P256.der());
    setup
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn strange_certificate_of_the_root() {
    let mut setup = Setup::new();
    setup.configure("root_certificates=yes");
    let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), None);
    setup
        .root
        .add("etc/keys/x509_ima.der", 0o644, &stranger.der());
    assert_warned(&setup.boot(), "IMA-553");
}

/// Each policy that is shipped: it boots, and what must not run does not.
fn policy(name: &str, change: impl FnOnce(&mut Setup)) -> Outcome {
    let mut setup = Setup::new();
    setup.put(DEFAULT_POLICY, source(&format!("policy/{name}")));
    setup.root = Tree::with_attempts(None);
    change(&mut setup);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
    outcome
}

/// The names of what was measured, and that the TPM holds it.
fn measured(report: &Report) -> Vec<String> {
    let bytes = decode_hex(&report.measurements_binary).expect("a list");
    let list =
        MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::Little).expect("a list");
    assert!(!report.pcr10.is_empty());
    for (bank, pcr) in &report.pcr10 {
        let pcr = decode_hex(pcr).expect("a PCR");
        let bank = Bank::from_name(bank).expect("a bank");
        assert_ne!(list.match_pcr(bank, 10, &pcr), PcrMatch::No, "{bank}");
    }
    let names = list.entries().iter().filter_map(|entry| entry.name());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[test]
fn policy_default() {
    policy("ima_policy.default", |_| {});
}

/// The root's programs and the keys are in the measurement list, and in the TPM.
#[test]
fn policy_measure() {
    let outcome = policy("ima_policy.measure", |setup| setup.tpm = Tpm::Swtpm);
    let names = measured(assert_booted(&outcome));
    for suffix in [
        "/switch_root.static",
        "/sbin/init",
        ".builtin_trusted_keys",
        ".ima",
    ] {
        assert!(
            names.iter().any(|name| name.ends_with(suffix)),
            "{suffix}: {names:?}"
        );
    }
}

/// A TPM 1.2 has SHA-1 alone, and the list is in it.
#[test]
fn tpm_1_2() {
    let outcome = policy("ima_policy.measure", |setup| {
        setup.tpm = Tpm::Swtpm12;
        setup.configure("require_tpm=yes");
    });
    let report = assert_booted(&outcome);
    assert!(measured(report).len() > 2);
    assert_eq!(report.pcrs.keys().collect::<Vec<_>>(), ["sha1"]);
    assert_eq!(init_report(report)["tpm"], true);
}

/// What is read is appraised too. Here everything that must be readable is signed.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn policy_files() {
    let outcome = policy("ima_policy.files", |setup| {
        setup.append("testbed.files=appraised")
    });
    let report = assert_booted(&outcome);
    for name in ["file-signed", "file-unsigned"] {
        assert!(
            report.attempts.iter().any(|attempt| attempt.name == name),
            "{name}"
        );
    }
}

/// There is a test for every policy that is shipped.
#[test]
fn every_policy_is_booted() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/policy");
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .expect("policies")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "ima_policy.default",
            "ima_policy.euid",
            "ima_policy.files",
            "ima_policy.measure"
        ]
    );
}

#[test]
fn custom_policy_over_the_default() {
    let mut setup = Setup::new();
    let mut text = source("policy/ima_policy.default");
    text.extend_from_slice(b"dont_measure fowner=4242\n");
    setup.put(POLICY, text);
    setup.put(DEFAULT_POLICY, "this would be refused\n");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(
        report
            .policy
            .as_ref()
            .expect("a policy")
            .contains("fowner=4242")
    );
    assert_eq!(init_report(report)["policy"]["path"], "/etc/ima/ima_policy");
}

/// An empty custom policy does not hide the default one.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn empty_custom_policy() {
    let mut setup = Setup::new();
    setup.put(POLICY, "");
    let outcome = setup.boot();
    assert_eq!(
        init_report(assert_booted(&outcome))["policy"]["path"],
        "/etc/ima/ima_policy.default"
    );
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn policy_without_final_newline() {
    let mut setup = Setup::new();
    let mut text = source("policy/ima_policy.default");
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    setup.put(DEFAULT_POLICY, text);
    assert_booted(&setup.boot());
}

/// A policy that frees tmpfs frees the canary too: it is warned of, and that the kernel appraises is proved otherwise.
#[test]
fn policy_that_frees_tmpfs() {
    let mut setup = Setup::new();
    setup.put(
        DEFAULT_POLICY,
        TMPFS_FREE.to_owned() + &RULES.join("\n") + "\n",
    );
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let proofs = &init_report(report)["policy"]["proofs"];
    assert_eq!(
        *proofs,
        serde_json::json!(["record", "read-back", "appraisal"])
    );
    assert_warned(&outcome, "IMA-656");
}

/// A policy that appraises nothing is loaded where enforcement is not required, with a warning.
#[test]
fn policy_that_only_measures_where_enforcement_is_not_required() {
    let mut setup = Setup::new();
    setup.configure("enforce=permissive");
    setup.put(POLICY, "measure func=BPRM_CHECK\n");
    setup.root.unsign(INIT);
    assert_warned(&setup.boot(), "IMA-657");
}

/// The policy of meta-integrity is loaded where the configuration asks for it, with a warning; and this is what it leaves open:
/// whatever a process does that has another effective user ID, with or without capabilities, and a FUSE server's files.
#[test]
fn policy_for_root_alone_lets_other_users_run_what_is_unsigned() {
    let mut setup = Setup::new();
    setup.configure("cover=root");
    setup.put(POLICY, source("policy/ima_policy.euid"));
    setup.root = Tree::with_attempts(None);
    let outcome = setup.boot();
    assert_warned(&outcome, "IMA-658");
    let report = assert_booted(&outcome);
    let open: Vec<&str> = report
        .attempts
        .iter()
        .filter(|attempt| !attempt.passed)
        .map(|attempt| attempt.name.as_str())
        .collect();
    assert_eq!(
        open,
        [
            "user-unsigned",
            "ambient-capabilities-unsigned",
            "file-capabilities-unsigned",
            "ambient-capabilities-module",
            "ambient-capabilities-policy",
            "fuse",
            "fuse-library",
        ]
    );
}

/// Where the policy does not appraise policies, or only those of an owner whom the disk's writer chooses, the kernel would take any:
/// those of the real root are left alone.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn policy_of_the_root_while_policies_are_not_appraised() {
    let text = String::from_utf8(source("policy/ima_policy.default")).expect("text");
    let rule = "appraise func=POLICY_CHECK";
    for change in ["# ", "appraise func=POLICY_CHECK fowner=0"] {
        let mut setup = Setup::new();
        setup.put(POLICY, text.replace(rule, change));
        setup.configure("enforce=permissive");
        let path = "etc/ima/ima_policy";
        setup.root.add(path, 0o644, b"dont_appraise fowner=4243\n");
        setup.root.file(path).owner = 1;
        let outcome = setup.boot();
        assert_warned(&outcome, "IMA-654");
        let policy = assert_booted(&outcome).policy.clone();
        assert!(!policy.expect("a policy").contains("fowner=4243"));
    }
}

const MORE: &[u8] = b"dont_measure fowner=4243\n";

fn root_policy(path: &str, prepare: impl FnOnce(&mut Tree), taken: bool) {
    let mut setup = Setup::new();
    setup.root.add_signed(path, 0o644, MORE, &RSA);
    prepare(&mut setup.root);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let policy = report.policy.as_ref().expect("a policy");
    assert_eq!(policy.contains("fowner=424"), taken, "{policy}");
    let additional = &init_report(report)["policy"]["additional"][0];
    assert_eq!(
        additional["path"],
        format!("/rootfs/{path}"),
        "{}",
        init_report(report)
    );
    assert_eq!(additional["accepted"], taken);
    if !taken {
        assert_warned(&outcome, "IMA-652");
    }
}

#[test]
fn policy_of_the_root_signed() {
    root_policy("etc/ima/ima_policy", |_| {}, true);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn policy_of_the_root_for_systemd_signed() {
    root_policy("etc/ima/ima-policy", |_| {}, true);
}

#[test]
fn policy_of_the_root_unsigned() {
    let path = "etc/ima/ima_policy";
    root_policy(path, |root| root.unsign(path), false);
}

#[test]
fn policy_of_the_root_tampered() {
    let path = "etc/ima/ima_policy";
    root_policy(
        path,
        |root| root.file(path).content = b"dont_appraise fowner=4249\n".to_vec(),
        false,
    );
}

/// It cannot be opened, and is in the report all the same.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn policy_of_the_root_that_cannot_be_opened() {
    let path = "etc/ima/ima_policy";
    for target in ["/nowhere", "/etc"] {
        let unopenable = |root: &mut Tree| {
            root.remove(path);
            root.link(path, target);
        };
        root_policy(path, unopenable, false);
    }
}

/// The host's systemd as the init, with its libraries, and this policy for it to load.
fn with_systemd(policy: &[u8]) -> Setup {
    const SYSTEMD: &str = "/usr/lib/systemd/systemd";
    let mut setup = Setup::new();
    let listed = std::process::Command::new("ldd").arg(SYSTEMD).output();
    let listed = String::from_utf8(listed.expect("ldd").stdout).expect("text");
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in libraries.chain([SYSTEMD]) {
        let content = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let path = path.trim_start_matches('/');
        setup.root.add_signed(path, 0o755, &content, &RSA);
    }
    setup.root.remove(INIT);
    setup.root.link(INIT, SYSTEMD);
    setup
        .root
        .add_signed("etc/ima/ima-policy", 0o644, policy, &RSA);
    setup
}

/// The boot until the console shows the text.
fn until(setup: &Setup, text: &str) -> Outcome {
    let (seen, outcome) = setup.boot_and_kill(|running| {
        running.wait_for(text, TIME_LIMIT, |seen| {
            seen.console.contains(text).then_some(())
        })
    });
    assert!(seen.is_ok(), "no “{text}”: {}", console_tail(&outcome));
    outcome
}

/// systemd loads a policy of its own, as the init does before it: the kernel takes it twice.
#[test]
fn systemd_loads_its_policy() {
    let setup = with_systemd(MORE);
    assert_eq!(setup.checked(), None);
    let outcome = until(&setup, "Successfully loaded the IMA custom policy");
    assert!(
        !outcome.console_contains("Failed to load IMA policy"),
        "{}",
        console_tail(&outcome)
    );
}

/// Where the kernel refuses that policy, systemd stops the boot, which `imactl check` says beforehand.
#[test]
fn systemd_stops_over_a_policy_that_is_refused() {
    let path = "etc/ima/ima-policy";
    let mut unsigned = with_systemd(MORE);
    unsigned.root.unsign(path);
    for setup in [unsigned, with_systemd(b"measure func=NOTHING\n")] {
        assert_eq!(setup.checked(), Some("IMA-937"));
        until(&setup, "Failed to load IMA policy");
    }
}

#[test]
fn switch_root_of_util_linux() {
    let mut setup = Setup::new();
    setup
        .root
        .add_signed(SWITCH_ROOT, 0o755, &util_linux_switch_root(), &RSA);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(report.init.is_some(), "/run came along");
}

/// Busybox takes its applet from the name, and leaves the API file systems behind: the guest program mounts its own.
#[test]
fn switch_root_of_busybox() {
    let mut setup = Setup::new();
    setup.configure("switch_root=/sbin/switch_root");
    setup
        .root
        .add_signed("sbin/switch_root", 0o755, &busybox(), &RSA);
    assert_booted(&setup.boot());
}

/// No signal is ignored or blocked for the real init because one of the programs before it did so for itself.
#[test]
fn no_signal_is_left_ignored_for_the_init() {
    let mut setup = Setup::new();
    // Not a shell, which ignores some itself.
    setup.configure("init=/bin/grep");
    setup.root.add_signed("bin/grep", 0o755, &busybox(), &RSA);
    // The configuration takes names without slashes.
    setup.root.link("status", "/proc/self/status");
    setup.configure("forward=Sig status");
    setup.append("-- Sig status");
    let outcome = setup.boot();
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(
            outcome.console_contains(line),
            "{line}: {}",
            console_tail(&outcome)
        );
    }
}

/// As Debian has it: an absolute link, which leads somewhere else outside of the root.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn init_is_an_absolute_link() {
    let mut setup = Setup::new();
    let guest = setup.root.file(INIT).content.clone();
    setup.root.remove(INIT);
    setup
        .root
        .add_signed("lib/systemd/systemd", 0o755, &guest, &RSA);
    setup.root.link(INIT, "/lib/systemd/systemd");
    assert_booted(&setup.boot());
}

#[test]
fn init_argument_of_the_command_line_is_ignored() {
    let mut setup = Setup::new();
    setup.append("init=/bin/other");
    let guest = setup.root.file(INIT).content.clone();
    setup.root.add_signed("bin/other", 0o755, &guest, &RSA);
    let outcome = setup.boot();
    assert_eq!(assert_booted(&outcome).arguments[0], "/sbin/init");
    assert_warned(&outcome, "IMA-251");
}

#[test]
fn init_argument_of_the_command_line_where_it_may() {
    let mut setup = Setup::new();
    setup.append("init=/bin/other");
    setup.configure("cmdline=root init");
    let guest = setup.root.file(INIT).content.clone();
    setup.root.add_signed("bin/other", 0o755, &guest, &RSA);
    let outcome = setup.boot();
    assert_eq!(assert_booted(&outcome).arguments[0], "/bin/other");
}

#[test]
fn without_tpm_where_none_is_required() {
    let mut setup = Setup::new();
    setup.configure("require_tpm=no");
    let outcome = setup.boot();
    assert_eq!(init_report(assert_booted(&outcome))["tpm"], false);
}

#[test]
fn appraise_log_where_it_is_permitted() {
    let mut setup = Setup::new();
    setup.configure("enforce=permissive");
    setup.append("ima_appraise=log");
    assert_warned(&setup.boot(), "IMA-252");
}

/// The CA is in the kernel since that was built, and `imactl check` finds it there.
#[test]
fn ca_that_was_compiled_in() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::BuiltInCa;
    setup.trusts_ca = false;
    // For the key that signs everything.
    let issuer = (&*BUILT_IN_CA.key as &dyn Signer, &BUILT_IN_CA.certificate);
    let certificate = Template::leaf("boots RSA").sign(&*RSA.key, Some(issuer), None);
    setup.put(CERTIFICATE, certificate.expect("a certificate").der());
    setup.root = Tree::with_attempts(None);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    let keys = &report.keyrings[".builtin_trusted_keys"].keys;
    assert!(
        keys.len() == 1 && keys[0].contains("built-in CA"),
        "{keys:?}"
    );
}

/// Stock kernels of Debian have no `.ima`: the configuration must say that `_ima` is good enough.
#[test]
fn untrusted_keyring() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::NoImaKeyring;
    setup.trusts_ca = false;
    setup.configure("keyring=_ima");
    setup.root = Tree::with_attempts(None);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
    assert_warned(&outcome, "IMA-555");
}

/// A kernel that takes only signed policies gets one: the signature is packed beside it.
#[test]
fn signed_policy_of_the_initramfs() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::RequirePolicySignatures;
    let policy = source("policy/ima_policy.default");
    setup.put(&format!("{DEFAULT_POLICY}.sig"), RSA.sign(&policy));
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(
        init_report(report)["policy"]["path"],
        "/etc/ima/ima_policy.default"
    );
}

/// Where the policy cannot be read back, the other proofs stand.
#[test]
fn policy_that_can_be_written_once() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::WriteOnce;
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(report.policy, None);
    assert_eq!(
        init_report(report)["policy"]["proofs"],
        serde_json::json!(["record", "canary"])
    );
}
