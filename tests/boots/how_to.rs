//! The commands of the how-to pages, executed as they stand there, one after the other; and boots of what they make.
//!
//! Each block of indented lines of a page is in the list of the page's test, in the page's order, with what the test does with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use ima_testbed::attempts::{DIRECTORY, names::SIGNED};
use ima_testbed::report::GUEST_STARTED;
use ima_testbed::{Disk, Machine, Outcome, Share, Tpm, Uefi, free_port, nfs_export};
use imactl::initramfs::InitramfsBuilder;
use tempfile::TempDir;

use crate::built::{Kernel, PROGRAMS, busybox, scratch, source, virt_firmware};
use crate::flash;
use crate::luks;
use crate::secure_boot;
use crate::setup::{TIME_LIMIT, assert_booted, console_tail};
use crate::tree::{Tree, run};

/// What a test does with a block of a page.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// Executes it.
    Run,
    /// Executes it with some text replaced, such as a file's name in that of a device's.
    With(&'static [(&'static str, &'static str)]),
    /// Expects lines with these keys in what the command before it printed, and adds those to `ima-init.conf`.
    Printed,
    /// Adds it to `ima-init.conf`, in the place of lines with the same keys.
    Configure,
    /// Writes it to this file.
    WriteTo(&'static str),
    /// Executes it in a machine with the desk's machine disks, with some text replaced.
    InMachine(&'static [(&'static str, &'static str)]),
    /// Nothing, for this reason.
    Not(&'static str),
}
use Use::{Configure, InMachine, Not, Printed, Run, With, WriteTo};

/// The command that makes the initramfs of each page that does not say how.
const INITRAMFS: &str = "imactl initramfs --init ima-init --config ima-init.conf --cert keys/ima.der \
                         --policy policy/ima_policy.default --out initramfs.img";

/// Replaces some text of a block, which must contain all of it.
fn replaced(block: &str, words: &[(&str, &str)]) -> String {
    words.iter().fold(block.to_owned(), |block, (from, to)| {
        assert!(block.contains(from), "{from}: {block}");
        block.replace(from, to)
    })
}

/// The blocks of indented lines of a page, without their indentation.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut fenced = false;
    let mut indentation = None;
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let width = line.len() - line.trim_start().len();
        let width = (width >= 4 && !fenced).then_some(width);
        // The continued lines of a list's items are indented by less, or follow one that is not.
        match (width, indentation) {
            (Some(width), Some(first)) if width >= first => {
                let block = blocks.last_mut().expect("a block");
                block.push_str(&line[first..]);
                block.push('\n');
            }
            (Some(width), _) => {
                indentation = Some(width);
                blocks.push(format!("{}\n", &line[width..]));
            }
            (None, _) => indentation = None,
        }
    }
    blocks
}

/// The host tool, built as the tests are.
pub static IMACTL: LazyLock<PathBuf> = LazyLock::new(|| {
    // Of the whole workspace: with this package alone, cargo would compile the dependencies with other features.
    run(Command::new(env!("CARGO")).args(["build", "--workspace", "--locked", "--bin", "imactl"]));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    target.join("debug")
});

/// What a machine that executes commands prints before them, and after them if they succeed.
const BEGIN: &str = "commands begin";
const END: &str = "commands succeeded";

/// The passphrase of an encrypted root.
const PASSPHRASE: &str = "a passphrase of a test";

/// A directory with what a reader of the pages has at hand: a root, a policy, a kernel with its configuration, the programs.
pub struct Desk {
    directory: TempDir,
    /// What the last command printed.
    printed: String,
    /// Disks of the machine that executes commands, by name; what it writes to them stays.
    disks: Vec<&'static str>,
    /// Parameters of its kernel.
    parameters: &'static str,
    /// The state that its TPM is started with, and that of the machines that boot; none has a TPM without it.
    tpm_state: Option<PathBuf>,
    /// Its kernel, and what that of the machines that boot is made of.
    kernel: Kernel,
    /// The firmware of all these machines, where it is UEFI.
    firmware: Option<Uefi>,
}

impl Desk {
    /// A directory without files.
    pub fn empty() -> Desk {
        Desk {
            directory: TempDir::new_in(scratch()).expect("a directory"),
            printed: String::new(),
            disks: Vec::new(),
            parameters: "",
            tpm_state: None,
            kernel: Kernel::Full,
            firmware: None,
        }
    }

    fn new(kernel: Kernel) -> Desk {
        let mut desk = Desk::empty();
        desk.kernel = kernel;
        let root = Tree::small().directory_in(desk.directory.path());
        fs::rename(root.keep(), desk.path("rootfs")).expect("the root");
        for (path, content) in [
            ("ima-init", PROGRAMS.init.clone()),
            ("switch_root", PROGRAMS.switch_root.clone()),
            (
                "policy/ima_policy.default",
                source("policy/ima_policy.default"),
            ),
        ] {
            let path = desk.path(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        let kernel = kernel.directory();
        fs::create_dir(desk.path("linux")).expect("a directory");
        for (from, to) in [
            ("bzImage", "bzImage"),
            ("extra-cert.json", "extra-cert.json"),
            ("config", "linux/.config"),
        ] {
            fs::copy(kernel.join(from), desk.path(to)).expect("the kernel");
        }
        desk
    }

    /// The same with keys, and a kernel with their CA.
    fn with_keys() -> Desk {
        Desk::with_kernel_and_keys(Kernel::Full)
    }

    fn with_kernel_and_keys(kernel: Kernel) -> Desk {
        let mut desk = Desk::new(kernel);
        desk.run("imactl keygen --out keys");
        desk.run("imactl kernel add-ca --image bzImage --cert keys/ca.der --out with-ca");
        fs::rename(desk.path("with-ca"), desk.path("bzImage")).expect("the kernel");
        desk.configure("on_failure=poweroff\nfailure_delay=0\nforward=testbed.*\n");
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Executes a block.
    pub fn run(&mut self, block: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-euc", block])
            .current_dir(self.directory.path())
            .env(
                "PATH",
                format!("{}:{path}:/usr/sbin:/sbin", IMACTL.display()),
            )
            .env("EVMCTL_KEY_PASSWORD", "a password of a test")
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        assert!(
            output.status.success(),
            "{block}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.printed = String::from_utf8_lossy(&output.stdout).into_owned();
    }

    /// Adds lines to `ima-init.conf`, in the place of lines with the same keys.
    fn configure(&self, lines: &str) {
        let path = self.path("ima-init.conf");
        let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
        let keys: Vec<String> = lines.lines().map(key).collect();
        let before = fs::read_to_string(&path).unwrap_or_default();
        let mut text: String = before
            .lines()
            .filter(|line| !keys.contains(&key(line)))
            .map(|line| format!("{line}\n"))
            .collect();
        text.push_str(lines);
        fs::write(path, text).expect("the configuration");
    }

    /// Does with the first blocks of a page what the list says, and returns the others.
    pub fn follow<'a>(&mut self, blocks: &'a [String], uses: &[Use]) -> &'a [String] {
        let (now, later) = blocks.split_at(uses.len());
        for (block, how) in now.iter().zip(uses) {
            match how {
                Run => self.run(block),
                With(words) => self.run(&replaced(block, words)),
                InMachine(words) => self.run_in_machine(&replaced(block, words)),
                WriteTo(name) => fs::write(self.path(name), block).expect("a file"),
                Printed => {
                    let lines = block.lines().map(|line| {
                        let key = &line[..=line.find('=').expect("a key")];
                        let found = self.printed.lines().find(|line| line.starts_with(key));
                        format!(
                            "{}\n",
                            found.unwrap_or_else(|| panic!("{key}: {}", self.printed))
                        )
                    });
                    self.configure(&lines.collect::<String>());
                }
                Configure => self.configure(block),
                Not(reason) => assert!(!reason.is_empty()),
            }
        }
        later
    }

    /// Boots the kernel with this initramfs, disks and parameters.
    fn boot(&self, initramfs: &str, disks: &[&str], parameters: &str) -> Outcome {
        let machine = Machine::new(self.path("bzImage"))
            .initramfs(self.path(initramfs))
            .append(parameters)
            .time_limit(TIME_LIMIT);
        let machine = disks.iter().fold(machine, |machine, disk| {
            machine.disk(Disk::new(self.path(disk)))
        });
        self.start(machine)
    }

    /// Boots a machine, with the TPM and the firmware that the desk has.
    fn start(&self, machine: Machine) -> Outcome {
        let machine = match &self.tpm_state {
            Some(state) => machine.tpm(Tpm::Swtpm).tpm_state(state),
            None => machine,
        };
        let machine = match &self.firmware {
            Some(firmware) => machine.uefi(firmware.clone()),
            None => machine,
        };
        machine.start().expect("the machine starts").finish()
    }

    /// Executes a block as root of a machine, in this directory: what needs devices that the host does not have. The machine's
    /// programs and files are the host's, which it cannot write to. Mounts are on a tmpfs: those on directories of 9p vanish when
    /// the kernel looks the directories up again.
    fn run_in_machine(&mut self, block: &str) {
        fs::write(self.path("block.sh"), block).expect("a file");
        let script = format!(
            "#!/bin/busybox sh\nexport PATH=/bin\nbusybox mkdir -p /dev /host /new\nbusybox mount -t devtmpfs dev /dev\n\
             exec </dev/console >/dev/console 2>&1\n\
             busybox mount -t 9p -o trans=virtio,ro,cache=loose host /host\nbusybox mount -t tmpfs none /new\n\
             cd /host\nfor name in *; do\n\
             if busybox test -L $name; then busybox cp -P $name /new/$name; continue; fi\n\
             case $name in dev | proc | sys | tmp | run | mnt) busybox mkdir /new/$name; continue ;; esac\n\
             if busybox test -d $name; then busybox mkdir /new/$name; busybox mount -o bind $name /new/$name; fi\n\
             done\ncd /\nbusybox mount -o move /dev /new/dev\nbusybox mount -t proc proc /new/proc\n\
             busybox mount -t sysfs sys /new/sys\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin PASSWORD='{PASSPHRASE}'\n\
             echo '{BEGIN}'\n\
             /bin/busybox chroot /new /bin/bash -euc 'cd {directory}; . ./block.sh' </new/dev/null && echo '{END}'\n\
             /bin/busybox poweroff -f\n",
            directory = self.directory.path().display(),
        );
        let initramfs = InitramfsBuilder::new()
            .init(script.into_bytes())
            .file("bin/busybox", 0o755, busybox())
            .unchecked();
        let path = self.path("commands.img");
        fs::write(&path, initramfs.build().expect("an initramfs")).expect("an initramfs");
        let machine = Machine::new(self.kernel.without_ca())
            .initramfs(path)
            .append(self.parameters)
            .share(Share::NineP {
                tag: "host".to_owned(),
                directory: "/".into(),
            })
            .time_limit(TIME_LIMIT);
        let disks = self.disks.iter();
        let machine = disks.fold(machine, |machine, disk| {
            machine.disk(Disk::new(self.path(disk)).keep_writes())
        });
        let outcome = self.start(machine);
        let printed = outcome.console.split_once(BEGIN);
        let printed = printed.and_then(|(_, rest)| rest.split_once(END));
        let (printed, _) = printed.unwrap_or_else(|| panic!("{block}: {}", console_tail(&outcome)));
        self.printed = printed.replace('\r', "");
    }
}

/// The blocks of a page.
pub fn page(name: &str) -> Vec<String> {
    let text = source(&format!("docs/how-to/{name}.md"));
    blocks(&String::from_utf8(text).expect("text"))
}

/// The content of a page's first code block in this language.
pub fn fenced(name: &str, language: &str) -> String {
    let page = String::from_utf8(source(&format!("docs/how-to/{name}.md"))).expect("text");
    let (_, block) = page
        .split_once(&format!("```{language}\n"))
        .unwrap_or_else(|| panic!("no block of {language}"));
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn verity() {
    let blocks = page("verity");
    let mut desk = Desk::with_keys();
    desk.run("cp keys/ima.key keys/ima.der . && cp keys/ima.der roots.der");
    // The root hash in the configuration.
    let later = desk.follow(&blocks, &[Run, Printed, Run]);
    assert_booted(&desk.boot("initramfs.img", &["root.img"], "root=/dev/vda"));
    // Its partitions are found by the root hash.
    let later = {
        let signed = later;
        let [sign, signed_conf, by_hash, ..] = signed else {
            panic!("blocks of a signed root hash")
        };
        desk.run(sign);
        assert!(
            desk.printed
                .lines()
                .any(|line| line == signed_conf.trim_end()),
            "{}",
            desk.printed
        );
        desk.run(by_hash);
        &signed[3..]
    };
    let later = desk.follow(
        later,
        &[
            With(&[]),
            Not("a parameter for Linux 7.0 and later: signed_verity::signer_on_the_verity_keyring"),
        ],
    );
    let [sign, ..] = &blocks[3..] else {
        panic!("the command that signs")
    };
    desk.run(&sign.replace("--verity-signature root.sig ", ""));
    let hash = desk
        .printed
        .lines()
        .find(|line| line.starts_with("verity="));
    desk.configure(&format!("{}\n", hash.expect("the root hash").to_owned()));
    desk.run("truncate -s 256M disk.img && printf 'label: gpt\\nsize=64M\\nsize=64M\\n' | sfdisk -q disk.img");
    let later = desk.follow(later, &[Run]);
    desk.run("dd if=root.img of=disk.img bs=1M seek=1 conv=notrunc && dd if=root.verity of=disk.img bs=1M seek=65 conv=notrunc");
    desk.run("sed -i '/^verity_hash_offset/d' ima-init.conf");
    desk.run(INITRAMFS);
    assert_booted(&desk.boot("initramfs.img", &["disk.img"], ""));
    let later = desk.follow(
        later,
        &[
            With(&[
                (
                    "veritysetup format root.img root.verity",
                    "veritysetup format root.img root.verity | tee hash",
                ),
                (
                    "HASH ",
                    "\"$(sed -n 's/^Root hash:[[:space:]]*//p' hash)\" ",
                ),
            ]),
            Run,
            Configure,
        ],
    );
    assert!(later.is_empty(), "{later:?}");
}

#[test]
fn embedded() {
    let blocks = page("embedded");
    let mut desk = Desk::new(Kernel::Full);
    let uses = [
        Not("the programs are built already"),
        Run,
        Run,
        Run,
        Run,
        Run,
        Run,
        Run,
        Run,
        Run,
        Run,
    ];
    let later = desk.follow(&blocks, &uses);
    let [qemu, console] = later else {
        panic!("the machine, and its console: {later:?}")
    };
    // The guest program reports to a port that this machine does not have, and switches off.
    desk.run(qemu);
    for line in console.lines() {
        let until = line.find(" (").unwrap_or(line.len());
        assert!(
            desk.printed.contains(&line[..until]),
            "{line}\n{}",
            desk.printed
        );
    }
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn overlay() {
    let blocks = page("overlay");
    let mut desk = Desk::with_keys();
    desk.configure("root=/dev/vda");
    desk.run("imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --format erofs --out root.img && \
              truncate -s 64M data.img && printf 'label: gpt\\nname=data\\n' | sfdisk -q data.img && mkfs.ext4 -q -E offset=1048576 data.img 62M");
    let mut later = blocks.as_slice();
    for _ in 0..3 {
        later = desk.follow(later, &[Configure]);
        desk.run(INITRAMFS);
        assert_booted(&desk.boot("initramfs.img", &["root.img", "data.img"], ""));
    }
    assert!(later.is_empty(), "{later:?}");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn slots() {
    let blocks = page("slots");
    let mut desk = Desk::with_keys();
    desk.run("imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --format erofs --out root.img && \
              truncate -s 160M disk.img && printf 'label: gpt\\nsize=64M,name=root-a\\nsize=64M,name=root-b\\n' | sfdisk -q disk.img && \
              dd if=root.img of=disk.img bs=1M seek=65 conv=notrunc");
    let later = desk.follow(&blocks, &[Configure]);
    desk.run(INITRAMFS);
    // Nothing was written to the first.
    let outcome = desk.boot("initramfs.img", &["disk.img"], "");
    assert_slot_b(&outcome);
    // With signed root hashes: there is nothing of the first at all.
    let later = desk.follow(later, &[Configure]);
    desk.run("sed -i /^root=/d ima-init.conf");
    desk.run(
        "imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --format erofs \
         --verity --verity-out root.verity --verity-signature root.sig --out root.img",
    );
    desk.run(
        "hash=$(sed -En 's/.*\"rootHash\": ?\"([0-9a-f]+)\".*/\\1/p' root.sig)
         uuid() { sed -E 's/(.{8})(.{4})(.{4})(.{4})(.{12})/\\1-\\2-\\3-\\4-\\5/'; }
         truncate -s 160M disk.img
         printf '%s\\n' 'label: gpt' size=64M size=64M 'size=1M,name=root-b-sig' | sfdisk -q disk.img
         sfdisk -q --part-uuid disk.img 1 \"$(cut -c1-32 <<<\"$hash\" | uuid)\"
         sfdisk -q --part-uuid disk.img 2 \"$(cut -c33-64 <<<\"$hash\" | uuid)\"
         dd if=root.img of=disk.img bs=1M seek=1 conv=notrunc
         dd if=root.verity of=disk.img bs=1M seek=65 conv=notrunc
         dd if=root.sig of=disk.img bs=1M seek=129 conv=notrunc",
    );
    desk.run(INITRAMFS);
    assert_slot_b(&desk.boot("initramfs.img", &["disk.img"], "rootwait=1"));
    let later = desk.follow(
        later,
        &[
            Not("systemd-boot's counter is not tested, as the page says"),
            Not("U-Boot's counter is not tested, as the page says"),
        ],
    );
    assert!(later.is_empty(), "{later:?}");
}

/// The root of the slot b was booted, because that of a was refused.
fn assert_slot_b(outcome: &Outcome) {
    let (slot, refused) = crate::slots::booted(assert_booted(outcome));
    assert_eq!(slot, "b");
    assert!(
        matches!(refused.as_slice(), [refused] if refused.starts_with("a ")),
        "{refused:?}"
    );
}

/// The machine of a page reached the root's init, which has no port to report to and switches off.
fn assert_reached_init(printed: &str) {
    for line in [
        "handover: executing /usr/sbin/switch_root.static /sbin/init",
        GUEST_STARTED,
    ] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
}

#[test]
fn flash() {
    let blocks = page("flash");
    let mut desk = Desk::with_keys();
    desk.run(INITRAMFS);
    // A disk as flash: its pages have one byte (drivers/mtd/devices/block2mtd.c).
    let later = desk.follow(
        &blocks,
        &[Run, WriteTo("ubinize.cfg"), With(&[("-m 2048", "-m 1")])],
    );
    flash::fill_up(&desk.path("flash.img"));
    let [squashfs, ubifs, later @ ..] = later else {
        panic!("the parameters of the kernel: {later:?}")
    };
    const BLOCK2MTD: &str = "block2mtd.block2mtd=/dev/vda,128KiB,rootfs";
    let boot = |desk: &Desk, parameters: &str| {
        let parameters = format!("{BLOCK2MTD} {}", parameters.trim());
        assert_booted(&desk.boot("initramfs.img", &["flash.img"], &parameters));
    };
    boot(&desk, squashfs);

    flash::mkfs(&desk.path("rootfs"), &desk.path("root.ubifs"));
    // Debian's cannot, and grep that finds nothing fails.
    let later = desk.follow(later, &[With(&[("getxattr", "getxattr || test $? = 1")])]);
    assert_eq!(desk.printed, "0\n");

    flash::ubinize(flash::Volume::Empty, &desk.path("flash.img"));
    desk.disks = vec!["flash.img"];
    desk.parameters = "block2mtd.block2mtd=/dev/vda,128KiB,rootfs ubi.mtd=rootfs";
    let later = desk.follow(later, &[Run, InMachine(&[]), Run]);
    boot(&desk, ubifs);
    assert!(later.is_empty(), "{later:?}");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn development_roots() {
    let blocks = page("development-roots");
    let mut desk = Desk::with_keys();
    desk.configure("forward=\n");
    let later = desk.follow(&blocks, &[Run, Configure]);
    desk.run(INITRAMFS);
    let [server, machine, later @ ..] = later else {
        panic!("the server and the machine: {later:?}")
    };
    // Both terminals at once; the machine is started when the server listens, and the server ends with it.
    let both = format!(
        "{} &\nuntil [ -S root.socket ]; do kill -0 $!; done\n{machine}",
        server.trim()
    );
    desk.run(&both.replace("/run/root.socket", "root.socket"));
    assert_reached_init(&desk.printed);

    let later = desk.follow(later, &[Configure]);
    desk.run(INITRAMFS);
    let later = desk.follow(later, &[Run]);
    assert_reached_init(&desk.printed);
    assert!(desk.printed.contains("[IMA-451]"), "{}", desk.printed);

    let [root, parameters, export] = later else {
        panic!("root, parameters and server of NFS: {later:?}")
    };
    // The host of QEMU's network. Its server opens files by their handles, which the scratch directory may not have.
    desk.configure(&replaced(root, &[("192.0.2.1", "10.0.2.2")]));
    desk.run(INITRAMFS);
    let served = TempDir::new_in("/var/tmp").expect("a directory");
    desk.run(&format!("cp -a rootfs/. {}", served.path().display()));
    let words = export.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words, nfs_export("/srv/rootfs".as_ref()));
    let port = free_port().expect("a port");
    let machine = Machine::new(desk.path("bzImage"))
        .initramfs(desk.path("initramfs.img"))
        .append(format!(
            "{} ima_appraise=log rootflags=port={port}",
            parameters.trim()
        ))
        .share(Share::Nfs {
            port,
            directory: served.path().to_owned(),
        })
        .time_limit(TIME_LIMIT);
    let outcome = desk.start(machine);
    assert!(
        outcome.console_contains("[IMA-451]"),
        "{}",
        console_tail(&outcome)
    );
    assert_reached_init(&outcome.console);
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn composefs() {
    let blocks = page("composefs");
    let mut desk = Desk::with_keys();
    desk.run(
        "truncate -s 128M disk.img && printf 'label: gpt\\nsize=1M\\ntype=L\\n' | sfdisk -q disk.img",
    );
    desk.disks = vec!["disk.img"];
    // Each of the machines mounts the file system anew.
    let later = desk.follow(
        &blocks,
        &[
            Run,
            Printed,
            InMachine(&[("-n 1 fsverity enable", "-n 1 fsverity enable\numount /mnt")]),
        ],
    );
    let later = desk.follow(
        later,
        &[InMachine(&[(
            "fsverity measure",
            "mount /dev/vda2 /mnt\nfsverity measure",
        )])],
    );
    let configuration = fs::read_to_string(desk.path("ima-init.conf")).expect("a file");
    let digest = configuration
        .lines()
        .find_map(|line| line.strip_prefix("composefs_digest="));
    let measured = format!("sha256:{} /mnt/images/root.cfs", digest.expect("a digest"));
    assert!(
        desk.printed.contains(&measured),
        "{measured}: {}",
        desk.printed
    );
    let later = desk.follow(
        later,
        &[Configure, Not("Debian 12 has no package of composefs"), Run],
    );
    assert_booted(&desk.boot("initramfs.img", &["disk.img"], "root=/dev/vda2"));
    assert!(later.is_empty(), "{later:?}");
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn encryption() {
    let blocks = page("encryption");
    let mut desk = Desk::with_keys();
    desk.run(
        "imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --out root.img && \
         truncate -s 128M disk.img && printf 'label: gpt\\nsize=1M\\nname=root\\n' | sfdisk -q disk.img",
    );
    desk.disks = vec!["disk.img"];
    desk.tpm_state = Some(luks::new_tpm());
    // Without a terminal the passphrase is read from a pipe.
    let later = desk.follow(
        &blocks,
        &[
            InMachine(&[
                ("cryptsetup ", "echo \"$PASSWORD\" | cryptsetup "),
                ("/dev/sda2", "/dev/vda2"),
            ]),
            Configure,
        ],
    );
    desk.run(INITRAMFS);
    let later = desk.follow(later, &[InMachine(&[("/dev/sda2", "/dev/vda2")]), Run]);
    assert_booted(&desk.boot("initramfs.img", &["disk.img"], ""));
    let later = desk.follow(later, &[InMachine(&[("/dev/sda2", "/dev/vda2")])]);
    assert_booted(&desk.boot("initramfs.img", &["disk.img"], ""));
    assert!(later.is_empty(), "{later:?}");
}

/// A program of the root that is changed after it was signed.
const CHANGED: &str = "/usr/bin/changed";

#[test]
fn secure_boot() {
    let blocks = page("secure-boot");
    let mut desk = Desk::with_kernel_and_keys(Kernel::Efi);
    desk.run(&format!(
        "mv bzImage bzImage.signed-ca && echo ID=test >rootfs/etc/os-release && install -D rootfs/sbin/init rootfs{CHANGED} && \
         install -D rootfs/sbin/init rootfs/{DIRECTORY}/{SIGNED} && \
         imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --for-policy policy/ima_policy.default \
         --label root --out root.img"
    ));
    desk.run(&INITRAMFS.replace("initramfs.img", "initramfs.cpio.gz"));
    let parameters = format!("console=ttyS0 no_timer_check testbed.try={CHANGED}");
    let [keys, build, check, says, later @ ..] = blocks.as_slice() else {
        panic!("the image and its check: {blocks:?}")
    };
    desk.run(keys);
    desk.run(&replaced(build, &[("console=tty0", &parameters)]));
    desk.run(check);
    let says = says.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(desk.printed.contains(&says), "{says}\n{}", desk.printed);
    ima_testbed::flip_last_byte(desk.path("root.img"), CHANGED).expect("a change");

    // In a running system, whose firmware is in setup mode.
    const SETUP_MODE: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
    fs::copy(SETUP_MODE, desk.path("enrolled.fd")).expect("the firmware's variables");
    desk.firmware = Some(Uefi::in_file(desk.path("enrolled.fd")));
    let later = desk.follow(
        later,
        &[
            Run,
            InMachine(&[(
                "efi-updatevar -f db.auth",
                "mount -t efivarfs efivarfs /sys/firmware/efi/efivars\nefi-updatevar -f db.auth",
            )]),
        ],
    );
    // In a virtual machine.
    let [variables, install] = later else {
        panic!("the variables and the image: {later:?}")
    };
    let directory = virt_firmware().display().to_string();
    let command = format!("PYTHONPATH={directory} {directory}/bin/virt-fw-vars");
    desk.run(&replaced(variables, &[("virt-fw-vars", &command)]));
    desk.run(&replaced(install, &[("/boot/efi", "esp")]));

    let signed = fs::read(desk.path("esp/EFI/BOOT/BOOTX64.EFI")).expect("the image");
    let mut changed = signed.clone();
    secure_boot::change_byte(&mut changed, ".cmdline");
    let [signed, changed] = [signed, changed]
        .map(|image| secure_boot::system_partition(&[(secure_boot::FIRST, image)]));
    for store in ["enrolled.fd", "vars.fd"] {
        desk.firmware = Some(Uefi::in_file(desk.path(store)));
        let boot = |partition: &Path| {
            let machine = Machine::from_disk(Disk::new(desk.path("root.img")))
                .disk(Disk::new(partition).boot())
                .time_limit(TIME_LIMIT);
            desk.start(machine)
        };
        let outcome = boot(&signed);
        let report = assert_booted(&outcome);
        assert_eq!(report.secure_boot, Some(true), "{store}");
        for name in ["signed", "tampered-file"] {
            let attempt = report.attempts.iter().find(|it| it.name == name);
            assert!(attempt.is_some_and(|it| it.passed), "{:?}", report.attempts);
        }
        secure_boot::assert_shows(&outcome, "Secure boot enabled");
        secure_boot::assert_never_started(&boot(&changed), "Access Denied");
    }
}
