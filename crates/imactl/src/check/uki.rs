//! A unified kernel image: whether the firmware starts it under Secure Boot, and whether that fixes the kernel command line.

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};

use crate::kernel::check::KernelConfig;
use crate::kernel::command_line::FixedBy;
use crate::uki::authenticode::Untrusted;
use crate::uki::{Database, UnifiedKernelImage, authenticode};

/// The unified kernel image that kernel, initramfs and command line are from.
#[derive(Debug, Clone, Copy)]
pub struct BootImage<'a> {
    /// The image.
    pub image: &'a UnifiedKernelImage<'a>,
    /// The certificates in the firmware's database (db), if they are known; with shim, also the keys of the machine's owner.
    pub trusted: Option<&'a [Certificate]>,
    /// What the firmware and shim refuse whoever signed it, if it is known.
    pub revoked: Option<&'a Database>,
}

impl BootImage<'_> {
    /// Why firmware and shim would not start it, as far as it is known by what they decide.
    fn refused(&self) -> Option<Untrusted> {
        let untrusted = |trusted| authenticode::verify(self.image.image(), trusted).err();
        let revoked = |revoked: &Database| revoked.check_not_revoked(self.image).err();
        self.trusted
            .and_then(untrusted)
            .or_else(|| self.revoked.and_then(revoked))
    }

    /// Whether it starts under Secure Boot: it is known what the firmware starts, and it would start this.
    pub(super) fn is_verified(&self) -> bool {
        self.trusted.is_some() && self.refused().is_none()
    }
}

/// What fixes the command line of an image, and its faults: that the firmware would not start it, or that anybody can change the
/// command line.
pub(super) fn check(boot: BootImage<'_>, kernel: Option<&KernelConfig>) -> (FixedBy, Vec<Fault>) {
    let image = boot.image;
    let mut faults = Vec::new();
    let refused = boot.refused();
    if let Some(why) = &refused {
        faults.push(Fault::new(Code::UkiUntrusted, "").because(why.cause()));
    }
    faults.extend(image.warning());
    let in_image = boot.is_verified() && image.command_line().is_some();
    let fixed = FixedBy::of(kernel, in_image);
    if fixed == FixedBy::Nothing {
        let why = refused.or_else(|| authenticode::signatures(image.image()).err());
        let cause = match (image.command_line(), why) {
            (None, _) => Cause::UKI_WITHOUT_COMMAND_LINE.into(),
            (Some(_), None) => Cause::UKI_NOT_VERIFIED.into(),
            (Some(_), Some(why)) => why.cause(),
        };
        faults.push(Fault::new(Code::CommandLineOpen, "").because(cause));
    }
    (fixed, faults)
}
