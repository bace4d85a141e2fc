//! The end of the init: it becomes the real root's signed switch_root, or leaves the machine to the systemd of an
//! initramfs that loaded the policy with it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use ima::fault::{Cause, Code, Fault, Stage};
use ima::layout;
use log::{info, warn};
use nix::errno::Errno;
use nix::fcntl::AtFlags;

use super::explain;
use super::kernel_log::KernelLog;
use super::preflight::{Next, Ready};
use crate::failure::{Ending, VARIABLE};
use crate::logging;
use crate::report::{Report, milliseconds};
use crate::syscalls;
use crate::watch;

/// The init's work is done, and the machine goes on without it. Only [`hand_over`] makes one.
#[derive(Debug)]
pub struct Left(());

/// Leaves the machine to whoever goes on: executes the real root's switch_root, or comes back where systemd changes root
/// itself. This is the one place from which anything of the real root is executed, and it takes what only a proved policy leads to:
///
/// ```
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn proved(ready: boot::preflight::Ready) {
///     let _ = boot::handover::hand_over(ready, Ending::default(), &mut Report::default());
/// }
/// ```
///
/// Without the proof there is nothing to call it with: neither type can be made outside its stage.
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
/// use ima_init::boot::{policy, root::MountedRoot};
/// fn unasked(policy: policy::PolicyInForce, root: MountedRoot) -> policy::RootUnderPolicy {
///     policy::RootUnderPolicy { policy, root }
/// }
/// ```
///
/// Nothing of a disk is mounted without it either:
///
/// ```compile_fail,E0308
/// use ima_init::{boot, report::Report};
/// fn unproved(wanted: boot::policy::Wanted, settings: ima::settings::Settings) {
///     let _ = boot::root::mount(&wanted, &settings, &mut Report::default());
/// }
/// ```
///
/// Nor can anybody say that the machine was left to systemd:
///
/// ```compile_fail,E0423
/// fn unproved() -> ima_init::boot::handover::Left {
///     ima_init::boot::handover::Left(())
/// }
/// ```
///
/// # Errors
///
/// [`Code::HandoverExec`]: the kernel denied it after all. Of a root that is verified, [`Code::VerityCorrupted`],
/// [`Code::VerityRootHash`], [`Code::VerityTable`].
pub fn hand_over(ready: Ready, ending: Ending, report: &mut Report) -> Result<Left, Fault> {
    match &ready.next {
        Next::SwitchRoot(file) => {
            let Err(fault) = execute(&ready, file, ending, report);
            Err(fault)
        }
        Next::Systemd => {
            finish(report);
            logging::restore_limits();
            Ok(Left(()))
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
        let detail = format!("{path}: {} ({errno:?})", errno.desc());
        let fault = Fault::new(Code::HandoverExec, detail);
        match errno {
            // What kinds of program a kernel runs it alone knows, and says only now.
            Errno::ENOEXEC => fault.because(Cause::SWITCH_ROOT_FOREIGN),
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
    .map_err(|_| failed(Errno::EINVAL))?;
    ready.root.verification().arm()?;
    info!(
        "{}: executing {path} {}",
        Stage::Handover,
        ready.settings.init
    );
    finish(report);
    let mut log = KernelLog::from_now();
    watch::begin(Stage::Handover, format!("executing {path}"));
    syscalls::restore_sigpipe();
    logging::restore_limits();
    // By the open file, so that it is the one that was looked at, found below the real root.
    let Err(errno) = nix::unistd::execveat(
        switch_root,
        c"",
        &arguments,
        &environment,
        AtFlags::AT_EMPTY_PATH,
    );
    logging::lift_limits();
    let fault = failed(errno);
    if errno != Errno::EACCES {
        return Err(fault);
    }
    Err(
        match explain::denial(switch_root, ready.policy.keys(), &mut log) {
            Some(cause) => fault.because(cause),
            None => fault,
        },
    )
}

/// The last words: the report, and the time.
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
        .map(|text| CString::new(text).map_err(|_| Errno::EINVAL))
        .collect()
}
