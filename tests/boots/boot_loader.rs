//! Machines that GRUB starts from a disk with two roots: its counter of boots, as docs/how-to/slots.md sets it up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ima_testbed::{Disk, Ending, Machine, Outcome};
use std::os::unix::fs::FileExt as _;

use crate::built::{busybox, scratch};
use crate::how_to::fenced;
use crate::keys::RSA;
use crate::matrix::Action;
use crate::media::blank;
use crate::partitions::{Partition, disk};
use crate::setup::{Setup, TIME_LIMIT, assert_booted, assert_refused, console_tail};
use crate::slots::booted;
use crate::tree::{INIT, Tree};

/// The type of the partition that has GRUB's core image (GRUB manual, "BIOS installation").
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

const GRUB: &str = "/usr/lib/grub/i386-pc";

/// The script of the page that confirms a slot, and the program that it executes.
const CONFIRM: &str = "usr/sbin/confirm-slot";
const EDITENV: &str = "usr/bin/grub-editenv";

/// The guest program, which the init script executes.
const GUEST: &str = "sbin/guest";

fn from_the_page(language: &str) -> String {
    fenced("slots", language)
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A root whose init confirms its slot, and then is the guest program.
fn confirming() -> Tree {
    let mut tree = Tree::with_attempts(None);
    let guest = tree.file(INIT).content.clone();
    tree.add_signed(GUEST, 0o755, &guest, &RSA);
    let script = format!(
        "#!/bin/sh\nmount -t ext4 /dev/vda2 /boot && /{CONFIRM} && umount /boot\nexec /{GUEST}\n"
    );
    tree.add_signed(INIT, 0o755, script.as_bytes(), &RSA);
    tree.add_signed(CONFIRM, 0o755, from_the_page("sh").as_bytes(), &RSA);
    tree.add_signed("bin/busybox", 0o755, &busybox(), &RSA);
    for applet in ["sh", "mount", "umount", "sed", "reboot"] {
        tree.link(&format!("bin/{applet}"), "busybox");
    }
    tree.add("boot/.empty", 0o644, b"");
    // The program of the distribution, with its loader and its libraries.
    let program = format!("/{EDITENV}");
    let libraries = String::from_utf8(run("ldd", &[&program])).expect("text");
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain([program.as_str()]) {
        let content = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        tree.add_signed(file.trim_start_matches('/'), 0o755, &content, &RSA);
    }
    tree
}

/// A disk with GRUB, a boot partition and a root for each slot.
struct Device {
    disk: PathBuf,
    /// Where the boot partition is on the disk, and its length, in bytes.
    boot: (u64, usize),
}

impl Device {
    /// Both roots are confirming ones, of which that of `a` is changed, and so may be the directory of the boot partition.
    fn new(change: impl FnOnce(&mut Tree), change_boot: impl FnOnce(&Path)) -> Device {
        let mut setup = Setup::new();
        setup.configure("slots=a b");
        setup.configure("root=PARTLABEL=root-{slot}");
        setup.configure("on_failure=reboot");
        setup.root = confirming();
        let b = setup.image();
        change(&mut setup.root);
        let a = setup.image();

        let files = tempfile::tempdir_in(scratch()).expect("a directory");
        let directory = files.path();
        fs::create_dir(directory.join("grub")).expect("a directory");
        fs::write(directory.join("grub/grub.cfg"), from_the_page("grub")).expect("a file");
        run(
            "grub-editenv",
            &[text(&directory.join("grub/grubenv")), "create"],
        );
        for slot in ["a", "b"] {
            let directory = directory.join(slot);
            fs::create_dir(&directory).expect("a directory");
            fs::copy(setup.kernel.with_ca(), directory.join("vmlinuz")).expect("the kernel");
            fs::write(directory.join("initramfs"), setup.packed()).expect("the initramfs");
        }
        change_boot(directory);
        let boot = blank(96);
        let arguments = ["-q", "-F", "-t", "ext4", "-d", text(directory), text(&boot)];
        run("mke2fs", &arguments);

        let core = core_image(directory);
        let partition = |image, name, number| Partition {
            image,
            uuid: [number; 16],
            kind: None,
            name,
        };
        let partitions = [
            Partition {
                kind: Some(BIOS_BOOT),
                ..partition(&core, "grub", 1)
            },
            partition(&boot, "boot", 2),
            partition(&a, "root-a", 3),
            partition(&b, "root-b", 4),
        ];
        let (disk, places) = disk(&partitions);
        write_first_sectors(&disk, places[0]);
        let length = fs::metadata(&boot).expect("the boot partition").len();
        for file in [a, b, boot, core] {
            fs::remove_file(file).expect("a file");
        }
        let boot = (places[1], usize::try_from(length).expect("a length"));
        Device { disk, boot }
    }

    fn boot(&self) -> Outcome {
        Machine::from_disk(Disk::new(&self.disk).keep_writes())
            .time_limit(TIME_LIMIT)
            .signer(|request| Ok(RSA.sign_digest(&request.sha256)))
            .start()
            .expect("the machine starts")
            .finish()
    }

    /// The variables of `grubenv` on the disk.
    fn variables(&self) -> BTreeMap<String, String> {
        let file = fs::File::open(&self.disk).expect("the disk");
        let mut content = vec![0; self.boot.1];
        file.read_exact_at(&mut content, self.boot.0)
            .expect("the boot partition");
        let image = tempfile::NamedTempFile::new_in(scratch()).expect("a file");
        fs::write(image.path(), content).expect("a file");
        let block = run("debugfs", &["-R", "cat /grub/grubenv", text(image.path())]);
        assert_eq!(block.len(), 1024, "grubenv");
        fs::write(image.path(), block).expect("a file");
        let list = run("grub-editenv", &[text(image.path()), "list"]);
        let list = String::from_utf8(list).expect("text");
        list.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The slot that GRUB chose last, and how many boots each has left.
    fn counters(&self) -> [String; 3] {
        let variables = self.variables();
        ["slot", "a_left", "b_left"].map(|name| variables.get(name).cloned().unwrap_or_default())
    }

    /// Boots `b`, whose root enforces the policy and confirms itself; `refused` are the slots that the init refused before.
    fn boots_b(&self, refused: &[&str]) {
        let outcome = self.boot();
        let report = assert_booted(&outcome);
        let (slot, codes) = booted(report);
        assert_eq!(
            (slot.as_str(), codes),
            ("b", refused.iter().map(|it| (*it).to_owned()).collect())
        );
        let failed: Vec<_> = report.attempts.iter().filter(|it| !it.passed).collect();
        assert!(
            !report.attempts.is_empty() && failed.is_empty(),
            "{failed:#?}"
        );
    }

    /// Boots `b`, which GRUB chooses because `a` has no boots left.
    fn chooses_b(&self) {
        self.boots_b(&[]);
        assert_eq!(self.counters(), ["b", "0", "3"]);
    }

    /// Boots `a` as often as GRUB does, and has each outcome checked; then GRUB chooses `b`.
    fn counts_down_to_b(&self, check: impl Fn(&Outcome)) {
        for left in ["2", "1", "0"] {
            let outcome = self.boot();
            check(&outcome);
            let console = console_tail(&outcome);
            assert_eq!(self.counters(), ["a", left, "3"], "{console}");
        }
        self.chooses_b();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.disk);
    }
}

/// GRUB's core image, as `grub-install` makes it for a BIOS, with the parameters of the kernel in its configuration.
fn core_image(directory: &Path) -> PathBuf {
    let early = directory.with_extension("cfg");
    let parameters = "set parameters=\"console=ttyS0 no_timer_check\"\n";
    fs::write(&early, parameters).expect("a file");
    let core = blank(0);
    let mut arguments = vec![
        "-O",
        "i386-pc",
        "-d",
        GRUB,
        "-p",
        "(hd0,gpt2)/grub",
        "-c",
        text(&early),
        "-o",
        text(&core),
    ];
    arguments.extend([
        "biosdisk", "part_gpt", "ext2", "normal", "loadenv", "test", "linux", "reboot",
    ]);
    run("grub-mkimage", &arguments);
    fs::remove_file(early).expect("a file");
    core
}

/// Makes the first sector load the core image, and the core image's first sector load the rest of it: as grub-bios-setup
/// does (include/grub/i386/pc/boot.h, `GRUB_BOOT_MACHINE_KERNEL_SECTOR`; include/grub/offsets.h, `struct grub_pc_bios_boot_blocklist`).
fn write_first_sectors(disk: &Path, core: u64) {
    let sector = core / 512;
    let file = fs::File::options()
        .write(true)
        .open(disk)
        .expect("the disk");
    let code = fs::read(Path::new(GRUB).join("boot.img")).expect("package grub-pc-bin");
    let put = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).expect("a write");
    put(&code[..440], 0);
    put(&sector.to_le_bytes(), 0x5c);
    put(&(sector + 1).to_le_bytes(), core + 512 - 12);
}

/// The init of the root is not signed, and its policy stays in the kernel: the init tries no other root.
fn leaves_rules(root: &mut Tree) {
    let rule = b"measure func=CRITICAL_DATA\n";
    root.add_signed("etc/ima/ima-policy", 0o644, rule, &RSA);
    root.unsign(INIT);
}

#[test]
fn grub_counts_down_to_the_other_slot() {
    let device = Device::new(leaves_rules, |_| {});
    device.counts_down_to_b(|outcome| assert_refused(outcome, "IMA-713", Action::Reboot));
    device.chooses_b();
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn slot_that_is_never_confirmed() {
    let restarting = |root: &mut Tree| {
        root.add_signed(INIT, 0o755, b"#!/bin/sh\nexec reboot -f\n", &RSA);
    };
    let device = Device::new(restarting, |_| {});
    device.counts_down_to_b(|outcome| {
        let console = console_tail(outcome);
        assert_eq!(outcome.ending, Ending::Reboot, "{console}");
        let executed = outcome.console_contains("handover: executing");
        let refused = outcome.console_contains("refused: [");
        assert!(executed && !refused, "{console}");
    });
}

/// The init boots the other root itself, and GRUB learns it from the script.
#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn slot_that_the_init_left_is_not_chosen_again() {
    let device = Device::new(|root| root.unsign(INIT), |_| {});
    device.boots_b(&["a IMA-713"]);
    assert_eq!(device.counters(), ["a", "0", "3"]);
    device.chooses_b();
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn slot_without_a_kernel() {
    let device = Device::new(
        |_| {},
        |boot| fs::remove_file(boot.join("a/vmlinuz")).expect("a kernel"),
    );
    device.counts_down_to_b(|outcome| {
        // GRUB restarted the machine: no kernel has printed anything.
        let restarted =
            matches!(&outcome.ending, Ending::QemuFailed(why) if why.starts_with("guest-reset"));
        assert!(
            restarted && !outcome.console_contains("Linux version"),
            "{}",
            console_tail(outcome)
        );
    });
}

/// A slot is confirmed and stays the one that is chosen.
#[test]
fn slot_that_confirms_itself_keeps_its_boots() {
    let device = Device::new(|_| {}, |_| {});
    for _ in 0..4 {
        let outcome = device.boot();
        assert_eq!(booted(assert_booted(&outcome)).0, "a");
        assert_eq!(device.counters(), ["a", "3", "3"]);
    }
}
