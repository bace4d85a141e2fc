//! The boot, from top to bottom.
//!
//! The boot has two halves. In the first the keys and the policy are loaded, and the policy is proved in force, before
//! anything of a disk is mounted. In the second the root is mounted, its own certificates and policies are offered to the
//! kernel, and its init is executed. In an initramfs of its own the init does both. In front of another initramfs it does
//! the first half and executes that initramfs's init under the policy; the other initramfs mounts the root and starts the
//! init again, for the second half.
//!
//! Each stage takes by value what the stage before it proved. [`root::mount`] takes a [`policy::PolicyInForce`], which only
//! the stage that proved the policy can make; [`handover::hand_over`], the only function that executes anything of the real
//! root, takes a [`preflight::Ready`], which is made of it.

use std::process::ExitCode;

use ima::fault::{Fault, Stage};
use ima::policy::cover::On;
use ima::settings::Settings;

use crate::failure::{self, Ending};
use crate::logging;
use crate::report::Report;
use crate::watch::{self, during};
use start::{Request, Start};

pub mod cmdline;
pub mod environment;
pub mod explain;
pub mod front;
pub mod handover;
mod kernel_log;
pub mod keys;
pub mod lockdown;
pub mod modules;
pub mod policy;
pub mod preflight;
pub mod root;
pub mod start;
pub mod uevent;

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
    let wanted = policy::read(&settings, &mut report)?;
    watch::start(*ending, settings.patience());
    let policy = match start {
        Start::Init(_) | Start::Front => first_half(start, &settings, wanted, &mut report)?,
        Start::Inside { .. } | Start::Load { .. } => {
            report.continue_from_first_half();
            policy::prove_again(wanted, &mut report)?
        }
    };
    if *start == Start::Front {
        let Err(fault) = front::execute(&policy, &mut report);
        return Err(fault);
    }
    let ready = second_half(start, settings, policy, &mut report)?;
    handover::hand_over(ready, *ending, &mut report)
}

/// Loads modules, keys and policy. Nothing of a disk is looked at.
fn first_half(
    start: &Start,
    settings: &Settings,
    wanted: policy::Wanted,
    report: &mut Report,
) -> Result<policy::PolicyInForce, Fault> {
    // Before the policy: no file of a ramfs can carry the signature that it may ask for.
    during(Stage::Modules, "loading the modules", || {
        modules::load(&settings.config, report)
    })?;
    let keys = keys::load(settings, wanted.policy().appraises(), report)?;
    if *start == Start::Front {
        // It would stay in the old root, which soon has no console.
        watch::stop();
        // Of a root that is not known yet.
        policy::require_cover(&wanted, On::Any, report)?;
        // Under EVM, which with its HMAC key seals each file as it gets its signature.
        front::take_over(&wanted, report)?;
    }
    let policy = policy::enforce(wanted, keys, report)?;
    lockdown::close(&settings.config)?;
    Ok(policy)
}

/// Mounts the root, or takes the one that is mounted, and asks the kernel about it under the policy.
fn second_half(
    start: &Start,
    settings: Settings,
    policy: policy::PolicyInForce,
    report: &mut Report,
) -> Result<preflight::Ready, Fault> {
    let root = root::mount(&policy, &settings, report)?;
    let verification = root.verification().clone();
    ask(start, settings, policy, root, report).map_err(|fault| verification.closer(fault))
}

/// Offers the kernel what the root brings, and asks it about the root's programs.
fn ask(
    start: &Start,
    settings: Settings,
    mut policy: policy::PolicyInForce,
    root: root::MountedRoot,
    report: &mut Report,
) -> Result<preflight::Ready, Fault> {
    during(Stage::Keys, "reading the root's certificates", || {
        keys::extend(policy.keys_mut(), &settings, &root, report)
    })?;
    let root = during(Stage::Policy, "reading the root's policies", || {
        policy::extend(policy, root, report)
    })?;
    during(Stage::Preflight, "reading the root's programs", || {
        preflight::check(root, settings, start, report)
    })
}
