//! Roots on flash: UBI over a disk that the kernel takes for a flash device (block2mtd), UBIFS in a volume of it, and squashfs.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use imactl::check::Root;
use imactl::select::FileSystem;

use crate::accepted::assert_all_attempts_passed;
use crate::built::Kernel;
use crate::matrix::{Action, Check, faults};
use crate::roots::root_of;
use crate::setup::{Setup, assert_booted, assert_refused, console_tail};
use crate::tree::{Format, INIT, Tree, run};

/// The volume of the root, as the kernel names it.
pub const VOLUME: &str = "ubi0:rootfs";

/// The length of the flash's eraseblocks, and what UBI leaves of one, in bytes: its two headers have 64 bytes each.
const ERASEBLOCK: usize = 128 << 10;
const LOGICAL: usize = ERASEBLOCK - 2 * HEADER;
const HEADER: usize = 64;

/// How many eraseblocks the flash has.
const ERASEBLOCKS: usize = 768;

/// The length of a volume that can be written to, in bytes.
const VOLUME_LENGTH: usize = 640 * LOGICAL;

/// The parameters with which the kernel takes the disk for flash, and attaches it to UBI.
pub fn attach(disk: &str) -> String {
    format!("block2mtd.block2mtd=/dev/{disk},128KiB ubi.mtd=0")
}

/// Makes a volume's content of a directory.
pub fn mkfs(directory: &Path, volume: &Path) {
    run(Command::new("mkfs.ubifs")
        .args(["-m", "1", "-e", &LOGICAL.to_string(), "-c", "640", "-r"])
        .arg(directory)
        .arg(volume));
}

/// The content of a volume.
#[derive(Clone, Copy, Debug)]
pub enum Volume<'a> {
    /// None: the kernel makes UBIFS in it when it is mounted.
    Empty,
    /// UBIFS.
    Ubifs(&'a Path),
    /// What is not written to. The kernel reads all of such a volume when it is first opened, to verify its checksums. Without
    /// that a file system on its block device would wait here for ever: block2mtd then asks a disk for what another request
    /// waits for in the same thread, which no flash device does.
    Static(&'a Path),
}

/// Makes an image of flash with that volume.
pub fn ubinize(volume: Volume<'_>, image: &Path) {
    let content = match volume {
        Volume::Empty => format!("vol_type=dynamic\nvol_size={VOLUME_LENGTH}"),
        Volume::Ubifs(content) => format!(
            "vol_type=dynamic\nvol_size={VOLUME_LENGTH}\nimage={}",
            content.display()
        ),
        Volume::Static(content) => format!("vol_type=static\nimage={}", content.display()),
    };
    let configuration = image.with_extension("ubinize");
    let text = format!("[root]\nmode=ubi\nvol_id=0\nvol_name=rootfs\n{content}\n");
    std::fs::write(&configuration, text).expect("ubinize's configuration");
    run(Command::new("ubinize")
        .args(["-p", "128KiB", "-m", "1", "-o"])
        .arg(image)
        .arg(&configuration));
    std::fs::remove_file(configuration).expect("ubinize's configuration");
    fill_up(image);
}

/// Makes what `ubinize` wrote as long as the flash. All eraseblocks are in use by UBI then, so that it has nothing to write when it
/// is attached.
pub fn fill_up(image: &Path) {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(image)
        .expect("the image");
    let mut free = vec![0xff; ERASEBLOCK];
    // The header that counts how often a block was erased is the same everywhere.
    file.read_exact(&mut free[..HEADER]).expect("a header");
    let used = file.seek(SeekFrom::End(0)).expect("the image's length");
    let used = usize::try_from(used).expect("a length") / ERASEBLOCK;
    assert!(used < ERASEBLOCKS, "{used}");
    for _ in used..ERASEBLOCKS {
        file.write_all(&free).expect("room for the image");
    }
}

/// What `imactl check` is given for a root that is on no block device: the files, and the name of the file system.
pub fn checked_root(files: &Path, filesystem: &str) -> imactl::Result<Root> {
    let mut source = imactl::image::read(files)?;
    source.superblocks = None;
    let filesystem = FileSystem::by_name(filesystem).expect("a file system");
    Ok(Root::new(source, filesystem))
}

/// A boot of a root in a volume.
fn flash(format: Format) -> Setup {
    let mut setup = Setup::new();
    setup.format = format;
    setup.root_name = Some(VOLUME.to_owned());
    setup.append(&attach("vda"));
    setup
}

/// Everything signed runs, and nothing else.
#[test]
fn ubifs() {
    let mut setup = flash(Format::Ubifs);
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    setup.append("rw");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(root_of(report), ("ubi0_0", "ubifs"));
    assert_all_attempts_passed(report);
}

macro_rules! named {
    ($($(#[$attribute:meta])* $test:ident: $name:literal;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                let mut setup = flash(Format::Ubifs);
                setup.root_name = Some($name.to_owned());
                setup.append("rootfstype=ubifs");
                let outcome = setup.boot();
                assert_eq!(root_of(assert_booted(&outcome)), ("ubi0_0", "ubifs"));
            }
        )+
    };
}

named! {
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_name_on_the_first_device: "ubi:rootfs";
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_number: "ubi0_0";
    by_number_on_the_first_device: "ubi0";
    #[ignore = "another form of what is tested always; tests/run --all"]
    by_character_device: "/dev/ubi0_0";
}

/// A read-only root in a volume: UBI's own block device.
#[test]
fn squashfs_in_a_volume() {
    let mut setup = flash(Format::UbiSquashfs);
    setup.root = Tree::with_attempts(None);
    setup.root_name = Some("/dev/ubiblock0_0".to_owned());
    setup.append("ubi.block=0,rootfs");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(root_of(report), ("/dev/ubiblock0_0", "squashfs"));
    assert_all_attempts_passed(report);
}

/// Debian's mkfs.ubifs does not copy extended attributes: such a root has no signatures.
#[test]
fn mkfs_of_debian_keeps_no_signatures() {
    let outcome = flash(Format::MkfsUbifs).boot();
    assert_refused(&outcome, "IMA-704", Action::Poweroff);
    assert!(
        outcome.console_contains("it has no security.ima"),
        "{}",
        console_tail(&outcome)
    );
}

/// What the flash holds is in no file that is checked.
const FLASH: Check = Check::Silent("the files of a volume do not show what is attached to UBI");

faults! {
    volume_that_is_not_there: "IMA-402", Halt, FLASH, |setup| {
        on_flash(setup);
        setup.root_name = Some("ubi0:nosuch".to_owned());
        setup.append("rootwait=1");
        setup.says = "volumes of ubi0: 0 (rootfs)";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    volume_of_a_number_that_is_not_there: "IMA-402", Panic, FLASH, |setup| {
        on_flash(setup);
        setup.root_name = Some("ubi0_3".to_owned());
        setup.append("rootwait=1");
        setup.says = "the UBI device is there and has no such volume";
    };
    volume_of_flash_that_is_not_attached: "IMA-402", Poweroff, FLASH, |setup| {
        on_flash(setup);
        setup.append = vec!["rootwait=1".to_owned()];
        setup.says = "UBI has no device of the number 0";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    volume_of_flash_that_has_no_ubi: "IMA-402", Reboot, FLASH, |setup| {
        setup.root_name = Some(VOLUME.to_owned());
        setup.append(&attach("vda"));
        setup.append("rootwait=1");
        setup.says = "UBI has no device of the number 0";
    };
    initcall_of_ubi_left_out: "IMA-402", Halt, Check::Same, |setup| {
        on_flash(setup);
        setup.append("initcall_blacklist=ubi_init,ubi_init_attach rootwait=1");
        setup.says = "the kernel has no UBI";
    };
    block_device_of_a_volume_that_is_not_made: "IMA-402", Panic, FLASH, |setup| {
        setup.format = Format::UbiSquashfs;
        setup.append(&attach("vda"));
        setup.root_name = Some("/dev/ubiblock0_0".to_owned());
        setup.append("rootwait=1");
        setup.says = "there is no device of the kind ubiblock";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    volume_that_holds_another_file_system: "IMA-404", Poweroff, FLASH, |setup| {
        on_flash(setup);
        setup.format = Format::UbiSquashfs;
    };
    volume_that_is_to_be_verified: "IMA-401", Reboot, Check::Same, |setup| {
        on_flash(setup);
        setup.configure(&format!("verity={}", "5a".repeat(32)));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_changed_on_ubifs: "IMA-713", Halt, Check::Same, |setup| {
        on_flash(setup);
        setup.root.tamper(INIT);
    };
    init_unsigned_on_ubifs: "IMA-713", Reboot, Check::Same, |setup| {
        on_flash(setup);
        setup.root.unsign(INIT);
    };
}

fn on_flash(setup: &mut Setup) {
    setup.format = Format::Ubifs;
    setup.root_name = Some(VOLUME.to_owned());
    setup.append(&attach("vda"));
}
