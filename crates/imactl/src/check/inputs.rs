//! What is checked.

use ima::certificate::Certificate;
use ima::release::Release;

use super::root::Root;
use super::uki::BootImage;
use crate::initramfs::InitramfsBuilder;
use crate::kernel::check::KernelConfig;
use crate::kernel::release::KernelRelease;

/// What is to boot together. What is not given is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    /// The initramfs.
    pub initramfs: Option<&'a InitramfsBuilder>,
    /// The real root.
    pub root: Option<&'a Root>,
    /// The kernel's configuration.
    pub kernel: Option<&'a KernelConfig>,
    /// Which release the kernel is.
    pub release: Option<&'a KernelRelease>,
    /// The CA certificates in the kernel.
    pub authorities: Option<&'a [Certificate]>,
    /// The kernel command line.
    pub command_line: Option<&'a str>,
    /// The unified kernel image that they are from.
    pub boot_image: Option<BootImage<'a>>,
}

impl Inputs<'_> {
    /// The first two numbers of the kernel's release.
    pub(super) fn number(&self) -> Option<Release> {
        let release = self.release.and_then(KernelRelease::number);
        release.or_else(|| self.kernel.and_then(KernelConfig::release))
    }
}
