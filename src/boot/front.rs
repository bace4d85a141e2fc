//! In front of another initramfs: once its files are in a tmpfs with their signatures, its own init is executed there under the
//! policy.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::path::Path;

use ima::fault::{Code, Fault, Stage};
use ima::filesystem::TMPFS_MAGIC;
use ima::layout;
use ima::program::{self, FRONTED_INIT};
use log::{info, warn};

use super::policy::PolicyInForce;
use super::preflight::KernelPrograms;
use crate::errno::{Errno, describe};
use crate::files;
use crate::logging;
use crate::report::{Report, milliseconds};
use crate::syscalls;

/// Executes the initramfs's own init, under the policy, with an environment that does not depend on the command line.
///
/// Without the proof that a policy is in force there is no value to call it with:
///
/// ```compile_fail,E0308
/// use ima_init::{boot, report::Report};
/// fn unproved(wanted: boot::policy::Wanted) {
///     let _ = boot::front::execute(&wanted, &mut Report::default());
/// }
/// ```
///
/// ```
/// use ima_init::{boot, report::Report};
/// fn proved(policy: boot::policy::PolicyInForce) {
///     let _ = boot::front::execute(&policy, &mut Report::default());
/// }
/// ```
///
/// # Errors
///
/// [`Code::FrontedInit`], [`Code::FrontedInitDenied`].
pub fn execute(policy: &PolicyInForce, report: &mut Report) -> Result<Infallible, Fault> {
    let path = Path::new(layout::FRONTED_INIT);
    let failed = |errno: Errno| {
        let code = match errno {
            Errno::ACCESS => Code::FrontedInitDenied,
            _ => Code::FrontedInit,
        };
        let detail = format!("{}: {}", path.display(), describe(errno));
        Fault::new(code, detail)
    };
    let root = files::directory(Path::new("/")).map_err(failed)?;
    let programs = KernelPrograms::new(policy, &root, TMPFS_MAGIC, "tmpfs");
    let command = program::fronted_command(&programs, layout::FRONTED_INIT)?;
    // Also the program that the other init executes last. If it were denied then, PID 1 would end and the kernel would panic.
    for path in [command.program.as_slice(), layout::PROGRAM.as_bytes()] {
        program::runs(&programs, path, &FRONTED_INIT, &FRONTED_INIT)?;
    }
    let text = format!("{} and {} may run", path.display(), layout::PROGRAM);
    report.init = layout::FRONTED_INIT.to_owned();
    report.done(Stage::Preflight, &text);
    if let Err(error) = report.keep() {
        warn!("{}: the report could not be kept: {error}", Stage::Handover);
    }
    info!("{}: executing {}", Stage::Handover, path.display());
    info!(
        "{}: after {}",
        Stage::Handover,
        milliseconds(report.elapsed())
    );
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| failed(Errno::INVAL));
    let program = text(&command.program)?;
    let arguments: Vec<CString> = command
        .arguments
        .iter()
        .map(|argument| text(argument))
        .collect::<Result<_, _>>()?;
    let environment = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    logging::restore_limits();
    syscalls::restore_sigpipe();
    let arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
    let errno = syscalls::execute(&program, &arguments, &environment);
    logging::lift_limits();
    Err(failed(errno))
}
