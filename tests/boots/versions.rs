//! Signatures of version 3, of files and in security.evm, as Linux 7.2 judges them.

use ima::certificate::MlDsa;
use ima_testbed::attempts::{DIRECTORY, names};
use ima_testbed::report::AttemptResult;
use imactl::key::KeyKind;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, source};
use crate::keys::{P256, RSA, leaf};
use crate::matrix::{Action, Check, faults};
use crate::setup::{
    CERTIFICATE, DEFAULT_POLICY, EVM_CERTIFICATE, Setup, assert_booted, assert_refused,
};
use crate::tree::{Format, SWITCH_ROOT, Tree};

/// Linux 7.2 with the default policy, which asks for signatures of version 3.
fn version_3_alone(setup: &mut Setup) {
    setup.kernel = Kernel::Newer;
    let policy = source("policy/ima_policy.default");
    let policy = String::from_utf8(policy).expect("a policy in UTF-8");
    let wanted = policy.replace("appraise_type=imasig", "appraise_type=sigv3");
    assert_ne!(wanted, policy);
    // The kernel records what it is asked to execute.
    setup.put(DEFAULT_POLICY, wanted + "\naudit func=BPRM_CHECK\n");
}

/// A root with portable signatures of version 3 in security.evm, which are the only ones that count.
fn evm_version_3_alone(setup: &mut Setup) {
    setup.kernel = Kernel::Newer;
    setup.configure("evm_sigv3=yes");
    setup.put(EVM_CERTIFICATE, P256.der());
    setup.root.sign_evm(&P256.with_version_3());
}

/// What is signed with version 3 runs; what is not signed, was changed, or has a good signature of version 2, does not.
#[test]
fn version_3_enforced() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts_by(None, &RSA.with_version_3());
    version_3_alone(&mut setup);
    // Right but for its version.
    let tampered = setup.root.file(&format!("{DIRECTORY}/{}", names::TAMPERED));
    tampered.signature = Some(RSA.sign(&tampered.content));
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    for attempt in &report.attempts {
        // The host signs what the guest makes with version 2.
        let version_2 = attempt.name == "new-signed";
        assert_eq!(attempt.passed, !version_2, "{attempt:?}");
        if version_2 {
            assert_eq!(attempt.result, AttemptResult::Failed("EACCES".to_owned()));
        }
    }
    for name in [
        names::SIGNED,
        names::UNSIGNED,
        names::TAMPERED,
        "new-signed",
    ] {
        let made = report.attempts.iter().any(|attempt| attempt.name == name);
        assert!(made, "{name}");
    }
}

/// Where the policy asks for a signature, either version will do, also of an elliptic curve.
#[test]
fn version_3_beside_version_2() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::Newer;
    setup.root = Tree::with_attempts_by(None, &P256.with_version_3());
    let init = setup.root.file(SWITCH_ROOT);
    init.signature = Some(RSA.sign(&init.content));
    setup.put(CERTIFICATE, RSA.der());
    setup.put("etc/keys/x509_ima_other.der", P256.der());
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
}

/// Boots a root whose files are signed with ML-DSA, which the kernel takes for signatures of version 3. The certificate is from the
/// CA in the kernel, which is on P-256.
fn ml_dsa(set: MlDsa, format: Format) {
    let key = leaf(KeyKind::MlDsa(set), &format!("boots {set}"));
    let mut setup = Setup::new();
    setup.kernel = Kernel::Newer;
    setup.format = format;
    setup.root = Tree::with_attempts_by(None, &key);
    setup.put(CERTIFICATE, key.der());
    // The testbed's own key signs what the guest makes.
    setup.put("etc/keys/x509_ima_testbed.der", RSA.der());
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_all_attempts_passed(report);
    let keys = &report.keyrings[".ima"].keys;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

#[test]
fn ml_dsa_65() {
    ml_dsa(MlDsa::MlDsa65, Setup::new().format);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn ml_dsa_44() {
    ml_dsa(MlDsa::MlDsa44, Setup::new().format);
}

/// Its signatures are too long for a block of ext4.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn ml_dsa_87_on_erofs() {
    ml_dsa(MlDsa::MlDsa87, Format::Erofs);
}

/// EVM takes portable signatures of version 3, and no others.
#[test]
fn evm_version_3_enforced() {
    let mut setup = Setup::new();
    evm_version_3_alone(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(report.keyrings[".evm"].keys.len(), 1);
}

/// Boots a root whose switch_root Linux 7.2 denies, as `imactl check` says. It is no row of the matrix: the init asks this kernel
/// with AT_EXECVE_CHECK whether the program would run, and the kernel records that as it records an execution.
fn denied(fault: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::new();
    fault(&mut setup);
    assert_eq!(setup.checked(), Some("IMA-704"), "imactl check");
    let outcome = setup.boot_unchecked();
    assert_refused(&outcome, "IMA-704", Action::Poweroff);
}

#[test]
fn version_2_is_denied_where_the_policy_asks_for_version_3() {
    denied(version_3_alone);
}

#[test]
fn evm_denies_version_2_where_version_3_is_asked_for() {
    denied(|setup| {
        evm_version_3_alone(setup);
        let file = setup.root.file(SWITCH_ROOT);
        let ima = file.signature.as_ref().expect("a signature");
        file.evm = Some(P256.sign_evm(file.mode, ima));
    });
}

faults! {
    version_3_on_an_older_kernel: "IMA-704", Halt, Check::Same, |setup| setup.root.sign(&RSA.with_version_3());
    evm_version_3_on_an_older_kernel: "IMA-507", Poweroff, Check::Same, |setup| {
        evm_version_3_alone(setup);
        setup.kernel = Kernel::Full;
    };
}
