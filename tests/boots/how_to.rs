//! The commands of the how-to pages, executed as they stand there, one after the other; and boots of what they make.
//!
//! Each block of indented lines of a page is in the list of the page's test, in the page's order, with what the test does with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use ima_testbed::{Disk, Machine, Outcome};
use tempfile::TempDir;

use crate::built::{Kernel, PROGRAMS, scratch, source};
use crate::setup::{assert_booted, console_tail};
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
    /// Nothing, for this reason.
    Not(&'static str),
}
use Use::{Configure, Not, Printed, Run, With};

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
static IMACTL: LazyLock<PathBuf> = LazyLock::new(|| {
    // Of the whole workspace: with this package alone, cargo would compile the dependencies with other features.
    run(Command::new(env!("CARGO")).args(["build", "--workspace", "--locked", "--bin", "imactl"]));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target directory");
    target.join("debug")
});

/// A directory with what a reader of the pages has at hand: a root, a policy, a kernel with its configuration, the programs.
pub struct Desk {
    directory: TempDir,
    /// What the last command printed.
    printed: String,
}

impl Desk {
    /// A directory without files.
    pub fn empty() -> Desk {
        Desk {
            directory: TempDir::new_in(scratch()).expect("a directory"),
            printed: String::new(),
        }
    }

    fn new() -> Desk {
        let desk = Desk::empty();
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
        let kernel = Kernel::Full.directory();
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
        let mut desk = Desk::new();
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
                With(words) => {
                    let words = words.iter();
                    self.run(&words.fold(block.clone(), |block, (from, to)| {
                        assert!(block.contains(from), "{from}: {block}");
                        block.replace(from, to)
                    }));
                }
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
            .time_limit(Duration::from_secs(180));
        let machine = disks.iter().fold(machine, |machine, disk| {
            machine.disk(Disk::new(self.path(disk)))
        });
        machine.start().expect("the machine starts").finish()
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
    desk.run("sed -i '/^verity_hash_offset/d' ima-init.conf && imactl initramfs --init ima-init --config ima-init.conf \
              --cert keys/ima.der --policy policy/ima_policy.default --out initramfs.img");
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
    let mut desk = Desk::new();
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
fn overlay() {
    let blocks = page("overlay");
    let mut desk = Desk::with_keys();
    desk.configure("root=/dev/vda");
    desk.run("imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --format erofs --out root.img && \
              truncate -s 64M data.img && printf 'label: gpt\\nname=data\\n' | sfdisk -q data.img && mkfs.ext4 -q -E offset=1048576 data.img 62M");
    let initramfs = "imactl initramfs --init ima-init --config ima-init.conf --cert keys/ima.der --policy policy/ima_policy.default --out initramfs.img";
    let mut later = blocks.as_slice();
    for _ in 0..3 {
        later = desk.follow(later, &[Configure]);
        desk.run(initramfs);
        assert_booted(&desk.boot("initramfs.img", &["root.img", "data.img"], ""));
    }
    assert!(later.is_empty(), "{later:?}");
}

#[test]
fn slots() {
    let blocks = page("slots");
    let mut desk = Desk::with_keys();
    desk.run("imactl image --from rootfs --all-root --key keys/ima.key --cert keys/ima.der --format erofs --out root.img && \
              truncate -s 160M disk.img && printf 'label: gpt\\nsize=64M,name=root-a\\nsize=64M,name=root-b\\n' | sfdisk -q disk.img && \
              dd if=root.img of=disk.img bs=1M seek=65 conv=notrunc");
    desk.follow(&blocks, &[Configure]);
    desk.run("imactl initramfs --init ima-init --config ima-init.conf --cert keys/ima.der --policy policy/ima_policy.default --out initramfs.img");
    // Nothing was written to the first.
    let outcome = desk.boot("initramfs.img", &["disk.img"], "");
    assert_booted(&outcome);
    assert!(
        outcome.console_contains("slot a"),
        "{}",
        console_tail(&outcome)
    );
}
