//! A unified kernel image: whether the firmware starts it under Secure Boot, and whether that fixes the kernel command line.

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};

use crate::kernel::check::KernelConfig;
use crate::kernel::command_line::FixedBy;
use crate::uki::{UnifiedKernelImage, authenticode};

/// The unified kernel image that kernel, initramfs and command line are from.
#[derive(Debug, Clone, Copy)]
pub struct BootImage<'a> {
    /// The image.
    pub image: &'a UnifiedKernelImage<'a>,
    /// The certificates in the firmware's database (db), if they are known.
    pub trusted: Option<&'a [Certificate]>,
}

/// What fixes the command line of an image, and its faults: that the firmware would not start it, or that anybody can change the
/// command line.
pub(super) fn check(boot: BootImage<'_>, kernel: Option<&KernelConfig>) -> (FixedBy, Vec<Fault>) {
    let BootImage { image, trusted } = boot;
    let mut faults = Vec::new();
    let verified = match trusted {
        Some(trusted) => authenticode::verify(image.image(), trusted).map(|_| true),
        None => authenticode::signatures(image.image()).map(|_| false),
    };
    if let (Err(why), Some(_)) = (&verified, trusted) {
        faults.push(Fault::new(Code::UkiUntrusted, "").because(why.cause()));
    }
    faults.extend(image.warning());
    let in_image = verified == Ok(true) && image.command_line().is_some();
    let fixed = FixedBy::of(kernel, in_image);
    if fixed == FixedBy::Nothing {
        let cause = match (image.command_line(), verified) {
            (None, _) => Cause::UKI_WITHOUT_COMMAND_LINE.into(),
            (Some(_), Ok(_)) => Cause::UKI_NOT_VERIFIED.into(),
            (Some(_), Err(why)) => why.cause(),
        };
        faults.push(Fault::new(Code::CommandLineOpen, "").because(cause));
    }
    (fixed, faults)
}
