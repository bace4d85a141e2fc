//! Roots that are a composefs: an erofs image and objects with fs-verity on ext4, put together by overlayfs.

use std::path::{Path, PathBuf};

use ima_testbed::report::AttemptResult;
use ima_testbed::{Disk, Machine, Outcome, Share};
use imactl::image::{Format, ImageBuilder, composefs};
use imactl::initramfs::InitramfsBuilder;

use crate::accepted::assert_all_attempts_passed;
use crate::built::{Kernel, PROGRAMS, busybox, scratch};
use crate::formats::policy_for_1001;
use crate::front::{fronted, like_initramfs_tools};
use crate::keys::RSA;
use crate::matrix::{Check, faults};
use crate::setup::{DEFAULT_POLICY, POLICY, Setup, assert_booted, console_tail, place_of, root_of};
use crate::tree::{INIT, SWITCH_ROOT, Tree, run};

const IMAGE: &str = "root.cfs";
const OBJECTS: &str = "objects";

/// The files of the backing file system, before it is made.
struct Files(tempfile::TempDir);

impl Files {
    /// The setup's root as `imactl image --objects` makes it, and the configuration for it.
    fn of(setup: &mut Setup) -> Files {
        let directory = tempfile::tempdir_in(scratch()).expect("a directory");
        let files = Files(directory);
        let builder = setup.root.builder().format(Format::Erofs);
        builder
            .objects(files.path(OBJECTS))
            .build(&files.path(IMAGE))
            .expect("a composefs");
        let digest = composefs::digest(&files.path(IMAGE)).expect("a digest");
        setup.configure(&format!("composefs=/{IMAGE}"));
        setup.configure(&format!("composefs_digest={digest}"));
        setup.configure(&format!("composefs_objects=/{OBJECTS}"));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The object with the content of a file of the root.
    fn object(&self, setup: &mut Setup, path: &str) -> PathBuf {
        let content = self.path("content");
        std::fs::write(&content, &setup.root.file(path).content).expect("a file");
        let digest = composefs::digest(&content).expect("a digest");
        std::fs::remove_file(content).expect("the file");
        self.path(&format!("{OBJECTS}{}", digest.object()))
    }

    /// The disk: an ext4 with the files, fs-verity enabled on those that are named and all below them.
    fn disk(self, setup: &mut Setup, with_verity: &[&str]) {
        let disk = crate::media::blank(0);
        let mut tree = imactl::tree::Tree::from_directory(self.0.path()).expect("the files");
        tree.all_root();
        let builder = ImageBuilder::new(tree).size(64 << 20);
        builder.build(&disk).expect("an ext4 image");
        if !with_verity.is_empty() {
            run(std::process::Command::new("tune2fs")
                .args(["-O", "verity"])
                .arg(&disk));
            enable(&disk, with_verity);
        }
        setup.disk = Some(disk);
    }
}

/// Has a machine enable fs-verity on the files.
fn enable(disk: &Path, files: &[&str]) {
    let files: String = files.iter().map(|file| format!(" /to/{file}")).collect();
    let script = format!(
        "#!/bin/busybox sh\nexport PATH=/bin\nbusybox mkdir -p /dev /to\nbusybox mount -t devtmpfs dev /dev\n\
         exec </dev/console >/dev/console 2>&1\n\
         busybox mount -t ext4 /dev/vda /to && /guest fs-verity{files} && busybox umount /to && echo enabled\n\
         busybox poweroff -f\n"
    );
    let initramfs = InitramfsBuilder::new()
        .init(script.into_bytes())
        .file("bin/busybox", 0o755, busybox())
        .file("guest", 0o755, PROGRAMS.guest.as_slice())
        .unchecked();
    let path = disk.with_extension("initramfs");
    std::fs::write(&path, initramfs.build().expect("an initramfs")).expect("an initramfs");
    let outcome = Machine::new(Kernel::Full.without_ca())
        .initramfs(&path)
        .disk(Disk::new(disk).keep_writes())
        .start()
        .expect("the machine starts")
        .finish();
    assert!(
        outcome.console_contains("enabled"),
        "{}",
        console_tail(&outcome)
    );
    std::fs::remove_file(path).expect("the initramfs");
}

/// The setup's root as a composefs, as it should be.
fn whole(setup: &mut Setup) {
    Files::of(setup).disk(setup, &[IMAGE, OBJECTS]);
}

/// What IMA holds on such a root: with the signatures in the image, what it holds on any.
#[test]
fn appraised_as_any_root() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    whole(&mut setup);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let root = root_of(report);
    assert_eq!(root.fstype, "overlay", "{root:?}");
    for option in ["ro", "verity=require"] {
        let mut options = root.options.iter().chain(&root.super_options);
        assert!(options.any(|have| have == option), "{root:?}");
    }
    // The backing file system is mounted nowhere.
    assert!(
        report.mounts.iter().all(|mount| mount.fstype != "ext4"),
        "{:?}",
        report.mounts
    );
    assert_all_attempts_passed(report);
    for name in ["signed", "unsigned", "tampered"] {
        let mut attempts = report.attempts.iter();
        assert!(attempts.any(|attempt| attempt.name == name), "{name}");
    }
}

/// With a writable layer over it: what is signed runs, also of what is written there, and nothing else.
#[test]
fn under_a_writable_layer() {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    whole(&mut setup);
    setup.configure("overlay=tmpfs");
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let root = root_of(report);
    assert!(root.options.iter().any(|have| have == "rw"), "{root:?}");
    assert_all_attempts_passed(report);
    for name in ["signed", "unsigned"] {
        let mut attempts = report.attempts.iter();
        assert!(attempts.any(|attempt| attempt.name == name), "{name}");
    }
}

/// The attempt to run the program that `testbed.try=` names is denied, and the others have the results that they should have.
fn assert_denied(outcome: &Outcome) {
    let report = assert_booted(outcome);
    assert_all_attempts_passed(report);
    for name in ["tampered-file", "signed"] {
        let mut attempts = report.attempts.iter();
        assert!(attempts.any(|attempt| attempt.name == name), "{name}");
    }
}

/// Rules for fs-verity digests are never satisfied: IMA asks for the digest of the overlay's inode, which has none
/// (security/integrity/ima/ima_api.c, `ima_get_verity_digest`).
#[test]
fn signatures_of_fs_verity_digests_are_not_taken() {
    let program = PROGRAMS.guest.as_slice();
    for verity in [true, false] {
        let mut setup = Setup::new();
        setup.root = Tree::with_attempts(None);
        let signature = match verity {
            true => RSA.sign_verity(program),
            false => RSA.sign(program),
        };
        setup.root.add("etc/signed-v3", 0o755, program);
        let file = setup.root.file("etc/signed-v3");
        file.owner = 1001;
        file.signature = Some(signature);
        whole(&mut setup);
        setup.drop_file(DEFAULT_POLICY);
        setup.put(
            POLICY,
            policy_for_1001("digest_type=verity appraise_type=sigv3"),
        );
        setup.append("testbed.try=/etc/signed-v3 sysctl.kernel.printk_ratelimit=0");
        let outcome = setup.boot();
        assert_denied(&outcome);
        let mut records = outcome.console.lines();
        assert!(
            records.any(|line| line.contains("no-verity-digest") && line.contains("signed-v3")),
            "{}",
            console_tail(&outcome)
        );
    }
}

/// A signed program of the root, longer than the others: its last block is like no other.
fn late(setup: &mut Setup) -> Vec<u8> {
    setup.root = Tree::with_attempts(None);
    let mut program = setup.root.file(INIT).content.clone();
    program.resize(program.len().next_multiple_of(4096), 0);
    let block = vec![0x5a; 4096];
    program.extend_from_slice(&block);
    setup.root.add_signed("etc/late", 0o755, &program, &RSA);
    setup.append("testbed.try=/etc/late");
    block
}

/// A block of an object that was changed on the disk: whoever reads it gets an error.
#[test]
fn changed_block_of_an_object() {
    let mut setup = Setup::new();
    let block = late(&mut setup);
    whole(&mut setup);
    let place = place_of(setup.disk.as_ref().expect("a disk"), &block);
    setup.damage.push((place, vec![0; 16]));
    let outcome = setup.boot();
    assert_denied(&outcome);
    assert!(
        outcome.console_contains("FILE CORRUPTED"),
        "{}",
        console_tail(&outcome)
    );
}

/// Another object in the place of one: signed by the same key, and with fs-verity, but not the one that the image names.
#[test]
fn object_in_the_place_of_another() {
    let mut setup = Setup::new();
    late(&mut setup);
    let files = Files::of(&mut setup);
    let object = files.object(&mut setup, "etc/late");
    let other = files.object(&mut setup, INIT);
    std::fs::copy(other, object).expect("another object");
    files.disk(&mut setup, &[IMAGE, OBJECTS]);
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    let result = |name: &str| {
        let mut attempts = report.attempts.iter();
        let attempt = attempts.find(|attempt| attempt.name == name);
        &attempt.expect("the attempt").result
    };
    // overlayfs refuses to open it, and IMA is not asked.
    let error = AttemptResult::Failed("EIO".to_owned());
    assert_eq!(*result("tampered-file"), error);
    assert_eq!(*result("signed"), AttemptResult::Exited(0));
    assert!(
        outcome.console_contains("has the wrong fs-verity digest"),
        "{}",
        console_tail(&outcome)
    );
}

/// Whether fs-verity is enabled on a file.
const FLAGS: Check = Check::Silent("whether fs-verity is enabled is not looked at");

faults! {
    digest_of_another_image: "IMA-433", Reboot, Check::Same, |setup| {
        whole(setup);
        setup.configure(&format!("composefs_digest={}", "ab".repeat(32)));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    image_without_fs_verity: "IMA-433", Halt, FLAGS, |setup| {
        Files::of(setup).disk(setup, &[OBJECTS]);
        setup.says = "fs-verity is not enabled on it";
    };
    file_system_without_fs_verity: "IMA-433", Poweroff, FLAGS, |setup| {
        Files::of(setup).disk(setup, &[]);
        setup.says = "the file system has no fs-verity";
    };
    image_of_somebody_else_s_server: "IMA-433", Panic, Check::NotAsked("the root is not an image"), |setup| {
        let files = Files::of(setup);
        setup.shares.push(Share::Virtiofs {
            tag: "root".to_owned(),
            directory: files.0.keep(),
        });
        setup.root_name = None;
        setup.configure("root=virtiofs:root");
        setup.says = "the file system has no fs-verity";
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    image_of_composefs_that_is_missing: "IMA-432", Reboot, Check::Same, |setup| {
        whole(setup);
        setup.configure("composefs=/other.cfs");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    image_of_composefs_that_is_a_directory: "IMA-432", Halt, Check::Same, |setup| {
        whole(setup);
        setup.configure("composefs=/objects");
    };
    objects_that_are_missing: "IMA-432", Panic, Check::Same, |setup| {
        whole(setup);
        setup.configure("composefs_objects=/other");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    image_of_composefs_that_is_no_erofs: "IMA-434", Poweroff, Check::Same, |setup| {
        let files = Files::of(setup);
        std::fs::write(files.path(IMAGE), [0x5a; 8192]).expect("another image");
        let digest = composefs::digest(&files.path(IMAGE)).expect("a digest");
        setup.configure(&format!("composefs_digest={digest}"));
        files.disk(setup, &[IMAGE, OBJECTS]);
    };
    block_of_the_image_that_is_changed: "IMA-434", Reboot, Check::Sooner("IMA-433"), |setup| {
        let files = Files::of(setup);
        let image = std::fs::read(files.path(IMAGE)).expect("the image");
        files.disk(setup, &[IMAGE, OBJECTS]);
        let place = place_of(setup.disk.as_ref().expect("a disk"), &image);
        setup.damage.push((place + 1024, vec![0xff; 4]));
    };
    objects_without_fs_verity: "IMA-702", Halt, FLAGS, |setup| {
        Files::of(setup).disk(setup, &[IMAGE]);
    };
    object_of_switch_root_that_is_another: "IMA-702", Panic, Check::Same, |setup| {
        let files = Files::of(setup);
        let object = files.object(setup, SWITCH_ROOT);
        std::fs::copy(files.object(setup, INIT), object).expect("another object");
        files.disk(setup, &[IMAGE, OBJECTS]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    object_of_switch_root_that_is_missing: "IMA-702", Reboot, Check::Same, |setup| {
        let files = Files::of(setup);
        let object = files.object(setup, SWITCH_ROOT);
        std::fs::remove_file(object).expect("the object");
        files.disk(setup, &[IMAGE, OBJECTS]);
    };
    init_of_a_composefs_that_is_unsigned: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.root.unsign(INIT);
        whole(setup);
    };
    kernel_without_overlayfs: "IMA-431", Reboot, Check::Same, |setup| {
        whole(setup);
        setup.append("initcall_blacklist=ovl_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    kernel_without_erofs: "IMA-431", Halt, Check::Same, |setup| {
        whole(setup);
        setup.append("initcall_blacklist=erofs_module_init");
    };
    composefs_that_another_initramfs_mounts: "IMA-435", Poweroff, Check::Same, |setup| {
        whole(setup);
        fronted(setup, &like_initramfs_tools());
    };
}
