//! Kernels: a CA certificate into the room an image reserved for it, whether a configuration has what is needed, which keys of the
//! machine's owner it takes, and which release an image is.

pub mod add_ca;
pub mod check;
pub mod command_line;
pub mod hardening;
pub mod owner;
pub mod release;

use crate::packed::Packing;

/// Bytes that identify the content of a compressed file.
const HEAD: usize = 4096;

/// What a file is by its first bytes, for a message about one that was given for another; nothing if that is not known. Of a
/// compressed one the content is named, where it can be recognised.
#[must_use]
pub fn kind(file: &[u8]) -> Option<String> {
    plain_kind(file).or_else(|| {
        let packing = Packing::of(file)?;
        let name = packing.name();
        let inside = packing.head(file, HEAD);
        Some(match inside.and_then(|head| plain_kind(&head)) {
            Some(kind) => format!("{kind}, compressed with {name}"),
            None => format!("compressed with {name}, as an initramfs is"),
        })
    })
}

/// What a file is that is not compressed as a whole.
fn plain_kind(file: &[u8]) -> Option<String> {
    let at = |place: usize, magic: &[u8]| {
        file.get(place..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    Some(match () {
        // Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst, include/linux/pe.h.
        () if at(0x38, b"ARM\x64") => "an arm64 Image".to_owned(),
        () if at(0x38, b"RSC\x05") => "a RISC-V Image".to_owned(),
        () if at(0x24, &[0x18, 0x28, 0x6f, 0x01]) => "an ARM zImage".to_owned(),
        () if at(4, b"zimg") => "a compressed EFI image (CONFIG_EFI_ZBOOT)".to_owned(),
        () if at(0x202, b"HdrS") => "a kernel (bzImage)".to_owned(),
        () if at(0, b"MZ") && has_section(file, b".linux") => {
            "a unified kernel image, which has kernel, initramfs and command line in it".to_owned()
        }
        () if at(0, b"MZ") => "an EFI program".to_owned(),
        () if at(0, b"\x7fELF") => "an ELF file".to_owned(),
        () if at(0, b"07070") => "an initramfs (a cpio archive)".to_owned(),
        () if at(0, &[0xd0, 0x0d, 0xfe, 0xed]) => {
            "a flattened device tree, such as a FIT image".to_owned()
        }
        () if at(0, &[0x27, 0x05, 0x19, 0x56]) => "a U-Boot image".to_owned(),
        () => return None,
    })
}

/// Whether the table of sections behind a PE header has one of that name.
fn has_section(file: &[u8], name: &[u8]) -> bool {
    const MAX_SECTIONS: usize = 96;
    let find = || {
        let number = |at: usize, length: usize| {
            let bytes = file.get(at..at.checked_add(length)?)?;
            let fold = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
            Some(bytes.iter().rev().fold(0, fold))
        };
        let header = number(0x3c, 4)?;
        let count = number(header.checked_add(6)?, 2)?.min(MAX_SECTIONS);
        let optional = number(header.checked_add(20)?, 2)?;
        let sections = file.get(header.checked_add(24)?.checked_add(optional)?..)?;
        let mut sections = sections.chunks_exact(40).take(count);
        Some(sections.any(|section| {
            section
                .strip_prefix(name)
                .is_some_and(|rest| rest.first() == Some(&0) || name.len() == 8)
        }))
    };
    find().unwrap_or(false)
}
