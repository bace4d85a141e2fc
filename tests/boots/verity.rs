//! Roots that dm-verity verifies: what is accepted, and what a changed, exchanged or missing part of one comes to.

use std::fs::File;
use std::path::{Path, PathBuf};

use ima::dm_verity::RootHash;
use imactl::verity::{Made, Parameters, make};

use crate::built::Kernel;
use crate::front::{fronted, like_initramfs_tools};
use crate::keys::P256;
use crate::matrix::{Action, Check, faults};
use crate::media::blank;
use crate::partitions::{self, Partition, Table, guid};
use crate::setup::{LABEL, Setup, assert_booted, console_tail, overwrite, place_of, root_of};
use crate::tree::{Format, INIT, Tree};

pub fn parameters() -> Parameters {
    Parameters {
        salt: vec![0x5a; 32],
        uuid: [7; 16],
    }
}

/// The root with its tree behind it, on one disk, and what the configuration must say of it.
fn appended(setup: &mut Setup) -> Made {
    let image = setup.image();
    let made = make(&image, None, &parameters()).expect("a hash tree");
    setup.disk = Some(image);
    setup.configure(&format!("verity={}", made.root_hash));
    setup.configure(&format!("verity_hash_offset={}", made.offset));
    made
}

/// The root on one disk and the tree on another.
fn separate(setup: &mut Setup) -> PathBuf {
    let image = setup.image();
    let tree = blank(0);
    let made = make(&image, Some(&tree), &parameters()).expect("a hash tree");
    setup.disk = Some(image);
    setup.more_disks.push(tree.clone());
    setup.configure(&format!("verity={}", made.root_hash));
    setup.configure("verity_hash=/dev/vdb");
    tree
}

/// The PARTUUIDs of root and tree.
pub fn named_by(hash: &RootHash) -> [[u8; 16]; 2] {
    let hash = hash.bytes();
    [&hash[..16], &hash[16..]].map(|half| half.try_into().expect("16 bytes"))
}

pub fn part(image: &Path, uuid: [u8; 16]) -> Partition<'_> {
    Partition {
        image,
        uuid,
        kind: None,
        name: "",
    }
}

/// The same, made by veritysetup, with a third disk of data for error correction. Returns the disks behind the root's.
fn corrected(setup: &mut Setup) -> Vec<PathBuf> {
    let image = setup.image();
    let (tree, fec) = (blank(0), blank(0));
    let output = std::process::Command::new("veritysetup")
        .arg("format")
        .args([&image, &tree])
        .arg(format!("--fec-device={}", fec.display()))
        .args(["--fec-roots=8", "--fec-offset=4096"])
        .output()
        .expect("veritysetup (package cryptsetup-bin)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let hash = lines.find_map(|line| line.strip_prefix("Root hash:"));
    setup.disk = Some(image);
    setup.more_disks.extend([tree.clone(), fec.clone()]);
    setup.configure(&format!("verity={}", hash.expect("a root hash").trim()));
    setup.configure("verity_hash=/dev/vdb");
    setup.configure("verity_fec=/dev/vdc");
    setup.configure("verity_fec_offset=4096");
    setup.configure("verity_fec_roots=8");
    vec![tree, fec]
}

/// Where the content of a file begins on the root's disk.
fn place_on_disk(setup: &mut Setup, path: &str) -> usize {
    let content = setup.root.file(path).content.clone();
    place_of(setup.disk.as_ref().expect("a disk"), &content)
}

/// The root's device and mount options, as the real init sees them.
fn booted_root(setup: &Setup) -> (String, Vec<String>) {
    let outcome = setup.boot();
    let root = root_of(assert_booted(&outcome));
    (root.source.clone(), root.options.clone())
}

#[test]
fn tree_behind_the_root() {
    for format in [Format::Squashfs, Format::Erofs, Setup::new().format] {
        let mut setup = Setup::new();
        setup.format = format;
        appended(&mut setup);
        let (device, options) = booted_root(&setup);
        assert_eq!(device, "/dev/dm-0");
        assert!(options.iter().any(|option| option == "ro"), "{options:?}");
    }
}

/// IMA holds on such a root what it holds on any.
#[test]
fn appraised_as_any_root() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    appended(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let failed: Vec<_> = report.attempts.iter().filter(|it| !it.passed).collect();
    assert!(
        !report.attempts.is_empty() && failed.is_empty(),
        "{failed:#?}"
    );
}

#[test]
fn tree_on_another_disk() {
    let mut setup = Setup::new();
    separate(&mut setup);
    setup.configure("verity_corruption=panic");
    assert_eq!(booted_root(&setup).0, "/dev/dm-0");
}

/// As veritysetup makes it, in SHA-512 and with its salt and UUID.
#[test]
fn tree_of_veritysetup_s() {
    let mut setup = Setup::new();
    let image = setup.image();
    let tree = blank(0);
    let output = std::process::Command::new("veritysetup")
        .args(["format", "--hash=sha512"])
        .args([&image, &tree])
        .output()
        .expect("veritysetup (package cryptsetup-bin)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let hash = text
        .lines()
        .find_map(|line| line.strip_prefix("Root hash:"));
    setup.disk = Some(image);
    setup.more_disks.push(tree);
    setup.configure(&format!("verity={}", hash.expect("a root hash").trim()));
    setup.configure("verity_hash=/dev/vdb");
    setup.configure("verity_corruption=error");
    assert_eq!(booted_root(&setup).0, "/dev/dm-0");
}

/// Root and tree by the names of their partitions, as the Discoverable Partitions Specification has them: the configuration says
/// nothing but the root hash.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn partitions_named_by_the_root_hash() {
    let mut setup = Setup::new();
    let image = setup.image();
    let tree = blank(0);
    let made = make(&image, Some(&tree), &parameters()).expect("a hash tree");
    let [data, hashes] = named_by(&made.root_hash);
    let parts = [part(&image, data), part(&tree, hashes)];
    setup.disk = Some(partitions::disk(&parts).0);
    setup.root_name = None;
    setup.configure(&format!("verity={}", made.root_hash));
    assert_eq!(booted_root(&setup).0, "/dev/dm-0");
}

/// Neither another root hash nor none can be asked for on the command line, nor another file system in the root's place.
#[test]
fn the_command_line_changes_nothing() {
    let mut setup = Setup::new();
    setup.format = Format::Squashfs;
    appended(&mut setup);
    setup.append("verity= verity=no rw rootfstype=tmpfs rootflags=size=1m");
    let (device, options) = booted_root(&setup);
    assert_eq!(device, "/dev/dm-0");
    assert!(options.iter().any(|option| option == "ro"), "{options:?}");
}

/// Blocks that the medium cannot read any more: the kernel computes what they were.
#[test]
fn lost_blocks_are_corrected() {
    let mut setup = Setup::new();
    corrected(&mut setup);
    let sector = place_on_disk(&mut setup, INIT) as u64 / 512;
    setup.unreadable.push(sector..sector + 16);
    let outcome = setup.boot();
    assert_booted(&outcome);
    assert!(
        outcome.console_contains("corrected"),
        "{}",
        console_tail(&outcome)
    );
}

/// The data for error correction is not trusted: what it makes of a block must have the right digest too.
#[test]
fn data_for_error_correction_on_the_tree_s_device() {
    let mut setup = Setup::new();
    let image = setup.image();
    let tree = blank(0);
    let made = make(&image, Some(&tree), &parameters()).expect("a hash tree");
    setup.disk = Some(image);
    setup.more_disks.push(tree.clone());
    let offset = std::fs::metadata(&tree).expect("the tree").len();
    let disk = File::options().write(true).open(&tree).expect("the tree");
    disk.set_len(offset + (1 << 20)).expect("more room");
    setup.configure(&format!("verity={}", made.root_hash));
    setup.configure("verity_hash=/dev/vdb");
    setup.configure(&format!("verity_fec_offset={offset}"));
    assert_booted(&setup.boot());
}

/// A block that the boot does not read: the running system reads it, and the kernel ends the machine as the configuration chose.
fn met_later(corruption: &str, action: Action) {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    let program = setup.root.file(INIT).content.clone();
    setup.root.add_signed("etc/late", 0o755, &program, &P256);
    appended(&mut setup);
    setup.configure(&format!("verity_corruption={corruption}"));
    setup.append("testbed.try=/etc/late");
    let disk = setup.disk.clone().expect("a disk");
    // The files of the root lie in the order of their names: the first copy is that of etc.
    let place = place_of(&disk, &program);
    setup.damage.push((place + 8192, vec![0xff; 16]));
    let (outcome, disks) = setup.boot_on_a_disk();
    for disk in disks {
        std::fs::remove_file(disk).expect("a disk");
    }
    assert!(action.is(&outcome.ending), "{}", console_tail(&outcome));
    for words in ["handover: executing", "dm-verity device corrupted"] {
        assert!(
            outcome.console_contains(words),
            "{words}: {}",
            console_tail(&outcome)
        );
    }
}

#[test]
fn changed_block_restarts_the_running_system() {
    met_later("restart", Action::Reboot);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn changed_block_panics_the_running_system() {
    met_later("panic", Action::Panic);
}

faults! {
    data_block_that_is_changed: "IMA-414", Reboot, Check::Same, |setup| {
        appended(setup);
        let place = place_on_disk(setup, INIT);
        setup.damage.push((place + 8192, vec![0xff]));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_the_file_system_that_is_changed: "IMA-414", Halt, Check::Same, |setup| {
        appended(setup);
        setup.damage.push((1024 + 0x78, b"other".into()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    superblock_of_squashfs_that_is_changed: "IMA-414", Panic, Check::Same, |setup| {
        setup.format = Format::Squashfs;
        appended(setup);
        setup.damage.push((8, vec![0xff; 4]));
    };
    tree_that_is_changed: "IMA-414", Poweroff, Check::Same, |setup| {
        let made = appended(setup);
        let place = place_on_disk(setup, INIT) / 4096;
        // The lowest level, behind the superblock and the topmost block: the digest of a block of init.
        setup.damage.push((made.offset as usize + 2 * 4096 + place * 32, vec![0xff; 4]));
    };
    top_of_the_tree_that_is_changed: "IMA-413", Reboot, Check::Same, |setup| {
        let made = appended(setup);
        setup.damage.push((made.offset as usize + 4096, vec![0xff; 4]));
    };
    hashes_shown_as_the_data: "IMA-403", Poweroff, Check::Same, |setup| {
        // The tree's superblock is not under the root hash. With one data block, the top of the tree verifies as the data.
        let made = appended(setup);
        let disk = setup.disk.clone().expect("a disk");
        let top = made.offset as usize + 4096;
        let block = std::fs::read(disk).expect("the disk")[top..top + 4096].to_vec();
        setup.damage.push((0, block));
        setup.damage.push((made.offset as usize + 72, 1_u64.to_le_bytes().into()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    salt_that_is_changed: "IMA-413", Halt, Check::Same, |setup| {
        let made = appended(setup);
        setup.damage.push((made.offset as usize + 88, vec![0xff; 4]));
    };
    root_hash_of_another_image: "IMA-413", Poweroff, Check::Same, |setup| {
        appended(setup);
        setup.configure(&format!("verity={}", "ab".repeat(32)));
    };
    image_and_tree_of_somebody_else: "IMA-413", Panic, Check::Same, |setup| {
        let first = appended(setup);
        setup.root.add("etc/other", 0o644, b"other");
        setup.disk = None;
        appended(setup);
        setup.configure(&format!("verity={}", first.root_hash));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_hash_of_another_algorithm: "IMA-411", Reboot, Check::Same, |setup| {
        appended(setup);
        setup.configure(&format!("verity={}", "ab".repeat(64)));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_at_another_offset: "IMA-411", Poweroff, Check::Same, |setup| {
        let made = appended(setup);
        setup.configure(&format!("verity_hash_offset={}", made.offset - 4096));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_that_is_not_there: "IMA-411", Halt, Check::Same, |setup| {
        let made = appended(setup);
        setup.cut = Some(made.offset);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_that_is_cut_short: "IMA-411", Panic, Check::Same, |setup| {
        let made = appended(setup);
        setup.cut = Some(made.offset + 8192);
    };
    tree_of_an_algorithm_that_is_broken: "IMA-411", Reboot, Check::Same, |setup| {
        let made = appended(setup);
        setup.damage.push((made.offset as usize + 32, b"md5\0\0\0".into()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_for_more_than_the_disk_has: "IMA-411", Halt, Check::Same, |setup| {
        let tree = separate(setup);
        overwrite(&tree, 72, &u64::to_le_bytes(1 << 20));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_s_disk_that_is_missing: "IMA-410", Poweroff, Check::Silent("the image is one disk"), |setup| {
        separate(setup);
        setup.more_disks.clear();
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    tree_s_partition_that_is_missing: "IMA-410", Panic, Check::Same, |setup| {
        appended(setup);
        setup.table = Table::Gpt;
        setup.root_name = Some(format!("PARTUUID={}", guid(2).1));
        setup.configure("verity_hash=PARTLABEL=third");
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    data_for_error_correction_that_is_wrong: "IMA-414", Panic, Check::Same, |setup| {
        let disks = corrected(setup);
        let length = std::fs::metadata(&disks[1]).expect("the disk").len();
        overwrite(&disks[1], 0, &vec![0x5a; usize::try_from(length).expect("a length")]);
        let place = place_on_disk(setup, INIT);
        setup.damage.push((place, vec![0xff; 4096]));
    };
    data_for_error_correction_that_is_missing: "IMA-410", Reboot, Check::Silent("the image is one disk"), |setup| {
        corrected(setup);
        setup.more_disks.pop();
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    data_for_error_correction_that_is_too_short: "IMA-412", Poweroff, Check::Silent("the device of the error correction is not looked at"), |setup| {
        let disks = corrected(setup);
        std::fs::write(&disks[1], vec![0; 16384]).expect("another disk");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    data_for_error_correction_between_blocks: "IMA-412", Halt, Check::Silent("the device of the error correction is not looked at"), |setup| {
        corrected(setup);
        setup.configure("verity_fec_offset=512");
    };
    kernel_without_error_correction: "IMA-409", Panic, Check::Same, |setup| {
        corrected(setup);
        setup.kernel = Kernel::PlainVerity;
    };
    kernel_without_dm_verity: "IMA-409", Reboot, Check::Same, |setup| {
        appended(setup);
        setup.append("initcall_blacklist=dm_verity_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_a_device_mapper: "IMA-409", Halt, Check::Same, |setup| {
        appended(setup);
        setup.append("initcall_blacklist=dm_init");
    };
    device_of_that_name_from_the_command_line: "IMA-412", Panic, Check::Silent("what dm-mod.create= makes is not followed"), |setup| {
        appended(setup);
        setup.append("\"dm-mod.create=root,,,ro,0 8 linear /dev/vda 0\"");
    };
    root_that_another_initramfs_mounts: "IMA-415", Poweroff, Check::Same, |setup| {
        appended(setup);
        fronted(setup, &like_initramfs_tools());
    };
}

/// What IMA alone would take: a file that is not appraised, changed on the disk.
#[test]
fn changed_file_that_nothing_appraises() {
    let mut setup = Setup::new();
    setup.root.add("etc/data", 0o644, &[0xa5; 4096]);
    let mut verified = Setup::new();
    verified.root = setup.root.clone();
    let image = setup.image();
    setup.disk = Some(image);
    let place = place_on_disk(&mut setup, "etc/data");
    setup.damage.push((place, vec![0]));
    assert_booted(&setup.boot());
    appended(&mut verified);
    verified.damage = setup.damage.clone();
    assert_eq!(verified.checked(), Some("IMA-414"));
    let label = format!("LABEL={LABEL}");
    verified.root_name = Some(label);
    assert_eq!(verified.checked(), Some("IMA-414"));
}
