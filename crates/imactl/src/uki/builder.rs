//! Makes unified kernel images.

use ima::fault::{Cause, Code, Explanation, Fault};
use object::pe::{
    IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64, IMAGE_FILE_MACHINE_I386,
    IMAGE_FILE_MACHINE_RISCV64, Machine,
};

use super::pe::{Image, NewSection, PeError, add_sections, machine_and_size};
use super::section::{CMDLINE, INITRD, LINUX, MAGIC, OSREL, UNAME, mistaken_for, stub_version};
use crate::Result;
use crate::kernel::release;

/// Sections that an image may have more than one of, for several machines (systemd-stub(7)).
const SEVERAL: [&str; 2] = [".dtbauto", ".efifw"];

/// A unified kernel image in the making. The same input gives the same bytes.
///
/// ```no_run
/// use imactl::uki::{Builder, authenticode};
/// # fn make(
/// #     stub: Vec<u8>,
/// #     kernel: Vec<u8>,
/// #     initramfs: Vec<u8>,
/// #     key: &dyn imactl::key::Signer,
/// #     certificate: &ima::certificate::Certificate,
/// # ) -> imactl::Result<Vec<u8>> {
/// let image = Builder::new(stub, kernel)
///     .initramfs(initramfs)
///     .command_line("root=/dev/vda ro")
///     .build()?;
/// authenticode::sign(&image, key, certificate)
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    stub: Vec<u8>,
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    uname: Option<String>,
    /// Those of the user but kernel, initramfs and release, in their order.
    sections: Vec<(String, Vec<u8>)>,
}

impl Builder {
    /// Begins an image of this kernel on this stub.
    #[must_use]
    pub fn new(stub: Vec<u8>, kernel: Vec<u8>) -> Self {
        Self {
            uname: release::name(&kernel),
            stub,
            kernel,
            initramfs: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Adds an initramfs (`.initrd`) behind those that were added before.
    #[must_use]
    pub fn initramfs(mut self, initramfs: impl AsRef<[u8]>) -> Self {
        // Documentation/driver-api/early-userspace/buffer-format.rst: each archive begins at a multiple of four.
        let start = self.initramfs.len().next_multiple_of(4);
        self.initramfs.resize(start, 0);
        self.initramfs.extend_from_slice(initramfs.as_ref());
        self
    }

    /// Sets the kernel command line (`.cmdline`).
    #[must_use]
    pub fn command_line(self, text: &str) -> Self {
        self.section(CMDLINE, text.trim().as_bytes())
    }

    /// Sets the operating system's `os-release` (`.osrel`).
    #[must_use]
    pub fn os_release(self, text: impl AsRef<[u8]>) -> Self {
        self.section(OSREL, text)
    }

    /// Sets the kernel's release (`.uname`), in place of the one that is found in the kernel.
    #[must_use]
    pub fn uname(mut self, release: &str) -> Self {
        self.uname = Some(release.to_owned());
        self
    }

    /// Adds another section, such as `.pcrsig`.
    #[must_use]
    pub fn section(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.sections
            .push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Whether the kernel's release is known.
    #[must_use]
    pub fn has_uname(&self) -> bool {
        self.uname.is_some()
    }

    /// Makes the image, without a signature.
    ///
    /// # Errors
    ///
    /// [`Code::UkiStub`] if sections cannot be added to the stub, or it is not systemd's; [`Code::UkiInput`] if the kernel is not
    /// one for UEFI or not for the stub's processor, or for a section that is there twice, empty or wrongly named.
    pub fn build(&self) -> Result<Vec<u8>> {
        let bad_stub = |why: Explanation| Fault::new(Code::UkiStub, "").because(why);
        let stub = Image::parse(&self.stub).map_err(|error| bad_stub(error.cause()))?;
        if stub.content(MAGIC).and_then(stub_version).is_none() {
            return Err(bad_stub(Cause::STUB_NOT_SYSTEMDS.into()));
        }
        for name in [LINUX, INITRD, CMDLINE] {
            if stub.content(name).is_some() {
                return Err(bad_stub(Cause::STUB_HAS_SECTION.with(&[name])));
            }
        }
        let size = self.check_kernel(stub.machine())?;
        let section = |name, content| NewSection {
            name,
            content,
            size: 0,
            code: false,
        };
        let mut sections = Vec::new();
        for (name, content) in &self.sections {
            sections.push(section(name.as_str(), content.as_slice()));
        }
        if let Some(uname) = &self.uname {
            sections.push(section(UNAME, uname.as_bytes()));
        }
        sections.push(section(INITRD, self.initramfs.as_slice()));
        // Behind the kernel is the room that it takes when it is executed in place.
        sections.push(NewSection {
            name: LINUX,
            content: &self.kernel,
            size,
            code: true,
        });
        self.check_sections(&stub, &sections)?;
        add_sections(&self.stub, &sections).map_err(|error| {
            let code = match error {
                PeError::TooLarge => Code::UkiInput,
                _ => Code::UkiStub,
            };
            Fault::new(code, "").because(error.cause())
        })
    }

    /// Checks that the kernel is for UEFI and for this processor, and gives its length in memory.
    fn check_kernel(&self, stub: Machine) -> Result<u32> {
        let bad = |why: Explanation| Fault::new(Code::UkiInput, "").because(why);
        let (machine, size) = machine_and_size(&self.kernel)
            .ok_or_else(|| bad(Cause::KERNEL_WITHOUT_EFI_STUB.into()))?;
        if machine != stub {
            let names = [processor(stub), processor(machine)];
            let [stub, kernel] = names.each_ref().map(String::as_str);
            return Err(bad(Cause::UKI_MACHINES_DIFFER.with(&[stub, kernel])));
        }
        Ok(size)
    }

    fn check_sections(&self, stub: &Image<'_>, sections: &[NewSection<'_>]) -> Result<()> {
        let bad = |why: Explanation| Err(Fault::new(Code::UkiInput, "").because(why));
        for (index, section) in sections.iter().enumerate() {
            let name = section.name;
            let letters = name.strip_prefix('.').unwrap_or_default();
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
            if letters.is_empty() || name.len() > 8 || !letters.bytes().all(is_letter) {
                let fault = Fault::new(Code::UkiInput, name.escape_debug().to_string());
                return Err(fault.because(Cause::UKI_SECTION_NAME));
            }
            if let Some(other) = mistaken_for(name) {
                return bad(Cause::UKI_SECTION_PREFIX.with(&[name, other]));
            }
            if stub.content(name).is_some() {
                return bad(Cause::UKI_SECTION_OWN.with(&[name]));
            }
            let before = sections.get(..index).unwrap_or_default();
            let is_twice = before.iter().any(|other| other.name == name);
            if is_twice && !SEVERAL.contains(&name) {
                return bad(Cause::UKI_SECTION_TWICE.with(&[name]));
            }
            if section.content.is_empty() {
                return bad(Cause::UKI_SECTION_EMPTY.with(&[name]));
            }
            let text = std::str::from_utf8(section.content);
            if name == CMDLINE && !text.is_ok_and(|text| !text.contains(char::is_control)) {
                return bad(Cause::UKI_COMMAND_LINE.into());
            }
        }
        Ok(())
    }
}

/// The name of a processor.
fn processor(machine: Machine) -> String {
    match machine {
        IMAGE_FILE_MACHINE_AMD64 => "x86-64".to_owned(),
        IMAGE_FILE_MACHINE_ARM64 => "arm64".to_owned(),
        IMAGE_FILE_MACHINE_I386 => "x86 of 32 bits".to_owned(),
        IMAGE_FILE_MACHINE_RISCV64 => "RISC-V of 64 bits".to_owned(),
        Machine(other) => format!("the machine {other:#06x}"),
    }
}
