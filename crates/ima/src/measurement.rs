//! The measurement list: what the kernel measured, in the order in which it extended the TPM.
//!
//! The kernel shows one list in several files of securityfs: `ima/binary_runtime_measurements` and
//! `ima/ascii_runtime_measurements` carry the SHA-1 template digest, the same names with `_sha256` and so on that of
//! another bank (`ima_measurements_show` and `ima_ascii_measurements_show` in `security/integrity/ima/ima_fs.c`).
//! Everything but the template digest is the same in all of them, so any of them rebuilds every bank.
//!
//! Prefer the binary form. The kernel prints file names into the ASCII form as they are, so a file name that holds a line
//! feed makes a line of its own there; and spaces in names are `_` in both.
//!
//! Parsing takes hostile bytes: memory stays in proportion to the input and nothing is followed beyond its end.

use std::fmt;

pub use crate::bank::Bank;
use crate::hex;

/// Longest template name accepted, in bytes. The kernel restores at most the length of its longest built-in format
/// (`MAX_TEMPLATE_NAME_LEN`, 74); custom formats (`ima_template_fmt=`) can repeat fields.
pub const MAX_TEMPLATE_NAME: usize = 255;

/// Longest file name that the template `ima` can carry (`IMA_EVENT_NAME_LEN_MAX`).
pub const MAX_OLD_NAME: usize = 255;

/// The PCR that IMA extends when neither rule nor kernel configuration names another (`CONFIG_IMA_MEASURE_PCR_IDX`).
pub const DEFAULT_PCR: u32 = 10;

/// The name under which the first entry of a boot stands (`boot_aggregate_name` in `ima_init.c`).
pub const BOOT_AGGREGATE: &[u8] = b"boot_aggregate";

/// Byte order of the integers in a binary list: that of the machine that wrote it, or little with
/// `ima_canonical_fmt` on its command line. It also enters the template digests, which hash the length of each field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteOrder {
    /// x86, arm64, riscv, and any machine with `ima_canonical_fmt`.
    #[default]
    Little,
    /// s390x and other big-endian machines.
    Big,
}

impl ByteOrder {
    fn read(self, bytes: [u8; 4]) -> u32 {
        match self {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    fn write(self, value: u32) -> [u8; 4] {
        match self {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        }
    }

    fn write_u16(self, value: u16) -> [u8; 2] {
        match self {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        }
    }

    fn uint(self, bytes: &[u8]) -> Option<u64> {
        let mut value = 0u64;
        if bytes.is_empty() || bytes.len() > 8 {
            return None;
        }
        let mut push = |byte: &u8| value = (value << 8) | u64::from(*byte);
        match self {
            ByteOrder::Little => bytes.iter().rev().for_each(&mut push),
            ByteOrder::Big => bytes.iter().for_each(&mut push),
        }
        Some(value)
    }
}

/// What a field of a template holds (`supported_fields` in `ima_template.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldId {
    /// `d`: a digest of 20 bytes without its algorithm.
    Digest,
    /// `n`: a file name of at most 255 bytes.
    Name,
    /// `d-ng`: `algo:` NUL digest.
    DigestNg,
    /// `d-ngv2`: `ima:algo:` or `verity:algo:`, NUL, digest.
    DigestNgV2,
    /// `n-ng`: a file name and its NUL.
    NameNg,
    /// `sig`: the value of security.ima where it is a signature, else that of a portable security.evm, else empty.
    Signature,
    /// `buf`: what was measured itself, such as a kexec command line or a key.
    Buffer,
    /// `d-modsig`: the digest without the appended signature.
    DigestModsig,
    /// `modsig`: the appended signature.
    Modsig,
    /// `evmsig`: the portable signature of security.evm.
    EvmSignature,
    /// `xattrnames`: names of the extended attributes that EVM protects, separated by `|`.
    XattrNames,
    /// `xattrlengths`: their lengths, 32 bits each.
    XattrLengths,
    /// `xattrvalues`: their values.
    XattrValues,
    /// `iuid`: the file's owner, 32 bits.
    Uid,
    /// `igid`: the file's group, 32 bits.
    Gid,
    /// `imode`: the file's mode, 16 bits.
    Mode,
}

/// How the kernel shows a field (`enum data_formats` in `ima_template_lib.c`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Digest,
    TaggedDigest,
    Text,
    Hex,
    Uint(usize),
}

impl FieldId {
    const ALL: [FieldId; 16] = [
        FieldId::Digest,
        FieldId::Name,
        FieldId::DigestNg,
        FieldId::DigestNgV2,
        FieldId::NameNg,
        FieldId::Signature,
        FieldId::Buffer,
        FieldId::DigestModsig,
        FieldId::Modsig,
        FieldId::EvmSignature,
        FieldId::XattrNames,
        FieldId::XattrLengths,
        FieldId::XattrValues,
        FieldId::Uid,
        FieldId::Gid,
        FieldId::Mode,
    ];

    /// The kernel's name of the field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FieldId::Digest => "d",
            FieldId::Name => "n",
            FieldId::DigestNg => "d-ng",
            FieldId::DigestNgV2 => "d-ngv2",
            FieldId::NameNg => "n-ng",
            FieldId::Signature => "sig",
            FieldId::Buffer => "buf",
            FieldId::DigestModsig => "d-modsig",
            FieldId::Modsig => "modsig",
            FieldId::EvmSignature => "evmsig",
            FieldId::XattrNames => "xattrnames",
            FieldId::XattrLengths => "xattrlengths",
            FieldId::XattrValues => "xattrvalues",
            FieldId::Uid => "iuid",
            FieldId::Gid => "igid",
            FieldId::Mode => "imode",
        }
    }

    fn from_name(name: &str) -> Option<FieldId> {
        FieldId::ALL.into_iter().find(|id| id.name() == name)
    }

    const fn shown(self) -> Shown {
        match self {
            FieldId::Digest => Shown::Digest,
            FieldId::DigestNg | FieldId::DigestNgV2 | FieldId::DigestModsig => Shown::TaggedDigest,
            FieldId::Name | FieldId::NameNg | FieldId::XattrNames => Shown::Text,
            FieldId::Signature
            | FieldId::Buffer
            | FieldId::Modsig
            | FieldId::EvmSignature
            | FieldId::XattrLengths
            | FieldId::XattrValues => Shown::Hex,
            FieldId::Uid | FieldId::Gid => Shown::Uint(4),
            FieldId::Mode => Shown::Uint(2),
        }
    }
}

/// A template: its name, and the fields it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    name: String,
    fields: Option<Vec<FieldId>>,
}

impl Template {
    /// The built-in templates and their formats (`builtin_templates` in `ima_template.c`).
    pub const BUILT_IN: [(&'static str, &'static str); 8] = [
        ("ima", "d|n"),
        ("ima-ng", "d-ng|n-ng"),
        ("ima-sig", "d-ng|n-ng|sig"),
        ("ima-ngv2", "d-ngv2|n-ng"),
        ("ima-sigv2", "d-ngv2|n-ng|sig"),
        ("ima-buf", "d-ng|n-ng|buf"),
        ("ima-modsig", "d-ng|n-ng|sig|d-modsig|modsig"),
        (
            "evm-sig",
            "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
        ),
    ];

    /// A template by the name the kernel writes: that of a built-in one, or a format such as `d-ng|n-ng|sig`. Of an
    /// unknown one the number and meaning of the fields is unknown; the list can still be replayed.
    #[must_use]
    pub fn from_name(name: &str) -> Template {
        let format = Template::BUILT_IN
            .iter()
            .find(|(built_in, _)| *built_in == name)
            .map_or(name, |(_, format)| *format);
        Template {
            name: name.to_owned(),
            fields: format.split('|').map(FieldId::from_name).collect(),
        }
    }

    /// The name as the kernel wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields in order; `None` of a template that is not known here.
    #[must_use]
    pub fn fields(&self) -> Option<&[FieldId]> {
        self.fields.as_deref()
    }

    /// The first template, `ima`, has no lengths in its digest and none before its data in the binary form.
    fn is_old(&self) -> bool {
        self.name == "ima"
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The digest of a file as an entry gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDigest<'a> {
    /// What was hashed: `ima` the content, `verity` the fs-verity descriptor. Only `d-ngv2` says; otherwise `ima`.
    pub kind: &'a str,
    /// The kernel's name of the algorithm; empty where the entry does not say (`d`: SHA-1 or MD5).
    pub algorithm: &'a str,
    /// The digest.
    pub digest: &'a [u8],
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pcr: u32,
    digest: Vec<u8>,
    template: Template,
    fields: Vec<Vec<u8>>,
}

impl Entry {
    /// An entry as the kernel makes it, with the digest of its data in a bank.
    #[must_use]
    pub fn new(
        pcr: u32,
        template: Template,
        fields: Vec<Vec<u8>>,
        bank: Bank,
        order: ByteOrder,
    ) -> Self {
        let mut entry = Self {
            pcr,
            digest: Vec::new(),
            template,
            fields,
        };
        entry.digest = entry.template_digest(bank, order);
        entry
    }

    /// The PCR that was extended.
    #[must_use]
    pub fn pcr(&self) -> u32 {
        self.pcr
    }

    /// The template digest as the list gives it: zeros if the entry is a violation.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// The template.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The data of each field, as the kernel holds it.
    #[must_use]
    pub fn fields(&self) -> &[Vec<u8>] {
        &self.fields
    }

    /// The data of the first field of this kind.
    #[must_use]
    pub fn field(&self, id: FieldId) -> Option<&[u8]> {
        let ids = self.template.fields()?;
        let (_, data) = ids
            .iter()
            .zip(&self.fields)
            .find(|(have, _)| **have == id)?;
        Some(data)
    }

    /// Whether the file was open for writing while it was measured, or written while measured data of it was in use: the
    /// kernel logs zeros and extends the PCR by ones (`ima_add_violation` in `ima_api.c`).
    #[must_use]
    pub fn is_violation(&self) -> bool {
        self.digest.iter().all(|byte| *byte == 0)
    }

    /// The name of the file or event, without its NUL. The kernel has put `_` for each space.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        let data = self
            .field(FieldId::NameNg)
            .or_else(|| self.field(FieldId::Name))?;
        Some(data.strip_suffix(b"\0").unwrap_or(data))
    }

    /// The digest of the file.
    #[must_use]
    pub fn file_digest(&self) -> Option<FileDigest<'_>> {
        if let Some(digest) = self.field(FieldId::Digest) {
            return Some(FileDigest {
                kind: "ima",
                algorithm: "",
                digest,
            });
        }
        let data = self
            .field(FieldId::DigestNg)
            .or_else(|| self.field(FieldId::DigestNgV2))?;
        let (tag, digest) = split_tagged(data)?;
        let (kind, algorithm) = tag.split_once(':').unwrap_or(("ima", tag));
        Some(FileDigest {
            kind,
            algorithm,
            digest,
        })
    }

    /// The value of security.ima, where the template records it and the file had a signature.
    #[must_use]
    pub fn signature(&self) -> Option<&[u8]> {
        self.field(FieldId::Signature)
            .filter(|data| !data.is_empty())
    }

    /// H(template data) in a bank: what a violation-free entry extends the PCR by
    /// (`ima_calc_field_array_hash_tfm` in `ima_crypto.c`). The template `ima` hashes the digest and the name padded with
    /// zeros to 256 bytes; all others the length and the data of each field.
    #[must_use]
    pub fn template_digest(&self, bank: Bank, order: ByteOrder) -> Vec<u8> {
        if self.template.is_old() {
            let mut data: Vec<u8> = Vec::new();
            for (index, field) in self.fields.iter().enumerate() {
                data.extend_from_slice(field);
                if index == 1 {
                    let padding = MAX_OLD_NAME.saturating_add(1).saturating_sub(field.len());
                    data.extend(std::iter::repeat_n(0, padding));
                }
            }
            return bank.hash(&[&data]);
        }
        bank.hash(&[&self.data(order)])
    }

    /// The line of the ASCII form, without its line feed, as the kernel writes it (`ima_ascii_measurements_show`): bytes,
    /// because names are. Of a template that is not known here the fields are shown in hexadecimal.
    #[must_use]
    pub fn to_ascii(&self, order: ByteOrder) -> Vec<u8> {
        let mut line = format!("{:2} ", self.pcr).into_bytes();
        line.extend(hex::digits(&self.digest));
        line.push(b' ');
        line.extend_from_slice(self.template.name.as_bytes());
        for (index, data) in self.fields.iter().enumerate() {
            line.push(b' ');
            let id = self.template.fields().and_then(|ids| ids.get(index));
            match id.map_or(Shown::Hex, |id| id.shown()) {
                Shown::Text => line.extend(data.iter().take_while(|byte| **byte != 0)),
                Shown::TaggedDigest => match split_tagged(data) {
                    Some((tag, digest)) => {
                        if !tag.is_empty() {
                            line.extend_from_slice(tag.as_bytes());
                            line.push(b':');
                        }
                        line.extend(hex::digits(digest));
                    }
                    None => line.extend(hex::digits(data)),
                },
                Shown::Uint(_) => match order.uint(data) {
                    Some(value) => line.extend_from_slice(value.to_string().as_bytes()),
                    None => line.extend(hex::digits(data)),
                },
                Shown::Digest | Shown::Hex => line.extend(hex::digits(data)),
            }
        }
        line
    }

    fn data(&self, order: ByteOrder) -> Vec<u8> {
        let mut data = Vec::new();
        for field in &self.fields {
            data.extend_from_slice(&order.write(clamp_len(field.len())));
            data.extend_from_slice(field);
        }
        data
    }
}

/// Lists come from 32-bit lengths, so that only a value built elsewhere could be larger; it then parses as truncated.
fn clamp_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// `algo:` NUL digest: the tag without the colon, and the digest.
fn split_tagged(data: &[u8]) -> Option<(&str, &[u8])> {
    let nul = data.iter().position(|byte| *byte == 0)?;
    let (tag, rest) = data.split_at_checked(nul)?;
    let tag = std::str::from_utf8(tag.strip_suffix(b":")?).ok()?;
    Some((tag, rest.strip_prefix(b"\0")?))
}

/// Why a list could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("measurement list, entry {entry}: {kind}")]
pub struct MeasurementError {
    /// The entry, counted from 1; in the ASCII form the line.
    pub entry: usize,
    /// What is wrong with it.
    pub kind: MeasurementErrorKind,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasurementErrorKind {
    /// The input ends within the entry.
    #[error("the list ends inside the {0}")]
    Truncated(&'static str),
    /// A template name that is empty, too long or not printable ASCII.
    #[error("the template name is empty, longer than {MAX_TEMPLATE_NAME} bytes or not printable")]
    BadTemplateName,
    /// The template data is not the fields that the template has.
    #[error("the data of template {template} is not its {fields} fields")]
    FieldMismatch {
        /// Name of the template.
        template: String,
        /// How many fields the template has.
        fields: usize,
    },
    /// A name longer than the template `ima` can carry.
    #[error("the file name is longer than {MAX_OLD_NAME} bytes")]
    NameTooLong,
    /// The PCR number of an ASCII line.
    #[error("the line does not begin with a PCR number")]
    BadPcr,
    /// The template digest of an ASCII line.
    #[error("the template digest is not that of a known bank")]
    BadDigest,
    /// A field of an ASCII line.
    #[error("field {0} is not in its form")]
    BadField(&'static str),
    /// An ASCII line of a template that is not known here cannot be turned into data.
    #[error(
        "template {0} is not known, and the ASCII form does not carry its data: take the binary list"
    )]
    UnknownTemplate(String),
}

/// A measurement list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasurementList {
    bank: Bank,
    order: ByteOrder,
    entries: Vec<Entry>,
}

/// How a PCR of the TPM compares with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcrMatch {
    /// The PCR is the replay of the whole list.
    Whole,
    /// The PCR is the replay of the first `entries` of the list: more was measured after it was read. Read the PCR before
    /// the list, never the other way round.
    Prefix {
        /// How many entries of the list the PCR covers.
        entries: usize,
    },
    /// The PCR is the replay of no beginning of the list.
    No,
}

/// Takes entries off the front of a list, which may come in pieces.
#[derive(Clone, Debug)]
pub struct Decoder {
    form: Form,
    order: ByteOrder,
    /// Entries, or lines, taken so far.
    taken: usize,
}

#[derive(Clone, Debug)]
enum Form {
    Binary(Bank),
    /// The bank is that of the first line.
    Ascii(Option<Bank>),
}

impl Decoder {
    /// Reads `binary_runtime_measurements` (bank SHA-1) or `binary_runtime_measurements_<bank>`.
    #[must_use]
    pub const fn binary(bank: Bank, order: ByteOrder) -> Self {
        Self {
            form: Form::Binary(bank),
            order,
            taken: 0,
        }
    }

    /// Reads `ascii_runtime_measurements`, of whatever bank its first digest has the length of. `order` is that of the machine
    /// that wrote it; it enters the digests of the replay.
    #[must_use]
    pub const fn ascii(order: ByteOrder) -> Self {
        Self {
            form: Form::Ascii(None),
            order,
            taken: 0,
        }
    }

    /// The bank whose template digests the list carries, as far as it is known.
    #[must_use]
    pub fn bank(&self) -> Bank {
        match self.form {
            Form::Binary(bank) => bank,
            Form::Ascii(bank) => bank.unwrap_or(Bank::Sha1),
        }
    }

    /// The byte order of the machine that wrote the list.
    #[must_use]
    pub const fn order(&self) -> ByteOrder {
        self.order
    }

    /// Takes the entry at the beginning of `bytes`, and moves `bytes` behind it. Nothing is taken if it is not whole and, unless
    /// `end` says that nothing follows, more of the list is needed.
    ///
    /// # Errors
    /// The entry, or in the ASCII form the line, and what is wrong with it.
    pub fn take(
        &mut self,
        bytes: &mut &[u8],
        end: bool,
    ) -> Result<Option<Entry>, MeasurementError> {
        while !bytes.is_empty() {
            let number = self.taken.saturating_add(1);
            let (entry, rest) = match &mut self.form {
                Form::Binary(bank) => {
                    let mut reader = Reader {
                        rest: bytes,
                        order: self.order,
                    };
                    match reader.entry(*bank) {
                        Err(MeasurementErrorKind::Truncated(_)) if !end => return Ok(None),
                        entry => (entry.map(Some), reader.rest),
                    }
                }
                Form::Ascii(bank) => {
                    let end_of_line = bytes.iter().position(|byte| *byte == b'\n');
                    if end_of_line.is_none() && !end {
                        return Ok(None);
                    }
                    let (line, rest) = match end_of_line.and_then(|at| bytes.split_at_checked(at)) {
                        Some((line, rest)) => (line, rest.get(1..).unwrap_or_default()),
                        None => (*bytes, &[][..]),
                    };
                    let entry = if line.is_empty() {
                        Ok(None)
                    } else {
                        ascii_entry(line, bank, self.order).map(Some)
                    };
                    (entry, rest)
                }
            };
            let entry = entry.map_err(|kind| MeasurementError {
                entry: number,
                kind,
            })?;
            self.taken = number;
            *bytes = rest;
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    /// All entries of a list.
    fn all(&mut self, mut bytes: &[u8]) -> Result<Vec<Entry>, MeasurementError> {
        let mut entries = Vec::new();
        while let Some(entry) = self.take(&mut bytes, true)? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// An entry with its template digests, each computed once.
#[derive(Clone, Debug)]
pub struct Digested<'a> {
    entry: &'a Entry,
    order: ByteOrder,
    digests: [Option<Vec<u8>>; Bank::ALL.len()],
}

impl<'a> Digested<'a> {
    /// An entry of a list of that byte order.
    #[must_use]
    pub const fn new(entry: &'a Entry, order: ByteOrder) -> Self {
        Self {
            entry,
            order,
            digests: [const { None }; Bank::ALL.len()],
        }
    }

    /// The template digest in a bank.
    fn digest(&mut self, bank: Bank) -> &[u8] {
        let place = match bank {
            Bank::Sha1 => 0,
            Bank::Sha256 => 1,
            Bank::Sha384 => 2,
            Bank::Sha512 => 3,
        };
        match self.digests.get_mut(place) {
            Some(digest) => {
                digest.get_or_insert_with(|| self.entry.template_digest(bank, self.order))
            }
            None => &[],
        }
    }

    /// Whether the digest in the list, which is of `bank`, is not that of the entry's data: the list was changed. Violations,
    /// whose digest is zeros, are not compared; only the PCR shows whether they were logged as they happened.
    pub fn is_wrong(&mut self, bank: Bank) -> bool {
        !self.entry.is_violation() && self.entry.digest != self.digest(bank)
    }
}

/// What a PCR holds after a list: each entry extends it by the template digest of its bank, a violation by ones
/// (`ima_add_template_entry` in `ima_queue.c`). It begins with zeros, as PCRs 0 to 15 do after a reset of the machine.
#[derive(Clone, Debug)]
pub struct PcrReplay {
    bank: Bank,
    pcr: u32,
    /// The bank of the digests, which are padded with zeros.
    of: Bank,
    value: Vec<u8>,
}

impl PcrReplay {
    /// A PCR that is extended by the template digests of its bank.
    #[must_use]
    pub fn new(bank: Bank, pcr: u32) -> Self {
        Self {
            bank,
            pcr,
            of: bank,
            value: vec![0; bank.digest_len()],
        }
    }

    /// A PCR of a kernel before 5.8, which extended every bank by the SHA-1 template digest with zeros after it
    /// (`ima_pcr_extend`).
    #[must_use]
    pub fn padded(bank: Bank, pcr: u32) -> Self {
        Self {
            of: Bank::Sha1,
            ..Self::new(bank, pcr)
        }
    }

    /// Goes on from a value that the PCR had; one that is not as long as the digests of the bank is not taken.
    #[must_use]
    pub fn from_value(self, value: &[u8]) -> Self {
        if value.len() != self.value.len() {
            return self;
        }
        Self {
            value: value.to_vec(),
            ..self
        }
    }

    /// Extends the PCR, if the entry is one of this PCR.
    pub fn extend(&mut self, entry: &mut Digested<'_>) {
        if entry.entry.pcr != self.pcr {
            return;
        }
        let mut by = if entry.entry.is_violation() {
            vec![0xff; self.of.digest_len()]
        } else {
            entry.digest(self.of).to_vec()
        };
        by.resize(self.bank.digest_len(), 0);
        self.value = self.bank.hash(&[&self.value, &by]);
    }

    /// What it holds now.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Compares a PCR that was read from the TPM with a list, entry by entry.
#[derive(Clone, Debug)]
pub struct PcrMatcher {
    replay: PcrReplay,
    found: Vec<u8>,
    entries: usize,
    /// After how many entries it held what was found.
    held: Option<usize>,
}

impl PcrMatcher {
    /// Compares what was found with what `replay` comes to.
    #[must_use]
    pub fn new(replay: PcrReplay, found: Vec<u8>) -> Self {
        let held = (replay.value == found).then_some(0);
        Self {
            replay,
            found,
            entries: 0,
            held,
        }
    }

    /// Takes the next entry of the list.
    pub fn extend(&mut self, entry: &mut Digested<'_>) {
        self.entries = self.entries.saturating_add(1);
        if entry.entry.pcr != self.replay.pcr {
            return;
        }
        self.replay.extend(entry);
        if self.held.is_none() && self.replay.value == self.found {
            self.held = Some(self.entries);
        }
    }

    /// How they compare.
    #[must_use]
    pub fn found(&self) -> PcrMatch {
        match self.held {
            Some(_) if self.replay.value == self.found => PcrMatch::Whole,
            Some(entries) => PcrMatch::Prefix { entries },
            None => PcrMatch::No,
        }
    }

    /// What the list comes to.
    #[must_use]
    pub fn replay(&self) -> &[u8] {
        self.replay.value()
    }
}

impl MeasurementList {
    /// Parse `binary_runtime_measurements` (bank SHA-1) or `binary_runtime_measurements_<bank>`.
    ///
    /// # Errors
    /// The entry and what is wrong with it; nothing is taken from a list that is not whole.
    pub fn parse_binary(
        bytes: &[u8],
        bank: Bank,
        order: ByteOrder,
    ) -> Result<Self, MeasurementError> {
        Ok(MeasurementList {
            bank,
            order,
            entries: Decoder::binary(bank, order).all(bytes)?,
        })
    }

    /// Parse `ascii_runtime_measurements`, of whatever bank its first digest has the length of. `order` is that of the
    /// machine that wrote it; it enters the digests of the replay.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn parse_ascii(text: &[u8], order: ByteOrder) -> Result<Self, MeasurementError> {
        let mut decoder = Decoder::ascii(order);
        let entries = decoder.all(text)?;
        Ok(MeasurementList {
            bank: decoder.bank(),
            order,
            entries,
        })
    }

    /// The entries in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bank whose template digests this list carries.
    #[must_use]
    pub fn bank(&self) -> Bank {
        self.bank
    }

    /// The binary form, as the kernel writes it.
    #[must_use]
    pub fn to_binary(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.entries {
            out.extend_from_slice(&self.order.write(entry.pcr));
            out.extend_from_slice(&entry.digest);
            out.extend_from_slice(&self.order.write(clamp_len(entry.template.name.len())));
            out.extend_from_slice(entry.template.name.as_bytes());
            if entry.template.is_old() {
                let name = entry.name().unwrap_or_default();
                out.extend_from_slice(entry.field(FieldId::Digest).unwrap_or_default());
                out.extend_from_slice(&self.order.write(clamp_len(name.len())));
                out.extend_from_slice(name);
            } else {
                let data = entry.data(self.order);
                out.extend_from_slice(&self.order.write(clamp_len(data.len())));
                out.extend_from_slice(&data);
            }
        }
        out
    }

    /// The ASCII form, as the kernel writes it.
    #[must_use]
    pub fn to_ascii(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.entries {
            out.extend_from_slice(&entry.to_ascii(self.order));
            out.push(b'\n');
        }
        out
    }

    /// The first entry whose template digest is not that of its data: the list was changed. Violations, whose digest is
    /// zeros, are not compared; only the PCR shows whether they were logged as they happened.
    #[must_use]
    pub fn first_wrong_digest(&self) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| Digested::new(entry, self.order).is_wrong(self.bank))
    }

    /// What PCR `pcr` of `bank` holds after this list ([`PcrReplay`]).
    #[must_use]
    pub fn replay(&self, bank: Bank, pcr: u32) -> Vec<u8> {
        let mut replay = PcrReplay::new(bank, pcr);
        for entry in &self.entries {
            replay.extend(&mut Digested::new(entry, self.order));
        }
        replay.value
    }

    /// Compare a PCR read from the TPM with this list.
    #[must_use]
    pub fn match_pcr(&self, bank: Bank, pcr: u32, value: &[u8]) -> PcrMatch {
        self.matched(PcrReplay::new(bank, pcr), value)
    }

    /// As [`match_pcr`](Self::match_pcr), for kernels before 5.8 ([`PcrReplay::padded`]).
    #[must_use]
    pub fn match_padded_pcr(&self, bank: Bank, pcr: u32, value: &[u8]) -> PcrMatch {
        self.matched(PcrReplay::padded(bank, pcr), value)
    }

    fn matched(&self, replay: PcrReplay, value: &[u8]) -> PcrMatch {
        let mut matcher = PcrMatcher::new(replay, value.to_vec());
        for entry in &self.entries {
            matcher.extend(&mut Digested::new(entry, self.order));
        }
        matcher.found()
    }
}

/// The digest in the first entry of a boot, from the PCRs of `bank` in order from 0: eight of them for SHA-1, ten for the
/// others (`ima_calc_boot_aggregate_tfm` in `ima_crypto.c`). `None` if `pcrs` are fewer or not of the bank's length.
/// Without a TPM the kernel writes zeros instead.
#[must_use]
pub fn boot_aggregate(bank: Bank, pcrs: &[Vec<u8>]) -> Option<Vec<u8>> {
    let wanted = if bank == Bank::Sha1 { 8 } else { 10 };
    let used = pcrs.get(..wanted)?;
    if used.iter().any(|pcr| pcr.len() != bank.digest_len()) {
        return None;
    }
    let parts: Vec<&[u8]> = used.iter().map(Vec::as_slice).collect();
    Some(bank.hash(&parts))
}

struct Reader<'a> {
    rest: &'a [u8],
    order: ByteOrder,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], MeasurementErrorKind> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(MeasurementErrorKind::Truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, MeasurementErrorKind> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<4>()
            .ok_or(MeasurementErrorKind::Truncated(what))?;
        self.rest = rest;
        Ok(self.order.read(*taken))
    }

    fn sized(&mut self, what: &'static str) -> Result<&'a [u8], MeasurementErrorKind> {
        let len = self.u32(what)?;
        // A length beyond the address space is beyond the input too.
        self.take(usize::try_from(len).unwrap_or(usize::MAX), what)
    }

    fn entry(&mut self, bank: Bank) -> Result<Entry, MeasurementErrorKind> {
        let pcr = self.u32("PCR number")?;
        let digest = self.take(bank.digest_len(), "template digest")?.to_vec();
        let template = template_name(self.sized("template name")?)?;
        let fields = if template.is_old() {
            let digest = self.take(Bank::Sha1.digest_len(), "file digest")?.to_vec();
            let mut name = self.sized("file name")?.to_vec();
            if name.len() > MAX_OLD_NAME {
                return Err(MeasurementErrorKind::NameTooLong);
            }
            name.push(0);
            vec![digest, name]
        } else {
            let data = self.sized("template data")?;
            split_fields(&template, data, self.order)?
        };
        Ok(Entry {
            pcr,
            digest,
            template,
            fields,
        })
    }
}

fn template_name(bytes: &[u8]) -> Result<Template, MeasurementErrorKind> {
    if bytes.is_empty()
        || bytes.len() > MAX_TEMPLATE_NAME
        || !bytes.iter().all(u8::is_ascii_graphic)
    {
        return Err(MeasurementErrorKind::BadTemplateName);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| MeasurementErrorKind::BadTemplateName)?;
    Ok(Template::from_name(name))
}

fn split_fields(
    template: &Template,
    data: &[u8],
    order: ByteOrder,
) -> Result<Vec<Vec<u8>>, MeasurementErrorKind> {
    let expected = template.fields().map(<[FieldId]>::len);
    let mismatch = || MeasurementErrorKind::FieldMismatch {
        template: template.name.clone(),
        fields: expected.unwrap_or_default(),
    };
    let mut reader = Reader { rest: data, order };
    let mut fields = Vec::new();
    while !reader.rest.is_empty() {
        fields.push(reader.sized("field").map_err(|_| mismatch())?.to_vec());
    }
    match expected {
        Some(count) if count != fields.len() => Err(mismatch()),
        _ => Ok(fields),
    }
}

fn ascii_entry(
    line: &[u8],
    bank: &mut Option<Bank>,
    order: ByteOrder,
) -> Result<Entry, MeasurementErrorKind> {
    // "%2d ": a PCR below ten has a blank before it.
    let line = line.strip_prefix(b" ").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    let pcr = words
        .next()
        .and_then(|word| std::str::from_utf8(word).ok())
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|word| word.parse().ok())
        .ok_or(MeasurementErrorKind::BadPcr)?;
    let digest = words
        .next()
        .and_then(hex::decode)
        .ok_or(MeasurementErrorKind::BadDigest)?;
    let of = Bank::from_digest_len(digest.len()).ok_or(MeasurementErrorKind::BadDigest)?;
    if *bank.get_or_insert(of) != of {
        return Err(MeasurementErrorKind::BadDigest);
    }
    let template = template_name(
        words
            .next()
            .ok_or(MeasurementErrorKind::Truncated("template name"))?,
    )?;
    let ids = template
        .fields()
        .ok_or_else(|| MeasurementErrorKind::UnknownTemplate(template.name.clone()))?;
    let mut fields = Vec::with_capacity(ids.len());
    for id in ids {
        let word = words
            .next()
            .ok_or(MeasurementErrorKind::Truncated(id.name()))?;
        fields
            .push(ascii_field(*id, word, order).ok_or(MeasurementErrorKind::BadField(id.name()))?);
    }
    if words.next().is_some() {
        return Err(MeasurementErrorKind::FieldMismatch {
            fields: ids.len(),
            template: template.name,
        });
    }
    Ok(Entry {
        pcr,
        digest,
        template,
        fields,
    })
}

fn ascii_field(id: FieldId, word: &[u8], order: ByteOrder) -> Option<Vec<u8>> {
    match id.shown() {
        // A file name always has its NUL; any other field may be empty.
        Shown::Text if word.is_empty() && id == FieldId::XattrNames => Some(Vec::new()),
        Shown::Text if id == FieldId::Name && word.len() > MAX_OLD_NAME => None,
        Shown::Text => Some([word, b"\0"].concat()),
        _ if word.is_empty() => Some(Vec::new()),
        Shown::Digest | Shown::Hex => hex::decode(word),
        Shown::TaggedDigest => {
            let (tag, digits) = match word.iter().rposition(|byte| *byte == b':') {
                Some(colon) => word.split_at_checked(colon.checked_add(1)?)?,
                None => (&b":"[..], word),
            };
            Some([tag, b"\0", hex::decode(digits)?.as_slice()].concat())
        }
        Shown::Uint(width) => {
            let text = std::str::from_utf8(word).ok()?;
            if width == 2 {
                Some(order.write_u16(text.parse().ok()?).to_vec())
            } else {
                Some(order.write(text.parse().ok()?).to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LE: ByteOrder = ByteOrder::Little;

    fn field(data: &[u8]) -> Vec<u8> {
        [&u32::try_from(data.len()).unwrap().to_le_bytes(), data].concat()
    }

    fn record(pcr: u32, digest: &[u8], template: &str, fields: &[&[u8]]) -> Vec<u8> {
        let data: Vec<u8> = fields.iter().flat_map(|data| field(data)).collect();
        [
            &pcr.to_le_bytes()[..],
            digest,
            &field(template.as_bytes()),
            &field(&data),
        ]
        .concat()
    }

    fn hex(text: &str) -> Vec<u8> {
        crate::hex::decode(text).unwrap()
    }

    /// Digests from Python's hashlib over bytes laid out by hand from the kernel's source.
    #[test]
    fn template_digests_and_replay() {
        let file = [0x11; 32];
        let digest_ng = [b"sha256:\0".as_slice(), &file].concat();
        let list = [
            record(
                10,
                &hex("df0f6776e1014928aae624d21c6cad2edf25680e"),
                "ima-ng",
                &[&digest_ng, b"/sbin/init\0"],
            ),
            record(
                10,
                &hex("39efc624ad4e75c8cadeb94b1d38cdf465f835ca"),
                "ima-sig",
                &[&digest_ng, b"/bin/a_b\0", &[3, 2, 4]],
            ),
            record(
                10,
                &[0; 20],
                "ima-ng",
                &[
                    &[b"sha256:\0".as_slice(), &[0; 32]].concat(),
                    b"/var/log/x\0",
                ],
            ),
            record(
                11,
                &hex("1f1881f6cea0a9fdf2451a205b6854337b77fe93"),
                "ima-ng",
                &[&digest_ng, b"/other\0"],
            ),
        ]
        .concat();
        let list = MeasurementList::parse_binary(&list, Bank::Sha1, LE).unwrap();
        assert_eq!(list.first_wrong_digest(), None);
        assert_eq!(
            list.entries()
                .iter()
                .map(Entry::is_violation)
                .collect::<Vec<_>>(),
            [false, false, true, false]
        );
        for (bank, pcr, expected) in [
            (Bank::Sha1, 10, "f30b67adfee6d303beddfd520cfee2d17a8cca90"),
            (
                Bank::Sha256,
                10,
                "bf9e3991b6c4212105164e7a60297af8b175dce88c49bb6b2da4d876268965ac",
            ),
            (
                Bank::Sha256,
                11,
                "6fdc2d8e38072868312155829543cc15ce631aeafe33f0fcc2b430630f8194e1",
            ),
            (
                Bank::Sha256,
                12,
                "0000000000000000000000000000000000000000000000000000000000000000",
            ),
        ] {
            assert_eq!(list.replay(bank, pcr), hex(expected), "{bank} {pcr}");
            assert_eq!(list.match_pcr(bank, pcr, &hex(expected)), PcrMatch::Whole);
        }
        assert_eq!(
            list.match_pcr(
                Bank::Sha256,
                10,
                &hex("bcac6fa5328f01d77e5bd6a542a0cbea322a9a35179ef303f77f48650a9cb2ca")
            ),
            PcrMatch::Prefix { entries: 2 }
        );
        assert_eq!(
            list.match_pcr(Bank::Sha256, 10, &[0; 32]),
            PcrMatch::Prefix { entries: 0 }
        );
        assert_eq!(list.match_pcr(Bank::Sha256, 10, &[1; 32]), PcrMatch::No);
        let digest = list.entries()[0].file_digest().unwrap();
        assert_eq!(
            (digest.kind, digest.algorithm, digest.digest),
            ("ima", "sha256", &file[..])
        );
        assert_eq!(list.entries()[1].name(), Some(&b"/bin/a_b"[..]));
        assert_eq!(list.entries()[1].signature(), Some(&[3, 2, 4][..]));
        assert_eq!(list.entries()[0].signature(), None);
    }

    /// The first template: no length before its data, the name padded to 256 in the digest and without its NUL on disk.
    #[test]
    fn template_ima() {
        let bytes = [
            &10u32.to_le_bytes()[..],
            &hex("f1a54c9ffc439f2dfef79c3aa079cccdeeb62fec"),
            &field(b"ima"),
            &[0x22; 20],
            &field(b"/init"),
        ]
        .concat();
        let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, LE).unwrap();
        assert_eq!(list.first_wrong_digest(), None);
        assert_eq!(list.entries()[0].name(), Some(&b"/init"[..]));
        assert_eq!(list.entries()[0].file_digest().unwrap().algorithm, "");
        assert_eq!(list.to_binary(), bytes);
        let mut long = bytes[..bytes.len() - 9].to_vec();
        long.extend(field(&[b'x'; 256]));
        let error = MeasurementList::parse_binary(&long, Bank::Sha1, LE).unwrap_err();
        assert_eq!(error.kind, MeasurementErrorKind::NameTooLong);
    }

    /// Each template in both forms: binary to ASCII and back gives the same entry.
    #[test]
    fn every_template_round_trips() {
        let digest = [b"sha256:\0".as_slice(), &[7; 32]].concat();
        let verity = [b"verity:sha256:\0".as_slice(), &[8; 32]].concat();
        let rows: [(&str, Vec<&[u8]>, &str); 9] = [
            ("ima-ng", vec![&digest, b"/a\0"], "sha256:"),
            ("ima-sig", vec![&digest, b"/a\0", b""], "/a "),
            ("ima-ngv2", vec![&verity, b"/a\0"], "verity:sha256:08"),
            ("ima-sigv2", vec![&verity, b"/a\0", b"\x06\x03"], "0603"),
            ("ima-buf", vec![&digest, b"kexec-cmdline\0", b"ro"], "726f"),
            (
                "ima-modsig",
                vec![&digest, b"/m.ko\0", b"", &digest, b"\x30\x82"],
                "3082",
            ),
            (
                "evm-sig",
                vec![
                    &digest,
                    b"/a\0",
                    b"\x05",
                    b"security.ima|security.capability\0",
                    &[4, 0, 0, 0],
                    b"\x01",
                    &[232, 3, 0, 0],
                    &[0; 4],
                    &[0xa4, 0x81],
                ],
                "security.ima|security.capability 04000000 01 1000 0 33188",
            ),
            (
                "d-ng|n-ng|imode",
                vec![&digest, b"/a\0", &[0xed, 0x41]],
                "16877",
            ),
            ("n-ng", vec![b"\xff\xfe\0"], "n-ng "),
        ];
        for (template, fields, shown) in rows {
            let bytes = record(10, &[9; 32], template, &fields);
            let binary = MeasurementList::parse_binary(&bytes, Bank::Sha256, LE).unwrap();
            assert_eq!(binary.to_binary(), bytes, "{template}");
            let ascii = binary.to_ascii();
            assert!(
                String::from_utf8_lossy(&ascii).contains(shown),
                "{template}"
            );
            assert_eq!(
                MeasurementList::parse_ascii(&ascii, LE).unwrap(),
                binary,
                "{template}"
            );
        }
    }

    #[test]
    fn big_endian_lengths_enter_the_digest() {
        let data: Vec<u8> = [&34u32.to_be_bytes()[..], &[0; 34]].concat();
        let bytes = [
            &10u32.to_be_bytes()[..],
            &[1; 20],
            &4u32.to_be_bytes(),
            b"d-ng",
            &38u32.to_be_bytes(),
            &data,
        ]
        .concat();
        let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::Big).unwrap();
        assert_eq!(list.entries()[0].pcr(), 10);
        assert_eq!(list.to_binary(), bytes);
        assert_eq!(
            list.entries()[0].template_digest(Bank::Sha1, ByteOrder::Big),
            Bank::Sha1.hash(&[&data])
        );
    }

    #[test]
    fn unknown_templates_are_replayed_from_binary_and_refused_in_ascii() {
        let bytes = record(10, &[1; 20], "future", &[b"ab", b"", b"c"]);
        let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, LE).unwrap();
        assert_eq!(list.entries()[0].fields().len(), 3);
        assert_eq!(list.entries()[0].name(), None);
        assert_eq!(list.to_binary(), bytes);
        let error = MeasurementList::parse_ascii(&list.to_ascii(), LE).unwrap_err();
        assert_eq!(
            error.kind,
            MeasurementErrorKind::UnknownTemplate("future".into())
        );
    }

    #[test]
    fn bad_binary_lists() {
        use MeasurementErrorKind as Kind;
        let good = record(10, &[1; 20], "ima-ng", &[b"sha256:\0x", b"/a\0"]);
        let rows: [(&str, Vec<u8>, Kind); 8] = [
            ("PCR cut", good[..3].to_vec(), Kind::Truncated("PCR number")),
            (
                "digest cut",
                good[..23].to_vec(),
                Kind::Truncated("template digest"),
            ),
            (
                "name cut",
                good[..30].to_vec(),
                Kind::Truncated("template name"),
            ),
            (
                "data cut",
                good[..good.len() - 1].to_vec(),
                Kind::Truncated("template data"),
            ),
            (
                "name huge",
                [&good[..24], &[0xff; 4]].concat(),
                Kind::Truncated("template name"),
            ),
            (
                "name empty",
                record(10, &[1; 20], "", &[]),
                Kind::BadTemplateName,
            ),
            (
                "name with a blank",
                record(10, &[1; 20], "ima ng", &[]),
                Kind::BadTemplateName,
            ),
            (
                "a field missing",
                record(10, &[1; 20], "ima-ng", &[b"/a\0"]),
                Kind::FieldMismatch {
                    template: "ima-ng".into(),
                    fields: 2,
                },
            ),
        ];
        for (name, bytes, kind) in rows {
            let both = [good.clone(), bytes].concat();
            let error = MeasurementList::parse_binary(&both, Bank::Sha1, LE).unwrap_err();
            assert_eq!(error, MeasurementError { entry: 2, kind }, "{name}");
        }
    }

    #[test]
    fn bad_ascii_lists() {
        use MeasurementErrorKind as Kind;
        let digest = "11".repeat(20);
        let rows = [
            ("no PCR".to_owned(), Kind::BadPcr),
            ("+10 x".to_owned(), Kind::BadPcr),
            ("10 12".to_owned(), Kind::BadDigest),
            (format!("10 {digest}"), Kind::Truncated("template name")),
            (format!("10 {digest} ima-ng"), Kind::Truncated("d-ng")),
            (
                format!("10 {digest} ima-ng sha1:{digest}"),
                Kind::Truncated("n-ng"),
            ),
            (
                format!("10 {digest} ima-ng sha1:1g /a"),
                Kind::BadField("d-ng"),
            ),
            (
                format!("10 {digest} ima-ng sha1:{digest} /a b"),
                Kind::FieldMismatch {
                    template: "ima-ng".into(),
                    fields: 2,
                },
            ),
            (format!("10 {digest} imode 65536"), Kind::BadField("imode")),
            (
                format!("10 {digest} ima {digest} {}", "x".repeat(256)),
                Kind::BadField("n"),
            ),
        ];
        for (line, kind) in rows {
            let error = MeasurementList::parse_ascii(line.as_bytes(), LE).unwrap_err();
            assert_eq!(error, MeasurementError { entry: 1, kind }, "{line}");
        }
        let mixed = format!("10 {digest} n-ng /a\n10 {} n-ng /a\n", "11".repeat(32));
        let error = MeasurementList::parse_ascii(mixed.as_bytes(), LE).unwrap_err();
        assert_eq!(
            error,
            MeasurementError {
                entry: 2,
                kind: Kind::BadDigest
            }
        );
    }

    #[test]
    fn changed_entries_are_found() {
        let bytes = record(10, &[1; 20], "ima-ng", &[b"sha256:\0x", b"/a\0"]);
        let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, LE).unwrap();
        assert_eq!(list.first_wrong_digest(), Some(0));
    }

    #[test]
    fn boot_aggregates() {
        let pcrs: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 32]).collect();
        let all: Vec<u8> = pcrs.concat();
        assert_eq!(
            boot_aggregate(Bank::Sha256, &pcrs),
            Some(Bank::Sha256.hash(&[&all]))
        );
        assert_eq!(boot_aggregate(Bank::Sha256, &pcrs[..9]), None);
        let short: Vec<Vec<u8>> = (0..10).map(|n| vec![n; 20]).collect();
        assert_eq!(
            boot_aggregate(Bank::Sha1, &short),
            Some(Bank::Sha1.hash(&[&short[..8].concat()]))
        );
        assert_eq!(boot_aggregate(Bank::Sha256, &short), None);
    }

    proptest! {
        #[test]
        fn hostile_binary(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                if let Ok(list) = MeasurementList::parse_binary(&bytes, Bank::Sha1, order) {
                    prop_assert_eq!(list.to_binary(), bytes.clone());
                }
            }
        }

        #[test]
        fn hostile_ascii(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = MeasurementList::parse_ascii(&bytes, LE);
        }

        /// One byte of a sound list changed: it parses to a list that writes the same bytes, or is refused.
        #[test]
        fn nearly_sound(at in 0usize..1000, value: u8, cut in 0usize..1000) {
            let digest = [b"sha256:\0".as_slice(), &[7; 32]].concat();
            let mut bytes = [
                record(10, &[1; 20], "ima-sig", &[&digest, b"/a\0", b"\x03\x02"]),
                [&10u32.to_le_bytes()[..], &[2; 20], &field(b"ima"), &[3; 20], &field(b"/b")].concat(),
                record(10, &[4; 20], "x", &[b"y"]),
            ].concat();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(at));
            if let Ok(list) = MeasurementList::parse_binary(&bytes, Bank::Sha1, LE) {
                prop_assert_eq!(list.to_binary(), bytes);
                let _ = list.replay(Bank::Sha256, 10);
                let _ = list.to_ascii();
            }
        }

        #[test]
        fn replay_in_steps_agrees(names in proptest::collection::vec("[a-z/]{1,20}", 0..20), take in 0usize..20) {
            let mut bytes = Vec::new();
            let mut prefix = Vec::new();
            for (index, name) in names.iter().enumerate() {
                let name = format!("{name}\0");
                bytes.extend(record(10, &[1; 20], "n-ng", &[name.as_bytes()]));
                if index < take {
                    prefix = bytes.clone();
                }
            }
            let whole = MeasurementList::parse_binary(&bytes, Bank::Sha1, LE).unwrap();
            let prefix = MeasurementList::parse_binary(&prefix, Bank::Sha1, LE).unwrap();
            let expected = if prefix.entries().len() == whole.entries().len() {
                PcrMatch::Whole
            } else {
                PcrMatch::Prefix { entries: prefix.entries().len() }
            };
            prop_assert_eq!(whole.match_pcr(Bank::Sha384, 10, &prefix.replay(Bank::Sha384, 10)), expected);
        }
    }
}
