//! The boot, from top to bottom.
//!
//! The boot has two halves. In the first half, the keys and the policy are loaded, and the policy is proved in force, before
//! any disk is mounted. In the second half, the root is mounted, its own certificates and policies are offered to the
//! kernel, and its init is executed. In its own initramfs the init does both. In front of another initramfs it does the
//! first half and executes that initramfs's init under the policy; the other initramfs mounts the root and starts the init
//! again, for the second half.
//!
//! Each stage takes what the stage before it proved. [`root::mount`] takes a [`policy::PolicyInForce`], which only
//! the stage that proved the policy can make; [`handover::hand_over`], the only function that executes anything of the real
//! root, takes a [`preflight::Ready`], which is made of it.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;

use ima::fault::Fault;
use ima::policy::cover::On;
use ima::settings::Settings;

use crate::failure::{self, Ending};
use crate::features::{self, Feature};
use crate::logging;
use crate::report::Report;
use crate::syscalls;
use crate::watch;
use start::{Request, Start};

pub mod configuration;
pub mod environment;
pub mod front;
pub mod handover;
pub mod initramfs;
pub mod keys;
pub mod lockdown;
pub mod measure;
pub mod modules;
pub mod policy;
pub mod preflight;
pub mod root;
pub mod root_keys;
pub mod root_policies;
pub mod script_control;
pub mod start;

/// Boots, or ends as the configuration says, with the program's arguments, of which the first is its own name. Returns only where
/// this process is not to end the machine: after the help or the version, where systemd goes on after `load`, and after a wrong
/// use on a running system. The status is that of the program.
pub fn start(arguments: &[&CStr], _environment: &[&CStr]) -> u8 {
    syscalls::ignore_sigpipe();
    if std::process::id() == 1 {
        logging::start();
        failure::catch_panics(Ending::default());
    }
    let arguments = arguments
        .iter()
        .map(|argument| OsStr::from_bytes(argument.to_bytes()).to_owned());
    let start = match start::request(arguments.collect()) {
        Request::Boot(start) => start,
        Request::Print(text) => {
            logging::print(rustix::stdio::stdout(), &text);
            return 0;
        }
        Request::Refuse(fault) => {
            logging::print(rustix::stdio::stderr(), &format!("ima-init: {fault}\n"));
            return 2;
        }
        Request::DryRun => return 0,
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
        Ok(handover::HandedOver { .. }) => 0,
        Err(fault) => failure::end(&fault, measure::refusal(&fault, ending)),
    }
}

fn boot(start: &Start, ending: &mut Ending) -> Result<handover::HandedOver, Fault> {
    let mut report = Report::default();
    let environment = environment::set_up(start, &mut report)?;
    let settings = configuration::read(start, ending, &mut report)?;
    if start.root().is_none() {
        configuration::hide_command_line(&settings, &mut report)?;
    }
    environment.require(&settings.config)?;
    let wanted = policy::read(&settings, &mut report)?;
    start_watch(&settings, *ending);
    let policy = match start {
        Start::Init(_) | Start::Front => {
            first_half(start, &settings, wanted, *ending, &mut report)?
        }
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

fn start_watch(settings: &Settings, ending: Ending) {
    watch::start(settings.patience(), &|fault| {
        failure::end_from_watch(fault, ending)
    });
}

/// Loads modules, keys and policy. Nothing is read from a disk.
fn first_half(
    start: &Start,
    settings: &Settings,
    wanted: policy::Wanted,
    ending: Ending,
    report: &mut Report,
) -> Result<policy::PolicyInForce, Fault> {
    // Before the policy, which may require signatures of modules: files on a ramfs have none.
    modules::load(&settings.config, report)?;
    let keys = keys::load(settings, wanted.policy().appraises(), report)?;
    let is_front = *start == Start::Front;
    if is_front {
        features::require(Feature::InitramfsSignatures)?;
        // The root's file system is not known yet, so the policy must cover each.
        policy::require_cover(&wanted, On::Any, report)?;
    }
    let signatures = initramfs::signatures(is_front && wanted.policy().appraises())?
        .filter(|_| features::is_built_in(Feature::InitramfsSignatures));
    // After EVM was switched on: with its HMAC key it then adds security.evm to each file that gets a signature.
    if is_front {
        initramfs::take_over(&signatures.unwrap_or_default(), report)?;
    } else if let Some(signatures) = signatures {
        initramfs::take_over(&signatures, report)?;
        start_watch(settings, ending);
    }
    let policy = policy::enforce(wanted, keys, report)?;
    lockdown::close(&settings.config)?;
    measure::policy(&policy, &settings.config, is_front, report)?;
    Ok(policy)
}

/// Boots the root, or the first of several that is not refused.
///
/// The next one is tried only if the one before has left nothing in the kernel: no key and no rules, and its file system can be
/// unmounted. That the policy is in force is proved again.
fn second_half(
    start: &Start,
    mut settings: Settings,
    mut policy: policy::PolicyInForce,
    report: &mut Report,
) -> Result<preflight::Ready, Fault> {
    if settings.slot.is_some() {
        features::require(Feature::Slots)?;
    }
    let mut others = std::mem::take(&mut settings.others).into_iter();
    loop {
        let slot = settings.slot.clone();
        report.slot.clone_from(&slot);
        let fault = match mount_and_check(start, settings, policy, report) {
            Ok(ready) => return Ok(ready),
            Err(fault) => fault,
        };
        let slot = slot.filter(|_| features::is_built_in(Feature::Slots));
        let (Some(slot), Some(next), false) = (slot, others.next(), report.root_left_traces())
        else {
            return Err(fault);
        };
        report.refuse_slot(&slot, &fault);
        root::leave()?;
        let wanted = policy::read(&next, report)?;
        policy = policy::prove_again(wanted, report)?;
        settings = next;
    }
}

/// Mounts the root, or takes the one that is mounted, adds its keys and policies, and checks that its programs will run.
fn mount_and_check(
    start: &Start,
    settings: Settings,
    policy: policy::PolicyInForce,
    report: &mut Report,
) -> Result<preflight::Ready, Fault> {
    let root = root::mount(&policy, &settings, report)?;
    let verification = root.verification().clone();
    check(start, settings, policy, root, report).map_err(|fault| verification.closer(fault))
}

/// Adds the keys and policies of the mounted root, and checks that its programs will run.
fn check(
    start: &Start,
    settings: Settings,
    mut policy: policy::PolicyInForce,
    root: root::MountedRoot,
    report: &mut Report,
) -> Result<preflight::Ready, Fault> {
    root_keys::extend(policy.keys_mut(), &settings, &root, report);
    let root = root_policies::extend(policy, root, report)?;
    preflight::check(root, settings, start, report)
}
