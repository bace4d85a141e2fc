//! A root file system as a value, and images of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ima_testbed::{Disk, Machine, attempts};
use imactl::image::ImageBuilder;
use imactl::initramfs::InitramfsBuilder;
use imactl::tree::{Content, Inode, Kind};

use crate::built::{Kernel, PROGRAMS, Programs, busybox, scratch};
use crate::flash;
use crate::keys::{Pair, RSA};

/// A regular file.
#[derive(Clone, Debug)]
pub struct File {
    pub mode: u16,
    pub owner: u32,
    pub content: Vec<u8>,
    /// security.ima.
    pub signature: Option<Vec<u8>>,
    /// security.evm.
    pub evm: Option<Vec<u8>>,
}

/// What is in a root: paths are without the leading slash.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
    /// Whether fs-verity can be enabled on its files; ext4 only.
    pub verity: bool,
    /// What is neither, or has a name that is not text; it comes in the place of what else has its name.
    others: BTreeMap<Vec<u8>, Inode>,
}

/// Directories that every root has.
const DIRECTORIES: [&str; 7] = ["dev", "proc", "sys", "run", "tmp", "etc", "usr/sbin"];

pub const SWITCH_ROOT: &str = "usr/sbin/switch_root.static";
pub const INIT: &str = "sbin/init";

impl Tree {
    /// A root that boots: the init's switch_root, the guest program as its init, and the files of the attempts, signed.
    pub fn small() -> Tree {
        Tree::small_of(&PROGRAMS)
    }

    /// The same with other programs.
    pub fn small_of(programs: &Programs) -> Tree {
        let mut tree = Tree::default();
        tree.add(SWITCH_ROOT, 0o700, &programs.switch_root);
        tree.add(INIT, 0o755, &programs.guest);
        tree.sign(&RSA);
        tree
    }

    /// The same with the files of the guest program's attempts.
    pub fn with_attempts(module: Option<&[u8]>) -> Tree {
        Tree::with_attempts_by(module, &RSA)
    }

    /// The same with everything that is signed signed by `key`.
    pub fn with_attempts_by(module: Option<&[u8]>, key: &Pair) -> Tree {
        Tree::with_attempts_of(&PROGRAMS, module, key)
    }

    /// The same with other programs.
    pub fn with_attempts_of(programs: &Programs, module: Option<&[u8]>, key: &Pair) -> Tree {
        let mut tree = Tree::small_of(programs);
        tree.sign(key);
        for file in attempts::files(&programs.guest, module) {
            let mode = file.mode.try_into().expect("permissions");
            tree.add(&file.path, mode, &file.content);
            tree.file(&file.path).signature = file.signature_of.map(|content| key.sign(&content));
        }
        tree
    }

    /// The files of the guest program's attempts to load firmware.
    pub fn add_firmware(&mut self, module: &[u8]) {
        self.link("lib", "usr/lib");
        for file in attempts::firmware_files(module) {
            let mode = file.mode.try_into().expect("permissions");
            self.add(&file.path, mode, &file.content);
            self.file(&file.path).signature = file.signature_of.map(|content| RSA.sign(&content));
        }
    }

    /// A file without signature.
    pub fn add(&mut self, path: &str, mode: u16, content: &[u8]) {
        let file = File {
            mode,
            owner: 0,
            content: content.to_vec(),
            signature: None,
            evm: None,
        };
        self.files.insert(path.to_owned(), file);
    }

    /// A file with the signature of `key`.
    pub fn add_signed(&mut self, path: &str, mode: u16, content: &[u8], key: &Pair) {
        self.add(path, mode, content);
        self.file(path).signature = Some(key.sign(content));
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.links.insert(path.to_owned(), target.to_owned());
    }

    /// Anything: a fifo, a device, a file with holes, a name that is not text.
    pub fn other(&mut self, path: impl Into<Vec<u8>>, kind: Kind) {
        let path = path.into();
        if let Ok(text) = std::str::from_utf8(&path) {
            self.files.remove(text);
        }
        self.others.insert(path, Inode::new(kind, 0o755));
    }

    /// A file with holes alone, of that length in bytes.
    pub fn hole(&mut self, path: &str, len: u64) {
        let (file, host) = tempfile::NamedTempFile::new_in(scratch())
            .expect("a file")
            .keep()
            .expect("a file");
        file.set_len(len).expect("a file with holes");
        self.other(path, Kind::File(Content::Host { path: host, len }));
    }

    /// security.ima of such an entry.
    pub fn sign_other(&mut self, path: &str, signature: Vec<u8>) {
        let other = self.others.get_mut(path.as_bytes());
        let other = other.unwrap_or_else(|| panic!("{path} is not in the tree"));
        other.xattrs.insert(b"security.ima".to_vec(), signature);
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

    /// Seal every file with a portable signature in security.evm.
    pub fn sign_evm(&mut self, key: &Pair) {
        for file in self.files.values_mut() {
            let ima = file.signature.as_ref().expect("a file with security.ima");
            file.evm = Some(key.sign_evm(file.mode, ima));
        }
    }

    /// The same for every file that has a signature.
    pub fn sign_all_evm(&mut self, key: &Pair) {
        for file in self.files.values_mut() {
            if let Some(ima) = &file.signature {
                file.evm = Some(key.sign_evm(file.mode, ima));
            }
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
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode.into()))
                .expect("a mode");
        }
        for (path, target) in &self.links {
            std::os::unix::fs::symlink(target, at(path)).expect("a link");
        }
    }

    /// An image of this root.
    pub fn image(&self, format: &Format) -> PathBuf {
        let (file, image) = tempfile::NamedTempFile::new_in(scratch())
            .expect("an image")
            .keep()
            .expect("an image");
        match format {
            Format::Ext4 { uuid, label } => {
                let builder = self.builder().uuid(*uuid).label(*label).size(64 << 20);
                builder.build(&image).expect("an ext4 image");
                if self.verity {
                    run(Command::new("tune2fs").args(["-O", "verity"]).arg(&image));
                }
            }
            Format::Squashfs => {
                let builder = self.builder().format(imactl::image::Format::Squashfs);
                builder.build(&image).expect("a squashfs image");
            }
            Format::Erofs => {
                let builder = self.builder().format(imactl::image::Format::Erofs);
                builder.build(&image).expect("an erofs image");
            }
            Format::SignedAfterwards => {
                let root = tempfile::tempdir_in(scratch()).expect("a directory");
                self.write(root.path());
                run(Command::new("mke2fs")
                    .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
                    .arg(root.path())
                    .arg(&image)
                    .arg("64M"));
                let all = imactl::image::Signing::All(RSA.identity());
                imactl::image::sign_image(&image, &image, |builder| builder.sign(all), &|| ())
                    .expect("the signatures");
            }
            Format::MkfsErofs => {
                let root = self.directory();
                run(Command::new("mkfs.erofs")
                    .arg("--quiet")
                    .arg(&image)
                    .arg(root.path()));
            }
            Format::Btrfs => {
                let root = self.directory();
                file.set_len(160 << 20).expect("room for the image");
                run(Command::new("mkfs.btrfs")
                    .args(["--quiet", "--rootdir"])
                    .arg(root.path())
                    .arg(&image));
            }
            Format::Filled {
                fstype,
                mkfs,
                megabytes,
            } => {
                file.set_len(megabytes << 20).expect("room for the image");
                run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
                let files = image.with_extension("files");
                let builder = self.builder().size(64 << 20);
                builder.build(&files).expect("an ext4 image");
                fill(&files, &image, fstype);
                fs::remove_file(files).expect("the image");
            }
            Format::Ubifs => {
                flash::ubinize(flash::Volume::Empty, &image);
                let files = self.image(&Format::Ext4 {
                    uuid: [0; 16],
                    label: "files",
                });
                fill(&files, &image, "ubifs");
                fs::remove_file(files).expect("the image");
            }
            Format::MkfsUbifs => {
                let root = self.directory();
                let volume = image.with_extension("volume");
                flash::mkfs(root.path(), &volume);
                flash::ubinize(flash::Volume::Ubifs(&volume), &image);
                fs::remove_file(volume).expect("the volume");
            }
            Format::UbiSquashfs => {
                let volume = self.image(&Format::Squashfs);
                flash::ubinize(flash::Volume::Static(&volume), &image);
                fs::remove_file(volume).expect("the volume");
            }
        }
        image
    }

    /// The root as `imactl` packs it: all files are root's, whoever runs the tests.
    pub fn builder(&self) -> ImageBuilder {
        let mut tree = imactl::tree::Tree::new();
        let mut add = |path: &[u8], inode: Inode| {
            tree.insert(path, inode).expect("an entry of the root");
        };
        for name in DIRECTORIES {
            if !self.others.contains_key(name.as_bytes()) {
                add(name.as_bytes(), Inode::new(Kind::Directory, 0o755));
            }
        }
        for (path, file) in &self.files {
            let content = Content::Bytes(file.content.as_slice().into());
            let mut inode = Inode::new(Kind::File(content), file.mode);
            inode.uid = file.owner;
            for (name, value) in [
                ("security.ima", &file.signature),
                ("security.evm", &file.evm),
            ] {
                if let Some(value) = value {
                    inode.xattrs.insert(name.as_bytes().to_vec(), value.clone());
                }
            }
            add(path.as_bytes(), inode);
        }
        for (path, target) in &self.links {
            let kind = Kind::Symlink(target.as_bytes().to_vec());
            add(path.as_bytes(), Inode::new(kind, 0o777));
        }
        for (path, inode) in &self.others {
            add(path, inode.clone());
        }
        ImageBuilder::new(tree)
    }

    /// The root as files of the host, security.ima on them: for tools that copy it. Needs privilege.
    pub fn directory(&self) -> tempfile::TempDir {
        self.directory_in(scratch())
    }

    /// The same in this directory.
    pub fn directory_in(&self, parent: &Path) -> tempfile::TempDir {
        let root = tempfile::tempdir_in(parent).expect("a directory");
        self.write(root.path());
        self.sign_files(root.path());
        root
    }

    fn sign_files(&self, root: &Path) {
        for (path, file) in &self.files {
            let Some(signature) = &file.signature else {
                continue;
            };
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
    Ext4 {
        uuid: [u8; 16],
        label: &'static str,
    },
    Squashfs,
    Erofs,
    /// ext4 made by mke2fs, signed in the image by the key of all roots.
    SignedAfterwards,
    /// Made by mkfs.erofs.
    MkfsErofs,
    Btrfs,
    /// One that a program makes empty, and a machine fills.
    Filled {
        /// Its type, and the name of its module.
        fstype: &'static str,
        /// The program that makes it, with its options.
        mkfs: &'static [&'static str],
        megabytes: u64,
    },
    /// UBIFS in a UBI volume, on an image of flash, filled by a machine.
    Ubifs,
    /// The same made by mkfs.ubifs.
    MkfsUbifs,
    /// squashfs in a UBI volume.
    UbiSquashfs,
}

/// Has a machine copy the files of one image, on ext4, into the file system of another.
fn fill(from: &Path, to: &Path, fstype: &str) {
    let (source, modules, parameters) = match fstype {
        "ubifs" => (flash::VOLUME, Vec::new(), flash::attach("vdb")),
        _ => ("/dev/vdb", Kernel::Full.modules_for(fstype), String::new()),
    };
    let insert: String = modules
        .iter()
        .map(|(name, _)| format!("busybox insmod /{name}\n"))
        .collect();
    let script = format!(
        "#!/bin/busybox sh\nexport PATH=/bin\nbusybox mkdir -p /dev /from /to\nbusybox mount -t devtmpfs dev /dev\n\
         exec </dev/console >/dev/console 2>&1\n{insert}\
         busybox mount -t ext4 -o ro /dev/vda /from && busybox mount -t {fstype} {source} /to &&\n\
         /guest copy /from /to && busybox umount /to && echo filled\nbusybox poweroff -f\n"
    );
    let mut initramfs = InitramfsBuilder::new()
        .init(script.into_bytes())
        .file("bin/busybox", 0o755, busybox())
        .file("guest", 0o755, PROGRAMS.guest.as_slice())
        .unchecked();
    for (name, content) in modules {
        initramfs = initramfs.file(&name, 0o644, content);
    }
    let path = to.with_extension("initramfs");
    fs::write(&path, initramfs.build().expect("an initramfs")).expect("an initramfs");
    let outcome = Machine::new(Kernel::Full.without_ca())
        .initramfs(&path)
        .disk(Disk::new(from))
        .disk(Disk::new(to).keep_writes())
        .append(parameters)
        .start()
        .expect("the machine starts")
        .finish();
    assert!(
        outcome.console_contains("filled"),
        "{}",
        crate::setup::console_tail(&outcome)
    );
    fs::remove_file(path).expect("the initramfs");
}

/// A program of the host, which must succeed.
pub fn run(command: &mut Command) {
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
