//! The kernel modules that the configuration lists, loaded from the initramfs in that order.

use std::path::Path;

use ima::config::Config;
use ima::fault::{Cause, Code, Fault, Stage};

use crate::errno::{Errno, describe};
use crate::files::Initramfs;
use crate::report::Report;
use crate::watch;

/// MODULE_INIT_COMPRESSED_FILE (include/uapi/linux/module.h): the kernel decompresses the module, with the algorithm that it
/// was built with (CONFIG_MODULE_DECOMPRESS).
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
    watch::during(Stage::Modules, "loading the modules", || load_all(config))?;
    report.done(Stage::Modules, &format!("{} loaded", config.modules.len()));
    Ok(())
}

fn load_all(config: &Config) -> Result<(), Fault> {
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
