//! Which release a kernel image is, and which modules it takes.

use ima::release::Release;

use crate::Result;

/// The longest release or magic string that is read, in bytes.
const MAX_TEXT: usize = 256;

/// A kernel's release and its magic string for modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRelease {
    /// As `uname -r` prints it.
    pub name: String,
    /// What a module's `vermagic` must be (include/linux/vermagic.h); nothing if the kernel takes no modules, or could not be
    /// unpacked.
    pub vermagic: Option<String>,
}

impl KernelRelease {
    /// Finds it in an image of a kernel; nothing if it is not there.
    ///
    /// # Errors
    ///
    /// [`Code::KernelImage`](ima::fault::Code::KernelImage) if it is not a kernel.
    pub fn in_image(image: &[u8]) -> Result<Option<Self>> {
        let elf = super::add_ca::unpacked(image);
        let name = match (&elf, in_header(image)) {
            (_, Some(name)) => name,
            (Ok(elf), None) => match in_banner(elf) {
                Some(name) => name,
                None => return Ok(None),
            },
            (Err(fault), None) => return Err(fault.clone()),
        };
        let vermagic = elf.ok().and_then(|elf| vermagic(&elf, &name));
        Ok(Some(Self { name, vermagic }))
    }

    /// Its first two numbers.
    #[must_use]
    pub fn number(&self) -> Option<Release> {
        self.name.parse().ok()
    }
}

/// The release of a bzImage, or of a kernel that is not compressed (vmlinux, arm64's Image).
#[must_use]
pub fn name(image: &[u8]) -> Option<String> {
    in_header(image).or_else(|| in_banner(image))
}

/// In a bzImage, `kernel_version` of the setup header points to it (Documentation/arch/x86/boot.rst).
fn in_header(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = u16::from_le_bytes(*image.get(0x20e..)?.first_chunk()?);
    word(image.get(usize::from(at).checked_add(0x200)?..)?)
}

fn in_banner(elf: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let places = elf.windows(BANNER.len()).enumerate();
    places
        .filter(|(_, window)| *window == BANNER)
        .find_map(|(at, _)| {
            let name = word(elf.get(at.checked_add(BANNER.len())?..)?)?;
            name.starts_with(|letter: char| letter.is_ascii_digit())
                .then_some(name)
        })
}

/// Text up to a blank.
fn word(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..MAX_TEXT.min(bytes.len()))?;
    let end = bytes.iter().position(|byte| b" \0".contains(byte))?;
    let word = std::str::from_utf8(bytes.get(..end)?).ok()?;
    (!word.is_empty()).then(|| word.to_owned())
}

/// The string of kernel/module/main.c, `vermagic`: it begins with the release, and the options that follow are known words.
fn vermagic(elf: &[u8], release: &str) -> Option<String> {
    let begin = [b"\0", release.as_bytes(), b" "].concat();
    let options = [
        "SMP",
        "preempt",
        "preempt_rt",
        "mod_unload",
        "modversions",
        "aarch64",
        "ARMv6",
        "ARMv7",
        "riscv",
    ];
    elf.windows(begin.len())
        .enumerate()
        .filter(|(_, window)| *window == begin)
        .find_map(|(at, _)| {
            let rest = elf.get(at.checked_add(1)?..)?;
            let rest = rest.get(..MAX_TEXT.min(rest.len()))?;
            let end = rest.iter().position(|byte| *byte == 0)?;
            let text = std::str::from_utf8(rest.get(..end)?).ok()?;
            let first = text.split(' ').nth(1)?;
            options.contains(&first).then(|| text.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_vmlinux() {
        let elf = b"\x7fELF...Linux version %s\0 Linux version 6.12.1-test (a@b) #1\0\0\
            6.12.1-test (a@b) #1 SMP\x006.12.1-test SMP preempt mod_unload \0more";
        let release = KernelRelease::in_image(elf).unwrap().unwrap();
        assert_eq!(release.name, "6.12.1-test");
        let vermagic = release.vermagic.as_deref();
        assert_eq!(vermagic, Some("6.12.1-test SMP preempt mod_unload "));
        let number = Release {
            major: 6,
            minor: 12,
        };
        assert_eq!(release.number(), Some(number));
        assert_eq!(KernelRelease::in_image(b"\x7fELF").unwrap(), None);
        assert!(KernelRelease::in_image(b"text").is_err());
    }
}
