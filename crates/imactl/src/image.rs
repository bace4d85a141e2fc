//! Root images from a [`Tree`], with signatures made on the way, without privilege: ext4, squashfs, or a tar archive.

mod archive;
mod blocks;
mod bounds;
pub mod composefs;
mod erofs;
mod ext4;
mod programs;
mod resign;
mod source;

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ima::fault::{Code, Fault};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::digest::hash_zeros;
use crate::file::Output;
use crate::identity::Identity;
use crate::select::{self, Appraisal, Pattern};
use crate::tree::{Content, Inode, InodeIndex, Kind, Piece, Tree};
use crate::xattr::{SECURITY_EVM, SECURITY_IMA};

use blocks::RunCollector;
pub use blocks::{BLOCK, DataRuns, ReadContent, WriteBlocks};
pub use ext4::read as read_ext4;
pub use resign::sign_image;
pub use source::{Source, filesystem, read};

/// Which regular files get signatures.
#[derive(Debug, Clone)]
pub enum Signing {
    /// All of them.
    All(Identity),
    /// Those that a policy will have appraised.
    ForPolicy(Identity, Box<Appraisal>),
}

/// What is made of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// An ext4 file system.
    #[default]
    Ext4,
    /// A squashfs file system, by the program `mksquashfs`.
    Squashfs,
    /// An erofs file system, not compressed.
    Erofs,
    /// A tar archive in PAX format.
    Tar,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Size of the image in bytes.
    pub size: u64,
    /// Inodes in it.
    pub inodes: usize,
    /// Regular files that were signed.
    pub signed: usize,
    /// Regular files that were left as they were.
    pub unsigned: usize,
}

/// An image in the making: a tree, and how it is to be packed. What is wrong with an entry is said when the image is built.
#[derive(Debug)]
pub struct ImageBuilder {
    tree: Tree,
    fault: Option<Fault>,
    signing: Option<Signing>,
    unsigned: Vec<Pattern>,
    evm: Option<Identity>,
    format: Format,
    size: Option<u64>,
    label: String,
    uuid: Option<[u8; 16]>,
    hash_seed: Option<[u8; 16]>,
    time: Option<i64>,
    journal: bool,
    inodes: Option<u32>,
    objects: Option<PathBuf>,
    /// Compressor and block size.
    squashfs: Option<(&'static str, u32)>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new(Tree::new())
    }
}

impl ImageBuilder {
    /// An image of that tree.
    #[must_use]
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            fault: None,
            signing: None,
            unsigned: Vec::new(),
            evm: None,
            format: Format::default(),
            size: None,
            label: String::new(),
            uuid: None,
            hash_seed: None,
            time: None,
            journal: true,
            inodes: None,
            objects: None,
            squashfs: None,
        }
    }

    /// Adds a directory of root's.
    #[must_use]
    pub fn directory(self, path: &str, mode: u16) -> Self {
        self.entry(path, Inode::new(Kind::Directory, mode))
    }

    /// Adds a regular file of root's.
    #[must_use]
    pub fn file(self, path: &str, mode: u16, content: impl Into<Vec<u8>>) -> Self {
        self.entry(
            path,
            Inode::new(Kind::File(Content::Bytes(content.into().into())), mode),
        )
    }

    /// Adds a regular file of root's with that `security.ima`, signature or not.
    #[must_use]
    pub fn file_with_ima(
        self,
        path: &str,
        mode: u16,
        content: impl Into<Vec<u8>>,
        ima: impl Into<Vec<u8>>,
    ) -> Self {
        self.file(path, mode, content)
            .xattr(path, SECURITY_IMA, ima)
    }

    /// Adds a regular file of root's with a good signature.
    #[must_use]
    pub fn signed_file(
        mut self,
        path: &str,
        mode: u16,
        content: impl Into<Vec<u8>>,
        identity: &Identity,
    ) -> Self {
        let content = content.into();
        match identity.sign(&content) {
            Ok(ima) => self.file_with_ima(path, mode, content, ima),
            Err(fault) => {
                self.fault.get_or_insert(fault);
                self
            }
        }
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(
            path,
            Inode::new(Kind::Symlink(target.as_bytes().to_vec()), 0o777),
        )
    }

    /// Adds an entry of any kind.
    #[must_use]
    pub fn entry(mut self, path: &str, inode: Inode) -> Self {
        if let Err(fault) = self.tree.insert(path.as_bytes(), inode) {
            self.fault.get_or_insert(fault);
        }
        self
    }

    /// Adds another name of a file.
    #[must_use]
    pub fn hard_link(mut self, path: &str, target: &str) -> Self {
        if let Err(fault) = self.tree.link(path.as_bytes(), target.as_bytes()) {
            self.fault.get_or_insert(fault);
        }
        self
    }

    /// Sets the owner of an entry that is there.
    #[must_use]
    pub fn owner(self, path: &str, uid: u32, gid: u32) -> Self {
        self.change(path, |inode| (inode.uid, inode.gid) = (uid, gid))
    }

    /// Sets an extended attribute of an entry that is there.
    #[must_use]
    pub fn xattr(self, path: &str, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.change(path, |inode| {
            inode.xattrs.insert(name.as_bytes().to_vec(), value.into());
        })
    }

    fn change(mut self, path: &str, change: impl FnOnce(&mut Inode)) -> Self {
        match self.tree.get_mut(path.as_bytes()) {
            Some(inode) => change(inode),
            None => {
                self.fault.get_or_insert(Fault::new(
                    Code::ImageContent,
                    format!("{path}: no such entry"),
                ));
            }
        }
        self
    }

    /// Signs while building. Files that are not chosen keep the `security.ima` they have.
    #[must_use]
    pub fn sign(mut self, signing: Signing) -> Self {
        self.signing = Some(signing);
        self
    }

    /// Leaves files whose names match as they are, whatever [`sign`](Self::sign) says.
    #[must_use]
    pub fn unsigned(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        self.unsigned.extend(patterns);
        self
    }

    /// Gives each regular file that has `security.ima` a portable EVM signature too. Owner, mode and attributes are part of what
    /// is signed: a file that is changed in any of them is denied where EVM is in force.
    #[must_use]
    pub fn evm(mut self, identity: Identity) -> Self {
        self.evm = Some(identity);
        self
    }

    /// Sets what is made; ext4 otherwise. Size, hash seed, journal and inodes are for ext4 alone, label and UUID for ext4 and
    /// erofs.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets the size in bytes; otherwise it is what the content needs and a tenth more.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Sets the volume label, at most 16 bytes.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the UUID; otherwise it follows from the content's names, sizes and times.
    #[must_use]
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Sets the seed of directory hashes; otherwise it follows from the UUID.
    #[must_use]
    pub fn hash_seed(mut self, seed: [u8; 16]) -> Self {
        self.hash_seed = Some(seed);
        self
    }

    /// Sets the time of making, seconds since 1970, and limits every file's time to it; otherwise it is the time of the newest
    /// file.
    #[must_use]
    pub fn time(mut self, seconds: i64) -> Self {
        self.time = Some(seconds);
        self
    }

    /// Whether to make a journal; yes, unless said otherwise, if the image is at least 8 MiB.
    #[must_use]
    pub fn journal(mut self, journal: bool) -> Self {
        self.journal = journal;
        self
    }

    /// Sets the number of inodes, at least.
    #[must_use]
    pub fn inodes(mut self, inodes: u32) -> Self {
        self.inodes = Some(inodes);
        self
    }

    /// Writes the content of the files below this directory, each under the name of its fs-verity digest, in place of the
    /// image: with erofs that is a composefs.
    #[must_use]
    pub fn objects(mut self, directory: impl Into<PathBuf>) -> Self {
        self.objects = Some(directory.into());
        self
    }

    /// Builds the image as the file `path`. Nothing is left under that name unless the image is whole.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::OutputUnwritable`], [`Code::SigningFailed`], [`Code::FileChanged`],
    /// [`Code::ImageTooSmall`], [`Code::ImageContent`].
    pub fn build(self, path: &Path) -> Result<Summary> {
        self.build_with(path, &|| ())
    }

    /// The same, calling `progress` once for each file read.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with(mut self, path: &Path, progress: &(dyn Fn() + Sync)) -> Result<Summary> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if let Some(time) = self.time {
            self.tree.clamp_times(time);
        }
        let mut output = Output::create(path)?;
        let mut signed = self.sign_tree(progress)?;
        if let Some(directory) = self.objects.take() {
            self.move_content(&directory, &mut signed)?;
        }
        let SignedTree {
            mut summary,
            runs,
            digests,
        } = signed;
        let unwritable = |error: std::io::Error| crate::file::unwritable(path, &error);
        let image = output.file().try_clone().map_err(unwritable)?;
        match self.format {
            Format::Ext4 => {
                let parameters = self.parameters();
                let writer = ext4::Writer::plan(&self.tree, &runs, &parameters)?;
                writer.write(&image, &mut |index, write| {
                    self.read_blocks(index, digests.get(&index), write)
                })?;
            }
            Format::Erofs => {
                let ext4::Parameters {
                    uuid, label, time, ..
                } = self.parameters();
                let parameters = erofs::Parameters { uuid, label, time };
                let writer = erofs::Writer::plan(&self.tree, &runs, &parameters)?;
                writer.write(&image, &mut |index, write| {
                    self.read_blocks(index, digests.get(&index), write)
                })?;
            }
            Format::Tar => {
                let mut out = std::io::BufWriter::with_capacity(1 << 18, &image);
                self.write_archive(&mut out, &digests)?;
                out.flush().map_err(unwritable)?;
            }
            Format::Squashfs => self.write_squashfs(output.path(), &digests)?,
        }
        // Written under the name by another program, it may be another file by now.
        summary.size = std::fs::metadata(output.path()).map_err(unwritable)?.len();
        output.finish(0o644, true)?;
        Ok(summary)
    }

    /// Reads every file, and puts the signatures into the tree.
    fn sign_tree(&mut self, progress: &(dyn Fn() + Sync)) -> Result<SignedTree> {
        let mut signed = SignedTree::default();
        for (index, file) in self.read_content(progress)? {
            signed.summary.signed += usize::from(file.ima.is_some());
            signed.summary.unsigned += usize::from(file.ima.is_none());
            if let Some((digest, ima)) = file.ima {
                self.tree
                    .inode_mut(index)
                    .xattrs
                    .insert(SECURITY_IMA.as_bytes().to_vec(), ima);
                signed.digests.insert(index, digest);
            }
            signed.runs.insert(index, file.runs);
        }
        self.sign_evm()?;
        signed.summary.inodes = self
            .tree
            .names()
            .map(|(_, index)| index)
            .collect::<BTreeSet<_>>()
            .len();
        Ok(signed)
    }

    fn sign_evm(&mut self) -> Result<()> {
        let Some(identity) = &self.evm else {
            return Ok(());
        };
        let indices: BTreeSet<InodeIndex> = self.tree.names().map(|(_, index)| index).collect();
        let tree = &self.tree;
        let values: Vec<(InodeIndex, Vec<u8>)> = indices
            .into_par_iter()
            .filter(|&index| {
                let inode = tree.inode(index);
                matches!(inode.kind, Kind::File(_))
                    && inode.xattrs.contains_key(SECURITY_IMA.as_bytes())
            })
            .map(|index| {
                let inode = tree.inode(index);
                let attributes = ima::evm::Attributes {
                    mode: 0o100_000 | inode.mode,
                    uid: inode.uid,
                    gid: inode.gid,
                };
                Ok((index, identity.sign_evm(&attributes, &inode.xattrs)?))
            })
            .collect::<Result<_>>()?;
        for (index, value) in values {
            self.tree
                .inode_mut(index)
                .xattrs
                .insert(SECURITY_EVM.as_bytes().to_vec(), value);
        }
        Ok(())
    }

    fn write_archive(
        &self,
        out: &mut dyn std::io::Write,
        digests: &HashMap<InodeIndex, Vec<u8>>,
    ) -> Result<()> {
        archive::write(&self.tree, out, &mut |index, each| {
            self.read_again(index, digests.get(&index), each)
        })
    }

    /// Hands the tree as an archive to `mksquashfs`, which keeps owners, devices and extended attributes of one.
    fn write_squashfs(&self, path: &Path, digests: &HashMap<InodeIndex, Vec<u8>>) -> Result<()> {
        let time = self
            .time
            .unwrap_or_else(|| self.newest())
            .clamp(0, i64::from(u32::MAX));
        let failed = |cause: String| {
            Fault::new(Code::OutputUnwritable, "mksquashfs failed").with_cause(cause)
        };
        // It passes over the archive's own entry for the root directory.
        let (mode, uid, gid) = self
            .tree
            .get(b"")
            .map_or((0o755, 0, 0), |root| (root.mode, root.uid, root.gid));
        let mut child = Command::new("mksquashfs")
            .arg("-")
            .arg(path)
            .args(["-tar", "-noappend", "-no-progress", "-quiet", "-root-mode"])
            .arg(format!("{mode:o}"))
            .arg("-root-uid")
            .arg(uid.to_string())
            .arg("-root-gid")
            .arg(gid.to_string())
            .args(self.squashfs.iter().flat_map(|(compressor, block)| {
                [
                    "-comp".to_owned(),
                    (*compressor).to_owned(),
                    "-b".to_owned(),
                    block.to_string(),
                ]
            }))
            // The time of making, and the latest that anything may have: the root directory would have the present one
            // (4.5 does not take -root-time for an archive).
            .env("SOURCE_DATE_EPOCH", time.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Fault::new(Code::ToolMissing, format!("mksquashfs: {error}")))?;
        let written = match child.stdin.take() {
            Some(stdin) => {
                let mut out = std::io::BufWriter::with_capacity(1 << 18, stdin);
                let written = self.write_archive(&mut out, digests);
                if written.is_err() {
                    // An archive that breaks off must not become an image.
                    let _ = child.kill();
                }
                written.and_then(|()| out.flush().map_err(|error| failed(error.to_string())))
            }
            None => Err(failed("it has no input".to_owned())),
        };
        let ended = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        // If it ended early, what it said is the cause, not the pipe that broke.
        match written {
            Err(fault) if fault.code() != Code::OutputUnwritable => Err(fault),
            Ok(()) if ended.status.success() => Ok(()),
            _ => Err(failed(said)),
        }
    }

    fn newest(&self) -> i64 {
        self.tree
            .names()
            .map(|(_, index)| self.tree.inode(index).mtime.seconds)
            .max()
            .unwrap_or(0)
    }

    /// Reads every regular file once, on all cores: where its data is, and its signature.
    fn read_content(&self, progress: &(dyn Fn() + Sync)) -> Result<Vec<(InodeIndex, ReadFile)>> {
        let mut names: HashMap<InodeIndex, Vec<&[u8]>> = HashMap::new();
        for (name, index) in self.tree.names() {
            names.entry(index).or_default().push(name);
        }
        let mut files: Vec<(InodeIndex, Vec<&[u8]>)> = names
            .into_iter()
            .filter(|(index, _)| matches!(self.tree.inode(*index).kind, Kind::File(_)))
            .collect();
        files.sort();
        files
            .into_par_iter()
            .map(|(index, names)| {
                let read = self.read_file(index, &names)?;
                progress();
                Ok((index, read))
            })
            .collect()
    }

    fn read_file(&self, index: InodeIndex, names: &[&[u8]]) -> Result<ReadFile> {
        let inode = self.tree.inode(index);
        let Kind::File(content) = &inode.kind else {
            return Ok(ReadFile::default());
        };
        let excluded = names
            .iter()
            .any(|name| self.unsigned.iter().any(|pattern| pattern.matches(name)));
        let identity = match self.signing.as_ref().filter(|_| !excluded) {
            None => None,
            Some(Signing::All(identity)) => Some(identity),
            Some(Signing::ForPolicy(identity, appraisal)) => {
                let head = content.head(select::HEAD)?;
                names
                    .iter()
                    .any(|path| {
                        let file = select::File::of(path, inode, &head);
                        appraisal.appraised_by(&file).is_some()
                    })
                    .then_some(identity)
            }
        };
        let mut hasher = identity.map(Identity::hasher).transpose()?;
        let mut runs = RunCollector::default();
        content.read(&mut |piece| {
            match piece {
                Piece::Data(data) => {
                    if let Some(hasher) = &mut hasher {
                        hasher.update(data);
                    }
                    runs.data(data);
                }
                Piece::Hole(len) => {
                    if let Some(hasher) = &mut hasher {
                        hash_zeros(hasher, len);
                    }
                    runs.hole(len);
                }
            }
            Ok(())
        })?;
        let ima = match (identity, hasher) {
            (Some(identity), Some(hasher)) => {
                let digest = hasher.finish();
                let ima = identity.sign_digest(&digest)?;
                Some((digest, ima))
            }
            _ => None,
        };
        Ok(ReadFile {
            runs: runs.runs,
            ima,
        })
    }

    /// Reads a file again to write it; what was signed must still be there.
    fn read_again(
        &self,
        index: InodeIndex,
        digest: Option<&Vec<u8>>,
        each: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let Kind::File(content) = &self.tree.inode(index).kind else {
            return Ok(());
        };
        let mut hasher = match (&self.signing, digest) {
            (Some(Signing::All(identity) | Signing::ForPolicy(identity, _)), Some(_)) => {
                Some(identity.hasher()?)
            }
            _ => None,
        };
        content.read(&mut |piece| {
            if let Some(hasher) = &mut hasher {
                match piece {
                    Piece::Data(data) => hasher.update(data),
                    Piece::Hole(len) => hash_zeros(hasher, len),
                }
            }
            each(piece)
        })?;
        if hasher.map(ima::hash::Hasher::finish).as_ref() == digest {
            return Ok(());
        }
        let name = match content {
            Content::Host { path, .. } => path.display().to_string(),
            _ => "temporary file".to_owned(),
        };
        Err(Fault::new(Code::FileChanged, name))
    }

    /// Reads a file again and hands out its blocks that are not all zeros.
    fn read_blocks(
        &self,
        index: InodeIndex,
        digest: Option<&Vec<u8>>,
        write: &mut WriteBlocks<'_>,
    ) -> Result<()> {
        let mut block = 0;
        self.read_again(index, digest, &mut |piece| {
            match piece {
                Piece::Hole(len) => block += len / BLOCK,
                Piece::Data(data) => {
                    for chunk in data.chunks(BLOCK as usize) {
                        if chunk.iter().any(|&byte| byte != 0) {
                            write(block, chunk)?;
                        }
                        block += 1;
                    }
                }
            }
            Ok(())
        })
    }

    fn parameters(&self) -> ext4::Parameters {
        let uuid = self.uuid.unwrap_or_else(|| self.derived_uuid());
        let hash_seed = self.hash_seed.unwrap_or_else(|| {
            let digest = Sha256::digest([b"hash seed".as_slice(), &uuid].concat());
            as_uuid(&digest)
        });
        ext4::Parameters {
            size: self.size,
            uuid,
            hash_seed,
            label: self.label.clone(),
            time: self.time.unwrap_or_else(|| self.newest()),
            journal: self.journal,
            inodes: self.inodes,
        }
    }

    /// A UUID (version 8, RFC 9562) from what is in the tree, without the files' content.
    fn derived_uuid(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.label.as_bytes());
        for (name, index) in self.tree.names() {
            let inode = self.tree.inode(index);
            let (kind, len) = match &inode.kind {
                Kind::File(content) => (1_u64, content.len()),
                Kind::Directory => (2, 0),
                Kind::Symlink(target) => (3, target.len() as u64),
                Kind::CharacterDevice(major, minor) => {
                    (4, u64::from(*major) << 32 | u64::from(*minor))
                }
                Kind::BlockDevice(major, minor) => (5, u64::from(*major) << 32 | u64::from(*minor)),
                Kind::Fifo => (6, 0),
                Kind::Socket => (7, 0),
            };
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            for number in [
                kind,
                len,
                u64::from(inode.mode),
                u64::from(inode.uid),
                u64::from(inode.gid),
                inode.mtime.seconds as u64,
            ] {
                hash.update(number.to_le_bytes());
            }
        }
        as_uuid(&hash.finalize())
    }
}

/// What reading and signing a tree gave, beside the signatures in it.
#[derive(Debug, Default)]
struct SignedTree {
    summary: Summary,
    runs: HashMap<InodeIndex, DataRuns>,
    /// Of the files that were signed.
    digests: HashMap<InodeIndex, Vec<u8>>,
}

/// What reading a regular file gave.
#[derive(Debug, Default)]
struct ReadFile {
    runs: DataRuns,
    /// Digest and value of `security.ima`.
    ima: Option<(Vec<u8>, Vec<u8>)>,
}

fn as_uuid(digest: &[u8]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

#[cfg(test)]
pub(crate) mod tests;
