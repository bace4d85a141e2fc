//! An init that was built without dm-verity: a configuration that demands it is refused.

use ima::cmdline::RootName;
use ima::dm_verity::RootHash;
use ima::fault::{Cause, Code, Fault};
use ima::settings::{Settings, Verity};

use super::devices::Device;

/// No root hash is trusted.
#[derive(Debug, Clone)]
pub(super) enum Trusted {}

impl Trusted {
    /// Refuses.
    pub(super) fn find(_: &Verity, _: &Settings) -> Result<Self, Fault> {
        Err(Fault::new(Code::VerityTarget, "verity= is set").because(Cause::VERITY_NOT_IN_INIT))
    }

    pub(super) const fn partition(&self) -> RootName {
        match *self {}
    }
}

/// No root is verified.
#[derive(Debug, Clone)]
pub(super) enum Verified {}

impl Verified {
    pub(super) const fn set_up(_: &Device, trusted: Trusted, _: &Settings) -> Result<Self, Fault> {
        match trusted {}
    }

    pub(super) const fn device(&self) -> &Device {
        match *self {}
    }

    pub(super) const fn text(&self) -> String {
        match *self {}
    }

    pub(super) const fn root_hash(&self) -> &RootHash {
        match *self {}
    }

    pub(super) fn closer(&self, _: Fault) -> Fault {
        match *self {}
    }

    pub(super) const fn arm(&self) -> Result<(), Fault> {
        match *self {}
    }
}
