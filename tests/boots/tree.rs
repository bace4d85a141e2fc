//! A root file system as a value, and images of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ima_testbed::attempts;

use crate::built::{PROGRAMS, scratch};
use crate::keys::{Pair, RSA};

/// A regular file.
#[derive(Clone, Debug)]
pub struct File {
    pub mode: u32,
    pub content: Vec<u8>,
    /// security.ima.
    pub signature: Option<Vec<u8>>,
}

/// What is in a root: paths are without the leading slash.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
}

/// Directories that every root has.
const DIRECTORIES: [&str; 7] = ["dev", "proc", "sys", "run", "tmp", "etc", "usr/sbin"];

pub const SWITCH_ROOT: &str = "usr/sbin/switch_root.static";
pub const INIT: &str = "sbin/init";

impl Tree {
    /// A root that boots: the init's switch_root, the guest program as its init, and the files of the attempts, signed.
    pub fn small() -> Tree {
        let mut tree = Tree::default();
        tree.add(SWITCH_ROOT, 0o700, &PROGRAMS.switch_root);
        tree.add(INIT, 0o755, &PROGRAMS.guest);
        tree.sign(&RSA);
        tree
    }

    /// The same with the files of the guest program's attempts.
    pub fn with_attempts(module: Option<&[u8]>) -> Tree {
        let mut tree = Tree::small();
        for file in attempts::files(&PROGRAMS.guest, module) {
            tree.add(&file.path, file.mode, &file.content);
            tree.file(&file.path).signature = file.signature_of.map(|content| RSA.sign(&content));
        }
        tree
    }

    /// A file without signature.
    pub fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        let file = File {
            mode,
            content: content.to_vec(),
            signature: None,
        };
        self.files.insert(path.to_owned(), file);
    }

    /// A file with the signature of `key`.
    pub fn add_signed(&mut self, path: &str, mode: u32, content: &[u8], key: &Pair) {
        self.add(path, mode, content);
        self.file(path).signature = Some(key.sign(content));
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.links.insert(path.to_owned(), target.to_owned());
    }

    pub fn file(&mut self, path: &str) -> &mut File {
        self.files
            .get_mut(path)
            .unwrap_or_else(|| panic!("{path} is not in the tree"))
    }

    pub fn remove(&mut self, path: &str) {
        self.files
            .remove(path)
            .unwrap_or_else(|| panic!("{path} is not in the tree"));
    }

    /// Sign every file with `key`.
    pub fn sign(&mut self, key: &Pair) {
        for file in self.files.values_mut() {
            file.signature = Some(key.sign(&file.content));
        }
    }

    pub fn unsign(&mut self, path: &str) {
        let signature = self.file(path).signature.take();
        assert!(signature.is_some(), "{path} had no signature");
    }

    /// Change a file after it was signed: a byte more at its end, which an ELF program does not mind.
    pub fn tamper(&mut self, path: &str) {
        let file = self.file(path);
        assert!(file.signature.is_some(), "{path} had no signature");
        file.content.push(0);
    }

    fn write(&self, directory: &Path) {
        let at = |path: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            path
        };
        for name in DIRECTORIES {
            fs::create_dir_all(directory.join(name)).expect("a directory");
        }
        for (path, file) in &self.files {
            let path = at(path);
            fs::write(&path, &file.content).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).expect("a mode");
        }
        for (path, target) in &self.links {
            std::os::unix::fs::symlink(target, at(path)).expect("a link");
        }
    }

    fn signatures(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .filter_map(|(path, file)| Some((path.as_str(), file.signature.as_deref()?)))
    }

    /// An image of this root.
    pub fn image(&self, format: &Format) -> PathBuf {
        let work = tempfile::tempdir_in(scratch()).expect("a directory");
        let root = work.path().join("root");
        fs::create_dir(&root).expect("a directory");
        self.write(&root);
        let (file, image) = tempfile::NamedTempFile::new_in(scratch())
            .expect("an image")
            .keep()
            .expect("an image");
        match format {
            Format::Ext4 { uuid, label } => {
                file.set_len(64 << 20).expect("room for the image");
                let mut command = Command::new("mke2fs");
                command.args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0"]);
                command.args(["-U", uuid, "-L", label]).arg("-d").arg(&root);
                run(command.arg(&image));
                self.sign_ext4(&image, work.path());
            }
            Format::Squashfs => {
                self.sign_files(&root);
                run(Command::new("mksquashfs").arg(&root).arg(&image).args([
                    "-noappend",
                    "-quiet",
                    "-no-progress",
                ]));
            }
            Format::Erofs => {
                self.sign_files(&root);
                run(Command::new("mkfs.erofs")
                    .arg("--quiet")
                    .arg(&image)
                    .arg(&root));
            }
            Format::Btrfs => {
                self.sign_files(&root);
                file.set_len(160 << 20).expect("room for the image");
                run(Command::new("mkfs.btrfs")
                    .args(["--quiet", "--rootdir"])
                    .arg(&root)
                    .arg(&image));
            }
        }
        image
    }

    /// security.ima into the finished image: needs no privilege.
    fn sign_ext4(&self, image: &Path, work: &Path) {
        let mut script = String::new();
        for (number, (path, signature)) in self.signatures().enumerate() {
            let value = work.join(number.to_string());
            fs::write(&value, signature).expect("a value");
            script.push_str(&format!(
                "ea_set -f {} /{path} security.ima\n",
                value.display()
            ));
        }
        let mut child = Command::new("debugfs")
            .args(["-w", "-f", "-"])
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("debugfs of e2fsprogs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(script.as_bytes()).expect("debugfs reads");
        drop(stdin);
        let output = child.wait_with_output().expect("debugfs ends");
        // Its exit status is 0 even if a command failed; then it says more than its version.
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && words.lines().count() <= 1,
            "debugfs: {words}"
        );
    }

    /// security.ima onto the files: what the other tools copy. Needs privilege.
    fn sign_files(&self, root: &Path) {
        for (path, signature) in self.signatures() {
            rustix::fs::setxattr(
                root.join(path),
                c"security.ima",
                signature,
                rustix::fs::XattrFlags::empty(),
            )
            .unwrap_or_else(|error| panic!("security.ima onto a file needs root: {error}"));
        }
    }
}

/// The file system of an image.
#[derive(Clone, Debug)]
pub enum Format {
    Ext4 { uuid: String, label: String },
    Squashfs,
    Erofs,
    Btrfs,
}

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
