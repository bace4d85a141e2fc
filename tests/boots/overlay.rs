//! A writable layer over the root: `overlay=`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use ima_testbed::report::AttemptResult;

use crate::accepted::{assert_all_attempts_passed, init_report};
use crate::keys::RSA;
use crate::matrix::{Check, faults};
use crate::media::blank;
use crate::setup::{Setup, assert_booted, root_of};
use crate::tree::{Format, INIT, Tree, run};

const SILENT: Check = Check::Silent("the writable layer is not looked at");

/// The directory of switch_root, and its path below the root.
const SWITCH_ROOT: &str = "usr/sbin/switch_root.static";

/// A second disk with ext4, filled by `fill`, for the writable layer.
fn layer(setup: &mut Setup, fill: impl FnOnce(&Path)) -> PathBuf {
    let content = tempfile::tempdir().expect("a directory");
    fill(content.path());
    let disk = blank(16);
    let mut mkfs = Command::new("mkfs.ext4");
    run(mkfs.args(["-q", "-d"]).arg(content.path()).arg(&disk));
    setup.more_disks.push(disk.clone());
    setup.configure("overlay=/dev/vdb");
    disk
}

/// A file of the upper directory.
fn upper(content: &Path, path: &str) -> PathBuf {
    let file = content.join("upper").join(path);
    let parent = file.parent().expect("a parent");
    std::fs::create_dir_all(parent).expect("a directory");
    file
}

fn set_signature(path: &Path, signature: &[u8]) {
    rustix::fs::setxattr(
        path,
        "security.ima",
        signature,
        rustix::fs::XattrFlags::empty(),
    )
    .expect("an attribute, as root");
}

/// The same is denied and allowed as on a root without an overlay, whatever the type of the root.
#[test]
fn in_memory() {
    for format in [Format::Squashfs, Setup::new().format] {
        let mut setup = Setup::new();
        setup.format = format;
        setup.root = Tree::with_attempts(None);
        setup.configure("overlay=tmpfs");
        let outcome = setup.boot();
        let report = assert_booted(&outcome);
        let root = root_of(report);
        assert_eq!(root.fstype, "overlay");
        assert!(root.options.iter().any(|it| it == "rw"), "{root:?}");
        assert_eq!(init_report(report)["root"]["overlay"], "tmpfs");
        assert_all_attempts_passed(report);
    }
}

/// Nothing is left of the mounts below the overlay that a program could write to.
#[test]
fn layers_have_no_paths_of_their_own() {
    let mut setup = Setup::new();
    layer(&mut setup, |_| {});
    let outcome = setup.boot();
    let report = assert_booted(&outcome);
    assert_eq!(init_report(report)["root"]["overlay"], "/dev/vdb");
    for mount in &report.mounts {
        assert!(
            !["/dev/vda", "/dev/vdb"].contains(&mount.source.as_str()),
            "{mount:?}"
        );
    }
}

/// What comes of a program that is in the writable layer when the machine starts.
fn program_in_the_layer(signed: bool, wiped: bool) -> AttemptResult {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(None);
    let program = setup.root.file(INIT).content.clone();
    layer(&mut setup, |content| {
        let path = upper(content, "opt/program");
        std::fs::write(&path, &program).expect("a program");
        run(Command::new("chmod").arg("755").arg(&path));
        if signed {
            set_signature(&path, &RSA.identity().sign(&program).expect("a signature"));
        }
    });
    if wiped {
        setup.configure("overlay_wipe=yes");
    }
    setup.append("testbed.try=/opt/program");
    let outcome = setup.boot();
    let mut attempts = assert_booted(&outcome).attempts.iter();
    let tried = attempts.find(|it| it.name == "tampered-file");
    tried.expect("the attempt").result.clone()
}

#[test]
fn programs_that_are_kept_are_appraised() {
    let denied = AttemptResult::Failed("EACCES".to_owned());
    assert_eq!(program_in_the_layer(false, false), denied);
    let ran = program_in_the_layer(true, false);
    assert!(matches!(ran, AttemptResult::Exited(_)), "{ran:?}");
}

#[test]
fn programs_that_are_wiped_are_gone() {
    let gone = program_in_the_layer(true, true);
    assert!(format!("{gone:?}").contains("ENOENT"), "{gone:?}");
}

/// Whoever wrote the layer cannot keep it from being wiped by directories in directories.
#[test]
fn deep_directories_are_wiped() {
    let mut setup = Setup::new();
    let disk = layer(&mut setup, |content| drop(upper(content, "file")));
    // mkfs.ext4 itself fails with so many. More than the descriptors that a process may have.
    let commands = tempfile::NamedTempFile::new().expect("a file");
    let deep = "cd /upper\n".to_owned() + &"mkdir d\ncd d\n".repeat(3000);
    std::fs::write(commands.path(), deep).expect("commands");
    let mut debugfs = Command::new("debugfs");
    run(debugfs.arg("-w").arg("-f").arg(commands.path()).arg(&disk));
    setup.configure("overlay_wipe=yes");
    assert_booted(&setup.boot());
}

faults! {
    overlay_whose_device_is_missing: "IMA-419", Reboot, Check::Silent("the image is one disk"), |setup| {
        setup.configure("overlay=/dev/vdb");
        setup.append("rootwait=1");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    overlay_on_an_empty_disk: "IMA-420", Halt, SILENT, |setup| {
        setup.more_disks.push(blank(16));
        setup.configure("overlay=/dev/vdb");
    };
    overlay_on_a_file_system_without_attributes: "IMA-420", Poweroff, SILENT, |setup| {
        let disk = blank(16);
        run(Command::new("mkfs.vfat").arg(&disk));
        setup.more_disks.push(disk);
        setup.configure("overlay=/dev/vdb");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    overlay_whose_directory_is_a_link: "IMA-420", Panic, SILENT, |setup| {
        layer(setup, |content| {
            symlink("/run", content.join("upper")).expect("a link");
        });
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    overlay_whose_work_directory_is_a_file: "IMA-420", Reboot, SILENT, |setup| {
        layer(setup, |content| {
            std::fs::write(content.join("work"), b"x").expect("a file");
        });
    };
    overlay_with_a_file_that_cannot_be_wiped: "IMA-420", Reboot, SILENT, |setup| {
        let disk = layer(setup, |content| {
            std::fs::write(upper(content, "file"), b"x").expect("a file");
        });
        // What chattr +i sets, beside the flag for extents (fs/ext4/ext4.h).
        run(Command::new("debugfs")
            .args(["-w", "-R", "set_inode_field /upper/file flags 0x80010"])
            .arg(&disk));
        setup.configure("overlay_wipe=yes");
    };
    overlay_without_switch_root: "IMA-701", Halt, SILENT, |setup| {
        layer(setup, |content| {
            let whiteout = upper(content, SWITCH_ROOT);
            run(Command::new("mknod").arg(whiteout).args(["c", "0", "0"]));
        });
    };
    overlay_with_another_init: "IMA-713", Poweroff, SILENT, |setup| {
        let mut program = setup.root.file(INIT).content.clone();
        program.push(0);
        layer(setup, |content| {
            let init = upper(content, INIT);
            std::fs::write(&init, &program).expect("a program");
            run(Command::new("chmod").arg("755").arg(init));
        });
    };
    overlay_with_a_signature_of_another_file: "IMA-713", Panic, SILENT, |setup| {
        let mut program = setup.root.file(INIT).content.clone();
        let signature = RSA.identity().sign(&program).expect("a signature");
        program.push(0);
        layer(setup, |content| {
            let init = upper(content, INIT);
            std::fs::write(&init, &program).expect("a program");
            run(Command::new("chmod").arg("755").arg(&init));
            set_signature(&init, &signature);
        });
    };
    overlay_of_another_initramfs: "IMA-415", Reboot, Check::Same, |setup| {
        setup.configure("overlay=tmpfs");
        crate::front::fronted(setup, &crate::front::like_initramfs_tools());
    };
}
