//! PE32+ images, as UEFI starts them: their sections, further sections behind them, and the digest that Authenticode signs.
//!
//! The structures are those of the crate `object`. An image is taken only if headers, sections and the table of certificates
//! follow one another in the file without a gap. All implementations of Authenticode then compute the same digest, and it covers
//! every byte but the checksum and the signature itself.

use std::mem::{offset_of, size_of};
use std::ops::Range;

use ima::fault::{Cause, Explanation};
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_SCN_CNT_CODE, IMAGE_SCN_CNT_INITIALIZED_DATA,
    IMAGE_SCN_MEM_READ, ImageDataDirectory, ImageDosHeader, ImageNtHeaders32, ImageNtHeaders64,
    ImageOptionalHeader64, ImageSectionHeader, ImageSymbolBytes, Machine,
};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};
use object::{FileKind, LittleEndian as LE, U16, U32};
use sha2::{Digest as _, Sha256};

/// The largest image that is made, on the disk and in memory, in bytes.
pub const MAX_IMAGE: u64 = 2 << 30;

/// The longest table of certificates that is read, in bytes.
const MAX_CERTIFICATES: usize = 1 << 20;

/// The least alignment of an added section in memory: that of a page.
const PAGE: u32 = 4096;

/// Certificates of a table begin at multiples of this (Microsoft's PE format, "The Attribute Certificate Table").
const CERTIFICATE_ALIGNMENT: usize = 8;

/// `WIN_CERT_REVISION_2_0`.
const REVISION: u16 = 0x0200;

/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const PKCS_SIGNED_DATA: u16 = 0x0002;

/// Why bytes are not an image that is taken, or no section can be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Not a PE image, or with impossible values.
    #[error("{0}")]
    Malformed(String),
    /// A PE image for 32 bits.
    #[error("it is a program for 32 bits (PE32)")]
    Bits32,
    /// Sections that overlap in memory, or do not follow one another in the file.
    #[error("section {0} overlaps the one before it, or leaves a gap in the file")]
    Layout(String),
    /// It has a signature, which a change would break.
    #[error("it is signed")]
    Signed,
    /// The headers have no room for so many sections more.
    #[error("its headers have room for {room} more sections, and there are {wanted}")]
    NoRoom {
        /// How many fit.
        room: usize,
        /// How many were to be added.
        wanted: usize,
    },
    /// Larger than [`MAX_IMAGE`].
    #[error("more than {MAX_IMAGE} bytes")]
    TooLarge,
}

impl PeError {
    /// The cause, for a fault.
    #[must_use]
    pub fn cause(&self) -> Explanation {
        match self {
            Self::Malformed(why) => Cause::PE_MALFORMED.with(&[why]),
            Self::Bits32 => Cause::PE_32_BIT.into(),
            Self::Layout(name) => Cause::PE_LAYOUT.with(&[name]),
            Self::Signed => Cause::STUB_SIGNED.into(),
            Self::NoRoom { room, wanted } => {
                Cause::STUB_NO_ROOM.with(&[&room.to_string(), &wanted.to_string()])
            }
            Self::TooLarge => Cause::PE_TOO_LARGE.into(),
        }
    }
}

fn malformed(what: impl Into<String>) -> PeError {
    PeError::Malformed(what.into())
}

/// A section of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Where it begins in memory, relative to the image.
    pub address: u32,
    /// Its length in memory, in bytes; what is not in the file is zero.
    pub size: u32,
    /// What the file has of it, at most `size` bytes. Where `size` is larger, zeros up to the file alignment may follow.
    pub content: &'a [u8],
}

/// A PE32+ image that was read.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    bytes: &'a [u8],
    headers: &'a ImageNtHeaders64,
    /// Where `headers` begins.
    at: usize,
    sections: Vec<Section<'a>>,
    /// The table of certificates; empty at the end of the file if there is none.
    certificates: Range<usize>,
    /// Where the last section ends in the file.
    data_end: usize,
    /// Where the last section ends in memory.
    memory_end: u32,
}

impl<'a> Image<'a> {
    /// Reads an image.
    ///
    /// # Errors
    ///
    /// [`PeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        match FileKind::parse(bytes) {
            Ok(FileKind::Pe64) => {}
            Ok(FileKind::Pe32) => return Err(PeError::Bits32),
            _ => return Err(malformed("it has no header of a PE image")),
        }
        let file = PeFile64::parse(bytes).map_err(|error| malformed(error.to_string()))?;
        let optional = file.nt_headers().optional_header();
        let at = number(file.dos_header().nt_headers_offset());
        let alignments = [optional.section_alignment(), optional.file_alignment()];
        if !alignments
            .iter()
            .all(|alignment| alignment.is_power_of_two() && *alignment <= 1 << 16)
        {
            return Err(malformed(
                "its alignments are no powers of two up to 64 KiB",
            ));
        }
        let certificates = file
            .data_directories()
            .iter()
            .nth(IMAGE_DIRECTORY_ENTRY_SECURITY)
            .ok_or_else(|| malformed("it has no directory entry for a signature"))?;
        let mut image = Self {
            bytes,
            headers: file.nt_headers(),
            at,
            sections: Vec::new(),
            certificates: bytes.len()..bytes.len(),
            data_end: number(optional.size_of_headers()),
            memory_end: optional.size_of_headers(),
        };
        if image.data_end > bytes.len() || image.table_end() > image.data_end {
            return Err(malformed("its headers are cut off"));
        }
        let table: Vec<&'a ImageSectionHeader> = file.section_table().iter().collect();
        image.read_sections(&table)?;
        if image.memory_end > optional.size_of_image() {
            return Err(malformed("a section ends behind the image"));
        }
        let (start, size) = (
            number(certificates.virtual_address.get(LE)),
            number(certificates.size.get(LE)),
        );
        if start != 0 || size != 0 {
            let fits = start >= image.data_end
                && start % CERTIFICATE_ALIGNMENT == 0
                && size <= MAX_CERTIFICATES
                && start.checked_add(size) == Some(bytes.len());
            if !fits {
                return Err(malformed("its signature is not at its end"));
            }
            image.certificates = start..bytes.len();
        }
        Ok(image)
    }

    fn read_sections(&mut self, table: &[&'a ImageSectionHeader]) -> Result<(), PeError> {
        let mut in_file = Vec::new();
        let mut in_memory = Vec::new();
        for header in table {
            let name = String::from_utf8_lossy(header.raw_name()).into_owned();
            let raw = header.size_of_raw_data.get(LE);
            let size = header.virtual_size.get(LE);
            let address = header.virtual_address.get(LE);
            let start = number(header.pointer_to_raw_data.get(LE));
            let content = start
                .checked_add(number(raw))
                .and_then(|end| self.bytes.get(start..end));
            let content = match (raw, content) {
                (0, _) => &[],
                (_, Some(content)) => content,
                (_, None) => return Err(malformed(format!("section {name} is cut off"))),
            };
            if raw > 0 {
                in_file.push((start, content.len(), name.clone()));
            }
            // With a length of zero, firmware loads what the file has, and the stub sees a section that is empty.
            let loaded = if size == 0 { raw } else { size };
            in_memory.push((address, loaded, name.clone()));
            let content = content.get(..number(size)).unwrap_or(content);
            self.sections.push(Section {
                name,
                address,
                size,
                content,
            });
        }
        in_file.sort();
        for (start, length, name) in in_file {
            if start != self.data_end {
                return Err(PeError::Layout(name));
            }
            self.data_end = start + length;
        }
        in_memory.sort();
        for (address, size, name) in in_memory {
            if address < self.memory_end {
                return Err(PeError::Layout(name));
            }
            self.memory_end = address
                .checked_add(size)
                .ok_or_else(|| malformed(format!("section {name} is too long")))?;
        }
        Ok(())
    }

    /// The processor that it is for.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.headers.file_header.machine.get(LE)
    }

    /// Its sections, in the order of its headers.
    #[must_use]
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// What the file has of the first section of that name.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<&'a [u8]> {
        let mut sections = self.sections.iter();
        sections
            .find(|section| section.name == name)
            .map(|section| section.content)
    }

    /// Whether it has a signature.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The SHA-256 digest that Authenticode signs (Microsoft's "Windows Authenticode Portable Executable Signature Format",
    /// "Calculating the PE Image Hash"): of all but the checksum, the place of the signature, and the signature.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut at = 0;
        for left_out in [self.checksum(), self.directory(), self.certificates.clone()] {
            hasher.update(self.bytes.get(at..left_out.start).unwrap_or_default());
            at = left_out.end;
        }
        hasher.finalize().into()
    }

    /// The bytes of the file that [`Image::digest`] does not cover.
    #[must_use]
    pub fn not_covered(&self) -> [Range<usize>; 3] {
        [self.checksum(), self.directory(), self.certificates.clone()]
    }

    /// The entries of the table of certificates that are PKCS #7 messages, with the zeros behind them.
    ///
    /// # Errors
    ///
    /// [`PeError::Malformed`].
    pub fn messages(&self) -> Result<Vec<&'a [u8]>, PeError> {
        let mut table = self
            .bytes
            .get(self.certificates.clone())
            .unwrap_or_default();
        let mut found = Vec::new();
        while !table.is_empty() {
            let entry = |table: &'a [u8]| {
                let length = u32::from_le_bytes(*table.first_chunk()?);
                let kind: &[u8; 4] = table.get(4..)?.first_chunk()?;
                let message = table.get(8..number(length))?;
                let next = number(length).next_multiple_of(CERTIFICATE_ALIGNMENT);
                Some((*kind, message, table.get(next..)?))
            };
            let (kind, message, rest) =
                entry(table).ok_or_else(|| malformed("its signature is cut off"))?;
            if kind == win_certificate_kind() {
                found.push(message);
            }
            table = rest;
        }
        Ok(found)
    }

    fn checksum(&self) -> Range<usize> {
        let start = self.at
            + offset_of!(ImageNtHeaders64, optional_header)
            + offset_of!(ImageOptionalHeader64, check_sum);
        start..start + size_of::<U32<LE>>()
    }

    /// The entry of the data directory for the table of certificates.
    fn directory(&self) -> Range<usize> {
        let entry = size_of::<ImageDataDirectory>();
        let start =
            self.at + size_of::<ImageNtHeaders64>() + IMAGE_DIRECTORY_ENTRY_SECURITY * entry;
        start..start + entry
    }

    /// Where the table of sections begins.
    fn table(&self) -> usize {
        self.at
            + offset_of!(ImageNtHeaders64, optional_header)
            + usize::from(self.headers.file_header.size_of_optional_header.get(LE))
    }

    /// Where the table of sections ends.
    fn table_end(&self) -> usize {
        let count = self.headers.file_header.number_of_sections.get(LE);
        self.table() + usize::from(count) * size_of::<ImageSectionHeader>()
    }

    /// The bytes without a table of symbols behind the sections, which an image needs not have.
    fn without_symbols(&self) -> Result<&'a [u8], PeError> {
        let header = &self.headers.file_header;
        let start = number(header.pointer_to_symbol_table.get(LE));
        let end = || {
            let count = number(header.number_of_symbols.get(LE));
            let strings = count
                .checked_mul(size_of::<ImageSymbolBytes>())?
                .checked_add(start)?;
            let length = u32::from_le_bytes(*self.bytes.get(strings..)?.first_chunk()?);
            strings.checked_add(number(length))
        };
        match start {
            0 if self.data_end == self.bytes.len() => Ok(self.bytes),
            _ if start == self.data_end && end() == Some(self.bytes.len()) => {
                Ok(self.bytes.get(..start).unwrap_or(self.bytes))
            }
            _ => Err(malformed("something follows its last section")),
        }
    }
}

fn win_certificate_kind() -> [u8; 4] {
    let ([a, b], [c, d]) = (REVISION.to_le_bytes(), PKCS_SIGNED_DATA.to_le_bytes());
    [a, b, c, d]
}

/// A number of 32 bits in a file. The host tool runs on machines of 64 bits only.
fn number(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Machine and length in memory of a PE image, of 32 or 64 bits, whatever its layout; nothing if it is none.
#[must_use]
pub fn machine_and_size(bytes: &[u8]) -> Option<(Machine, u32)> {
    fn of<Pe: ImageNtHeaders>(bytes: &[u8]) -> Option<(Machine, u32)> {
        let mut at = ImageDosHeader::parse(bytes)
            .ok()?
            .nt_headers_offset()
            .into();
        let (headers, _) = Pe::parse(bytes, &mut at).ok()?;
        let machine = headers.file_header().machine.get(LE);
        Some((machine, headers.optional_header().size_of_image()))
    }
    match FileKind::parse(bytes).ok()? {
        FileKind::Pe64 => of::<ImageNtHeaders64>(bytes),
        FileKind::Pe32 => of::<ImageNtHeaders32>(bytes),
        _ => None,
    }
}

/// A section to add.
#[derive(Debug, Clone, Copy)]
pub struct NewSection<'a> {
    /// Its name, at most 8 bytes.
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
    /// Its length in memory, if that is larger.
    pub size: u32,
    /// Whether it is executed.
    pub code: bool,
}

/// Adds sections behind those of an image, in this order, as ukify does (systemd, src/ukify/ukify.py, `pe_add_sections`).
///
/// # Errors
///
/// [`PeError`], also for an image that is signed.
pub fn add_sections(image: &[u8], sections: &[NewSection<'_>]) -> Result<Vec<u8>, PeError> {
    let image = Image::parse(image)?;
    if image.is_signed() {
        return Err(PeError::Signed);
    }
    let mut made = image.without_symbols()?.to_vec();
    let optional = &image.headers.optional_header;
    let file_alignment = optional.file_alignment.get(LE);
    let memory_alignment = optional.section_alignment.get(LE).max(PAGE);
    let (table, headers_end) = (image.table_end(), number(optional.size_of_headers.get(LE)));
    let free = made.get(table..headers_end).unwrap_or_default();
    let free = free.iter().take_while(|byte| **byte == 0).count();
    let room = free / size_of::<ImageSectionHeader>();
    if sections.len() > room {
        let wanted = sections.len();
        return Err(PeError::NoRoom { room, wanted });
    }
    let limit = |size: u64| match u32::try_from(size) {
        Ok(short) if size <= MAX_IMAGE => Ok(short),
        _ => Err(PeError::TooLarge),
    };
    let up = |size: u64, alignment: u32| limit(size.next_multiple_of(alignment.into()));
    let mut memory_end = image.memory_end;
    let mut data = optional.size_of_initialized_data.get(LE);
    for (index, section) in sections.iter().enumerate() {
        let length = section.content.len() as u64;
        let size = limit(length)?.max(section.size);
        let start = up(made.len() as u64, file_alignment)?;
        let raw = up(length, file_alignment)?;
        let address = up(memory_end.into(), memory_alignment)?;
        memory_end = limit(u64::from(address) + u64::from(size))?;
        data = limit(u64::from(data) + u64::from(raw))?;
        let mut name = [0; 8];
        for (to, from) in name.iter_mut().zip(section.name.bytes()) {
            *to = from;
        }
        let kind = match section.code {
            true => IMAGE_SCN_CNT_CODE,
            false => IMAGE_SCN_CNT_INITIALIZED_DATA,
        };
        let header = ImageSectionHeader {
            name,
            virtual_size: U32::new(LE, size),
            virtual_address: U32::new(LE, address),
            size_of_raw_data: U32::new(LE, raw),
            pointer_to_raw_data: U32::new(LE, start),
            pointer_to_relocations: U32::default(),
            pointer_to_linenumbers: U32::default(),
            number_of_relocations: U16::default(),
            number_of_linenumbers: U16::default(),
            characteristics: U32::new(LE, kind | IMAGE_SCN_MEM_READ),
        };
        limit(u64::from(start) + u64::from(raw))?;
        made.resize(number(start), 0);
        made.extend_from_slice(section.content);
        made.resize(number(start) + number(raw), 0);
        let at = table + index * size_of::<ImageSectionHeader>();
        let header = bytes_of(&header);
        if let Some(place) = made.get_mut(at..at + header.len()) {
            place.copy_from_slice(header);
        }
    }
    let size_of_image = up(memory_end.into(), optional.section_alignment.get(LE))?;
    let count = image.headers.file_header.number_of_sections.get(LE);
    let count = usize::from(count) + sections.len();
    let count = u16::try_from(count).map_err(|_| PeError::TooLarge)?;
    change(&mut made, image.at, |headers: &mut ImageNtHeaders64| {
        headers.file_header.number_of_sections.set(LE, count);
        headers.file_header.pointer_to_symbol_table.set(LE, 0);
        headers.file_header.number_of_symbols.set(LE, 0);
        let optional = &mut headers.optional_header;
        optional.size_of_initialized_data.set(LE, data);
        optional.size_of_image.set(LE, size_of_image);
        optional.check_sum.set(LE, 0);
    });
    Ok(made)
}

/// An image without its signature, padded as one that will be signed.
///
/// # Errors
///
/// [`PeError`] of [`Image::parse`].
pub fn without_signature(image: &[u8]) -> Result<Vec<u8>, PeError> {
    let image = Image::parse(image)?;
    let mut made = image
        .bytes
        .get(..image.certificates.start)
        .unwrap_or_default()
        .to_vec();
    made.resize(made.len().next_multiple_of(CERTIFICATE_ALIGNMENT), 0);
    change(
        &mut made,
        image.directory().start,
        |directory: &mut ImageDataDirectory| {
            directory.virtual_address.set(LE, 0);
            directory.size.set(LE, 0);
        },
    );
    change(&mut made, image.at, |headers: &mut ImageNtHeaders64| {
        headers.optional_header.check_sum.set(LE, 0);
    });
    Ok(made)
}

/// An image as [`without_signature`] makes it, with a table of certificates that has this PKCS #7 message.
///
/// # Errors
///
/// [`PeError`] of [`Image::parse`]; [`PeError::TooLarge`].
pub fn with_signature(mut image: Vec<u8>, message: &[u8]) -> Result<Vec<u8>, PeError> {
    let directory = Image::parse(&image)?.directory().start;
    let short = |length: usize| u32::try_from(length).map_err(|_| PeError::TooLarge);
    let start = short(image.len())?;
    let length = message.len().saturating_add(8);
    image.extend(short(length)?.to_le_bytes());
    image.extend(win_certificate_kind());
    image.extend_from_slice(message);
    image.resize(image.len().next_multiple_of(CERTIFICATE_ALIGNMENT), 0);
    let size = short(image.len())? - start;
    change(
        &mut image,
        directory,
        |directory: &mut ImageDataDirectory| {
            directory.virtual_address.set(LE, start);
            directory.size.set(LE, size);
        },
    );
    Ok(image)
}

/// Changes the structure at that place, which was read there before.
fn change<T: object::pod::Pod>(bytes: &mut [u8], at: usize, how: impl FnOnce(&mut T)) {
    if let Some((structure, _)) = bytes
        .get_mut(at..)
        .and_then(|bytes| from_bytes_mut::<T>(bytes).ok())
    {
        how(structure);
    }
}
