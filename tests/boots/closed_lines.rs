//! Kernels that close the command line themselves, as far as they do: what somebody adds to it with a boot loader.

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PROGRAMS};
use crate::setup::{Setup, assert_booted, root_of};
use crate::tree::Tree;

/// A boot of this kernel, with the attempts of the guest program.
fn with_attempts(kernel: Kernel) -> Setup {
    let mut setup = Setup::new();
    setup.kernel = kernel;
    setup.root = Tree::with_attempts(Some(&kernel.module("dummy")));
    setup
}

/// The initramfs has a program without signature, which the boot loader's command line names.
fn with_program_in_the_initramfs(kernel: Kernel) -> Setup {
    let mut setup = with_attempts(kernel);
    let program = ("bin/sh".to_owned(), PROGRAMS.guest.clone());
    setup.programs.push(program);
    setup.append("rdinit=/bin/sh");
    setup
}

#[test]
fn rdinit_has_no_effect_on_a_built_in_command_line() {
    let setup = with_program_in_the_initramfs(Kernel::FixedCommandLine);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
    // What the boot loader says, and what qemu/kernel/fixed-command-line.config makes of it.
    let console = outcome.console.replace('\r', "");
    for line in [
        "] Command line: console=ttyS0 no_timer_check root=/dev/vda rdinit=/bin/sh\n",
        "] Kernel command line: console=ttyS0 no_timer_check root=/dev/vda\n",
    ] {
        assert!(console.contains(line), "{line}: {console}");
    }
}

/// Without a built-in command line the same program is executed in the place of the init, and no policy is loaded.
#[test]
fn rdinit_leaves_the_init_out() {
    let setup = with_program_in_the_initramfs(Kernel::Full);
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(report.arguments, ["/bin/sh"]);
    assert_eq!(root_of(report).fstype, "rootfs");
    assert_eq!(report.policy.as_deref().unwrap_or_default(), "");
    assert!(!outcome.console_contains("ima-init: "));
}
