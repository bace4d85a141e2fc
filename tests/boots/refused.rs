//! The kernels and the real root's programs that must be refused.

use std::time::Duration;

use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use ima_testbed::Tpm;

use crate::built::{Kernel, busybox};
use crate::initramfs::{RULES, TMPFS_FREE, switching};
use crate::keys::{P256, RSA};
use crate::matrix::{Action, Check, SCRIPT, faults, sign_init_with_another_key};
use crate::setup::{
    CERTIFICATE, DEFAULT_POLICY, EVM_CERTIFICATE, Setup, TIME_LIMIT, assert_refused,
};
use crate::tree::{INIT, SWITCH_ROOT};

pub const DYNAMIC_LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// A program of the host that needs the dynamic loader.
fn dynamic_program() -> Vec<u8> {
    std::fs::read("/bin/true").expect("/bin/true")
}

fn dynamic_loader() -> Vec<u8> {
    std::fs::read(format!("/{DYNAMIC_LOADER}")).expect("the dynamic loader")
}

/// A policy without MMAP_CHECK, under which this kernel cannot be asked beforehand. It has a gap, and is permitted all the same.
fn execution_alone(setup: &mut Setup) {
    let rules = ["BPRM_CHECK", "KEXEC_KERNEL_CHECK", "KEXEC_INITRAMFS_CHECK"]
        .map(|hook| format!("appraise func={hook} appraise_type=imasig\n"));
    setup.put(DEFAULT_POLICY, rules.concat());
    setup.configure("enforce=permissive");
}

/// What `ima_appraise=fix` would write: right, but made by anybody.
fn hash_only(setup: &mut Setup, path: &str) {
    let file = setup.root.file(path);
    let digest = HashAlgorithm::Sha256
        .digest(&file.content)
        .expect("SHA-256");
    let algo = HashAlgorithm::Sha256;
    file.signature = Some(ImaXattr::Digest { algo, digest }.encode());
}

/// The program's e_machine says that it is for arm64.
fn of_another_machine(setup: &mut Setup, path: &str) {
    let mut program = setup.root.file(path).content.clone();
    program[18..20].copy_from_slice(&183_u16.to_le_bytes());
    setup.root.add_signed(path, 0o755, &program, &RSA);
}

pub fn dynamic_init(setup: &mut Setup) {
    setup.root.add_signed(INIT, 0o755, &dynamic_program(), &RSA);
    setup
        .root
        .add_signed(DYNAMIC_LOADER, 0o755, &dynamic_loader(), &RSA);
}

fn script_init(setup: &mut Setup) {
    let guest = setup.root.file(INIT).content.clone();
    setup
        .root
        .add_signed("bin/interpreter", 0o755, &guest, &RSA);
    setup
        .root
        .add_signed(INIT, 0o755, b"#!/bin/interpreter\n", &RSA);
}

faults! {
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_ima: "IMA-104", Panic, Check::Same, |setup| setup.kernel = Kernel::NoIma;
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_securityfs: "IMA-103", Poweroff, Check::Same, |setup| setup.kernel = Kernel::NoSecurityfs;
    kernel_without_appraisal: "IMA-605", Reboot, Check::Same, |setup| setup.kernel = Kernel::NoAppraise;
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_appraisal_where_the_canary_is_free: "IMA-605", Halt, Check::Same, |setup| {
        setup.kernel = Kernel::NoAppraise;
        setup.put(DEFAULT_POLICY, TMPFS_FREE.to_owned() + &RULES.join("\n") + "\n");
    };
    kernel_without_ima_keyring: "IMA-501", Panic, Check::Same, |setup| setup.kernel = Kernel::NoImaKeyring;
    kernel_that_wants_a_signed_policy: "IMA-609", Poweroff, Check::Same, |setup| setup.kernel = Kernel::RequirePolicySignatures;
    tpm_required_and_missing: "IMA-105", Reboot, Check::Silent("an image does not show whether the machine has a TPM"), |setup| setup.configure("require_tpm=yes");

    switch_root_missing: "IMA-701", Poweroff, Check::Same, |setup| setup.root.remove(SWITCH_ROOT);
    switch_root_unsigned: "IMA-704", Reboot, Check::Same, |setup| setup.root.unsign(SWITCH_ROOT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_tampered: "IMA-704", Halt, Check::Same, |setup| setup.root.tamper(SWITCH_ROOT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_signed_with_a_key_that_is_not_loaded: "IMA-704", Panic, Check::Same, |setup| {
        let program = setup.root.file(SWITCH_ROOT).content.clone();
        setup.root.add_signed(SWITCH_ROOT, 0o755, &program, &P256);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_with_the_signature_of_another_file: "IMA-704", Poweroff, Check::Same, |setup| {
        setup.root.file(SWITCH_ROOT).signature = setup.root.file(INIT).signature.clone();
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_with_a_hash_for_a_signature: "IMA-704", Reboot, Check::Same, |setup| hash_only(setup, SWITCH_ROOT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_with_half_a_signature: "IMA-704", Halt, Check::Same, |setup| {
        let signature = setup.root.file(SWITCH_ROOT).signature.as_mut().expect("a signature");
        signature.truncate(signature.len() / 2);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_script: "IMA-702", Panic, Check::Same, |setup| {
        setup.root.add_signed(SWITCH_ROOT, 0o755, b"#!/sbin/init\n", &RSA);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_not_executable: "IMA-702", Poweroff, Check::Same, |setup| setup.root.file(SWITCH_ROOT).mode = 0o600;
    switch_root_dynamic: "IMA-703", Reboot, Check::Same, |setup| {
        setup.root.add_signed(SWITCH_ROOT, 0o755, &dynamic_program(), &RSA);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_of_another_machine: "IMA-702", Halt, Check::Same, |setup| of_another_machine(setup, SWITCH_ROOT);
    init_of_another_machine: "IMA-712", Panic, Check::Same, |setup| of_another_machine(setup, INIT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_is_a_link_to_nowhere: "IMA-701", Poweroff, Check::Same, |setup| {
        setup.root.remove(SWITCH_ROOT);
        // Outside of the root, this is the init itself.
        setup.root.link(SWITCH_ROOT, "/init");
    };
    init_missing: "IMA-711", Reboot, Check::Same, |setup| setup.root.remove(INIT);
    init_unsigned: "IMA-713", Halt, Check::Same, |setup| setup.root.unsign(INIT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_tampered: "IMA-713", Panic, Check::Same, |setup| setup.root.tamper(INIT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_with_a_hash_for_a_signature: "IMA-713", Poweroff, Check::Same, |setup| hash_only(setup, INIT);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_is_a_directory: "IMA-712", Reboot, Check::Same, |setup| {
        setup.root.remove(INIT);
        setup.root.add("sbin/init/file", 0o644, b"");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_no_program: "IMA-712", Halt, Check::Same, |setup| {
        setup.root.add_signed(INIT, 0o755, b"neither ELF nor script\n", &RSA);
    };
    interpreter_missing: "IMA-721", Panic, Check::Same, |setup| {
        script_init(setup);
        setup.root.remove("bin/interpreter");
    };
    interpreter_unsigned: "IMA-722", Poweroff, Check::Same, |setup| {
        script_init(setup);
        setup.root.unsign("bin/interpreter");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    interpreter_tampered: "IMA-722", Reboot, Check::Same, |setup| {
        script_init(setup);
        setup.root.tamper("bin/interpreter");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    interpreter_no_program: "IMA-723", Halt, Check::Same, |setup| {
        script_init(setup);
        setup.root.add_signed("bin/interpreter", 0o755, b"neither ELF nor script\n", &RSA);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    dynamic_loader_missing: "IMA-721", Panic, Check::Same, |setup| {
        dynamic_init(setup);
        setup.root.remove(DYNAMIC_LOADER);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    dynamic_loader_unsigned: "IMA-722", Poweroff, Check::Same, |setup| {
        dynamic_init(setup);
        setup.root.unsign(DYNAMIC_LOADER);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    dynamic_loader_tampered: "IMA-722", Reboot, Check::Same, |setup| {
        dynamic_init(setup);
        setup.root.tamper(DYNAMIC_LOADER);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_of_the_root_for_the_untrusted_keyring: "IMA-713", Poweroff, Check::Same, |setup| {
        // `_ima` takes any certificate; so none of the real root may come onto it.
        setup.kernel = Kernel::NoImaKeyring;
        setup.configure("keyring=_ima");
        setup.configure("root_certificates=yes");
        setup.root.add("etc/keys/x509_ima.der", 0o644, &P256.der());
        sign_init_with_another_key(setup);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_and_files_without_its_signature: "IMA-704", Reboot, Check::Same, |setup| {
        // With EVM on, a signature of the content alone is not enough.
        setup.put(EVM_CERTIFICATE, P256.der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_and_a_changed_mode: "IMA-713", Halt, Check::Same, |setup| {
        // One bit more, and the program would be everybody's to execute as its owner.
        setup.put(EVM_CERTIFICATE, P256.der());
        setup.root.sign_evm(&P256);
        setup.root.file(INIT).mode |= 0o4000;
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    refused_with_a_tpm_too: "IMA-713", Reboot, Check::Same, |setup| {
        // A TPM that is there does not stand for the policy.
        setup.tpm = Tpm::Swtpm;
        setup.configure("require_tpm=yes");
        setup.root.tamper(INIT);
    };
    switch_root_denied_only_when_executed: "IMA-801", Reboot, Check::Sooner("IMA-704"), |setup| {
        execution_alone(setup);
        setup.root.unsign(SWITCH_ROOT);
        // With the limits of the log as the real init finds them.
        setup.says = "the kernel says IMA-signature-required";
    };
    init_denied_only_when_executed: "IMA-816", Halt, Check::Sooner("IMA-713"), |setup| {
        execution_alone(setup);
        setup.root.unsign(INIT);
    };
    switch_root_to_a_directory_of_the_initramfs: "IMA-813", Reboot, SCRIPT, |setup| {
        switching(setup, "exec /switch_root /bin /sbin/init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_to_nowhere: "IMA-813", Reboot, SCRIPT, |setup| switching(setup, "exec /switch_root /none /sbin/init");
    switch_root_to_a_directory_of_the_root: "IMA-815", Reboot, SCRIPT, |setup| {
        switching(setup, "exec /switch_root /mnt/usr /sbin/init");
    };
    switch_root_out_of_a_real_root: "IMA-814", Reboot, SCRIPT, |setup| {
        switching(setup, "mount -t devtmpfs dev /mnt/dev\nexec chroot /mnt /usr/sbin/switch_root.static /dev /sbin/init");
    };
}

/// Without a configuration: a reboot, after time enough to read why.
#[test]
fn on_failure_by_default() {
    let mut setup = Setup::new();
    setup.root.unsign(SWITCH_ROOT);
    setup.config.clear();
    let (waited, outcome) = setup.boot_with(|running| {
        running
            .wait_for_console("ima-init: action: reboot in 10 s")
            .expect("the action is announced");
        let from = running.elapsed();
        let ended = running.wait_for("the end", TIME_LIMIT, |_| None::<()>);
        assert!(
            matches!(ended, Err(ima_testbed::TestbedError::Ended { .. })),
            "{ended:?}"
        );
        running.elapsed() - from
    });
    assert_refused(&outcome, "IMA-704", Action::Reboot);
    assert!(waited > Duration::from_secs(8), "{waited:?}");
}

/// The shell needs `debug=yes`, and runs: it is in the initramfs, and the fault comes before the policy.
#[test]
fn on_failure_shell() {
    let mut setup = Setup::new();
    setup.drop_file(CERTIFICATE);
    setup.configure("debug=yes");
    setup.configure("on_failure=shell");
    setup.programs.push(("bin/sh".into(), busybox()));
    let (_, outcome) = setup.boot_with(|running| {
        running
            .wait_for_console("ima-init: action: shell")
            .expect("the action is announced");
        running
            .send_text("echo $((6*7))-is-the-answer; poweroff -f\n")
            .expect("a console");
        running
            .wait_for_console("42-is-the-answer")
            .expect("the shell answers");
    });
    assert_refused(&outcome, "IMA-502", Action::Poweroff);
}
