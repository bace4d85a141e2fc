//! Kernel modules of the initramfs, in the order in which the configuration lists them.

use std::path::Path;

use ima::config::Config;
use ima::fault::{Cause, Code, Fault, Stage};
use rustix::io::Errno;

use crate::files::{Initramfs, describe};
use crate::report::Report;

/// MODULE_INIT_COMPRESSED_FILE (include/uapi/linux/module.h): the kernel unpacks it, with the one algorithm it was
/// built with (CONFIG_MODULE_DECOMPRESS).
const COMPRESSED: i32 = 4;

/// Loads the modules.
///
/// # Errors
///
/// [`Code::ModuleUnreadable`], [`Code::ModuleRefused`].
pub fn load(config: &Config, report: &mut Report) -> Result<(), Fault> {
    if config.modules.is_empty() {
        return Ok(());
    }
    let unreadable =
        |what: &str, why: String| Fault::new(Code::ModuleUnreadable, format!("{what}: {why}"));
    let initramfs = Initramfs::open().map_err(|errno| unreadable("/", describe(errno)))?;
    for path in &config.modules {
        let file = initramfs
            .file(Path::new(path))
            .map_err(|error| unreadable(path, error.to_string()))?;
        let compressed = [".gz", ".xz", ".zst"].iter().any(|end| path.ends_with(end));
        let flags = if compressed { COMPRESSED } else { 0 };
        match rustix::system::finit_module(&file, c"", flags) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(refused(path, errno, compressed)),
        }
    }
    report.done(Stage::Modules, &format!("{} loaded", config.modules.len()));
    Ok(())
}

fn refused(path: &str, errno: Errno, compressed: bool) -> Fault {
    let fault = Fault::new(Code::ModuleRefused, format!("{path}: {}", describe(errno)));
    match errno {
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NOEXEC if compressed => {
            fault.because(Cause::MODULE_COMPRESSED)
        }
        Errno::NOEXEC => fault.because(Cause::MODULE_FOREIGN),
        Errno::NOENT => fault.because(Cause::MODULE_SYMBOL),
        Errno::KEYREJECTED | Errno::NOKEY | Errno::BADMSG => fault.because(Cause::MODULE_SIGNATURE),
        _ => fault,
    }
}
