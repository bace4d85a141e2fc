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
/// ```compile_fail
/// use ima_init::{boot, failure::Ending, report::Report};
/// fn unproved(settings: boot::cmdline::Settings, file: std::fs::File) {
///     let ready = boot::preflight::Ready { settings, switch_root: file };
///     boot::handover::execute(ready, Ending::default(), &mut Report::default());
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
        Fault::new(Code::HandoverExec, detail)
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
        match explain::denial(&ready.switch_root, ready.policy.certificates()) {
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
