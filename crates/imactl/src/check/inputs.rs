//! What is checked.

use ima::certificate::Certificate;
use ima::fault::Explanation;
use ima::release::Release;

use super::root::Root;
use super::uki::BootImage;
use crate::initramfs::InitramfsBuilder;
use crate::kernel::check::KernelConfig;
use crate::kernel::owner::OwnerKeys;
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
    /// The keys of the machine's owner (MOK), which shim gives to the kernel.
    pub owner_keys: &'a [Certificate],
    /// The kernel command line.
    pub command_line: Option<&'a str>,
    /// The unified kernel image that they are from.
    pub boot_image: Option<BootImage<'a>>,
}

impl Inputs<'_> {
    /// The CAs that vouch for keys: those in the kernel, and of the owner's keys those that the kernel takes. Where it is not known
    /// which are in the kernel, the owner's alone; nothing without those.
    #[must_use]
    pub fn vouching(&self) -> Option<Vec<Certificate>> {
        if self.authorities.is_none() && self.owner_keys.is_empty() {
            return None;
        }
        let mut vouching = self.authorities.unwrap_or_default().to_vec();
        let taken = |key: &&Certificate| self.owner_key_refused(key).is_none();
        vouching.extend(self.owner_keys.iter().filter(taken).cloned());
        Some(vouching)
    }

    /// Why the kernel does not take a key of the owner's as a CA.
    pub(super) fn owner_key_refused(&self, key: &Certificate) -> Option<Explanation> {
        OwnerKeys::of(self.kernel?).refusal(Some(key))
    }

    /// The first two numbers of the kernel's release.
    pub(super) fn number(&self) -> Option<Release> {
        let release = self.release.and_then(KernelRelease::number);
        release.or_else(|| self.kernel.and_then(KernelConfig::release))
    }
}
