//! dm-verity's hash trees: made over an image, and compared with one.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ima::certificate::Certificate;
use ima::dm_verity::signed::SignedRootHash;
use ima::dm_verity::{RootHash, SUPERBLOCK_LENGTH, Superblock};
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use rayon::prelude::*;

use crate::Result;
use crate::file::{self, Output, unreadable, unwritable};
use crate::identity::Identity;

/// The length of a block of the data and of the tree.
pub const BLOCK: u32 = 4096;

/// The length of the salt that is made up if none is given.
pub const SALT: usize = 32;

/// How many blocks are read at once.
const BATCH: usize = 4096;

/// Salt and UUID of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The salt, at most 256 bytes.
    pub salt: Vec<u8>,
    /// The UUID.
    pub uuid: [u8; 16],
}

impl Parameters {
    /// Both random.
    ///
    /// # Errors
    ///
    /// [`IMA-907`](Code::SigningFailed) if the system has no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; SALT + 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Fault::new(Code::SigningFailed, "no random numbers"))?;
        let (salt, uuid) = bytes.split_at(SALT);
        let mut uuid: [u8; 16] = uuid.first_chunk().copied().unwrap_or_default();
        // RFC 9562, section 5.4.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Ok(Self {
            salt: salt.to_owned(),
            uuid,
        })
    }
}

/// A tree that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The settings that the init needs.
    pub root_hash: RootHash,
    /// Where the superblock is in its file, in bytes.
    pub offset: u64,
}

/// Makes a tree in SHA-256 over the image `data` and writes it to the file `out`, or behind the image if there is none. The image
/// is lengthened to whole blocks in the latter case.
///
/// # Errors
///
/// [`IMA-901`](Code::InputUnreadable), [`IMA-902`](Code::OutputUnwritable); [`IMA-913`](Code::ImageContent) for an image that
/// has no whole number of blocks, which a device would cut short, or none.
pub fn make(data: &Path, out: Option<&Path>, parameters: &Parameters) -> Result<Made> {
    let file = File::options()
        .read(true)
        .write(out.is_none())
        .open(data)
        .map_err(|error| unreadable(data, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(data, &error))?;
    let content = |why: &str| {
        let detail = format!("{}: {why}", data.display());
        Fault::new(Code::ImageContent, detail)
    };
    if !metadata.is_file() {
        return Err(content("it is not a regular file").because(Cause::NO_IMAGE_FILE));
    }
    let length = metadata.len().next_multiple_of(BLOCK.into());
    if length != metadata.len() && out.is_some() {
        return Err(content("its length is not a multiple of 4096 bytes")
            .because(Cause::NOT_WHOLE_BLOCKS.with(&[&data.display().to_string()])));
    }
    let superblock = Superblock::new(
        parameters.uuid,
        HashAlgorithm::Sha256,
        [BLOCK; 2],
        length / u64::from(BLOCK),
        parameters.salt.clone(),
    )
    .map_err(|error| content(&error.to_string()).because(Cause::NO_TREE_OF_IT))?;
    if length != metadata.len() {
        file.set_len(length)
            .map_err(|error| unwritable(data, &error))?;
    }
    let tree = Tree::over(&file, &superblock).map_err(|error| unreadable(data, &error))?;
    let offset = if out.is_some() { 0 } else { length };
    match out {
        None => tree
            .write(&file, &superblock, offset)
            .and_then(|()| file.sync_all())
            .map_err(|error| unwritable(data, &error))?,
        Some(path) => {
            let mut output = Output::create(path)?;
            tree.write(output.file(), &superblock, offset)
                .map_err(|error| unwritable(path, &error))?;
            output.finish(0o644, true)?;
        }
    }
    Ok(Made {
        root_hash: tree.root_hash,
        offset,
    })
}

/// Signs a root hash, so that a kernel takes it which has the certificate, or its issuer's, on its built-in or secondary keyring.
///
/// # Errors
///
/// [`IMA-907`](Code::SigningFailed), [`IMA-905`](Code::KeyMismatch).
pub fn sign(
    root_hash: &RootHash,
    identity: &Identity,
    certificate: &Certificate,
) -> Result<SignedRootHash> {
    let text = SignedRootHash::signed_text(root_hash);
    let message = identity.sign_detached(certificate, text.as_bytes())?;
    SignedRootHash::new(root_hash.clone(), message).map_err(|error| {
        Fault::new(Code::SigningFailed, root_hash.to_string()).with_cause(error.to_string())
    })
}

/// Sees whether the image `data` with the tree behind the superblock at `offset` of `tree` has the root hash.
///
/// # Errors
///
/// [`IMA-413`](Code::VerityRootHash) for another tree, [`IMA-414`](Code::VerityCorrupted) if image or tree was changed;
/// [`IMA-901`](Code::InputUnreadable).
pub fn compare(
    data: (&File, &Path),
    tree: (&File, &Path),
    superblock: &Superblock,
    offset: u64,
    root_hash: &RootHash,
) -> Result<()> {
    let computed = Tree::over(data.0, superblock).map_err(|error| unreadable(data.1, &error))?;
    let shown = format!("{} with {root_hash}", data.1.display());
    let corrupted = |why: String| Fault::new(Code::VerityCorrupted, format!("{shown}: {why}"));
    let slots = superblock.hash_block() as usize;
    let stored = superblock
        .levels(offset)
        .iter()
        .map(|level| {
            let length = usize::try_from(level.blocks).unwrap_or(usize::MAX) * slots;
            let place = level.start * slots as u64;
            file::read_at(tree.0, place, length)
        })
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(|error| unreadable(tree.1, &error))?;
    let top = stored.first().map(|top| superblock.digest(top));
    if top.is_some_and(|top| top != root_hash.bytes()) {
        return Err(Fault::new(Code::VerityRootHash, shown));
    }
    for (number, (stored, computed)) in stored.iter().zip(&computed.levels).enumerate() {
        let mut blocks = stored.chunks(slots).zip(computed.chunks(slots));
        if let Some(at) = blocks.position(|(stored, computed)| stored != computed) {
            return Err(corrupted(format!(
                "block {at} of level {number} of the tree has digests of other blocks"
            )));
        }
    }
    match computed.root_hash == *root_hash {
        true => Ok(()),
        // A single block has no tree that could show what it was.
        false if stored.is_empty() => Err(Fault::new(Code::VerityRootHash, shown)),
        false => Err(corrupted("its tree has another root hash".to_owned())),
    }
}

/// The digests of an image.
struct Tree {
    /// The levels as they are written, the topmost first.
    levels: Vec<Vec<u8>>,
    root_hash: RootHash,
}

impl Tree {
    fn over(data: &File, superblock: &Superblock) -> std::io::Result<Self> {
        let length = superblock.data_block() as usize;
        let blocks = superblock.data_blocks();
        // Large images are mostly the same block of zeros.
        let zeros = vec![0; length];
        let of_zeros = superblock.digest(&zeros);
        let mut digests: Vec<Vec<u8>> = Vec::new();
        let mut first = 0;
        while first < blocks {
            let count = (blocks - first).min(BATCH as u64);
            let place = first * length as u64;
            let bytes = file::read_at(data, place, count as usize * length)?;
            if bytes.len() != count as usize * length {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            digests.par_extend(bytes.par_chunks(length).map(|block| match block == zeros {
                true => of_zeros.clone(),
                false => superblock.digest(block),
            }));
            first += count;
        }
        let mut levels = Vec::new();
        while digests.len() > 1 {
            let level = pack(&digests, superblock);
            digests = level
                .par_chunks(superblock.hash_block() as usize)
                .map(|block| superblock.digest(block))
                .collect();
            levels.push(level);
        }
        levels.reverse();
        let root = digests.pop().and_then(RootHash::new);
        Ok(Self {
            levels,
            // Each of the algorithms' digests is a root hash, and there is a block at least.
            root_hash: root.ok_or(std::io::ErrorKind::InvalidData)?,
        })
    }

    /// Writes superblock and levels.
    fn write(&self, mut file: &File, superblock: &Superblock, offset: u64) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&superblock.to_bytes())?;
        for (level, content) in superblock.levels(offset).iter().zip(&self.levels) {
            file.write_all_at(content, level.start * u64::from(superblock.hash_block()))?;
        }
        let end = superblock.tree_end(offset);
        file.set_len(end.max(offset + SUPERBLOCK_LENGTH as u64))
    }
}

/// The blocks of digests: each at the beginning of its slot, the last block filled up with zeros.
fn pack(digests: &[Vec<u8>], superblock: &Superblock) -> Vec<u8> {
    let (slot, block) = (superblock.slot(), superblock.hash_block() as usize);
    let mut level = Vec::with_capacity((digests.len() * slot).next_multiple_of(block));
    for digest in digests {
        level.extend_from_slice(digest);
        level.resize(level.len().next_multiple_of(slot), 0);
    }
    level.resize(level.len().next_multiple_of(block), 0);
    level
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use std::process::Command;
    use std::sync::Arc;

    const SAMPLE: Parameters = Parameters {
        salt: Vec::new(),
        uuid: [7; 16],
    };

    /// An image of so many blocks, of which no two are alike but those of zeros.
    fn image(path: &Path, blocks: u64) {
        let file = File::create(path).unwrap();
        for block in (0..blocks).filter(|block| block % 3 != 2) {
            file.write_all_at(&(block + 1).to_le_bytes(), block * 4096)
                .unwrap();
        }
        file.set_len(blocks * 4096).unwrap();
    }

    fn compared(data: &Path, tree: &Path, made: &Made) -> std::result::Result<(), Code> {
        let [data_file, tree_file] = [data, tree].map(|path| File::open(path).unwrap());
        let bytes = file::read_at(&tree_file, made.offset, SUPERBLOCK_LENGTH).unwrap();
        let superblock = Superblock::parse(&bytes).unwrap();
        compare(
            (&data_file, data),
            (&tree_file, tree),
            &superblock,
            made.offset,
            &made.root_hash,
        )
        .map_err(|fault| fault.code())
    }

    fn veritysetup(arguments: &[&str]) -> String {
        let output = Command::new("veritysetup")
            .args(arguments)
            .output()
            .expect("veritysetup (package cryptsetup-bin)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}{error}");
        text
    }

    #[test]
    fn veritysetup_agrees_with_each_tree() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("root.img");
        let tree = directory.path().join("root.verity");
        let [data_text, tree_text] = [&data, &tree].map(|path| path.to_str().unwrap());
        for (blocks, salt) in [(1, 0), (2, 32), (128, 0), (129, 256), (17_000, 32)] {
            image(&data, blocks);
            let parameters = Parameters {
                salt: vec![0xa5; salt],
                ..SAMPLE
            };
            let made = make(&data, Some(&tree), &parameters).unwrap();
            let hash = made.root_hash.to_string();
            veritysetup(&["verify", data_text, tree_text, &hash]);
            assert_eq!(compared(&data, &tree, &made), Ok(()), "{blocks}");
            let behind = make(&data, None, &parameters).unwrap();
            assert_eq!(behind.root_hash, made.root_hash);
            assert_eq!(behind.offset, blocks * 4096);
            let offset = format!("--hash-offset={}", behind.offset);
            veritysetup(&["verify", data_text, data_text, &hash, &offset]);
            assert_eq!(compared(&data, &data, &behind), Ok(()), "{blocks}");
        }
    }

    /// By the documented use of openssl (Documentation/admin-guide/device-mapper/verity.rst), in both directions.
    #[test]
    fn openssl_agrees_with_signatures_of_root_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let root_hash = RootHash::new(vec![0xab; 32]).unwrap();
        let ca_key = FileKey::generate(KeyKind::P256).unwrap();
        let ca = Template::ca("CA").sign(&ca_key, None, None).unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("ca.pem"), crate::x509::pem(&ca).unwrap()).unwrap();
        std::fs::write(path("text"), root_hash.to_string()).unwrap();
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa(2048)] {
            for algo in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
                let key = FileKey::generate(kind).unwrap();
                let mut template = Template::leaf("signer");
                // A number whose highest bit is set needs a byte before it in DER.
                template.serial = Some(vec![0xff; 8]);
                let certificate = template.sign(&key, Some((&ca_key, &ca)), None).unwrap();
                let identity = Identity::new(Arc::new(key), &certificate, algo).unwrap();
                let signed = sign(&root_hash, &identity, &certificate).unwrap();
                assert_eq!(signed.verify(ima::verify::verify_digest), Ok(()));
                std::fs::write(path("signature"), signed.message()).unwrap();
                let output = Command::new("openssl")
                    .args([
                        "cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any",
                    ])
                    .args(["-in", "signature", "-content", "text", "-CAfile", "ca.pem"])
                    .current_dir(directory.path())
                    .output()
                    .expect("openssl");
                assert!(output.status.success(), "{kind:?} {algo}: {output:?}");
                assert_eq!(output.stdout, root_hash.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn a_tree_of_veritysetup_s_is_compared() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("root.img");
        let tree = directory.path().join("root.verity");
        image(&data, 300);
        for (hash, size) in [("sha256", "4096"), ("sha512", "1024"), ("sha384", "4096")] {
            File::create(&tree).unwrap();
            let text = veritysetup(&[
                "format",
                &format!("--hash={hash}"),
                &format!("--hash-block-size={size}"),
                data.to_str().unwrap(),
                tree.to_str().unwrap(),
            ]);
            let hash = text
                .lines()
                .find_map(|line| line.strip_prefix("Root hash:"));
            let made = Made {
                root_hash: RootHash::parse(hash.unwrap().trim()).unwrap(),
                offset: 0,
            };
            assert_eq!(compared(&data, &tree, &made), Ok(()));
        }
    }

    #[test]
    fn changes_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("root.img");
        let tree = directory.path().join("root.verity");
        image(&data, 300);
        let made = make(&data, Some(&tree), &SAMPLE).unwrap();
        let change = |path: &Path, place| {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 1], place).unwrap();
        };
        for (path, place, code) in [
            (&data, 299 * 4096, Code::VerityCorrupted),
            (&tree, 2 * 4096 + 40, Code::VerityCorrupted),
            (&tree, 4096, Code::VerityRootHash),
            // The salt.
            (&tree, 80, Code::VerityRootHash),
        ] {
            change(path, place);
            assert_eq!(compared(&data, &tree, &made), Err(code), "{place}");
            change(path, place);
        }
        assert_eq!(compared(&data, &tree, &made), Ok(()));
    }

    #[test]
    fn images_without_whole_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("root.img");
        let tree = directory.path().join("root.verity");
        std::fs::write(&data, [1; 5000]).unwrap();
        let fault = make(&data, Some(&tree), &SAMPLE).unwrap_err();
        assert_eq!(fault.code(), Code::ImageContent);
        assert!(fault.remedy().contains("truncate -s %4096"), "{fault}");
        assert!(!tree.exists());
        let made = make(&data, None, &SAMPLE).unwrap();
        assert_eq!(made.offset, 8192);
        std::fs::write(&data, []).unwrap();
        assert_eq!(
            make(&data, None, &SAMPLE).unwrap_err().code(),
            Code::ImageContent
        );
        assert_eq!(
            make(directory.path(), Some(&tree), &SAMPLE)
                .unwrap_err()
                .code(),
            Code::ImageContent
        );
    }
}
