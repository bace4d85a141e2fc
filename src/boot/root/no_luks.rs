//! An init that was built without LUKS2: a configuration that demands it is refused.

use ima::fault::{Cause, Code, Fault};

use super::devices::Device;

/// Refuses.
pub(super) fn unlock(_: &Device) -> Result<(Device, String), Fault> {
    Err(Fault::new(Code::LuksTarget, "luks=yes is set").because(Cause::LUKS_NOT_IN_INIT))
}
