//! The end of the init: it becomes the real root's signed switch_root.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use ima::fault::{Code, Fault, Stage};
use log::{info, warn};
use nix::errno::Errno;
use nix::fcntl::AtFlags;

use super::preflight::Ready;
use super::{ROOT, explain};
use crate::failure::{Ending, VARIABLE};
use crate::report::{self, Report, milliseconds};

/// Executes the real root's switch_root. This is the one place from which anything of the real root is executed, and
/// it takes what only a proved policy leads to:
///
/// ```
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn proved(ready: boot::preflight::Ready) {
///     let _ = boot::handover::execute(ready, Ending::default(), &mut Report::default());
/// }
/// ```
///
/// Without the proof there is nothing to call it with: neither type can be made outside its stage.
///
/// ```compile_fail,E0451
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn unproved(policy: boot::policy::PolicyInForce, settings: ima::settings::Settings, switch_root: std::fs::File) {
///     let ready = boot::preflight::Ready { policy, settings, switch_root };
///     let _ = boot::handover::execute(ready, Ending::default(), &mut Report::default());
/// }
/// ```
///
/// ```compile_fail,E0451
/// fn unproved(policy: ima::policy::Policy, keys: ima_init::boot::keys::KeysLoaded) -> ima_init::boot::policy::PolicyInForce {
///     ima_init::boot::policy::PolicyInForce { policy, keys }
/// }
/// ```
///
/// # Errors
///
/// `HandoverExec`: the kernel denied it after all.
pub fn execute(ready: Ready, ending: Ending, report: &mut Report) -> Result<Infallible, Fault> {
    let path = &ready.settings.config.switch_root;
    let failed = |errno: Errno| {
        let detail = format!("{path}: {} ({errno:?})", errno.desc());
        let fault = Fault::new(Code::HandoverExec, detail);
        match errno {
            // What kinds of program a kernel runs it alone knows, and says only now.
            Errno::ENOEXEC => fault
                .cause("it is no program for this machine")
                .remedy("install ima-init's switch_root, built for this machine, and sign it"),
            _ => fault,
        }
    };
    let arguments = arguments(&ready).map_err(failed)?;
    let environment: Vec<CString> = [
        "HOME=/".to_owned(),
        "TERM=linux".to_owned(),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("{VARIABLE}={}", ending.to_text()),
    ]
    .into_iter()
    .map(CString::new)
    .collect::<Result<_, _>>()
    .map_err(|_| failed(Errno::EINVAL))?;
    info!(
        "{}: executing {path} {}",
        Stage::Handover,
        ready.settings.init
    );
    if let Err(error) = write(report) {
        warn!("{}: {}: {error}", Stage::Handover, report::PATH);
    }
    info!(
        "{}: after {}",
        Stage::Handover,
        milliseconds(report.elapsed())
    );
    // By the open file, so that it is the one that was looked at, found below the real root.
    let Err(errno) = nix::unistd::execveat(
        &ready.switch_root,
        c"",
        &arguments,
        &environment,
        AtFlags::AT_EMPTY_PATH,
    );
    let fault = failed(errno);
    Err(
        match explain::denial(&ready.switch_root, ready.policy.keys()) {
            Some(cause) if errno == Errno::EACCES => fault.cause(cause),
            _ => fault,
        },
    )
}

/// `switch_root ROOT INIT ARGUMENT...`
fn arguments(ready: &Ready) -> Result<Vec<CString>, Errno> {
    let fixed = ["switch_root", ROOT, ready.settings.init.as_str()];
    let forwarded = ready.settings.arguments.iter().map(|text| text.as_bytes());
    fixed
        .into_iter()
        .map(str::as_bytes)
        .chain(forwarded)
        .map(|text| CString::new(text).map_err(|_| Errno::EINVAL))
        .collect()
}

fn write(report: &Report) -> std::io::Result<()> {
    let path = Path::new(report::PATH);
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    std::fs::write(path, report.json())
}
