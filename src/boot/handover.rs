//! The end of the init: it executes the root's signed switch_root, or it exits, and the systemd of the initramfs changes root.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::layout;
use log::{info, warn};

use super::measure;
use super::preflight::{Next, Ready};
use super::script_control;
use crate::denial;
use crate::errno::{Errno, describe};
use crate::failure::{Ending, VARIABLE};
use crate::kernel_log::KernelLog;
use crate::logging;
use crate::report::{Report, milliseconds};
use crate::syscalls;
use crate::watch;

/// The init has done its work and exits; systemd goes on. Only [`hand_over`] makes one.
#[derive(Debug)]
pub struct HandedOver(());

/// Executes the root's switch_root, or returns where systemd changes root itself. Nothing else executes a program of the
/// root, and it takes a value that can only be made from the proof of the policy:
///
/// ```
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn proved(ready: boot::preflight::Ready) {
///     let _ = boot::handover::hand_over(ready, Ending::default(), &mut Report::default());
/// }
/// ```
///
/// Without the proof there is no value to call it with: neither type can be made outside its stage.
///
/// ```compile_fail,E0451
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn unproved(policy: boot::policy::PolicyInForce, settings: ima::settings::Settings, root: boot::root::MountedRoot) {
///     let next = boot::preflight::Next::Systemd;
///     let ready = boot::preflight::Ready { policy, settings, root, next };
///     let _ = boot::handover::hand_over(ready, Ending::default(), &mut Report::default());
/// }
/// ```
///
/// ```compile_fail,E0451
/// use ima_init::boot::{keys::KeysLoaded, policy};
/// fn unproved(wanted: policy::Wanted, keys: KeysLoaded) -> policy::PolicyInForce {
///     policy::PolicyInForce { wanted, keys }
/// }
/// ```
///
/// ```compile_fail,E0451
/// use ima_init::boot::{policy::PolicyInForce, root::MountedRoot, root_policies::RootUnderPolicy};
/// fn unproved(policy: PolicyInForce, root: MountedRoot) -> RootUnderPolicy {
///     RootUnderPolicy { policy, root }
/// }
/// ```
///
/// Without the proof no root is mounted either:
///
/// ```compile_fail,E0308
/// use ima_init::{boot, report::Report};
/// fn unproved(wanted: boot::policy::Wanted, settings: ima::settings::Settings) {
///     let _ = boot::root::mount(&wanted, &settings, &mut Report::default());
/// }
/// ```
///
/// And nothing else can make the value with which the boot ends well:
///
/// ```compile_fail,E0603
/// fn unproved() -> ima_init::boot::handover::HandedOver {
///     ima_init::boot::handover::HandedOver(())
/// }
/// ```
///
/// # Errors
///
/// [`Code::HandoverExec`]: the kernel denied it after all. [`Code::NotMeasured`]. [`Code::NoScriptControl`]. With dm-verity,
/// [`Code::VerityCorrupted`], [`Code::VerityRootHash`], [`Code::VerityTable`].
pub fn hand_over(ready: Ready, ending: Ending, report: &mut Report) -> Result<HandedOver, Fault> {
    measure::root(&ready, report)?;
    match &ready.next {
        Next::SwitchRoot(file) => {
            let Err(fault) = execute(&ready, file, ending, report);
            Err(fault)
        }
        Next::Systemd => {
            script_control::refuse_under_systemd(ready.settings.config.script_control)?;
            finish(report);
            logging::restore_limits();
            Ok(HandedOver(()))
        }
    }
}

fn execute(
    ready: &Ready,
    switch_root: &File,
    ending: Ending,
    report: &mut Report,
) -> Result<Infallible, Fault> {
    let path = &ready.settings.config.switch_root;
    let failed = |errno: Errno| {
        let detail = format!("{path}: {}", describe(errno));
        let fault = Fault::new(Code::HandoverExec, detail);
        match errno {
            // Which formats of programs a kernel executes is known only when it refuses one.
            Errno::NOEXEC => fault.because(Cause::SWITCH_ROOT_FOREIGN),
            _ => fault,
        }
    };
    let arguments = arguments(ready).map_err(failed)?;
    let environment: Vec<CString> = [
        "HOME=/".to_owned(),
        "TERM=linux".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("{VARIABLE}={}", ending.to_text()),
        format!(
            "{}={}",
            watch::VARIABLE,
            watch::to_text(ready.settings.patience())
        ),
    ]
    .into_iter()
    .map(CString::new)
    .collect::<Result<_, _>>()
    .map_err(|_| failed(Errno::INVAL))?;
    script_control::set(ready.settings.config.script_control)?;
    ready.root.verification().arm()?;
    info!(
        "{}: executing {path} {}",
        Stage::Handover,
        ready.settings.init
    );
    finish(report);
    let mut log = KernelLog::from_now();
    watch::begin(Stage::Handover, &format!("executing {path}"));
    syscalls::restore_sigpipe();
    logging::restore_limits();
    // By the open file, so that it is the very file that preflight checked.
    let errno = syscalls::execute_at(
        switch_root,
        c"",
        &arguments
            .iter()
            .map(CString::as_c_str)
            .collect::<Vec<&CStr>>(),
        &environment
            .iter()
            .map(CString::as_c_str)
            .collect::<Vec<&CStr>>(),
    );
    logging::lift_limits();
    let fault = failed(errno);
    if errno != Errno::ACCESS {
        return Err(fault);
    }
    Err(
        match denial::explain(switch_root, ready.policy.keys().appraisal(), &mut log) {
            Some(cause) => fault.because(cause),
            None => fault,
        },
    )
}

/// Writes the report, and logs how long the boot took.
fn finish(report: &Report) {
    if let Err(error) = report.publish() {
        warn!(
            "{}: the report of this boot, {}, could not be written: {error}",
            Stage::Handover,
            layout::REPORT
        );
    }
    info!(
        "{}: after {}",
        Stage::Handover,
        milliseconds(report.elapsed())
    );
}

/// `switch_root ROOT INIT ARGUMENT...`
fn arguments(ready: &Ready) -> Result<Vec<CString>, Errno> {
    let fixed = [
        b"switch_root",
        ready.root.path().as_os_str().as_bytes(),
        ready.settings.init.as_bytes(),
    ];
    let forwarded = ready.settings.arguments.iter().map(|text| text.as_bytes());
    fixed
        .into_iter()
        .chain(forwarded)
        .map(|text| CString::new(text).map_err(|_| Errno::INVAL))
        .collect()
}
