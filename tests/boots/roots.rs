//! Each way to name the root.

use std::time::Duration;

use ima::signatures::{Attributes, Signatures};
use ima_testbed::Bus;
use ima_testbed::report::Report;
use imactl::initramfs::Compression;

use crate::built::{Kernel, busybox};
use crate::front::SIGNATURES;
use crate::keys::RSA;
use crate::matrix::Action;
use crate::partitions::{Table, guid};
use crate::setup::{
    LABEL, Setup, UUID, assert_booted, assert_no_signatures, assert_refused, console_tail,
};
use crate::tree::Format;

/// The device and the type of what is mounted as the root.
pub fn root_of(report: &Report) -> (&str, &str) {
    let root = report
        .mounts
        .iter()
        .find(|mount| mount.point == "/")
        .expect("a root");
    (&root.source, &root.fstype)
}

/// Boot with the root so named, and find `device` mounted as the root.
fn named(name: &str, device: &str, prepare: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::new();
    setup.root_name = Some(name.to_owned());
    prepare(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(
        root_of(report),
        (device, "ext4"),
        "{}",
        console_tail(&outcome)
    );
}

const SIGNATURE: u32 = 0x1a2b_3c4d;

macro_rules! named {
    ($($(#[$attribute:meta])* $test:ident: $name:expr, $device:literal, $prepare:expr;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                named(&$name, $device, $prepare);
            }
        )+
    };
}

named! {
    by_device: "/dev/vda", "/dev/vda", |_| {};
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_device_partition: "/dev/vda2", "/dev/vda2", |setup| setup.table = Table::Gpt;
    by_number: "8:0", "/dev/sda", |setup| setup.bus = Bus::VirtioScsi;
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_number_partition: "8:2", "/dev/sda2", |setup| {
        setup.bus = Bus::VirtioScsi;
        setup.table = Table::Gpt;
    };
    by_uuid: format!("UUID={UUID}"), "/dev/vda", |_| {};
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_uuid_in_capitals: format!("UUID={}", UUID.to_uppercase()), "/dev/vda", |_| {};
    by_label: format!("LABEL={LABEL}"), "/dev/vda", |_| {};
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_label_on_a_partition: format!("LABEL={LABEL}"), "/dev/vda2", |setup| setup.table = Table::Gpt;
    by_partuuid_gpt: format!("PARTUUID={}", guid(2).1), "/dev/vda2", |setup| setup.table = Table::Gpt;
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_gpt_in_capitals: format!("PARTUUID={}", guid(2).1.to_uppercase()), "/dev/vda2", |setup| {
        setup.table = Table::Gpt;
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_and_offset: format!("PARTUUID={}/PARTNROFF=1", guid(1).1), "/dev/vda2", |setup| {
        setup.table = Table::Gpt;
    };
    by_partuuid_mbr: format!("PARTUUID={SIGNATURE:08x}-02"), "/dev/vda2", |setup| {
        setup.table = Table::Mbr { signature: SIGNATURE };
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_mbr_and_offset: format!("PARTUUID={SIGNATURE:08x}-01/PARTNROFF=1"), "/dev/vda2", |setup| {
        setup.table = Table::Mbr { signature: SIGNATURE };
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_device_logical: "/dev/vda6", "/dev/vda6", |setup| setup.table = Table::Logical { signature: SIGNATURE };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_logical: format!("PARTUUID={SIGNATURE:08x}-06"), "/dev/vda6", |setup| {
        setup.table = Table::Logical { signature: SIGNATURE };
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_logical_and_offset: format!("PARTUUID={SIGNATURE:08x}-05/PARTNROFF=1"), "/dev/vda6", |setup| {
        setup.table = Table::Logical { signature: SIGNATURE };
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partuuid_mbr_without_signature: "PARTUUID=00000000-02", "/dev/vda2", |setup| {
        setup.table = Table::Mbr { signature: 0 };
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_partlabel_of_the_copy_of_a_table: "PARTLABEL=second", "/dev/vda2", |setup| {
        setup.table = Table::GptCopy;
        setup.append("gpt");
    };
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_the_link_of_a_label: r"/dev/disk/by-label/ima\x2droot", "/dev/vda", |_| {};
    of_the_type_that_is_recognised: "/dev/vda", "/dev/vda", |setup| setup.append("rootfstype=auto");
    by_partlabel: "PARTLABEL=second", "/dev/vda2", |setup| setup.table = Table::Gpt;
}

/// The configuration names the root where the command line does not.
#[test]
fn by_configuration() {
    let mut setup = Setup::new();
    setup.root_name = None;
    setup.configure(&format!("root=UUID={UUID}"));
    let outcome = setup.boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", "ext4"));
}

/// The command line has no say where the configuration does not let it.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn by_configuration_alone() {
    let mut setup = Setup::new();
    setup.root_name = Some("/dev/none".into());
    setup.configure("root=/dev/vda");
    setup.configure("cmdline=rootwait");
    let outcome = setup.boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", "ext4"));
    assert!(
        outcome.console_contains("[IMA-251]"),
        "{}",
        console_tail(&outcome)
    );
}

#[test]
fn read_only_unless_asked() {
    for (parameter, option) in [("quiet", "ro"), ("ro", "ro"), ("rw", "rw")] {
        let mut setup = Setup::new();
        setup.append(parameter);
        let outcome = setup.boot();
        let report = assert_booted(&outcome);
        let root = report
            .mounts
            .iter()
            .find(|mount| mount.point == "/")
            .expect("a root");
        assert!(
            root.options.iter().any(|have| have == option),
            "{parameter}: {root:?}"
        );
    }
}

#[test]
fn root_flags_reach_the_file_system() {
    let mut setup = Setup::new();
    setup.append("rootfstype=ext4 rootflags=noatime,errors=panic");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let root = report
        .mounts
        .iter()
        .find(|mount| mount.point == "/")
        .expect("a root");
    assert!(
        root.options.iter().any(|option| option == "noatime"),
        "{root:?}"
    );
    assert!(
        root.super_options
            .iter()
            .any(|option| option == "errors=panic"),
        "{root:?}"
    );
}

/// The guest's time of the first line of the console with this text, in seconds.
fn time_of(console: &str, text: &str) -> f64 {
    let line = console.lines().find(|line| line.contains(text));
    let time = line.and_then(|line| line.split(['[', ']']).nth(1)?.trim().parse().ok());
    time.unwrap_or_else(|| panic!("no “{text}” with its time:\n{console}"))
}

/// A device that comes more than ten seconds late is mounted when it comes, not at the next look; meanwhile the console
/// says what is missing.
#[test]
fn late_device() {
    for bus in [Bus::VirtioBlk, Bus::VirtioScsi] {
        let mut setup = Setup::new();
        setup.bus = bus;
        setup.late = true;
        setup.root_name = Some(format!("LABEL={LABEL}"));
        setup.append("rootwait");
        let (_, outcome) = setup.boot_with(|running| {
            let line = running
                .wait_for_console("ima-init: root: waiting for ")
                .expect("the init says what it waits for");
            assert!(line.contains(LABEL), "{line}");
            // It says so every five seconds, and looks then too: come in between.
            running
                .run_for(Duration::from_millis(7_500))
                .expect("it goes on waiting");
            let disk = running.machine().disks().next().expect("a disk");
            running.plug(disk).expect("the disk is plugged");
        });
        assert_booted(&outcome);
        let came = time_of(&outcome.console, "512-byte logical blocks");
        let mounted = time_of(&outcome.console, "mounted on /rootfs");
        assert!(came > 10.0, "{came}");
        assert!(
            mounted - came < 1.5,
            "{bus:?}: came at {came}, mounted at {mounted}"
        );
    }
}

fn format(format: Format, fstype: &str, prepare: impl FnOnce(&mut Setup)) {
    let mut setup = Setup::new();
    setup.format = format;
    prepare(&mut setup);
    let outcome = setup.boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", fstype));
}

#[test]
fn squashfs() {
    format(Format::Squashfs, "squashfs", |_| {});
}

#[test]
fn erofs() {
    format(Format::Erofs, "erofs", |_| {});
    format(Format::MkfsErofs, "erofs", |_| {});
}

/// As mke2fs makes it, with checksums of its metadata, and signed in the image.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn ext4_signed_afterwards() {
    format(Format::SignedAfterwards, "ext4", |_| {});
}

/// Its driver is a module with modules of its own, loaded in the order that `imactl` found.
#[test]
fn btrfs_from_modules() {
    format(Format::Btrfs, "btrfs", |setup| {
        setup.modules = Kernel::Full.modules_for("btrfs");
    });
}

/// One that a machine has filled, from its module.
fn filled(fstype: &'static str, mkfs: &'static [&'static str], megabytes: u64) -> Setup {
    let mut setup = Setup::new();
    fill(&mut setup, fstype, mkfs, megabytes);
    setup
}

fn fill(setup: &mut Setup, fstype: &'static str, mkfs: &'static [&'static str], megabytes: u64) {
    setup.format = Format::Filled {
        fstype,
        mkfs,
        megabytes,
    };
    setup.modules = Kernel::Full.modules_for(fstype);
}

#[test]
fn xfs_from_a_module() {
    let outcome = filled("xfs", &["mkfs.xfs", "-q"], 320).boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", "xfs"));
}

#[test]
fn f2fs_from_a_module() {
    let outcome = filled("f2fs", &["mkfs.f2fs", "-q"], 128).boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", "f2fs"));
}

/// The same, with a driver that nobody loads until the kernel has modprobe load it, from the initramfs and under the policy.
/// What is not `signed` has no signature.
fn loaded_on_demand(setup: &mut Setup, signed: impl Fn(&str) -> bool) {
    let release = Kernel::Full.release().expect("a release").name;
    let directory = format!("lib/modules/{release}");
    let mut needed = String::new();
    let mut list = Signatures::default();
    let mut sign = |path: &str, content: &[u8]| {
        if signed(path) {
            let ima = RSA.sign(content);
            list.insert(path.into(), Attributes { ima, evm: None });
        }
    };
    for (name, content) in std::mem::take(&mut setup.modules) {
        let path = format!("{directory}/{name}");
        sign(&path, &content);
        setup.put(&path, content);
        needed = format!("{name}: {needed}");
    }
    // One line for the last module, which needs all before it.
    let names: Vec<&str> = needed.split(": ").filter(|name| !name.is_empty()).collect();
    let (last, before) = names.split_first().expect("a module");
    setup.put(
        &format!("{directory}/modules.dep"),
        format!("{last}: {}\n", before.join(" ")),
    );
    let name = last.trim_end_matches(".ko");
    let alias = format!("alias fs-{name} {name}\n");
    setup.put(&format!("{directory}/modules.alias"), alias);
    sign("sbin/modprobe", &busybox());
    setup.programs.push(("sbin/modprobe".to_owned(), busybox()));
    setup.put(SIGNATURES, list.to_text());
}

/// A root whose driver is loaded on demand.
fn f2fs_on_demand(setup: &mut Setup, signed: impl Fn(&str) -> bool) {
    fill(setup, "f2fs", &["mkfs.f2fs", "-q"], 128);
    loaded_on_demand(setup, signed);
}

#[test]
fn f2fs_from_a_module_that_a_program_of_the_initramfs_loads() {
    let mut setup = Setup::new();
    f2fs_on_demand(&mut setup, |_| true);
    let outcome = setup.boot();
    assert_eq!(root_of(assert_booted(&outcome)), ("/dev/vda", "f2fs"));
    let moved = "the initramfs is in a tmpfs";
    assert!(
        outcome.console_contains(moved),
        "{}",
        console_tail(&outcome)
    );
}

/// Of the initramfs as of the root: what has no signature is denied.
#[test]
fn f2fs_from_an_unsigned_module_or_by_an_unsigned_program() {
    for unsigned in ["sbin/modprobe", "f2fs.ko"] {
        let mut setup = Setup::new();
        f2fs_on_demand(&mut setup, |path| !path.ends_with(unsigned));
        let outcome = setup.boot();
        assert_refused(&outcome, "IMA-404", Action::Poweroff);
        let denied = |line: &&str| {
            line.contains("cause=IMA-signature-required") && line.contains(&format!("{unsigned}\""))
        };
        let console = &outcome.console;
        assert!(console.lines().any(|line| denied(&line)), "{console}");
    }
}

/// It has everything but signatures, which it cannot keep.
#[test]
fn vfat_keeps_no_signatures() {
    let outcome = filled("vfat", &["mkfs.vfat", "-F", "32"], 64).boot();
    assert_no_signatures(&outcome);
}

/// However the initramfs is packed.
#[test]
fn compressed_initramfs() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut setup = Setup::new();
        setup.compression = compression;
        assert_booted(&setup.boot());
    }
}
