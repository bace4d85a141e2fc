//! The lists by which Secure Boot decides: the firmware's databases of what it starts (db) and of what is revoked (dbx), shim's list
//! of keys of the machine's owner (MokList), and its list of the oldest generations of programs that it starts (SBAT).
//!
//! A database is a sequence of `EFI_SIGNATURE_LIST` (UEFI specification, section 32.4.1). It is read as such (`.esl`), signed for an
//! update (`.auth`, section 8.2.2), and as Linux shows the variable, with four bytes of attributes in front of it.

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Explanation, Fault};
use ima::hash::HashAlgorithm;

use super::UnifiedKernelImage;
use super::authenticode::{self, Untrusted};
use super::section::SBAT;
use crate::{Result, hex};

/// The longest file with a database that is read, in bytes.
pub const MAX_DATABASE: u64 = 1 << 20;

/// A GUID as it is stored: its first three groups are little-endian.
type Guid = [u8; 16];

/// `EFI_CERT_X509_GUID` (a5c059a1-94e4-4aa7-87b5-ab155c2bf072).
const X509: Guid = guid(0xa5c0_59a1_94e4_4aa7_87b5_ab15_5c2b_f072);
/// `EFI_CERT_SHA256_GUID` (c1c41626-504c-4092-aca9-41f936934328).
const SHA256: Guid = guid(0xc1c4_1626_504c_4092_aca9_41f9_3693_4328);
/// `EFI_CERT_X509_SHA256_GUID` (3bd2a492-96c0-4079-b420-fcf98ef103ed), and those of the longer digests.
const OF_X509: [(Guid, HashAlgorithm, usize); 3] = [
    (
        guid(0x3bd2_a492_96c0_4079_b420_fcf9_8ef1_03ed),
        HashAlgorithm::Sha256,
        32,
    ),
    (
        guid(0x7076_876e_80c2_4ee6_aad2_28b3_49a6_865b),
        HashAlgorithm::Sha384,
        48,
    ),
    (
        guid(0x446d_bf63_2502_4cda_bcfa_2465_d2b0_fe9d),
        HashAlgorithm::Sha512,
        64,
    ),
];

const GUID_LENGTH: usize = 16;

/// The length of the attributes of a variable in efivarfs.
const ATTRIBUTES: usize = 4;

/// The length of an `EFI_TIME`, with which a signed update begins.
const TIME: usize = 16;

/// `WIN_CERT_TYPE_EFI_GUID`, the type of the signature of an update, behind its length and revision.
const CERTIFICATE_BY_GUID: u16 = 0x0ef1;

/// The first entry of a list of generations, which is of the list itself (shim, SBAT.md).
const FIRST_GENERATION: &[u8] = b"sbat,";

const fn guid(text: u128) -> Guid {
    let [a, b, c, d, e, f, g, h, rest @ ..] = text.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

/// What a database has. Kinds of entries that firmware does not look at for a program with a SHA-256 signature are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// Certificates.
    pub certificates: Vec<Certificate>,
    /// Authenticode SHA-256 digests of programs.
    pub programs: Vec<[u8; 32]>,
    /// Digests of what is signed of a certificate (TBSCertificate).
    pub of_certificates: Vec<(HashAlgorithm, Vec<u8>)>,
    /// The oldest generation of each component that shim starts.
    pub generations: Vec<(String, u32)>,
}

impl Database {
    /// Reads a database, a list of generations, certificates (DER or PEM), or SHA-256 digests in hexadecimal, one a line.
    ///
    /// # Errors
    ///
    /// [`Code::SecureBootDatabase`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let without_attributes = bytes.get(ATTRIBUTES..).unwrap_or_default();
        for bytes in [bytes, without_attributes] {
            if bytes.starts_with(FIRST_GENERATION) {
                return Self::of_generations(bytes);
            }
        }
        if let Some(lists) = lists_in(bytes) {
            return Self::of_lists(lists);
        }
        if let Some(programs) = digests(bytes) {
            return Ok(Self {
                programs,
                ..Self::default()
            });
        }
        let certificates = Certificate::parse_all(bytes).map_err(|error| {
            unreadable(Cause::DATABASE_OF_ANOTHER_KIND.with(&[&error.to_string()]))
        })?;
        Ok(Self {
            certificates,
            ..Self::default()
        })
    }

    /// Reads a database, and nothing else; nothing if the file is of another kind.
    ///
    /// # Errors
    ///
    /// [`Code::SecureBootDatabase`].
    pub fn of_signature_lists(bytes: &[u8]) -> Option<Result<Self>> {
        lists_in(bytes).map(Self::of_lists)
    }

    fn of_lists(lists: Vec<List<'_>>) -> Result<Self> {
        let mut found = Self::default();
        for list in lists {
            for data in list.signatures {
                if list.kind == X509 {
                    let certificate = Certificate::parse_der(data).map_err(|error| {
                        unreadable(Cause::DATABASE_CERTIFICATE.with(&[&error.to_string()]))
                    })?;
                    found.certificates.push(certificate);
                } else if list.kind == SHA256 {
                    found.programs.extend(<[u8; 32]>::try_from(data));
                }
                // Behind the digest is the time of the revocation, which counts for signatures with a time stamp.
                let of_x509 = OF_X509.iter().find(|(kind, ..)| *kind == list.kind);
                if let Some((_, algo, length)) = of_x509
                    && let Some(digest) = data.get(..*length)
                {
                    found.of_certificates.push((*algo, digest.to_vec()));
                }
            }
        }
        Ok(found)
    }

    fn of_generations(text: &[u8]) -> Result<Self> {
        let generations = entries(text)
            .map(|(component, generation)| {
                let named = || Cause::DATABASE_GENERATION.with(&[&component]);
                let generation = generation.ok_or_else(|| unreadable(named()))?;
                Ok((component, generation))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            generations,
            ..Self::default()
        })
    }

    /// Adds what another has.
    pub fn extend(&mut self, other: Self) {
        self.certificates.extend(other.certificates);
        self.programs.extend(other.programs);
        self.of_certificates.extend(other.of_certificates);
        self.generations.extend(other.generations);
    }

    /// Checks that firmware and shim with this list of what is revoked would not refuse the image for it: by its digest; by a certificate
    /// of its signatures, or of their issuers (edk2, SecurityPkg/Library/DxeImageVerificationLib, `IsForbiddenByDbx`); by the
    /// generation of one of its components (shim, sbat.c, `verify_sbat`).
    ///
    /// # Errors
    ///
    /// [`Untrusted`].
    pub fn check_not_revoked(
        &self,
        image: &UnifiedKernelImage<'_>,
    ) -> std::result::Result<(), Untrusted> {
        let digest = image.image().digest();
        if self.programs.contains(&digest) {
            return Err(Untrusted::RevokedDigest(hex::encode(&digest)));
        }
        let has_digest_of = |certificate: &&Certificate| {
            let mut digests = self.of_certificates.iter();
            digests
                .any(|(algo, digest)| algo.digest(certificate.tbs_der()).as_ref() == Some(digest))
        };
        for signature in authenticode::signatures(image.image()).unwrap_or_default() {
            let in_message = signature.certificates().iter().filter(has_digest_of);
            let mut revoked = self.certificates.iter().chain(in_message);
            if let Some(revoked) = revoked.find(|certificate| signature.leads_to(certificate)) {
                return Err(Untrusted::RevokedCertificate(revoked.subject()));
            }
        }
        if self.generations.is_empty() {
            return Ok(());
        }
        let sbat = image
            .image()
            .content(SBAT)
            .ok_or(Untrusted::NoGenerations)?;
        for (component, generation) in entries(sbat) {
            let generation = generation.unwrap_or_default();
            let oldest = self.generations.iter().find(|(name, _)| *name == component);
            if let Some((_, oldest)) = oldest.filter(|(_, oldest)| generation < *oldest) {
                return Err(Untrusted::RevokedGeneration {
                    component,
                    generation,
                    oldest: *oldest,
                });
            }
        }
        Ok(())
    }
}

fn unreadable(why: Explanation) -> Fault {
    Fault::new(Code::SecureBootDatabase, "").because(why)
}

/// An `EFI_SIGNATURE_LIST`: the kind of its signatures, and each without its owner.
struct List<'a> {
    kind: Guid,
    signatures: Vec<&'a [u8]>,
}

/// The lists of a database, whatever is in front of it; nothing if it is none.
fn lists_in(bytes: &[u8]) -> Option<Vec<List<'_>>> {
    let variable = bytes.get(ATTRIBUTES..).unwrap_or_default();
    lists(bytes)
        .or_else(|| lists(variable))
        .or_else(|| lists(behind_signature(bytes)?))
}

/// What an update signs: behind the time and the signature (`EFI_VARIABLE_AUTHENTICATION_2`).
fn behind_signature(bytes: &[u8]) -> Option<&[u8]> {
    let certificate = bytes.get(TIME..)?;
    let length = number(certificate)?;
    let kind = certificate.get(6..)?.first_chunk().copied()?;
    let is_signature = u16::from_le_bytes(kind) == CERTIFICATE_BY_GUID;
    certificate.get(length..).filter(|_| is_signature)
}

fn number(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

/// The lists, one behind the other up to the end; nothing if there is none, or something else.
fn lists(mut bytes: &[u8]) -> Option<Vec<List<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (kind, sizes) = bytes.split_first_chunk::<GUID_LENGTH>()?;
        let [length, header, each] = [
            number(sizes)?,
            number(sizes.get(4..)?)?,
            number(sizes.get(8..)?)?,
        ];
        let (list, rest) = bytes.split_at_checked(length)?;
        let signatures = list.get(GUID_LENGTH.checked_add(12)?..)?.get(header..)?;
        if each <= GUID_LENGTH || signatures.len() % each != 0 {
            return None;
        }
        found.push(List {
            kind: *kind,
            signatures: signatures
                .chunks_exact(each)
                .filter_map(|signature| signature.get(GUID_LENGTH..))
                .collect(),
        });
        bytes = rest;
    }
    (!found.is_empty()).then_some(found)
}

/// SHA-256 digests in hexadecimal, one a line; nothing if there is none, or something else.
fn digests(text: &[u8]) -> Option<Vec<[u8; 32]>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let found: Vec<_> = lines
        .map(|line| hex::decode(line).and_then(|digest| digest.try_into().ok()))
        .collect::<Option<_>>()?;
    (!found.is_empty()).then_some(found)
}

/// The entries of an SBAT list: a component, and its generation if that is a number.
fn entries(text: &[u8]) -> impl Iterator<Item = (String, Option<u32>)> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| {
            let line = String::from_utf8_lossy(line);
            let mut fields = line.split(',').map(str::trim);
            let component = fields.next().unwrap_or_default().to_owned();
            let generation = fields.next().and_then(|text| text.parse().ok());
            (component, generation)
        })
}
