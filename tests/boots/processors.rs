//! Boots on other processors than x86-64: all that is enforced there, and a refusal at each end of the chain.

use ima_testbed::{Ending, Tpm};

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PROGRAMS};
use crate::keys::{P256, Pair, RSA};
use crate::matrix::Action;
use crate::setup::{EVM_CERTIFICATE, LABEL, Setup, assert_booted, assert_refused, console_tail};
use crate::tree::{INIT, Tree};

fn on(kernel: Kernel) -> Setup {
    let mut setup = Setup::on(kernel);
    setup.root = Tree::with_attempts_of(kernel.programs(), None, &RSA);
    setup
}

/// The CA is put into a finished image of the kernel, and a TPM is a platform device.
fn enforced(kernel: Kernel, tpm: Tpm, compiler: &str, attempts: usize) {
    let mut setup = on(kernel);
    setup.tpm = tpm;
    let module = kernel.module("dummy");
    setup.root = Tree::with_attempts_of(kernel.programs(), Some(&module), &RSA);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(outcome.console.contains(compiler));
    assert_eq!(report.tpm, tpm != Tpm::None);
    assert_all_attempts_passed(report);
    assert_eq!(report.attempts.len(), attempts);
}

fn refuses_a_tampered_init(kernel: Kernel) {
    let mut setup = on(kernel);
    setup.root.tamper(INIT);
    assert_eq!(setup.checked(), Some("IMA-713"));
    assert_refused(&setup.boot(), "IMA-713", Action::Poweroff);
}

/// Its certificate is signed by nobody whom the kernel trusts.
fn refuses_a_certificate_without_its_ca(kernel: Kernel) {
    let mut setup = on(kernel);
    setup.trusts_ca = false;
    assert_eq!(setup.checked(), Some("IMA-504"));
    assert_refused(&setup.boot(), "IMA-504", Action::Poweroff);
}

/// The init of the root is signed, and for another processor.
fn refuses_a_program_for_x86_64(kernel: Kernel) {
    let mut setup = on(kernel);
    setup.root.add_signed(INIT, 0o755, &PROGRAMS.guest, &RSA);
    assert_eq!(setup.checked(), Some("IMA-712"));
    assert_refused(&setup.boot(), "IMA-712", Action::Poweroff);
}

#[test]
fn aarch64_enforced() {
    // All but kexec_load(), which this kernel does not have.
    enforced(Kernel::Aarch64, Tpm::Swtpm, "aarch64-linux-gnu-gcc", 28);
}

#[test]
fn aarch64_refuses_a_tampered_init() {
    refuses_a_tampered_init(Kernel::Aarch64);
}

#[test]
fn aarch64_refuses_a_certificate_without_its_ca() {
    refuses_a_certificate_without_its_ca(Kernel::Aarch64);
}

#[test]
fn aarch64_refuses_a_program_for_x86_64() {
    refuses_a_program_for_x86_64(Kernel::Aarch64);
}

/// A Raspberry Pi 3: the root is on its SD card. What the programs of the root tried is on the console.
#[test]
#[ignore = "a kernel and a machine of its own"]
fn raspberry_pi_enforces_the_policy() {
    let mut setup = on(Kernel::RaspberryPi);
    setup.root_name = Some(format!("LABEL={LABEL}"));
    assert_eq!(setup.checked(), None);
    let outcome = setup.boot();
    assert!(outcome.console_contains("Machine model: Raspberry Pi 3"));
    assert!(outcome.console_contains("is /dev/mmcblk0, ext4"));
    let attempts = |judgement: &str| -> Vec<&str> {
        let lines = outcome.console.lines();
        lines
            .filter_map(|line| line.split_once("attempt ")?.1.split_once(": "))
            .filter(|(_, judged)| judged.starts_with(judgement))
            .map(|(name, _)| name)
            .collect()
    };
    let passed = attempts("passed");
    for name in ["signed", "unsigned", "tampered", "library-unsigned"] {
        assert!(passed.contains(&name), "{name}: {}", console_tail(&outcome));
    }
    // The processor's other cores cannot be stopped, which kexec needs after the appraisal; and without a port nobody signs what is
    // new.
    let failed = attempts("failed");
    assert_eq!(
        failed,
        ["kexec-signed", "new-signed"],
        "{}",
        console_tail(&outcome)
    );
    assert_eq!(outcome.ending, Ending::PowerOff);
}

#[test]
#[ignore = "another form of the refusals of other processors"]
fn raspberry_pi_refuses_a_tampered_init() {
    let mut setup = on(Kernel::RaspberryPi);
    setup.root_name = Some(format!("LABEL={LABEL}"));
    setup.root.tamper(INIT);
    assert_refused(&setup.boot(), "IMA-713", Action::Poweroff);
}

#[test]
fn armv7_enforced() {
    // All but those of kexec, which this kernel does not have.
    enforced(Kernel::Armv7, Tpm::Swtpm, "arm-linux-gnueabihf-gcc", 25);
}

#[test]
#[ignore = "varies the processor of aarch64_refuses_a_tampered_init"]
fn armv7_refuses_a_tampered_init() {
    refuses_a_tampered_init(Kernel::Armv7);
}

#[test]
#[ignore = "varies the processor of aarch64_refuses_a_certificate_without_its_ca"]
fn armv7_refuses_a_certificate_without_its_ca() {
    refuses_a_certificate_without_its_ca(Kernel::Armv7);
}

#[test]
fn armv7_refuses_a_program_for_x86_64() {
    refuses_a_program_for_x86_64(Kernel::Armv7);
}

#[test]
fn riscv64_enforced() {
    // All but those of kexec, which this kernel does not have.
    // QEMU 7.2 does not name the TPM in the machine's device tree, so that the kernel does not find it.
    enforced(Kernel::Riscv64, Tpm::None, "riscv64-linux-gnu-gcc", 25);
}

#[test]
#[ignore = "varies the processor of aarch64_refuses_a_tampered_init"]
fn riscv64_refuses_a_tampered_init() {
    refuses_a_tampered_init(Kernel::Riscv64);
}

#[test]
#[ignore = "varies the processor of aarch64_refuses_a_certificate_without_its_ca"]
fn riscv64_refuses_a_certificate_without_its_ca() {
    refuses_a_certificate_without_its_ca(Kernel::Riscv64);
}

#[test]
#[ignore = "varies the processor of aarch64_refuses_a_program_for_x86_64"]
fn riscv64_refuses_a_program_for_x86_64() {
    refuses_a_program_for_x86_64(Kernel::Riscv64);
}

/// A root with portable signatures in security.evm.
fn armv7_with_evm(key: &Pair) -> Setup {
    let mut setup = on(Kernel::Armv7);
    setup.put(EVM_CERTIFICATE, P256.der());
    setup.root.sign_all_evm(key);
    setup
}

#[test]
#[ignore = "a boot more for each processor"]
fn armv7_takes_portable_signatures_for_32_bits() {
    let outcome = armv7_with_evm(&P256.for_32_bit_kernel()).boot();
    let report = assert_booted(&outcome);
    assert_eq!(report.keyrings[".evm"].keys.len(), 1);
}

/// The kernel hashes an inode's number, which is zero then, in as many bytes as its words have.
#[test]
#[ignore = "a boot more for each processor"]
fn armv7_refuses_portable_signatures_for_64_bits() {
    let setup = armv7_with_evm(&P256);
    assert_eq!(setup.checked(), Some("IMA-704"));
    assert_refused(&setup.boot(), "IMA-704", Action::Poweroff);
}
