//! RPM packages that carry signatures of their files: `FILESIGNATURES` in the signature header, which rpm's plugin `ima` puts onto the
//! files as it unpacks them (rpm's plugins/ima.c, sign/rpmsignfiles.c).
//!
//! The signature header is in no OpenPGP signature, so that one that the package has stays good.

pub mod header;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use rayon::prelude::*;

use crate::Result;
use crate::deb::packed_tree;
use crate::digest::DigestOf;
use crate::file::{Output, in_file, unreadable, unwritable};
use crate::hex;
use crate::manifest::{self, Manifest};
use crate::select::Appraisal;
use crate::sign::ImaValue;
use crate::tree::Tree;

use header::{Header, HeaderError};

/// rpm's program that makes a tar archive of a package.
const RPM2ARCHIVE: &str = "rpm2archive";

/// What a package begins with, and how long that is (rpm's docs/manual/format_lead.md).
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const LEAD: usize = 96;
/// The longest headers that are read, in bytes. rpm takes 64 MiB of signatures, and 256 MiB of the other.
const MAX_SIGNATURES: u64 = 64 << 20;
const MAX_HEADER: u64 = 256 << 20;

/// The regions of the two headers (include/rpm/rpmtag.h).
const REGION_SIGNATURES: u32 = 62;
const REGION_IMMUTABLE: u32 = 63;
/// `RPMSIGTAG_FILESIGNATURES`: a signature for each file in hexadecimal, empty for one without.
const FILE_SIGNATURES: u32 = 274;
/// `RPMSIGTAG_FILESIGNATURELENGTH`: the length of the longest in bytes.
const FILE_SIGNATURE_LENGTH: u32 = 275;
const FILE_MODES: u32 = 1030;
const FILE_DIGESTS: u32 = 1035;
const FILE_FLAGS: u32 = 1037;
const DIRECTORY_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIRECTORY_NAMES: u32 = 1118;
const FILE_DIGEST_ALGORITHM: u32 = 5011;

/// `RPMFILE_GHOST`: a file that the package owns and does not bring.
const GHOST: u32 = 1 << 6;

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    /// Its path without the slash at the beginning.
    path: Vec<u8>,
    /// Whether it is a regular file that the package brings.
    brought: bool,
    /// Its digest, in hexadecimal.
    digest: Vec<u8>,
}

/// A package's file.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    file: File,
    lead: Vec<u8>,
    signatures: Header,
    /// Where the main header begins.
    rest: u64,
    files: Vec<Listed>,
    /// The algorithm of the digests in the header, if it is one that is known here.
    algo: Option<HashAlgorithm>,
}

/// The signatures of a package's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// For each file of the header, in its order, the value of `security.ima`, empty for one without.
    values: Vec<Vec<u8>>,
}

impl Signed {
    /// How many files have a signature.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.iter().filter(|value| !value.is_empty()).count()
    }

    /// Whether all signatures have one length. rpm before 4.18 installs each as if it had the length of the last (its pull request 1844).
    #[must_use]
    pub fn has_one_length(&self) -> bool {
        let mut lengths = self.values.iter().map(Vec::len).filter(|len| *len > 0);
        let first = lengths.next();
        lengths.all(|length| Some(length) == first)
    }
}

impl Package {
    /// Opens a package.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::PackageMalformed`].
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Self::read(path, file).map_err(|fault| in_file(fault, path))
    }

    fn read(path: &Path, mut file: File) -> Result<Self> {
        let malformed = |error: HeaderError| Fault::new(Code::PackageMalformed, error.to_string());
        let lead = read_at_most(&mut file, path, LEAD)?;
        if lead.len() < LEAD || !lead.starts_with(&LEAD_MAGIC) {
            let why = "it does not begin as a package of rpm does".to_owned();
            return Err(Fault::new(Code::PackageMalformed, why));
        }
        let (signatures, length) = read_header(&mut file, path, REGION_SIGNATURES, MAX_SIGNATURES)?;
        read_at_most(&mut file, path, Header::padding(length))?;
        let rest = file
            .stream_position()
            .map_err(|error| unreadable(path, &error))?;
        let (main, _) = read_header(&mut file, path, REGION_IMMUTABLE, MAX_HEADER)?;
        let files = listed(&main).ok_or_else(|| malformed(HeaderError::Value(BASE_NAMES)))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            lead,
            signatures,
            rest,
            files,
            algo: digest_algorithm(&main),
        })
    }

    /// The signatures it carries; none if it carries none.
    ///
    /// # Errors
    ///
    /// [`Code::PackageMalformed`] if they are not one for each file, in hexadecimal.
    pub fn signatures(&self) -> Result<Option<Signed>> {
        if !self.signatures.has(FILE_SIGNATURES) {
            return Ok(None);
        }
        let values: Option<Vec<Vec<u8>>> = self
            .signatures
            .strings(FILE_SIGNATURES)
            .filter(|values| values.len() == self.files.len())
            .and_then(|values| {
                values
                    .into_iter()
                    .map(|value| hex::decode(std::str::from_utf8(value).ok()?))
                    .collect()
            });
        let malformed = || {
            let why = "its signatures are not one for each file, in hexadecimal".to_owned();
            in_file(Fault::new(Code::PackageMalformed, why), &self.path)
        };
        values
            .map(|values| Some(Signed { values }))
            .ok_or_else(malformed)
    }

    /// The digests of the files that it brings, or of those that `appraisal` has appraised: of what rpm unpacks, not of what the header says.
    /// There is one for each file of the header; nothing for one that is none of those.
    fn digests(
        &self,
        appraisal: Option<&Appraisal>,
        algo: HashAlgorithm,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let tree = self.unpack()?;
        let found = Manifest::of_tree(&tree, appraisal, DigestOf::Content, algo, &|| ())?;
        // A manifest has one of the names of a file; rpm has all, each with a signature of its own.
        let mut by_inode = BTreeMap::new();
        for file in &found.files {
            if let Some(index) = tree.index(&file.path) {
                by_inode.insert(index, &file.digest);
            }
        }
        let digest = |file: &Listed| {
            let digest = by_inode.get(&tree.index(&file.path)?);
            digest.copied().filter(|_| file.brought)
        };
        self.files
            .iter()
            .map(|file| {
                let Some(digest) = digest(file) else {
                    return Ok(None);
                };
                if self.algo == Some(algo) && hex::encode(digest).as_bytes() != file.digest {
                    let fault = Fault::new(Code::PackageMalformed, self.shown(file));
                    return Err(fault.because(Cause::PACKAGE_DIGEST_OUTDATED));
                }
                Ok(Some(digest.clone()))
            })
            .collect()
    }

    fn shown(&self, file: &Listed) -> String {
        format!(
            "{}: {}",
            self.path.display(),
            String::from_utf8_lossy(&file.path)
        )
    }

    /// Signs the files that it brings, or those that `appraisal` has appraised.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::OutputUnwritable`] if there is no room for its content in the temporary directory,
    /// [`Code::SourceMalformed`], [`Code::PackageTool`], [`Code::SigningFailed`], and [`Code::PackageMalformed`] for a file whose digest in the
    /// header is another: rpm would not install it.
    pub fn sign(&self, appraisal: Option<&Appraisal>, mark: &ImaValue) -> Result<Signed> {
        let digests = self.digests(appraisal, mark.algo())?;
        let value = |digest: &Option<Vec<u8>>| match digest {
            Some(digest) => mark.value(digest),
            None => Ok(Vec::new()),
        };
        Ok(Signed {
            values: digests.par_iter().map(value).collect::<Result<_>>()?,
        })
    }

    /// Verifies that each file that it brings, or each that `appraisal` has appraised, has a signature by the key of one of these
    /// certificates. Returns how many files that are.
    ///
    /// # Errors
    ///
    /// [`Code::VerificationFailed`] if it carries none, or with the first file that has no signature, or another's; and those of
    /// [`Package::sign`].
    pub fn verify(
        &self,
        appraisal: Option<&Appraisal>,
        certificates: &[Certificate],
    ) -> Result<usize> {
        let Some(signed) = self.signatures()? else {
            let detail = self.path.display().to_string();
            return Err(Fault::new(Code::VerificationFailed, detail)
                .because(Cause::PACKAGE_WITHOUT_SIGNATURES));
        };
        let algo = signed.values.iter().find_map(|value| {
            let value = ImaXattr::parse(value).ok()?;
            value.signature().map(|signature| signature.algo)
        });
        let algo = algo.unwrap_or(HashAlgorithm::Sha256);
        let mut files = Vec::new();
        for ((file, value), digest) in self
            .files
            .iter()
            .zip(&signed.values)
            .zip(self.digests(appraisal, algo)?)
        {
            let Some(digest) = digest else { continue };
            if value.is_empty() {
                let fault = Fault::new(Code::VerificationFailed, self.shown(file));
                return Err(fault.because(Cause::PACKAGE_LACKS_SIGNATURE));
            }
            files.push(manifest::File {
                path: file.path.clone(),
                size: 0,
                digest,
                ima: Some(value.clone()),
            });
        }
        let manifest = Manifest {
            algo,
            over: DigestOf::Content,
            files,
        };
        manifest
            .check(certificates)
            .map_err(|fault| in_file(fault, &self.path))?;
        Ok(manifest.files.len())
    }

    /// Writes the package with these signatures in the place of any it had, byte for byte the same otherwise.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::OutputUnwritable`].
    pub fn write(&self, signed: &Signed, out: &Path) -> Result<()> {
        let mut signatures = self.signatures.clone();
        let values: Vec<String> = signed
            .values
            .iter()
            .map(|value| hex::encode(value))
            .collect();
        let longest = signed.values.iter().map(Vec::len).max().unwrap_or(0);
        signatures.set_strings(FILE_SIGNATURES, values.iter().map(String::as_bytes));
        signatures.set_number(
            FILE_SIGNATURE_LENGTH,
            u32::try_from(longest).unwrap_or(u32::MAX),
        );
        let header = signatures.encode(REGION_SIGNATURES);
        let padding = vec![0; Header::padding(header.len())];
        let mut output = Output::create(out)?;
        let full = |error: std::io::Error| unwritable(out, &error);
        let target = output.file();
        for part in [&self.lead, &header, &padding] {
            target.write_all(part).map_err(full)?;
        }
        let mut rest = &self.file;
        rest.seek(SeekFrom::Start(self.rest))
            .map_err(|error| unreadable(&self.path, &error))?;
        std::io::copy(&mut rest, target).map_err(full)?;
        output.finish(0o644, true)
    }

    /// What rpm unpacks.
    fn unpack(&self) -> Result<Tree> {
        let input = File::open(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        let mut command = Command::new(RPM2ARCHIVE);
        command.args(["--nocompression", "-"]).stdin(input);
        packed_tree(&mut command, RPM2ARCHIVE, &self.path)
    }
}

fn read_at_most(file: &mut File, path: &Path, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(length as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// Reads a header, and how long it is; of a longer one than `limit`, or than the file, no memory is taken.
fn read_header(file: &mut File, path: &Path, region: u32, limit: u64) -> Result<(Header, usize)> {
    let malformed = |error: HeaderError| Fault::new(Code::PackageMalformed, error.to_string());
    let mut bytes = read_at_most(file, path, header::FIXED)?;
    let length = Header::length(&bytes).map_err(malformed)?;
    if length as u64 > limit {
        return Err(malformed(HeaderError::Length));
    }
    bytes.extend(read_at_most(
        file,
        path,
        length.saturating_sub(bytes.len()),
    )?);
    Header::parse(&bytes, region).map_err(malformed)
}

/// The files of the main header; nothing if the arrays do not have one length, or a directory is not there.
fn listed(header: &Header) -> Option<Vec<Listed>> {
    if !header.has(BASE_NAMES) {
        return Some(Vec::new());
    }
    let names = header.strings(BASE_NAMES)?;
    let directories = header.strings(DIRECTORY_NAMES)?;
    let indexes = header.numbers(DIRECTORY_INDEXES)?;
    let digests = header.strings(FILE_DIGESTS)?;
    let modes = header.numbers(FILE_MODES)?;
    let flags = header.numbers(FILE_FLAGS)?;
    let lengths = [indexes.len(), digests.len(), modes.len(), flags.len()];
    if lengths.iter().any(|length| *length != names.len()) {
        return None;
    }
    names
        .iter()
        .zip(indexes)
        .zip(digests)
        .zip(modes.iter().zip(flags))
        .map(|(((name, directory), digest), (mode, flags))| {
            let directory = directories.get(usize::try_from(directory).ok()?)?;
            let path = [directory, *name].concat();
            Some(Listed {
                path: path.strip_prefix(b"/").unwrap_or(&path).to_vec(),
                brought: mode & ima::cpio::S_IFMT == ima::cpio::S_IFREG && flags & GHOST == 0,
                digest: digest.to_vec(),
            })
        })
        .collect()
}

/// The algorithm of the digests (RFC 9580, 9.5); MD5, which is not known here, if the header does not say.
fn digest_algorithm(header: &Header) -> Option<HashAlgorithm> {
    match header.numbers(FILE_DIGEST_ALGORITHM)?.first()? {
        2 => Some(HashAlgorithm::Sha1),
        8 => Some(HashAlgorithm::Sha256),
        9 => Some(HashAlgorithm::Sha384),
        10 => Some(HashAlgorithm::Sha512),
        11 => Some(HashAlgorithm::Sha224),
        _ => None,
    }
}
