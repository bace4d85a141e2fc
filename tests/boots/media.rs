//! Disks that are damaged, mistaken for others, or fail; and roots that are not there.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::built::scratch;
use crate::matrix::{Action, Check, faults};
use crate::partitions::{Table, guid};
use crate::setup::{LABEL, Setup, UUID, console_tail, place_of};
use crate::tree::{Format, INIT, SWITCH_ROOT, run};

/// ext4's superblock and some of its fields (fs/ext4/ext4.h, `struct ext4_super_block`), in bytes from the disk's start.
const SUPERBLOCK: usize = 1024;
const BLOCKS: usize = SUPERBLOCK + 0x4;
const MAGIC: usize = SUPERBLOCK + 0x38;
const FEATURES: usize = SUPERBLOCK + 0x60;
const CHECKSUM: usize = SUPERBLOCK + 0x3fc;

/// The number of the compressor in squashfs's superblock (fs/squashfs/squashfs_fs.h).
const COMPRESSOR: usize = 20;

/// An empty file of that size, for a disk.
pub fn blank(megabytes: u64) -> PathBuf {
    let (file, path) = tempfile::NamedTempFile::new_in(scratch())
        .expect("a disk")
        .keep()
        .expect("a disk");
    file.set_len(megabytes << 20).expect("room for the disk");
    path
}

/// The boot from a disk that mkfs has made and nobody has filled.
fn made(setup: &mut Setup, megabytes: u64, program: &str, options: &[&str]) {
    let disk = blank(megabytes);
    run(Command::new(program).args(options).arg(&disk));
    setup.disk = Some(disk);
}

/// The sectors of a file's content.
fn sectors_of(setup: &mut Setup, path: &str) -> Range<u64> {
    let content = setup.root.file(path).content.clone();
    let image = setup.image();
    let start = place_of(&image, &content) as u64 / 512;
    std::fs::remove_file(image).expect("the image");
    start..start + content.len() as u64 / 512
}

/// The sectors of a squashfs that have the files' content, but for the first ones, which are read to recognise file systems, and
/// those of the block of 4096 bytes in which the tables begin, because the kernel reads whole blocks. The superblock says where the
/// first of them is, that of the inodes (fs/squashfs/squashfs_fs.h).
fn data_of_squashfs(setup: &mut Setup) -> Range<u64> {
    let image = setup.image();
    let bytes = std::fs::read(&image).expect("the image");
    std::fs::remove_file(image).expect("the image");
    let inodes = bytes[64..72].try_into().expect("the place of the inodes");
    let sectors = 0x110..u64::from_le_bytes(inodes) / 4096 * 8;
    assert!(!sectors.is_empty(), "{sectors:?}");
    sectors
}

/// A second disk with the same content.
fn twin(setup: &mut Setup) {
    setup.more_disks = vec![crate::partitions::around(&setup.image(), setup.table)];
}

/// From then on, when so many bytes have been read or written, the root's disk answers no more, while the init does what it says.
fn silent(setup: &mut Setup, bytes: u64, doing: &'static str) {
    setup.configure("stall_timeout=2");
    setup.answers = Some(bytes);
    setup.says = doing;
}

/// What is read of the root until its programs have been looked at, in bytes: hardly more than they.
fn programs(setup: &mut Setup) -> u64 {
    [INIT, SWITCH_ROOT]
        .map(|path| setup.root.file(path).content.len() as u64)
        .iter()
        .sum()
}

/// An image does not show that its disk fails.
const FAILS: Check = Check::Silent("an image does not show that the disk fails");

/// Of one image.
const TWO: Check = Check::Silent("one image does not show the other disk");

/// Of a file system that imactl does not read.
const FOREIGN: Check = Check::NotAsked("imactl reads no such file system");

faults! {
    root_that_does_not_appear: "IMA-402", Reboot, Check::Same, |setup| {
        setup.root_name = Some("LABEL=absent".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_a_uuid_that_nothing_has: "IMA-402", Halt, Check::Same, |setup| {
        setup.root_name = Some("UUID=00000000-1111-2222-3333-444444444444".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_a_partition_that_nothing_has: "IMA-402", Panic, Check::Same, |setup| {
        setup.table = Table::Gpt;
        setup.root_name = Some("PARTLABEL=third".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_a_partition_of_a_damaged_table: "IMA-402", Halt, Check::Same, |setup| {
        setup.table = Table::GptCopy;
        setup.root_name = Some("PARTLABEL=second".into());
        setup.append("rootwait=1");
        setup.says = "only with gpt on its command line";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_an_extended_partition: "IMA-402", Reboot, Check::Same, |setup| {
        setup.table = Table::Logical { signature: 0x1234_5678 };
        setup.root_name = Some("PARTUUID=12345678-02".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_an_offset_behind_the_last: "IMA-402", Poweroff, Check::Same, |setup| {
        setup.table = Table::Gpt;
        setup.root_name = Some(format!("PARTUUID={}/PARTNROFF=1", guid(2).1));
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_a_number_that_nothing_has: "IMA-402", Reboot, Check::Silent("numbers are given in the order in which devices come"), |setup| {
        setup.root_name = Some("250:250".into());
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_a_machine_without_disks: "IMA-402", Halt, Check::Silent("the image is the disk"), |setup| {
        setup.late = true;
        setup.append("rootwait=1");
    };
    root_named_by_a_label_that_two_have: "IMA-405", Panic, TWO, |setup| {
        twin(setup);
        setup.root_name = Some(format!("LABEL={LABEL}"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_named_by_a_uuid_that_two_have: "IMA-405", Poweroff, TWO, |setup| {
        twin(setup);
        setup.root_name = Some(format!("UUID={UUID}"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_named_by_a_partition_that_two_have: "IMA-405", Reboot, TWO, |setup| {
        setup.table = Table::Gpt;
        twin(setup);
        setup.root_name = Some(format!("PARTUUID={}", guid(2).1));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_named_by_a_partition_s_label_that_two_have: "IMA-405", Halt, TWO, |setup| {
        setup.table = Table::Gpt;
        twin(setup);
        setup.root_name = Some("PARTLABEL=second".into());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_of_an_mbr_that_two_have: "IMA-405", Panic, TWO, |setup| {
        setup.table = Table::Mbr { signature: 0x1234_5678 };
        twin(setup);
        setup.root_name = Some("PARTUUID=12345678-02".into());
    };

    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_of_zeros: "IMA-403", Poweroff, Check::Same, |setup| setup.disk = Some(blank(1));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_of_a_sector: "IMA-403", Reboot, Check::Same, |setup| {
        setup.disk = Some(blank(1));
        setup.cut = Some(512);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_without_its_magic: "IMA-403", Halt, Check::Same, |setup| setup.damage.push((MAGIC, vec![0; 2]));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_a_journal_device: "IMA-403", Panic, Check::Same, |setup| setup.damage.push((FEATURES, vec![8, 0, 0, 0]));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_xfs_before_that_of_ext4: "IMA-403", Poweroff, Check::Same, |setup| setup.damage.push((0, b"XFSB".into()));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_squashfs_before_that_of_ext4: "IMA-403", Reboot, Check::Same, |setup| {
        setup.damage.push((0, b"hsqs".into()));
        setup.damage.push((28, vec![4, 0]));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_fat_before_that_of_ext4: "IMA-403", Halt, Check::Same, |setup| {
        setup.damage.push((0x52, b"FAT32   ".into()));
        setup.damage.push((510, vec![0x55, 0xaa]));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_that_says_squashfs_and_is_none: "IMA-404", Panic, Check::Same, |setup| {
        setup.disk = Some(blank(1));
        setup.damage = vec![(0, b"hsqs".into()), (28, vec![4, 0])];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_that_says_erofs_and_is_none: "IMA-404", Poweroff, Check::Same, |setup| {
        setup.disk = Some(blank(1));
        setup.damage = vec![(SUPERBLOCK, 0xe0f5_e1e2_u32.to_le_bytes().into())];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_that_says_ext4_and_is_none: "IMA-404", Reboot, Check::Same, |setup| {
        setup.disk = Some(blank(1));
        setup.damage = vec![(MAGIC, vec![0x53, 0xef])];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_with_a_wrong_checksum: "IMA-404", Halt, Check::Same, |setup| {
        made(setup, 16, "mkfs.ext4", &["-q", "-O", "metadata_csum"]);
        setup.damage.push((CHECKSUM, vec![0; 4]));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_more_blocks_than_the_disk_has: "IMA-404", Panic, Check::Same, |setup| setup.cut = Some(32 << 20);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_no_blocks: "IMA-404", Poweroff, Check::Same, |setup| setup.damage.push((BLOCKS, vec![0; 4]));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_a_future_format: "IMA-404", Reboot, Check::Same, |setup| setup.damage.push((FEATURES, vec![0xc2, 2, 0, 0x80]));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    group_descriptors_of_noise: "IMA-404", Halt, Check::Same, |setup| setup.damage.push((4096, vec![0xa5; 4096]));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    squashfs_cut_short: "IMA-404", Panic, Check::Same, |setup| {
        setup.format = Format::Squashfs;
        setup.cut = Some(8192);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    squashfs_of_a_compressor_that_the_kernel_lacks: "IMA-404", Halt, Check::Same, |setup| {
        let directory = tempfile::tempdir_in(scratch()).expect("a directory");
        let disk = blank(0);
        run(Command::new("mksquashfs")
            .arg(directory.path())
            .arg(&disk)
            .args(["-quiet", "-noappend", "-comp", "lz4"]));
        setup.disk = Some(disk);
        setup.says = "Filesystem uses \"lz4\" compression. This is not supported";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    squashfs_of_a_compressor_that_no_kernel_has: "IMA-404", Reboot, Check::Same, |setup| {
        setup.format = Format::Squashfs;
        setup.damage.push((COMPRESSOR, vec![2, 0]));
        setup.says = "Filesystem uses \"lzma\" compression. This is not supported";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    ext4_with_blocks_larger_than_a_page: "IMA-404", Poweroff, Check::Same, |setup| {
        made(setup, 64, "mkfs.ext4", &["-q", "-F", "-b", "65536"]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    ext4_with_casefold: "IMA-404", Panic, Check::Same, |setup| made(setup, 16, "mkfs.ext4", &["-q", "-O", "casefold"]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    xfs_without_its_module: "IMA-404", Poweroff, FOREIGN, |setup| made(setup, 320, "mkfs.xfs", &["-q"]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    f2fs_without_its_module: "IMA-404", Reboot, FOREIGN, |setup| made(setup, 64, "mkfs.f2fs", &["-q"]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    vfat_without_its_module: "IMA-404", Halt, FOREIGN, |setup| made(setup, 64, "mkfs.vfat", &["-F", "32"]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    btrfs_without_its_module: "IMA-404", Panic, FOREIGN, |setup| made(setup, 160, "mkfs.btrfs", &["-q"]);
    btrfs_with_a_module_that_the_line_forbids: "IMA-302", Poweroff, FOREIGN, |setup| {
        made(setup, 160, "mkfs.btrfs", &["-q"]);
        setup.modules = crate::built::Kernel::Full.modules_for("btrfs");
        setup.append("module_blacklist=btrfs");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    ext4_of_nothing: "IMA-701", Reboot, Check::Same, |setup| made(setup, 16, "mkfs.ext4", &["-q"]);

    disk_that_cannot_be_read: "IMA-406", Halt, FAILS, |setup| setup.unreadable.push(0..u64::MAX);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_cannot_be_read_by_label: "IMA-406", Panic, FAILS, |setup| {
        setup.unreadable.push(0..256);
        setup.root_name = Some(format!("LABEL={LABEL}"));
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    partition_table_that_cannot_be_read: "IMA-406", Poweroff, FAILS, |setup| {
        setup.table = Table::Gpt;
        setup.unreadable.push(0..64);
        setup.root_name = Some(format!("PARTUUID={}", guid(2).1));
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_that_cannot_be_read: "IMA-406", Reboot, FAILS, |setup| setup.unreadable.push(0..8);
    blocks_of_squashfs_that_cannot_be_read: "IMA-702", Halt, FAILS, |setup| {
        setup.format = Format::Squashfs;
        let blocks = data_of_squashfs(setup);
        setup.unreadable.push(blocks);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    switch_root_that_cannot_be_read: "IMA-702", Panic, FAILS, |setup| {
        let sectors = sectors_of(setup, SWITCH_ROOT);
        setup.unreadable.push(sectors);
    };
    end_of_switch_root_that_cannot_be_read: "IMA-704", Poweroff, FAILS, |setup| {
        let sectors = sectors_of(setup, SWITCH_ROOT);
        setup.unreadable.push(sectors.end - 16..sectors.end);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_that_cannot_be_read: "IMA-712", Reboot, FAILS, |setup| {
        let sectors = sectors_of(setup, INIT);
        setup.unreadable.push(sectors);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    end_of_init_that_cannot_be_read: "IMA-713", Halt, FAILS, |setup| {
        let sectors = sectors_of(setup, INIT);
        setup.unreadable.push(sectors.end - 16..sectors.end);
    };

    disk_that_answers_no_more_when_it_is_recognised: "IMA-408", Reboot, FAILS, |setup| {
        silent(setup, 4096, "reading /dev/vda has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_it_is_looked_for: "IMA-408", Poweroff, FAILS, |setup| {
        setup.root_name = Some(format!("LABEL={LABEL}"));
        silent(setup, 8192, "reading /dev/vda has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_its_table_is_read: "IMA-408", Halt, FAILS, |setup| {
        setup.table = Table::Gpt;
        setup.root_name = Some(format!("PARTUUID={}", guid(2).1));
        silent(setup, 80_000, "reading the partition table of /dev/vda has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_it_is_mounted: "IMA-408", Panic, FAILS, |setup| {
        silent(setup, 24_000, "mounting /dev/vda has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_it_is_mounted_for_writing: "IMA-408", Reboot, FAILS, |setup| {
        setup.append("rw");
        silent(setup, 24_000, "mounting /dev/vda has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_certificates_are_read: "IMA-408", Poweroff, FAILS, |setup| {
        setup.configure("root_certificates=yes");
        for number in 0..20 {
            setup.root.add(&format!("etc/keys/x509_ima{number}.der"), 0o644, &[number; 100_000]);
        }
        silent(setup, 600_000, "reading the root's certificates has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_policies_are_read: "IMA-408", Halt, FAILS, |setup| {
        for number in 0..20 {
            setup.root.add(&format!("etc/ima/ima_policy.{number}"), 0o644, &[number; 100_000]);
        }
        silent(setup, 600_000, "reading the root's policies has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_programs_are_read: "IMA-408", Panic, FAILS, |setup| {
        let bytes = programs(setup);
        silent(setup, bytes, "reading the root's programs has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    disk_that_answers_no_more_when_it_becomes_the_root: "IMA-408", Poweroff, FAILS, |setup| {
        // The inodes of /dev are far from all that the init has read: in blocks of their own, which are read at once.
        for number in 0..600 {
            for directory in ["b", "e0"] {
                setup.root.add(&format!("{directory}/{number}"), 0o644, b"");
            }
        }
        let bytes = programs(setup) + 327_000;
        silent(setup, bytes, "switching to /rootfs has not ended after 2 s");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    squashfs_that_answers_no_more: "IMA-408", Reboot, FAILS, |setup| {
        setup.format = Format::Squashfs;
        silent(setup, 200_000, "reading the root's programs has not ended after 2 s");
    };
}

/// With rootwait nothing is given up, and it is said every five seconds what is waited for.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn a_disk_that_answers_no_more_is_waited_for_with_rootwait() {
    let mut setup = Setup::new();
    setup.append("rootwait");
    silent(&mut setup, 80_000, "");
    let (seen, outcome) = setup.boot_and_kill(|running| {
        running.wait_for("the third line", Duration::from_secs(90), |seen| {
            let line = "root: mounting /dev/vda has taken ";
            let times = seen.console.matches(line).count();
            (times >= 3).then_some(())
        })
    });
    seen.expect("it says three times what it waits for");
    assert!(outcome.console_contains("there is no limit, because of rootwait"));
    assert!(
        !outcome.console_contains("refused: ["),
        "{}",
        console_tail(&outcome)
    );
    assert!(!outcome.guest_ran(), "{}", console_tail(&outcome));
}

/// A refusal ends the machine though the file system, written to, can no longer be left clean.
#[test]
fn a_disk_that_answers_no_more_when_it_is_left() {
    let mut setup = Setup::new();
    setup.configure("on_failure=reboot");
    setup.append("rw");
    setup.root.unsign(INIT);
    setup.answers = Some(programs(&mut setup) + 213_000);
    let outcome = setup.boot();
    crate::setup::assert_refused(&outcome, "IMA-713", Action::Reboot);
    let left = "the root's device does not answer; its file system is left as it is";
    assert!(outcome.console_contains(left), "{}", console_tail(&outcome));
}
