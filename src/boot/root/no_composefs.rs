//! An init that was built without composefs: a configuration that demands it is refused.

use ima::composefs::Composefs;
use ima::fault::{Cause, Code, Fault};

use super::mounting::Mounted;

/// Refuses.
pub(super) fn over(_: &Mounted, wanted: &Composefs, _: &str) -> Result<Mounted, Fault> {
    let detail = format!("composefs={}", wanted.image);
    Err(Fault::new(Code::ComposefsKernel, detail).because(Cause::COMPOSEFS_NOT_IN_INIT))
}
