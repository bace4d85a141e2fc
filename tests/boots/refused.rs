//! What must not boot: each fault with its code, the action that the configuration chose, and nothing of the root run.

use std::path::PathBuf;
use std::time::Duration;

use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use ima_testbed::{Ending, Tpm};
use imactl::key::KeyKind;
use imactl::x509::{BasicConstraints, Template, Usage};

use crate::accepted::with_evm;
use crate::built::{Kernel, busybox, scratch};
use crate::keys::{CA, OTHER_CA, P256, Pair, RSA};
use crate::setup::{CERTIFICATE, DEFAULT_POLICY, LABEL, POLICY, Setup, assert_refused, story};
use crate::tree::{INIT, SWITCH_ROOT};

/// Where a fault can be found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// On the build host too, with the same code.
    OnTheDesk,
    /// Only by the machine: it is in the kernel, the root, the command line or what the kernel thinks of a key.
    AtBoot,
}

fn refuse(code: &str, found: Found, fault: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::new();
    fault(&mut setup);
    if found == Found::OnTheDesk {
        assert_eq!(setup.refused_on_the_desk(), Some(code));
    }
    let checked = setup.checked();
    if found == Found::OnTheDesk || IN_THE_IMAGES.contains(&code) {
        assert_eq!(checked, Some(code), "imactl check");
    } else {
        // What only the machine can know; but nothing else is said.
        assert!(
            checked.is_none() || checked == Some(code),
            "imactl check: {checked:?}"
        );
    }
    assert_refused(&setup.boot(), code, &Ending::PowerOff);
}

/// The codes of faults that lie in kernel, initramfs, root or command line: `imactl check` must find them, each with the
/// init's code.
const IN_THE_IMAGES: [&str; 17] = [
    "IMA-103", "IMA-104", "IMA-204", "IMA-205", "IMA-401", "IMA-402", "IMA-501", "IMA-504",
    "IMA-701", "IMA-702", "IMA-703", "IMA-704", "IMA-711", "IMA-712", "IMA-713", "IMA-721",
    "IMA-722",
];

macro_rules! refused {
    ($($name:ident: $code:literal, $found:ident, $fault:expr;)+) => {
        $(
            #[test]
            fn $name() {
                refuse($code, Found::$found, $fault);
            }
        )+
    };
}

fn empty_disk() -> PathBuf {
    let (file, path) = tempfile::NamedTempFile::new_in(scratch())
        .expect("a disk")
        .keep()
        .expect("a disk");
    file.set_len(1 << 20).expect("room for the disk");
    path
}

const DYNAMIC_LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// A program of the host that needs the dynamic loader.
fn dynamic_program() -> Vec<u8> {
    std::fs::read("/bin/true").expect("/bin/true")
}

fn dynamic_loader() -> Vec<u8> {
    std::fs::read(format!("/{DYNAMIC_LOADER}")).expect("the dynamic loader")
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

fn dynamic_init(setup: &mut Setup) {
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

refused! {
    switch_root_missing: "IMA-701", AtBoot, |setup| setup.root.remove(SWITCH_ROOT);
    switch_root_unsigned: "IMA-704", AtBoot, |setup| setup.root.unsign(SWITCH_ROOT);
    switch_root_tampered: "IMA-704", AtBoot, |setup| setup.root.tamper(SWITCH_ROOT);
    switch_root_signed_with_a_key_that_is_not_loaded: "IMA-704", AtBoot, |setup| {
        let program = setup.root.file(SWITCH_ROOT).content.clone();
        setup.root.add_signed(SWITCH_ROOT, 0o755, &program, &P256);
    };
    switch_root_with_the_signature_of_another_file: "IMA-704", AtBoot, |setup| {
        setup.root.file(SWITCH_ROOT).signature = setup.root.file(INIT).signature.clone();
    };
    switch_root_with_a_hash_for_a_signature: "IMA-704", AtBoot, |setup| hash_only(setup, SWITCH_ROOT);
    switch_root_with_half_a_signature: "IMA-704", AtBoot, |setup| {
        let signature = setup.root.file(SWITCH_ROOT).signature.as_mut().expect("a signature");
        signature.truncate(signature.len() / 2);
    };
    switch_root_is_a_script: "IMA-702", AtBoot, |setup| {
        setup.root.add_signed(SWITCH_ROOT, 0o755, b"#!/sbin/init\n", &RSA);
    };
    switch_root_not_executable: "IMA-702", AtBoot, |setup| setup.root.file(SWITCH_ROOT).mode = 0o600;
    switch_root_dynamic: "IMA-703", AtBoot, |setup| {
        setup.root.add_signed(SWITCH_ROOT, 0o755, &dynamic_program(), &RSA);
    };
    switch_root_of_another_machine: "IMA-702", AtBoot, |setup| of_another_machine(setup, SWITCH_ROOT);
    init_of_another_machine: "IMA-712", AtBoot, |setup| of_another_machine(setup, INIT);
    switch_root_is_a_link_to_nowhere: "IMA-701", AtBoot, |setup| {
        setup.root.remove(SWITCH_ROOT);
        // Outside of the root, this is the init itself.
        setup.root.link(SWITCH_ROOT, "/init");
    };
    init_missing: "IMA-711", AtBoot, |setup| setup.root.remove(INIT);
    init_unsigned: "IMA-713", AtBoot, |setup| setup.root.unsign(INIT);
    init_tampered: "IMA-713", AtBoot, |setup| setup.root.tamper(INIT);
    init_with_a_hash_for_a_signature: "IMA-713", AtBoot, |setup| hash_only(setup, INIT);
    init_is_a_directory: "IMA-712", AtBoot, |setup| {
        setup.root.remove(INIT);
        setup.root.add("sbin/init/file", 0o644, b"");
    };
    init_no_program: "IMA-712", AtBoot, |setup| {
        setup.root.add_signed(INIT, 0o755, b"neither ELF nor script\n", &RSA);
    };
    interpreter_missing: "IMA-721", AtBoot, |setup| {
        script_init(setup);
        setup.root.remove("bin/interpreter");
    };
    interpreter_unsigned: "IMA-722", AtBoot, |setup| {
        script_init(setup);
        setup.root.unsign("bin/interpreter");
    };
    interpreter_tampered: "IMA-722", AtBoot, |setup| {
        script_init(setup);
        setup.root.tamper("bin/interpreter");
    };
    interpreter_no_program: "IMA-723", AtBoot, |setup| {
        script_init(setup);
        setup.root.add_signed("bin/interpreter", 0o755, b"neither ELF nor script\n", &RSA);
    };
    dynamic_loader_missing: "IMA-721", AtBoot, |setup| {
        dynamic_init(setup);
        setup.root.remove(DYNAMIC_LOADER);
    };
    dynamic_loader_unsigned: "IMA-722", AtBoot, |setup| {
        dynamic_init(setup);
        setup.root.unsign(DYNAMIC_LOADER);
    };
    dynamic_loader_tampered: "IMA-722", AtBoot, |setup| {
        dynamic_init(setup);
        setup.root.tamper(DYNAMIC_LOADER);
    };

    certificate_missing: "IMA-502", OnTheDesk, |setup| setup.drop_file(CERTIFICATE);
    certificate_empty: "IMA-503", OnTheDesk, |setup| setup.put(CERTIFICATE, "");
    certificate_truncated: "IMA-503", OnTheDesk, |setup| {
        let der = RSA.der();
        setup.put(CERTIFICATE, &der[..der.len() - 1]);
    };
    certificate_garbage: "IMA-503", OnTheDesk, |setup| setup.put(CERTIFICATE, [0x30; 4096]);
    certificate_of_another_ca: "IMA-504", AtBoot, |setup| {
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
        setup.put(CERTIFICATE, stranger.der());
    };
    certificate_self_signed: "IMA-504", AtBoot, |setup| {
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("on its own"), None);
        setup.put(CERTIFICATE, stranger.der());
    };
    certificate_while_the_kernel_trusts_no_ca: "IMA-504", AtBoot, |setup| setup.trusts_ca = false;
    ca_certificate_as_leaf: "IMA-504", OnTheDesk, |setup| setup.put(CERTIFICATE, CA.der());
    certificate_with_explicit_ca_false: "IMA-504", OnTheDesk, |setup| {
        let template = Template {
            basic_constraints: BasicConstraints::ExplicitFalse,
            ..Template::leaf("explicit CA:FALSE")
        };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };
    certificate_that_may_sign_certificates: "IMA-504", OnTheDesk, |setup| {
        let usage = Usage { digital_signature: true, key_cert_sign: true };
        let template = Template { usage: Some(usage), ..Template::leaf("keyCertSign") };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };
    certificate_that_may_not_sign: "IMA-504", OnTheDesk, |setup| {
        let usage = Usage { digital_signature: false, key_cert_sign: false };
        let template = Template { usage: Some(usage), ..Template::leaf("no digitalSignature") };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };

    policy_missing: "IMA-601", OnTheDesk, |setup| setup.drop_file(DEFAULT_POLICY);
    policy_empty: "IMA-602", OnTheDesk, |setup| setup.put(DEFAULT_POLICY, "");
    policy_of_comments: "IMA-602", OnTheDesk, |setup| setup.put(DEFAULT_POLICY, "# nothing\n\n");
    policy_with_a_bad_first_rule: "IMA-603", OnTheDesk, |setup| bad_rule(setup, 0);
    policy_with_a_bad_rule_in_the_middle: "IMA-603", OnTheDesk, |setup| bad_rule(setup, 2);
    policy_with_a_bad_last_rule: "IMA-603", OnTheDesk, |setup| bad_rule(setup, 4);
    policy_with_a_line_of_5000_bytes: "IMA-603", OnTheDesk, |setup| {
        // Cut at a page, its tail is a rule of its own: one that would turn appraisal off.
        let mut line = format!("measure func=BPRM_CHECK{}", " ".repeat(4095 - 23));
        line.push_str("dont_appraise");
        line.push_str(&" ".repeat(5000 - line.len()));
        setup.put(POLICY, [line.as_bytes(), b"\n", RULES.join("\n").as_bytes(), b"\n"].concat());
    };
    policy_with_crlf: "IMA-603", OnTheDesk, |setup| setup.put(DEFAULT_POLICY, RULES.join("\r\n") + "\r\n");
    policy_with_a_nul: "IMA-603", OnTheDesk, |setup| {
        setup.put(DEFAULT_POLICY, RULES.join("\n") + "\ndont_appraise func=BPRM_CHECK\0\n");
    };
    policy_beyond_the_kernel: "IMA-604", AtBoot, |setup| {
        // A rule of the language that this kernel has no security module for.
        setup.put(DEFAULT_POLICY, RULES.join("\n") + "\ndont_measure obj_type=nothing_t\n");
    };

    kernel_without_ima: "IMA-104", AtBoot, |setup| setup.kernel = Kernel::NoIma;
    kernel_without_securityfs: "IMA-103", AtBoot, |setup| setup.kernel = Kernel::NoSecurityfs;
    kernel_without_appraisal: "IMA-605", AtBoot, |setup| setup.kernel = Kernel::NoAppraise;
    kernel_without_appraisal_where_the_canary_is_free: "IMA-605", AtBoot, |setup| {
        setup.kernel = Kernel::NoAppraise;
        setup.put(DEFAULT_POLICY, TMPFS_FREE.to_owned() + &RULES.join("\n") + "\n");
    };
    kernel_without_ima_keyring: "IMA-501", AtBoot, |setup| setup.kernel = Kernel::NoImaKeyring;
    kernel_that_wants_a_signed_policy: "IMA-609", AtBoot, |setup| setup.kernel = Kernel::RequirePolicySignatures;
    tpm_required_and_missing: "IMA-105", AtBoot, |setup| setup.configure("require_tpm=yes");
    appraise_off: "IMA-204", AtBoot, |setup| setup.append("ima_appraise=off");
    appraise_log: "IMA-204", AtBoot, |setup| setup.append("ima_appraise=log");
    appraise_fix: "IMA-204", AtBoot, |setup| setup.append("ima_appraise=fix");

    module_missing: "IMA-301", OnTheDesk, |setup| setup.configure("modules=/lib/modules/none.ko");
    module_of_no_kernel: "IMA-302", AtBoot, |setup| setup.modules = vec![("x.ko".into(), b"no module".to_vec())];

    no_root_named: "IMA-205", AtBoot, |setup| setup.root_name = None;
    root_of_no_form: "IMA-401", AtBoot, |setup| setup.root_name = Some("vda".into());
    root_that_does_not_appear: "IMA-402", AtBoot, |setup| {
        setup.root_name = Some("LABEL=absent".into());
        setup.append("rootwait=2");
    };
    root_without_file_system: "IMA-403", AtBoot, |setup| {
        setup.more_disks = vec![empty_disk()];
        setup.root_name = Some("/dev/vdb".into());
    };
    root_named_by_a_label_that_two_have: "IMA-405", AtBoot, |setup| {
        setup.more_disks = vec![setup.root.image(&setup.format)];
        setup.root_name = Some(format!("LABEL={LABEL}"));
    };
    root_with_bad_flags: "IMA-404", AtBoot, |setup| setup.append("rootflags=no_such_flag");
}

/// Of a configuration with an error nothing counts, its action neither: the default is taken.
fn configuration(line: &str) {
    let mut setup = Setup::new();
    setup.configure(line);
    assert_eq!(setup.refused_on_the_desk(), Some("IMA-202"));
    assert_refused(&setup.boot(), "IMA-202", &Ending::Reboot);
}

#[test]
fn configuration_with_an_unknown_key() {
    configuration("enforcement=yes");
}

#[test]
fn configuration_with_a_bad_value() {
    configuration("enforce=maybe");
}

#[test]
fn configuration_with_a_shell_but_no_debug() {
    configuration("on_failure=shell");
}

/// The rule that frees tmpfs and memfd, as other set-ups have it.
pub const TMPFS_FREE: &str = "dont_appraise fsmagic=0x01021994\n";

pub const RULES: [&str; 5] = [
    "appraise func=MMAP_CHECK euid=0 appraise_type=imasig",
    "appraise func=BPRM_CHECK euid=0 appraise_type=imasig",
    "appraise func=MODULE_CHECK euid=0 appraise_type=imasig",
    "appraise func=FIRMWARE_CHECK euid=0 appraise_type=imasig",
    "appraise func=POLICY_CHECK euid=0 appraise_type=imasig",
];

fn bad_rule(setup: &mut Setup, number: usize) {
    let mut rules = RULES.to_vec();
    rules[number] = "appraise func=BPRM_CHECK euid=0 appraise_type=imasig # with a comment";
    setup.put(DEFAULT_POLICY, rules.join("\n") + "\n");
}

/// The same fault with each action: what the machine does is what the configuration says.
fn action(lines: &[&str], expected: impl FnOnce(&Ending) -> bool) {
    let mut setup = Setup::new();
    setup.root.unsign(SWITCH_ROOT);
    setup.config.clear();
    for line in lines {
        setup.configure(line);
    }
    let outcome = setup.boot();
    assert!(expected(&outcome.ending), "{}", story(&outcome));
    assert_refused(&outcome, "IMA-704", &outcome.ending.clone());
}

#[test]
fn on_failure_reboot() {
    action(&["on_failure=reboot", "failure_delay=0"], |ending| {
        *ending == Ending::Reboot
    });
}

#[test]
fn on_failure_poweroff() {
    action(&["on_failure=poweroff", "failure_delay=0"], |ending| {
        *ending == Ending::PowerOff
    });
}

#[test]
fn on_failure_halt() {
    action(&["on_failure=halt", "failure_delay=0"], |ending| {
        *ending == Ending::Halt
    });
}

#[test]
fn on_failure_panic() {
    action(&["on_failure=panic", "failure_delay=0"], |ending| {
        matches!(ending, Ending::Panic(_))
    });
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
        let ended = running.wait_for("the end", Duration::from_secs(30), |_| None::<()>);
        assert!(
            matches!(ended, Err(ima_testbed::TestbedError::Ended { .. })),
            "{ended:?}"
        );
        running.elapsed() - from
    });
    assert_refused(&outcome, "IMA-704", &Ending::Reboot);
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
            .type_text("echo $((6*7))-is-the-answer; poweroff -f\n")
            .expect("a console");
        running
            .wait_for_console("42-is-the-answer")
            .expect("the shell answers");
    });
    assert_refused(&outcome, "IMA-502", &Ending::PowerOff);
}

/// `_ima` takes any certificate; so none of the real root may come onto it.
#[test]
fn certificate_of_the_root_for_the_untrusted_keyring() {
    refuse("IMA-713", Found::AtBoot, |setup| {
        setup.kernel = Kernel::NoImaKeyring;
        setup.configure("keyring=_ima");
        setup.root.add("etc/keys/x509_ima.der", 0o644, &P256.der());
        let init = setup.root.file(INIT).content.clone();
        setup.root.add_signed(INIT, 0o755, &init, &P256);
    });
}

/// With EVM on, a signature of the content alone is not enough.
#[test]
fn evm_and_files_without_its_signature() {
    let setup = with_evm();
    assert_refused(&setup.boot(), "IMA-704", &Ending::PowerOff);
}

/// A mode that was changed after the file was sealed: one bit more, and the program would be everybody's to execute as its owner.
#[test]
fn evm_and_a_changed_mode() {
    let mut setup = with_evm();
    setup.root.sign_evm(&P256);
    setup.root.file(INIT).mode |= 0o4000;
    assert_refused(&setup.boot(), "IMA-713", &Ending::PowerOff);
}

/// A TPM that is there does not stand for the policy.
#[test]
fn refused_with_a_tpm_too() {
    refuse("IMA-713", Found::AtBoot, |setup| {
        setup.tpm = Tpm::Swtpm;
        setup.configure("require_tpm=yes");
        setup.root.tamper(INIT);
    });
}
