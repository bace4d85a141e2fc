//! A CA certificate into the room that `CONFIG_SYSTEM_EXTRA_CERTIFICATE` reserved, in a `vmlinux`, a finished `bzImage`, an `Image`
//! or `Image.gz` of arm64 or RISC-V, or a `zImage` of 32-bit Arm.
//!
//! The kernel's `scripts/insert-sys-cert.c` does it for `vmlinux` before the image is made: the certificate goes to
//! `system_extra_cert`, its length to `system_extra_cert_used`, and the length of the whole list, which the room directly
//! follows, grows by it. In a `bzImage` the same ELF file lies compressed between the loader and its end
//! (`Documentation/arch/x86/boot.rst`, `payload_offset`); packed again it must not be longer than before, which is why the room
//! is filled with noise when the image is built. An `Image` is the kernel as it lies in memory, without headers of ELF
//! (`Documentation/arch/arm64/booting.rst`, `Documentation/arch/riscv/boot-image-header.rst`). A `zImage` is a program that unpacks an
//! `Image`, which lies in it like the ELF file in a `bzImage` (`arch/arm/boot/compressed/vmlinux.lds.S`).

use std::borrow::Cow;
use std::ffi::CStr;
use std::io::Write as _;

use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHT_SYMTAB};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::symbol::Symbol;
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::packed::Packing;

/// Bytes of the longest kernel that is unpacked.
const MAX_KERNEL: u64 = 1 << 30;

/// Where the room is: byte offsets in the ELF file, or in an `Image`, also that in a `zImage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbols {
    /// The room.
    pub system_extra_cert: u64,
    /// A 32-bit number: bytes of it in use.
    pub system_extra_cert_used: u64,
    /// An `unsigned long`: bytes of the list of built-in certificates.
    pub system_certificate_list_size: u64,
    /// Bytes of room.
    pub reserved: u64,
    /// Whether the kernel is a 64-bit one, and so its `unsigned long`; a description without this is of such a kernel.
    #[serde(default = "yes")]
    pub is_64_bit: bool,
}

const fn yes() -> bool {
    true
}

impl Symbols {
    /// Bytes of an `unsigned long`.
    const fn long(&self) -> usize {
        if self.is_64_bit { 8 } else { 4 }
    }

    /// Reads `extra-cert.json`.
    ///
    /// # Errors
    ///
    /// [`Code::KernelImage`].
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| {
            Fault::new(
                Code::KernelImage,
                format!("the description of the room: {error}"),
            )
        })
    }

    /// Finds them in the symbol table of a little-endian `vmlinux`.
    ///
    /// # Errors
    ///
    /// [`Code::KernelImage`] if it has none, or not these.
    pub fn from_elf(elf: &[u8]) -> Result<Self> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(elf).map_err(malformed)?;
        let (room, reserved) = object(&elf, c"system_extra_cert")?;
        let (used, _) = object(&elf, c"system_extra_cert_used")?;
        let (size, _) = object(&elf, c"system_certificate_list_size")?;
        Ok(Self {
            system_extra_cert: room,
            system_extra_cert_used: used,
            system_certificate_list_size: size,
            reserved,
            is_64_bit: elf.ehdr.class == Class::ELF64,
        })
    }
}

/// An image with the certificates in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The image.
    pub image: Vec<u8>,
    /// Bytes of certificates that were in the room before and are replaced.
    pub replaced: u32,
    /// The image carried a signature for Secure Boot, which does not hold any more.
    pub secure_boot_signature_broken: bool,
}

/// Puts certificates into an image, in place of those that were put there before; with none the room is emptied. `symbols`
/// says where the room is; without it the symbol table of an ELF file does.
///
/// # Errors
///
/// [`Code::KernelImage`] if there is no room or it is not found, [`Code::KernelRoom`] if the certificates do not fit,
/// [`Code::CertificateUnusable`] for one that is not a CA.
pub fn add_ca(
    image: &[u8],
    certificates: &[Certificate],
    symbols: Option<&Symbols>,
) -> Result<Outcome> {
    for certificate in certificates {
        if !certificate.is_ca() {
            return Err(Fault::new(
                Code::CertificateUnusable,
                format!("`{}` is not a CA", certificate.subject()),
            )
            .because(Cause::NOT_A_CA));
        }
    }
    let list: Vec<u8> = certificates
        .iter()
        .flat_map(Certificate::der)
        .copied()
        .collect();
    let form = Form::of(image)?;
    let mut kernel = form.unpack(image)?.into_owned();
    let symbols = place_of_room(&kernel, symbols)?;
    let replaced = insert(&mut kernel, &list, &symbols)?;
    Ok(Outcome {
        image: form.pack(image, kernel)?,
        replaced,
        secure_boot_signature_broken: has_signature(image),
    })
}

/// Where the room is in a kernel that is not packed.
fn place_of_room(kernel: &[u8], described: Option<&Symbols>) -> Result<Symbols> {
    match described {
        Some(symbols) => Ok(*symbols),
        None if !is_elf(kernel) => Err(no_room(
            "an Image has no symbol table, and there is no description of the room",
        )
        .because(Cause::NO_SYMBOLS)),
        None => Symbols::from_elf(kernel),
    }
}

/// Whether it is a kernel whose content is read here: an ELF file, a bzImage, an Image, an Image.gz or a zImage, by its header.
#[must_use]
pub fn is_image(bytes: &[u8]) -> bool {
    is_elf(bytes)
        || bytes.get(0x202..0x206) == Some(b"HdrS")
        || is_plain(bytes)
        || is_packed(bytes)
        || is_zimage(bytes)
}

fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Whether it is a zImage of 32-bit Arm, by the magic number that follows its first eight instructions
/// (arch/arm/boot/compressed/head.S).
fn is_zimage(bytes: &[u8]) -> bool {
    number(bytes, 0x24, 4) == Some(0x016f_2818)
}

/// Whether it is an Image of arm64 or RISC-V, by the magic number of its header.
fn is_plain(bytes: &[u8]) -> bool {
    [&b"ARM\x64"[..], b"RSC\x05"].contains(&bytes.get(0x38..0x3c).unwrap_or_default())
}

/// Whether it is such an Image, compressed with gzip.
fn is_packed(bytes: &[u8]) -> bool {
    Packing::of(bytes) == Some(Packing::Gzip)
        && Packing::Gzip
            .head(bytes, 0x40)
            .is_some_and(|head| is_plain(&head))
}

/// How a kernel lies in an image.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The image is the kernel: a vmlinux or an Image.
    Whole,
    /// An Image, compressed with gzip.
    Packed,
    /// The ELF file in a bzImage, or the Image in a zImage.
    Payload(Payload),
}

impl Form {
    fn of(image: &[u8]) -> Result<Self> {
        Ok(match image {
            _ if is_elf(image) || is_plain(image) => Self::Whole,
            _ if is_packed(image) => Self::Packed,
            _ if is_zimage(image) => Self::Payload(Payload::find_in_zimage(image)?),
            _ => Self::Payload(Payload::find(image)?),
        })
    }

    /// The kernel itself, where it is packed so that it can be packed again.
    fn unpack(self, image: &[u8]) -> Result<Cow<'_, [u8]>> {
        match self {
            Self::Whole => Ok(Cow::Borrowed(image)),
            Self::Packed => Packing::Gzip
                .unpack(image, MAX_KERNEL)
                .map(|(kernel, _)| Cow::Owned(kernel))
                .map_err(|error| no_room(format!("the kernel cannot be unpacked: {error}"))),
            Self::Payload(payload) => payload.unpack(image).map(Cow::Owned),
        }
    }

    /// The image with this kernel.
    fn pack(self, image: &[u8], kernel: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::Whole => Ok(kernel),
            Self::Packed => {
                let failed = |error: std::io::Error| {
                    Fault::new(Code::OutputUnwritable, format!("compressing: {error}"))
                };
                // Neither a name nor a time is written into the header: the result depends on the kernel alone.
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&kernel).map_err(failed)?;
                encoder.finish().map_err(failed)
            }
            Self::Payload(payload) => {
                let mut image = image.to_vec();
                payload.pack(&mut image, &kernel)?;
                Ok(image)
            }
        }
    }
}

/// The kernel in an image: the ELF file of a bzImage, a vmlinux itself, or an Image, also that in a zImage.
///
/// # Errors
///
/// [`Code::KernelImage`] if it is none of these, or packed in another way.
pub fn unpacked(image: &[u8]) -> Result<Cow<'_, [u8]>> {
    let form = Form::of(image)?;
    let Form::Payload(payload) = form else {
        return form.unpack(image);
    };
    let mut packed = &image[payload.start..payload.start + payload.len];
    let packing = Packing::of(packed).ok_or_else(|| no_room("the kernel is not compressed"))?;
    if packing == Packing::Gzip {
        return form.unpack(image);
    }
    // The length of what is inside follows the stream (scripts/Makefile.lib, `size_append`).
    packed = packed.get(..packed.len() - 4).unwrap_or_default();
    let (elf, _) = packing
        .unpack(packed, MAX_KERNEL)
        .map_err(|error| no_room(format!("the kernel cannot be unpacked: {error}")))?;
    Ok(Cow::Owned(elf))
}

/// The certificates in an image: those it was built with and those in the room, which directly follows them.
///
/// # Errors
///
/// [`Code::KernelImage`] if the room is not found.
pub fn authorities(image: &[u8], symbols: Option<&Symbols>) -> Result<Vec<Certificate>> {
    let elf = &*unpacked(image)?;
    let symbols = place_of_room(elf, symbols)?;
    let number = |at, len| number(elf, at, len).ok_or_else(|| no_room("the image is cut off"));
    let used = number(symbols.system_extra_cert_used, 4)?;
    let size = number(symbols.system_certificate_list_size, symbols.long())?;
    let list = || {
        let start = symbols
            .system_extra_cert
            .checked_sub(size.checked_sub(used)?)?;
        elf.get(usize::try_from(start).ok()?..)?
            .get(..usize::try_from(size).ok()?)
    };
    let mut list = list().ok_or_else(|| no_room("the list of certificates is cut off"))?;
    let mut found = Vec::new();
    // One certificate after the other, each a SEQUENCE with a length of two bytes (crypto/asymmetric_keys/x509_loader.c).
    while let [0x30, 0x82, high, low, ..] = list {
        let length = usize::from(u16::from_be_bytes([*high, *low])) + 4;
        let Some((der, rest)) = list.split_at_checked(length) else {
            break;
        };
        found.extend(Certificate::parse_der(der));
        list = rest;
    }
    Ok(found)
}

fn no_room(detail: impl Into<String>) -> Fault {
    Fault::new(Code::KernelImage, detail)
}

/// Writes the list and the two lengths; gives the length that was there.
fn insert(elf: &mut [u8], list: &[u8], symbols: &Symbols) -> Result<u32> {
    let outside =
        || no_room("the description of the room is not of this kernel: it points outside of it");
    let used = number(elf, symbols.system_extra_cert_used, 4).ok_or_else(outside)?;
    let long = symbols.long();
    let total = number(elf, symbols.system_certificate_list_size, long).ok_or_else(outside)?;
    // Both are small: what stands there otherwise is something else.
    if used > symbols.reserved || total < used || total > 1 << 24 {
        return Err(no_room(format!(
            "there are no lengths where they should be: {used} of {total} bytes"
        ))
        .because(Cause::SYMBOLS_OF_OTHER_KERNEL));
    }
    if list.len() as u64 > symbols.reserved {
        return Err(Fault::new(
            Code::KernelRoom,
            format!("{} bytes, room for {}", list.len(), symbols.reserved),
        ));
    }
    let room = slice(elf, symbols.system_extra_cert, symbols.reserved).ok_or_else(outside)?;
    room.fill(0);
    room[..list.len()].copy_from_slice(list);
    let total = total - used + list.len() as u64;
    slice(elf, symbols.system_extra_cert_used, 4)
        .ok_or_else(outside)?
        .copy_from_slice(&(list.len() as u32).to_le_bytes());
    slice(elf, symbols.system_certificate_list_size, long as u64)
        .ok_or_else(outside)?
        .copy_from_slice(&total.to_le_bytes()[..long]);
    Ok(used as u32)
}

fn slice(bytes: &mut [u8], at: u64, len: u64) -> Option<&mut [u8]> {
    let at = usize::try_from(at).ok()?;
    bytes.get_mut(at..at.checked_add(usize::try_from(len).ok()?)?)
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    )
}

/// The compressed kernel inside a bzImage or a zImage: byte offset and length in the image, the last four bytes being the length of
/// what is inside.
#[derive(Debug, Clone, Copy)]
struct Payload {
    start: usize,
    len: usize,
    /// Whether an ELF file is inside.
    is_elf: bool,
}

impl Payload {
    /// Finds that of a zImage. A table in the image says where it ends; where it begins only the program in the image knows, so it is
    /// looked for: what unpacks, from there to that end, to as many bytes as the last four say.
    fn find_in_zimage(image: &[u8]) -> Result<Self> {
        /// How many places that look like a beginning are tried. The program before the payload is of some ten thousand bytes.
        const MAX_TRIED: usize = 16;
        let (table, end) = Self::end_in_zimage(image).ok_or_else(|| {
            no_room(
                "the zImage does not say where the kernel in it ends (Linux does since 4.15), is truncated, or for a big-endian kernel",
            )
        })?;
        let length = number(image, end as u64 - 4, 4);
        let kernel = &image[..end];
        let packed_from = |start: &usize| {
            let packed = &kernel[*start..];
            Packing::of(packed).is_some_and(|packing| {
                // gzip's own length at its end is the one that is wanted; it is appended to the others.
                let stream = match packing {
                    Packing::Gzip => packed,
                    _ => &packed[..packed.len().saturating_sub(4)],
                };
                let unpacked = packing.unpack(stream, MAX_KERNEL);
                unpacked.is_ok_and(|(kernel, _)| Some(kernel.len() as u64) == length)
            })
        };
        let start = (table..end)
            .filter(|start| Packing::of(&kernel[*start..]).is_some())
            .take(MAX_TRIED)
            .find(packed_from)
            .ok_or_else(|| no_room("the kernel in the zImage is not found, or damaged"))?;
        Ok(Self {
            start,
            len: end - start,
            is_elf: false,
        })
    }

    /// Where the table of a zImage begins, and where the payload ends: behind four bytes to which the table points. It is a list of
    /// entries of 32-bit numbers, the first of which is how many the entry has, and zero at the end.
    fn end_in_zimage(image: &[u8]) -> Option<(usize, usize)> {
        const LITTLE_ENDIAN: u64 = 0x0403_0201;
        const HAS_TABLE: u64 = 0x4545_4545;
        const KERNEL_SIZE: u64 = 0x5a53_4c4b;
        if number(image, 0x30, 4)? != LITTLE_ENDIAN || number(image, 0x34, 4)? != HAS_TABLE {
            return None;
        }
        let table = number(image, 0x38, 4)?;
        let mut entry = table;
        loop {
            let length = number(image, entry, 4).filter(|length| *length > 0)?;
            if number(image, entry + 4, 4)? == KERNEL_SIZE {
                let end = number(image, entry + 8, 4)? + 4;
                let end = usize::try_from(end).ok()?;
                let table = usize::try_from(table).ok()?;
                return (table < end && end <= image.len()).then_some((table, end));
            }
            entry += length * 4;
        }
    }

    fn find(image: &[u8]) -> Result<Self> {
        let no_kernel = || {
            let kind = super::kind(image).map(|kind| format!("; it is {kind}"));
            let kind = kind.unwrap_or_default();
            no_room(format!("not a kernel that imactl reads{kind}"))
                .because(Cause::NOT_A_KERNEL_IMAGE)
        };
        if image.get(0x202..0x206) != Some(b"HdrS") {
            return Err(no_kernel());
        }
        let sectors = match *image.get(0x1f1).ok_or_else(no_kernel)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let field = |at| {
            number(image, at, 4)
                .map(|number| number as usize)
                .ok_or_else(no_kernel)
        };
        let start = ((sectors + 1) * 512).checked_add(field(0x248)?);
        let len = field(0x24c)?;
        let inside = |start: &usize| start.checked_add(len).is_some_and(|end| end <= image.len());
        let start = start
            .filter(inside)
            .filter(|_| len >= 32)
            .ok_or_else(|| no_room("the bzImage is truncated, or its header is damaged"))?;
        Ok(Self {
            start,
            len,
            is_elf: true,
        })
    }

    fn unpack(self, image: &[u8]) -> Result<Vec<u8>> {
        use std::io::Read as _;
        let packed = &image[self.start..self.start + self.len];
        let packing = Packing::of(packed);
        if packing != Some(Packing::Gzip) {
            let how = packing.map_or("something unknown", Packing::name);
            return Err(no_room(format!("the kernel is compressed with {how}"))
                .because(Cause::KERNEL_NOT_GZIP));
        }
        let mut kernel = Vec::new();
        flate2::read::GzDecoder::new(packed)
            .take(MAX_KERNEL)
            .read_to_end(&mut kernel)
            .map_err(|error| no_room(format!("the kernel cannot be unpacked: {error}")))?;
        if number(packed, self.len as u64 - 4, 4) != Some(kernel.len() as u64 & 0xffff_ffff)
            || (self.is_elf && !is_elf(&kernel))
        {
            return Err(no_room("what is packed in the image is not what it says"));
        }
        Ok(kernel)
    }

    /// Packs `kernel` into the old room; the bytes left over are zeros between its end and the length.
    fn pack(self, image: &mut [u8], kernel: &[u8]) -> Result<()> {
        let room = self.len - 4;
        let mut shortest = usize::MAX;
        // The kernel's build uses gzip -9. Most often a quick level of a better compressor is as good; the last is the best.
        for level in [9, 12] {
            let level = libdeflater::CompressionLvl::new(level)
                .map_err(|error| Fault::new(Code::KernelRoom, format!("{error:?}")))?;
            let mut compressor = libdeflater::Compressor::new(level);
            let mut packed = vec![0; compressor.gzip_compress_bound(kernel.len())];
            let len = compressor
                .gzip_compress(kernel, &mut packed)
                .map_err(|error| Fault::new(Code::KernelRoom, error.to_string()))?;
            shortest = shortest.min(len);
            if len <= room {
                let checksum = Checksum::of(image);
                let payload = &mut image[self.start..self.start + room];
                payload[..len].copy_from_slice(&packed[..len]);
                payload[len..].fill(0);
                checksum.renew(image);
                return Ok(());
            }
        }
        Err(Fault::new(
            Code::KernelRoom,
            format!(
                "packed again it is {} bytes longer than before",
                shortest - room
            ),
        ))
    }
}

/// The CRC-32 that `arch/x86/boot/tools/build.c` writes as the last four bytes of an image, if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Plain,
    Inverted,
    None,
}

impl Checksum {
    fn of(image: &[u8]) -> Self {
        let Some((body, end)) = image.split_last_chunk::<4>() else {
            return Self::None;
        };
        let crc = libdeflater::crc32(body);
        match u32::from_le_bytes(*end) {
            found if found == crc => Self::Plain,
            found if found == !crc => Self::Inverted,
            _ => Self::None,
        }
    }

    fn renew(self, image: &mut [u8]) {
        let Some((body, end)) = image.split_last_chunk_mut::<4>() else {
            return;
        };
        let crc = libdeflater::crc32(body);
        match self {
            Self::Plain => *end = crc.to_le_bytes(),
            Self::Inverted => *end = (!crc).to_le_bytes(),
            Self::None => {}
        }
    }
}

/// Whether the PE header of an EFI kernel names a certificate table.
fn has_signature(image: &[u8]) -> bool {
    const CERTIFICATE_TABLE: u64 = 24 + 112 + 4 * 8;
    let size = || {
        let pe = number(image, 0x3c, 4)?;
        (image
            .get(usize::try_from(pe).ok()?..)?
            .starts_with(b"PE\0\0"))
        .then_some(())?;
        // PE32+ only: 32-bit EFI kernels are not signed.
        (number(image, pe + 24, 2)? == 0x20b).then_some(())?;
        number(image, pe + CERTIFICATE_TABLE + 4, 4)
    };
    size().is_some_and(|size| size > 0)
}

/// File offset and size of the object that a symbol names.
fn object(elf: &ElfBytes<'_, LittleEndian>, name: &CStr) -> Result<(u64, u64)> {
    let (symbols, _) = elf.symbol_table().map_err(malformed)?.ok_or_else(|| {
        no_room("the kernel has no symbol table and there is no description of the room")
            .because(Cause::NO_SYMBOLS)
    })?;
    // The bytes of the string table: to look for the end of each name in it could take the square of its length.
    let names = elf
        .section_headers()
        .and_then(|sections| {
            let table = sections.iter().find(|table| table.sh_type == SHT_SYMTAB)?;
            sections.get(usize::try_from(table.sh_link).ok()?).ok()
        })
        .map_or(Ok(&[][..]), |names| {
            elf.section_data(&names).map(|(names, _)| names)
        })
        .map_err(malformed)?;
    let is_named = |symbol: &Symbol| {
        usize::try_from(symbol.st_name)
            .ok()
            .and_then(|at| names.get(at..))
            .is_some_and(|names| names.starts_with(name.to_bytes_with_nul()))
    };
    symbols
        .iter()
        .find(is_named)
        .and_then(|symbol| Some((file_offset(elf, symbol.st_value)?, symbol.st_size)))
        .ok_or_else(|| no_room(format!("no symbol {}", name.to_string_lossy())))
}

/// Where in the file a virtual address is, by the segments that are loaded.
fn file_offset(elf: &ElfBytes<'_, LittleEndian>, address: u64) -> Option<u64> {
    elf.segments()?
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD)
        .find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr)?;
            (within < segment.p_filesz).then_some(segment.p_offset.checked_add(within)?)
        })
}

fn malformed(error: elf::ParseError) -> Fault {
    no_room(format!(
        "the ELF file is malformed, or not of a little-endian kernel: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FileKey, KeyKind};
    use crate::x509::Template;
    use proptest::prelude::{any, prop_assert, prop_assert_eq};
    use std::io::Read as _;
    use std::sync::LazyLock;

    const ROOM: usize = 4096;
    const SYMBOLS: Symbols = Symbols {
        system_extra_cert: 0x4000,
        system_extra_cert_used: 0x5000,
        system_certificate_list_size: 0x5008,
        reserved: 4096,
        is_64_bit: true,
    };

    fn noise(len: usize) -> Vec<u8> {
        let mut noise = vec![0; len];
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        noise
    }

    /// What is inside a kernel: text that packs, and a room full of noise.
    fn elf() -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.extend(
            b"the kernel, more or less. "
                .iter()
                .cycle()
                .take(0x4000 - 6),
        );
        elf.extend(noise(ROOM));
        elf.extend(0_u32.to_le_bytes());
        elf.extend([0; 4]);
        elf.extend(1000_u64.to_le_bytes());
        elf.extend(noise(500));
        elf
    }

    fn bz_image(elf: &[u8], room_left: usize) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(elf).unwrap();
        let mut payload = gzip.finish().unwrap();
        payload.extend(vec![0; room_left]);
        payload.extend((elf.len() as u32).to_le_bytes());
        let mut image = vec![0; 5 * 512 + 0x200];
        image[0x1f1] = 4;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&0x200_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image.extend([0xcc; 64]);
        let crc = !libdeflater::crc32(&image);
        image.extend(crc.to_le_bytes());
        image
    }

    fn inside(image: &[u8]) -> Vec<u8> {
        let mut elf = Vec::new();
        flate2::read::GzDecoder::new(&image[5 * 512 + 0x200..])
            .read_to_end(&mut elf)
            .unwrap();
        elf
    }

    fn ca(kind: KeyKind) -> Certificate {
        Template::ca("CA")
            .sign(&FileKey::generate(kind).unwrap(), None, None)
            .unwrap()
    }

    #[test]
    fn into_a_finished_image_and_again() {
        let image = bz_image(&elf(), 0);
        let (one, other) = (ca(KeyKind::P256), ca(KeyKind::Rsa(2048)));
        let first = add_ca(&image, std::slice::from_ref(&one), Some(&SYMBOLS)).unwrap();
        assert_eq!(first.image.len(), image.len());
        assert_eq!(first.replaced, 0);
        let elf = inside(&first.image);
        assert_eq!(elf[0x4000..][..one.der().len()], *one.der());
        assert!(
            elf[0x4000 + one.der().len()..0x5000]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert_eq!(number(&elf, 0x5000, 4), Some(one.der().len() as u64));
        assert_eq!(number(&elf, 0x5008, 8), Some(1000 + one.der().len() as u64));
        assert_eq!(Checksum::of(&first.image), Checksum::Inverted);
        // The same again changes nothing; another takes its place; both together fit; and none empties the room.
        let again = add_ca(&first.image, std::slice::from_ref(&one), Some(&SYMBOLS)).unwrap();
        assert_eq!(again.image, first.image);
        let second = add_ca(&first.image, std::slice::from_ref(&other), Some(&SYMBOLS)).unwrap();
        assert_eq!(second.replaced as usize, one.der().len());
        assert_eq!(
            number(&inside(&second.image), 0x5008, 8),
            Some(1000 + other.der().len() as u64)
        );
        let both = add_ca(&image, &[one.clone(), other.clone()], Some(&SYMBOLS)).unwrap();
        assert_eq!(
            number(&inside(&both.image), 0x5000, 4),
            Some((one.der().len() + other.der().len()) as u64)
        );
        let none = add_ca(&both.image, &[], Some(&SYMBOLS)).unwrap();
        assert_eq!(number(&inside(&none.image), 0x5008, 8), Some(1000));
    }

    #[test]
    fn into_an_image_of_arm64_plain_and_compressed() {
        let mut plain = elf();
        plain[..6].fill(0);
        plain[0x38..0x3c].copy_from_slice(b"ARM\x64");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let packed = gzip.finish().unwrap();
        let one = ca(KeyKind::P256);
        let list = std::slice::from_ref(&one);
        let made = add_ca(&plain, list, Some(&SYMBOLS)).unwrap();
        assert_eq!(made.image.len(), plain.len());
        assert_eq!(made.image[0x4000..][..one.der().len()], *one.der());
        assert!(made.image[..0x4000] == plain[..0x4000]);
        let repacked = add_ca(&packed, list, Some(&SYMBOLS)).unwrap();
        assert!(*unpacked(&repacked.image).unwrap() == *made.image);
        for (image, with_ca) in [(&plain, made), (&packed, repacked)] {
            assert!(is_image(image));
            let before = add_ca(&with_ca.image, &[], Some(&SYMBOLS)).unwrap();
            assert_eq!(before.replaced as usize, one.der().len());
            let fault = add_ca(image, list, None).unwrap_err();
            assert!(fault.to_string().contains("symbol"), "{fault}");
            assert_eq!(fault.code(), Code::KernelImage);
        }
        let cut = &packed[..packed.len() / 2];
        let fault = add_ca(cut, list, Some(&SYMBOLS)).unwrap_err();
        assert_eq!(fault.code(), Code::KernelImage);
    }

    /// A zImage: code with bytes in it that begin other gzip data, the table, data, the packed Image, more data.
    fn z_image(image: &[u8]) -> Vec<u8> {
        const TABLE: u32 = 0x400;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(image).unwrap();
        let payload = gzip.finish().unwrap();
        let mut zimage = vec![0; 0x600];
        zimage[0x500..0x504].copy_from_slice(&[0x1f, 0x8b, 8, 0]);
        zimage.extend(payload);
        let end = zimage.len() as u32 - 4;
        let words = [
            (0x24, 0x016f_2818),
            (0x30, 0x0403_0201),
            (0x34, 0x4545_4545),
            (0x38, TABLE),
            // An entry of another kind, and that of the kernel's size.
            (TABLE, 3),
            (TABLE + 4, 1),
            (TABLE + 12, 6),
            (TABLE + 16, 0x5a53_4c4b),
            (TABLE + 20, end),
        ];
        for (at, word) in words {
            zimage[at as usize..][..4].copy_from_slice(&u32::to_le_bytes(word));
        }
        zimage.extend([0xcc; 64]);
        zimage
    }

    /// The kernel of 32-bit Arm is an Image without a magic number, and the number behind the length of the list is not a part of it.
    #[test]
    fn into_a_zimage_of_arm() {
        const NEXT: [u8; 4] = [0xaa; 4];
        let symbols = Symbols {
            is_64_bit: false,
            ..SYMBOLS
        };
        let mut plain = elf();
        plain[..6].fill(0);
        plain[0x500c..0x5010].copy_from_slice(&NEXT);
        let image = z_image(&plain);
        assert!(is_image(&image));
        assert!(*unpacked(&image).unwrap() == *plain);
        let one = ca(KeyKind::P256);
        let list = std::slice::from_ref(&one);
        let made = add_ca(&image, list, Some(&symbols)).unwrap();
        assert_eq!(made.image.len(), image.len());
        let kernel = unpacked(&made.image).unwrap();
        assert_eq!(kernel[0x4000..][..one.der().len()], *one.der());
        let total = 1000 + one.der().len() as u64;
        assert_eq!(number(&kernel, 0x5008, 4), Some(total));
        assert_eq!(kernel[0x500c..0x5010], NEXT);
        let again = add_ca(&made.image, list, Some(&symbols)).unwrap();
        assert!(again.image == made.image);
        assert_eq!(again.replaced as usize, one.der().len());

        for (what, damage) in [
            ("no symbol table", None),
            ("Linux does since 4.15", Some((0x34, 0))),
            ("big-endian", Some((0x30, 0x0102_0304))),
            ("truncated", Some((0x414, 1 << 30))),
            ("truncated", Some((0x40c, 0))),
            ("not found, or damaged", Some((0x414, 0x4ff))),
            ("not found, or damaged", Some((0x600, 0))),
        ] {
            let mut image = image.clone();
            let described = match damage {
                Some((at, word)) => {
                    image[at..][..4].copy_from_slice(&u32::to_le_bytes(word));
                    Some(&symbols)
                }
                None => None,
            };
            let fault = add_ca(&image, list, described).unwrap_err();
            assert_eq!(fault.code(), Code::KernelImage);
            let text = fault.to_string();
            assert!(text.contains(what), "{what}: {text}");
        }
    }

    #[test]
    fn images_without_room() {
        let ca_certificate = ca(KeyKind::P256);
        let leaf = Template::leaf("leaf")
            .sign(&FileKey::generate(KeyKind::P256).unwrap(), None, None)
            .unwrap();
        let image = bz_image(&elf(), 0);
        let mut no_noise = elf();
        no_noise[0x4000..0x5000].fill(0);
        let tight = bz_image(&no_noise, 0);
        let zstd = {
            let mut image = image.clone();
            image[5 * 512 + 0x200..][..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
            image
        };
        let elsewhere = Symbols {
            system_certificate_list_size: 0x1000,
            ..SYMBOLS
        };
        let outside = Symbols {
            system_extra_cert: 1 << 40,
            ..SYMBOLS
        };
        let small = Symbols {
            reserved: 100,
            ..SYMBOLS
        };
        for (name, image, certificate, symbols, code) in [
            (
                "text",
                &b"no kernel"[..],
                &ca_certificate,
                Some(&SYMBOLS),
                Code::KernelImage,
            ),
            (
                "truncated",
                &image[..5000],
                &ca_certificate,
                Some(&SYMBOLS),
                Code::KernelImage,
            ),
            (
                "zstd",
                &zstd,
                &ca_certificate,
                Some(&SYMBOLS),
                Code::KernelImage,
            ),
            (
                "no description",
                &image,
                &ca_certificate,
                None,
                Code::KernelImage,
            ),
            (
                "another kernel's description",
                &image,
                &ca_certificate,
                Some(&elsewhere),
                Code::KernelImage,
            ),
            (
                "a description out of bounds",
                &image,
                &ca_certificate,
                Some(&outside),
                Code::KernelImage,
            ),
            (
                "little room",
                &image,
                &ca_certificate,
                Some(&small),
                Code::KernelRoom,
            ),
            (
                "a room of zeros",
                &tight,
                &ca_certificate,
                Some(&SYMBOLS),
                Code::KernelRoom,
            ),
            (
                "a leaf",
                &image,
                &leaf,
                Some(&SYMBOLS),
                Code::CertificateUnusable,
            ),
        ] {
            let fault = add_ca(image, std::slice::from_ref(certificate), symbols).unwrap_err();
            assert_eq!(fault.code(), code, "{name}: {fault}");
        }
        assert_eq!(
            Symbols::from_json(b"{}").unwrap_err().code(),
            Code::KernelImage
        );
    }

    proptest::proptest! {
        #[test]
        fn hostile_images_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), elf: bool) {
            let bytes = if elf { [b"\x7fELF\x02\x01".as_slice(), &bytes].concat() } else { bytes };
            prop_assert!(add_ca(&bytes, &[], None).is_err());
        }

        #[test]
        fn a_damaged_elf_file_keeps_its_length_or_is_refused(
            numbers in proptest::collection::vec((0_usize..2000, any::<bool>(), any::<(u64, u8)>()), 0..6),
            cut in proptest::option::of(0_usize..10_000),
        ) {
            static ELF: LazyLock<Vec<u8>> = LazyLock::new(linked);
            let mut elf = ELF.clone();
            // Headers and segments lie at the start, symbols and sections at the end.
            for (distance, from_end, (number, shift)) in numbers {
                let at = if from_end { elf.len() - 8 - distance } else { distance };
                elf[at..at + 8].copy_from_slice(&(number >> (shift % 64)).to_le_bytes());
            }
            elf.truncate(cut.unwrap_or(elf.len()));
            match add_ca(&elf, &[], None) {
                Ok(outcome) => prop_assert_eq!(outcome.image.len(), elf.len()),
                Err(fault) => prop_assert!([Code::KernelImage, Code::KernelRoom].contains(&fault.code()), "{}", fault),
            }
            if let Err(fault) = authorities(&elf, None) {
                prop_assert_eq!(fault.code(), Code::KernelImage);
            }
        }

        #[test]
        fn a_damaged_setup_header_does_no_harm(at in 0x1f1_usize..0x260, value: u8) {
            static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| bz_image(&elf(), 0));
            let mut image = IMAGE.clone();
            image[at] = value;
            if let Ok(outcome) = add_ca(&image, &[], Some(&SYMBOLS)) {
                prop_assert_eq!(outcome.image.len(), image.len());
            }
        }
    }

    /// Returns a vmlinux with a room of 4096 bytes: assembled and linked by the system's tools, with the kernel's own layout of
    /// the symbols.
    fn linked() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let source = ".data\n.globl system_extra_cert\n.type system_extra_cert, @object\n\
                      .size system_extra_cert, 4096\n.fill 1000, 1, 0\nsystem_extra_cert:\n.fill 4096, 1, 0\n.align 4\n\
                      .globl system_extra_cert_used\nsystem_extra_cert_used:\n.int 0\n.align 8\n\
                      .globl system_certificate_list_size\nsystem_certificate_list_size:\n.quad 1000\n";
        std::fs::write(directory.path().join("a.s"), source).unwrap();
        for command in ["as a.s -o a.o", "ld --entry=0 a.o -o vmlinux"] {
            let status = std::process::Command::new("sh")
                .args(["-c", command])
                .current_dir(directory.path())
                .status()
                .unwrap();
            assert!(status.success(), "{command}: binutils are needed");
        }
        std::fs::read(directory.path().join("vmlinux")).unwrap()
    }

    #[test]
    fn into_an_elf_file_by_its_symbols() {
        let elf = linked();
        let certificate = ca(KeyKind::P384);
        let outcome = add_ca(&elf, std::slice::from_ref(&certificate), None).unwrap();
        let symbols = Symbols::from_elf(&elf).unwrap();
        assert_eq!(symbols.reserved, 4096);
        let at = symbols.system_extra_cert as usize;
        assert_eq!(
            outcome.image[at..at + certificate.der().len()],
            *certificate.der()
        );
        assert_eq!(
            number(&outcome.image, symbols.system_certificate_list_size, 8),
            Some(1000 + certificate.der().len() as u64)
        );
        let again = add_ca(&outcome.image, std::slice::from_ref(&certificate), None).unwrap();
        assert_eq!(again.image, outcome.image);
        let stripped = &elf[..elf.len().min(0x40)];
        assert_eq!(
            Symbols::from_elf(stripped).unwrap_err().code(),
            Code::KernelImage
        );
    }
}
