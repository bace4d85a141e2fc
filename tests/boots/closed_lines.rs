//! Kernels that close the command line themselves, as far as they do: what somebody adds to it with a boot loader.

use ima_testbed::{Disk, Ending, Machine, Outcome};

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PROGRAMS, busybox};
use crate::setup::{Setup, assert_booted, console_tail, root_of};
use crate::tree::{Format, INIT, Tree};

/// Where the initramfs of a test has a shell.
const BUSYBOX: &str = "/bin/busybox";

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
        " root=/dev/vda rdinit=/bin/sh\n",
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

/// A root in which nothing is signed, on a file system whose driver is a module of the initramfs.
fn unsigned_root_from_modules() -> Setup {
    let mut setup = Setup::new();
    setup.format = Format::Btrfs;
    setup.modules = Kernel::Full.modules_for("btrfs");
    setup.root.unsign(INIT);
    setup
}

/// The kernel mounted no root, and nothing was executed.
fn assert_no_root(outcome: &Outcome) {
    let tail = console_tail(outcome);
    let reason = "VFS: Unable to mount root fs on";
    let found = matches!(&outcome.ending, Ending::Panic(message) if message.starts_with(reason));
    assert!(found, "{tail}");
    assert!(!outcome.console_contains("ima-init: "), "{tail}");
    assert!(!outcome.guest_ran(), "{tail}");
}

#[test]
fn file_system_of_a_module_is_not_reached_by_rdinit() {
    let mut setup = unsigned_root_from_modules();
    setup.append("rdinit=/none");
    assert_no_root(&setup.boot_unchecked());
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn file_system_of_a_module_is_not_reached_without_the_initramfs() {
    let setup = unsigned_root_from_modules();
    let image = setup.image();
    let machine = Machine::new(setup.kernel.with_ca())
        .append("root=/dev/vda")
        .disk(Disk::new(&image));
    let outcome = machine.start().expect("the machine starts").finish();
    std::fs::remove_file(image).expect("the image");
    assert_no_root(&outcome);
}

/// Nor does a kernel whose drivers of disks are modules find any root by itself, signed or not. With the modules in the initramfs it
/// boots (`ca_of_the_owner_that_signs_nothing_but_certificates`).
#[test]
fn disk_of_a_module_is_not_reached_by_rdinit() {
    let mut setup = Setup::new();
    setup.kernel = Kernel::Strict;
    setup.modules = Kernel::Strict.modules_for("virtio_blk");
    setup.root.unsign(INIT);
    setup.append("rdinit=/none");
    assert_no_root(&setup.boot_unchecked());
}

/// Whoever writes the disk, too, takes a file system that the kernel has a driver for.
#[test]
fn file_system_of_a_built_in_driver_is_reached_by_rdinit() {
    let mut setup = unsigned_root_from_modules();
    setup.format = Setup::new().format;
    setup.append("rdinit=/none");
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(report.init, None);
    assert_eq!(root_of(report).fstype, "ext4");
}

/// The modules are as good for another program of the initramfs as for the init.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn file_system_of_a_module_is_reached_by_a_shell_in_the_initramfs() {
    let mut setup = unsigned_root_from_modules();
    setup.programs.push((BUSYBOX[1..].to_owned(), busybox()));
    let mut commands = vec!["mkdir /mnt".to_owned()];
    let modules = setup.modules.iter();
    commands.extend(modules.map(|(name, _)| format!("insmod /lib/modules/{name}")));
    commands.push("mount -t devtmpfs devtmpfs /dev".to_owned());
    commands.push("mount -t btrfs /dev/vda /mnt".to_owned());
    let commands: String = commands
        .iter()
        .map(|command| format!("{BUSYBOX} {command}; "))
        .collect();
    setup.append(&format!(
        "rdinit={BUSYBOX} -- sh -c \"{commands} exec {BUSYBOX} switch_root /mnt /sbin/init\""
    ));
    let outcome = setup.boot_unchecked();
    let report = assert_booted(&outcome);
    assert_eq!(report.init, None);
    assert_eq!(root_of(report).fstype, "btrfs");
}
