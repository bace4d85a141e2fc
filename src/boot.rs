//! The boot, from top to bottom.
//!
//! Each stage takes by value what the stage before it proved. [`handover::execute`], the only function that executes
//! anything of the real root, takes a [`preflight::Ready`]; that is made from a [`policy::PolicyInForce`], which only
//! the stage that loaded and proved the policy can make.

use std::convert::Infallible;

use ima::fault::Fault;

use crate::failure::{self, Ending};
use crate::logging;
use crate::report::Report;

pub mod cmdline;
pub mod environment;
pub mod explain;
pub mod handover;
pub mod keys;
pub mod modules;
pub mod policy;
pub mod preflight;
pub mod root;
pub mod uevent;

/// Where the real root is mounted.
pub const ROOT: &str = "/rootfs";

/// Boots, or ends as the configuration chose.
pub fn start() -> ! {
    logging::start();
    let mut ending = Ending::default();
    failure::catch_panics(ending);
    let Err(fault) = boot(&mut ending);
    failure::end(&fault, ending)
}

fn boot(ending: &mut Ending) -> Result<Infallible, Fault> {
    let mut report = Report::default();
    let environment = environment::set_up(&mut report)?;
    let settings = cmdline::settings(ending, &mut report)?;
    environment.require(&settings.config)?;
    let wanted = policy::read(&settings, &mut report)?;
    modules::load(&settings.config, &mut report)?;
    let root = root::mount(&settings, &mut report)?;
    let keys = keys::load(&settings.config, &wanted, &root, &mut report)?;
    let policy = policy::enforce(wanted, keys, &root, &mut report)?;
    let ready = preflight::check(policy, &root, settings, &mut report)?;
    handover::execute(ready, *ending, &mut report)
}
