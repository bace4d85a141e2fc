//! The boot, from top to bottom.
//!
//! Each stage takes by value what the stage before it proved. [`handover::hand_over`], the only function that executes
//! anything of the real root, takes a [`preflight::Ready`]; that is made from a [`policy::PolicyInForce`], which only
//! the stage that loaded and proved the policy can make.

use std::process::ExitCode;

use ima::fault::Fault;

use crate::failure::{self, Ending};
use crate::logging;
use crate::report::Report;
use crate::watch::{self, during};
use start::{Request, Start};

pub mod cmdline;
pub mod environment;
pub mod explain;
pub mod handover;
mod kernel_log;
pub mod keys;
pub mod modules;
pub mod policy;
pub mod preflight;
pub mod root;
pub mod start;
pub mod uevent;

/// Where the real root is mounted.
pub const ROOT: &str = "/rootfs";

/// Boots, or ends as the configuration chose. Comes back only where there is no boot to end: a question about the
/// program, a policy loaded for the systemd that goes on, a mistake of somebody on a running system.
pub fn start() -> ExitCode {
    if std::process::id() == 1 {
        logging::start();
        failure::catch_panics(Ending::default());
    }
    let start = match start::request() {
        Request::Boot(start) => start,
        Request::Answer(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Request::Refuse(fault) => {
            eprintln!("ima-init: {fault}");
            return ExitCode::from(2);
        }
        Request::Yes => return ExitCode::SUCCESS,
        Request::End(fault) => {
            logging::start();
            logging::open();
            failure::end(&fault, Ending::default());
        }
    };
    logging::start();
    let mut ending = Ending::default();
    failure::catch_panics(ending);
    match boot(&start, &mut ending) {
        Ok(handover::Left { .. }) => ExitCode::SUCCESS,
        Err(fault) => failure::end(&fault, ending),
    }
}

fn boot(start: &Start, ending: &mut Ending) -> Result<handover::Left, Fault> {
    let mut report = Report::default();
    let environment = environment::set_up(start, &mut report)?;
    let settings = cmdline::settings(start, ending, &mut report)?;
    if start.root().is_none() {
        cmdline::cover(&settings, &mut report)?;
    }
    environment.require(&settings.config)?;
    let wanted = policy::read(&settings, start, &mut report)?;
    watch::start(*ending, settings.patience());
    during("loading the modules", || {
        modules::load(&settings.config, &mut report)
    })?;
    let root = root::mount(&settings, &mut report)?;
    let keys = during("reading the root's certificates", || {
        keys::load(&settings, &wanted, &root, &mut report)
    })?;
    let policy = during("reading the root's policies", || {
        policy::enforce(wanted, keys, &root, &mut report)
    })?;
    let ready = during("reading the root's programs", || {
        preflight::check(policy, root, settings, start, &mut report)
    })?;
    handover::hand_over(ready, *ending, &mut report)
}
