//! LUKS2 containers: the header, the keyslots that a TPM holds the passphrase of, and the table for dm-crypt.
//!
//! The format is cryptsetup's (docs/on-disk-format-luks2.pdf; lib/luks2/luks2.h, `struct luks2_hdr_disk`). A header is a binary part
//! of 4096 bytes, big-endian, and the text of a JSON object with NULs behind it. There are two copies: at the beginning, and right
//! behind.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 6 | `LUKS`, 0xba, 0xbe; of the second copy `SKUL`, 0xba, 0xbe |
//! | 6 | 2 | version: 2 |
//! | 8 | 8 | length of the header with its JSON |
//! | 72 | 32 | name of the hash algorithm of the checksum |
//! | 168 | 40 | UUID |
//! | 256 | 8 | offset of this copy |
//! | 448 | 64 | checksum of the whole header, in which these bytes are zero |
//!
//! Nothing of a header is authenticated: whoever writes to the disk can replace it, with a container of their own too. What the
//! header names is therefore taken only where it cannot lead to less encryption: the only cipher is `aes-xts-plain64` (a header
//! with `cipher_null` would have an unencrypted file system mounted).

mod key;
mod token;

use std::io;

use base64ct::{Base64, Encoding as _};

use crate::fault::{Code, Fault};
use crate::hash::HashAlgorithm;
use crate::json::Value;

pub use key::VolumeKey;
pub use token::{IMA_PCR, Token};

/// The only cipher that is taken.
const CIPHER: &str = "aes-xts-plain64";

/// The name of dm-crypt's target.
pub const TARGET: &str = "crypt";

const BINARY_LENGTH: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// The lengths that a header can have (lib/luks2/luks2_disk_metadata.c, `hdr_size` in `LUKS2_disk_hdr_read`).
const LENGTHS: [usize; 9] = [
    0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000,
];

/// The most iterations of PBKDF2 that are computed: some tens of seconds on a slow processor.
const MAX_ITERATIONS: u32 = 20_000_000;

/// The most keyslots, tokens and digests (LUKS2_KEYSLOTS_MAX, LUKS2_TOKENS_MAX).
const MAX_ENTRIES: usize = 32;

/// Reads so many bytes, or up to the end of the device, from that offset.
pub type Read<'a> = dyn FnMut(u64, usize) -> io::Result<Vec<u8>> + 'a;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    uuid: String,
    segment: Segment,
    keyslots: Vec<Keyslot>,
    digests: Vec<Digest>,
    tokens: Vec<Value>,
}

/// The encrypted part of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    /// Where it begins, in bytes.
    offset: u64,
    /// How long it is, in bytes; to the end of the device if that is not fixed.
    length: Option<u64>,
    /// The length of what is encrypted at a time, in bytes.
    sector_size: u64,
    /// The number that the count of the initialization vectors begins with.
    tweak: u64,
}

/// PBKDF2 with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kdf {
    hash: Hash,
    iterations: u32,
    salt: Vec<u8>,
}

/// The hash algorithms of PBKDF2 and the anti-forensic splitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    const fn algorithm(self) -> HashAlgorithm {
        match self {
            Self::Sha256 => HashAlgorithm::Sha256,
            Self::Sha512 => HashAlgorithm::Sha512,
        }
    }
}

/// A keyslot that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keyslot {
    number: String,
    /// The length of the volume key in it, in bytes.
    key_length: usize,
    kdf: Kdf,
    /// The hash algorithm of the anti-forensic splitter, and into how many stripes it has split the key.
    splitter: Hash,
    stripes: usize,
    /// Where the stripes are, in bytes, and the length of the key that they are encrypted with.
    area: u64,
    area_key_length: usize,
}

/// What shows that a volume key is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Digest {
    keyslots: Vec<String>,
    kdf: Kdf,
    digest: Vec<u8>,
}

impl Container {
    /// Reads the header of a device: the first copy that is whole.
    ///
    /// # Errors
    ///
    /// [`Code::LuksHeader`]
    pub fn read(read: &mut Read<'_>) -> Result<Self, Fault> {
        let mut damaged = None;
        for (start, magic) in std::iter::once((0, b"LUKS\xba\xbe"))
            .chain(LENGTHS.into_iter().map(|start| (start, b"SKUL\xba\xbe")))
        {
            let mut copy = |length| {
                let bytes = read(start as u64, length);
                bytes.map_err(|error| refused(format_args!("reading it: {error}")))
            };
            let binary = copy(BINARY_LENGTH)?;
            if !binary.starts_with(magic) {
                continue;
            }
            let Some(length) = header_length(&binary, start) else {
                damaged = Some(start);
                continue;
            };
            match json_of(&copy(length)?, length) {
                Some((uuid, json)) => return Self::parse(&uuid, &json),
                None => damaged = Some(start),
            }
        }
        Err(match damaged {
            Some(start) => refused(format_args!("the copy at byte {start} is damaged")),
            None => refused(format_args!("there is none")),
        })
    }

    /// Interprets the JSON.
    fn parse(uuid: &str, json: &str) -> Result<Self, Fault> {
        let json = Value::parse(json).map_err(|error| refused(format_args!("{error}")))?;
        let part = |key: &str| {
            let members = json.get(key).map(Value::members).unwrap_or_default();
            let few = members.len() <= MAX_ENTRIES;
            few.then_some(members)
                .ok_or_else(|| refused(format_args!("too many {key}")))
        };
        let config = json.get("config");
        if let Some(requirements) = config.and_then(|config| config.get("requirements"))
            && requirements.get("mandatory").and_then(Value::elements) != Some(&[])
        {
            return Err(refused(format_args!(
                "it demands more than the init can do (requirements)"
            )));
        }
        let segment = match part("segments")? {
            [(_, only)] => Segment::of(only).map_err(|what| {
                refused(format_args!("its segment has {what} that is not supported"))
            })?,
            _ => return Err(refused(format_args!("it has not one segment"))),
        };
        let tokens = part("tokens")?.iter().map(|(_, token)| token.clone());
        let digests = part("digests")?.iter();
        let digests = digests.filter_map(|(_, digest)| Digest::of(digest));
        let keyslots = part("keyslots")?.iter();
        let keyslots = keyslots.filter_map(|(number, keyslot)| Keyslot::of(number, keyslot));
        Ok(Self {
            uuid: uuid.to_owned(),
            segment,
            keyslots: keyslots.collect(),
            digests: digests.collect(),
            tokens: tokens.collect(),
        })
    }

    /// The name that libcryptsetup gives the mapped device inside the kernel, so that `cryptsetup status` knows it.
    pub fn mapped_uuid(&self, name: &str) -> String {
        format!("CRYPT-LUKS2-{}-{name}", self.uuid.replace('-', ""))
    }

    /// The length of the mapped device in sectors of 512 bytes, and the arguments of dm-crypt's target
    /// (Documentation/admin-guide/device-mapper/dm-crypt.rst), for a device of that number and length in bytes; the key is on a
    /// keyring, with the type logon and that description.
    ///
    /// # Errors
    ///
    /// [`Code::LuksHeader`] if the device is too short.
    pub fn table(
        &self,
        device: &str,
        length: u64,
        key_length: usize,
        description: &str,
    ) -> Result<(u64, String), Fault> {
        let segment = &self.segment;
        let room = length.checked_sub(segment.offset);
        let room = room.filter(|room| segment.length.is_none_or(|length| length <= *room));
        let length = segment.length.or(room).filter(|_| room.is_some());
        let length = length
            .map(|length| {
                length.saturating_sub(length.checked_rem(segment.sector_size).unwrap_or(0))
            })
            .filter(|length| *length > 0)
            .ok_or_else(|| refused(format_args!("the device is too short for it")))?;
        let sectors = |bytes: u64| bytes.checked_div(512).unwrap_or_default();
        let options = match segment.sector_size {
            512 => String::new(),
            size => format!(" 1 sector_size:{size}"),
        };
        let arguments = format!(
            "{CIPHER} :{key_length}:logon:{description} {} {device} {}{options}",
            segment.tweak,
            sectors(segment.offset)
        );
        Ok((sectors(length), arguments))
    }
}

/// The length that the binary part says, if it is one of a copy at `start`.
fn header_length(binary: &[u8], start: usize) -> Option<usize> {
    let version: [u8; 2] = *binary.get(6..)?.first_chunk()?;
    let length = usize::try_from(wide(binary, 8)?).ok()?;
    let is_copy = wide(binary, 256)? == u64::try_from(start).ok()?;
    // The second copy is right behind the first.
    let fits = LENGTHS.contains(&length) && (start == 0 || start == length);
    (version == [0, 2] && is_copy && fits).then_some(length)
}

fn wide(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A text of the binary part, up to the first NUL.
fn text(binary: &[u8], range: std::ops::Range<usize>) -> Option<&str> {
    let field = binary.get(range)?;
    let end = field.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(field.get(..end)?).ok()
}

/// The UUID and the JSON of a copy, if its checksum is right.
fn json_of(header: &[u8], length: usize) -> Option<(String, String)> {
    let mut header = header.to_vec();
    let field = header.get_mut(CHECKSUM)?;
    let expected = field.to_vec();
    field.fill(0);
    let is_known = text(&header, 72..104)? == "sha256" && header.len() == length;
    let digest = HashAlgorithm::Sha256.digest(&header)?;
    if !is_known || !expected.starts_with(&digest) {
        return None;
    }
    let uuid = text(&header, 168..208)?;
    let is_uuid = uuid
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let json = header.get(BINARY_LENGTH..)?;
    let end = json.iter().position(|byte| *byte == 0)?;
    let json = std::str::from_utf8(json.get(..end)?).ok()?;
    is_uuid.then(|| (uuid.to_owned(), json.to_owned()))
}

fn refused(detail: std::fmt::Arguments<'_>) -> Fault {
    Fault::new(Code::LuksHeader, format!("the LUKS2 header: {detail}"))
}

/// A number that is written as a string, because it may have 64 bits.
fn decimal(value: Option<&Value>) -> Option<u64> {
    let text = value?.string()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn base64(value: Option<&Value>) -> Option<Vec<u8>> {
    Base64::decode_vec(value?.string()?).ok()
}

/// Whether a member is this string.
fn says(object: &Value, key: &str, text: &str) -> bool {
    object.get(key).and_then(Value::string) == Some(text)
}

fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    let elements = value?.elements()?.iter();
    elements
        .map(|element| element.string().map(str::to_owned))
        .collect()
}

impl Segment {
    /// # Errors
    ///
    /// What of it is not supported.
    fn of(value: &Value) -> Result<Self, &'static str> {
        const MAX: u64 = 1 << 60;
        if !says(value, "type", "crypt") {
            return Err("a type");
        }
        if !says(value, "encryption", CIPHER) {
            return Err("a cipher");
        }
        if value.get("integrity").is_some() {
            return Err("an integrity algorithm");
        }
        let in_sectors = |bytes: &u64| bytes.is_multiple_of(512) && *bytes <= MAX;
        let offset = decimal(value.get("offset")).filter(in_sectors);
        let length = match says(value, "size", "dynamic") {
            true => Some(None),
            false => decimal(value.get("size")).filter(in_sectors).map(Some),
        };
        let sector_size = value.get("sector_size").and_then(Value::number);
        Ok(Self {
            offset: offset.ok_or("an offset")?,
            length: length.ok_or("a size")?,
            sector_size: sector_size
                .filter(|size| [512, 1024, 2048, 4096].contains(size))
                .ok_or("a sector size")?,
            tweak: decimal(value.get("iv_tweak")).ok_or("an IV tweak")?,
        })
    }
}

impl Kdf {
    fn of(value: &Value) -> Option<Self> {
        let iterations = value.get("iterations").and_then(Value::number)?;
        let iterations = u32::try_from(iterations).ok()?;
        let sound = says(value, "type", "pbkdf2") && (1..=MAX_ITERATIONS).contains(&iterations);
        sound.then_some(())?;
        Some(Self {
            hash: Hash::from_name(value.get("hash")?.string()?)?,
            iterations,
            salt: base64(value.get("salt"))?,
        })
    }
}

impl Digest {
    fn of(value: &Value) -> Option<Self> {
        let digest = base64(value.get("digest"))?;
        // A shorter one would take more than one key for the right one.
        (digest.len() >= 20).then_some(())?;
        Some(Self {
            keyslots: strings(value.get("keyslots"))?,
            kdf: Kdf::of(value)?,
            digest,
        })
    }
}

impl Keyslot {
    /// The keyslot, if it is one that can be opened.
    fn of(number: &str, value: &Value) -> Option<Self> {
        const STRIPES: u64 = 4000;
        let splitter = value.get("af")?;
        let area = value.get("area")?;
        let length = |value: &Value| {
            let length = value.get("key_size").and_then(Value::number)?;
            let length = usize::try_from(length).ok()?;
            // AES-128 and AES-256, two keys each.
            [32, 64].contains(&length).then_some(length)
        };
        let sound = says(value, "type", "luks2")
            && says(splitter, "type", "luks1")
            && says(area, "type", "raw")
            && says(area, "encryption", CIPHER)
            && splitter.get("stripes").and_then(Value::number) == Some(STRIPES);
        sound.then_some(())?;
        Some(Self {
            number: number.to_owned(),
            key_length: length(value)?,
            kdf: Kdf::of(value.get("kdf")?)?,
            splitter: Hash::from_name(splitter.get("hash")?.string()?)?,
            stripes: usize::try_from(STRIPES).ok()?,
            area: decimal(area.get("offset"))?,
            area_key_length: length(area)?,
        })
    }
}
