//! Reads unified kernel images.

use ima::fault::{Cause, Code, Explanation, Fault};

use super::pe::{Image, Section};
use super::section::{
    CMDLINE, INITRD, LINUX, MAGIC, OSREL, SBAT, UNAME, UNIQUE, mistaken_for, stub_version,
};
use crate::Result;

/// A unified kernel image that was read.
#[derive(Debug, Clone)]
pub struct UnifiedKernelImage<'a> {
    image: Image<'a>,
    kernel: &'a [u8],
    command_line: Option<String>,
}

impl<'a> UnifiedKernelImage<'a> {
    /// Reads an image.
    ///
    /// # Errors
    ///
    /// [`Code::UkiMalformed`], also for one of which it is not known what will be booted: with several profiles, or a section
    /// that is there twice.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let bad = |why: Explanation| Fault::new(Code::UkiMalformed, "").because(why);
        let image = Image::parse(bytes).map_err(|error| bad(error.cause()))?;
        for name in UNIQUE {
            let same = image
                .sections()
                .iter()
                .filter(|section| section.name == name);
            if same.count() > 1 {
                return Err(bad(Cause::UKI_SECTION_TWICE.with(&[name])));
            }
        }
        for section in image.sections() {
            let name = section.name.as_str();
            if let Some(other) = mistaken_for(name) {
                return Err(bad(Cause::UKI_SECTION_PREFIX.with(&[name, other])));
            }
        }
        let kernel = image
            .content(LINUX)
            .filter(|kernel| !kernel.is_empty())
            .ok_or_else(|| bad(Cause::UKI_SECTION_MISSING.with(&[LINUX])))?;
        let command_line = image
            .content(CMDLINE)
            .filter(|line| !line.is_empty())
            .map(|line| {
                // The stub takes the text up to the first zero.
                let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
                let line =
                    std::str::from_utf8(line).map_err(|_| bad(Cause::UKI_COMMAND_LINE.into()));
                line.map(|line| line.trim().to_owned())
            })
            .transpose()?;
        Ok(Self {
            image,
            kernel,
            command_line,
        })
    }

    /// The image as UEFI sees it.
    #[must_use]
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// Its sections, in the order of its headers.
    #[must_use]
    pub fn sections(&self) -> &[Section<'a>] {
        self.image.sections()
    }

    /// The kernel; zeros may follow.
    #[must_use]
    pub fn kernel(&self) -> &'a [u8] {
        self.kernel
    }

    /// The initramfs.
    ///
    /// # Errors
    ///
    /// [`Code::UkiMalformed`] if it has none.
    pub fn initramfs(&self) -> Result<&'a [u8]> {
        let initramfs = self.image.content(INITRD);
        initramfs
            .filter(|initramfs| !initramfs.is_empty())
            .ok_or_else(|| {
                let why = Cause::UKI_SECTION_MISSING.with(&[INITRD]);
                Fault::new(Code::UkiMalformed, "").because(why)
            })
    }

    /// The kernel command line, without blanks at its ends; nothing if it has none, and the stub takes the one that it is started
    /// with.
    #[must_use]
    pub fn command_line(&self) -> Option<&str> {
        self.command_line.as_deref()
    }

    /// The operating system's `os-release`.
    #[must_use]
    pub fn os_release(&self) -> Option<String> {
        self.text(OSREL)
    }

    /// The kernel's release.
    #[must_use]
    pub fn uname(&self) -> Option<String> {
        self.text(UNAME)
    }

    /// The versions of its parts, a line each, as shim compares them with the list of revoked ones.
    #[must_use]
    pub fn sbat(&self) -> Option<String> {
        self.text(SBAT)
    }

    /// The version of systemd's stub.
    #[must_use]
    pub fn stub_version(&self) -> Option<String> {
        self.image.content(MAGIC).and_then(stub_version)
    }

    /// What cannot be said without a fault: nothing, or that there is no `.sbat`.
    #[must_use]
    pub fn warning(&self) -> Option<Fault> {
        let lacks = self.image.content(SBAT).is_none();
        lacks.then(|| Fault::new(Code::UkiWithoutSbat, ""))
    }

    fn text(&self, name: &str) -> Option<String> {
        let content = self.image.content(name)?;
        let text = content.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
