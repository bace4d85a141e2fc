//! Boots on other processors than x86-64: all that is enforced there, and a refusal at each end of the chain.

use ima_testbed::Tpm;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{AARCH64_PROGRAMS, Kernel, PROGRAMS};
use crate::keys::RSA;
use crate::matrix::Action;
use crate::setup::{Setup, assert_booted, assert_refused};
use crate::tree::{INIT, Tree};

fn aarch64() -> Setup {
    let mut setup = Setup::new();
    setup.kernel = Kernel::Aarch64;
    setup.init = &AARCH64_PROGRAMS.init;
    setup.root = Tree::with_attempts_of(&AARCH64_PROGRAMS, None, &RSA);
    setup
}

/// The CA is put into a finished `Image`, and the TPM is a platform device.
#[test]
fn aarch64_enforced() {
    let mut setup = aarch64();
    setup.tpm = Tpm::Swtpm;
    let module = Kernel::Aarch64.module("dummy");
    setup.root = Tree::with_attempts_of(&AARCH64_PROGRAMS, Some(&module), &RSA);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert!(outcome.console.contains("aarch64-linux-gnu-gcc"));
    assert!(report.tpm);
    assert_all_attempts_passed(report);
    // All but kexec_load(), which this kernel does not have.
    assert_eq!(report.attempts.len(), 28);
}

#[test]
fn aarch64_refuses_a_tampered_init() {
    let mut setup = aarch64();
    setup.root.tamper(INIT);
    assert_eq!(setup.checked(), Some("IMA-713"));
    assert_refused(&setup.boot(), "IMA-713", Action::Poweroff);
}

/// Its certificate is signed by nobody whom the kernel trusts.
#[test]
fn aarch64_refuses_a_certificate_without_its_ca() {
    let mut setup = aarch64();
    setup.trusts_ca = false;
    assert_eq!(setup.checked(), Some("IMA-504"));
    assert_refused(&setup.boot(), "IMA-504", Action::Poweroff);
}

/// The init of the root is signed, and for another processor.
#[test]
fn aarch64_refuses_a_program_for_x86_64() {
    let mut setup = aarch64();
    setup.root.add_signed(INIT, 0o755, &PROGRAMS.guest, &RSA);
    assert_eq!(setup.checked(), Some("IMA-712"));
    assert_refused(&setup.boot(), "IMA-712", Action::Poweroff);
}
