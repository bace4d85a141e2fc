//! What to boot: the configuration in the initramfs, and what it lets the kernel command line say.

use std::path::Path;

use ima::config::{self, Config, Enforce};
use ima::fault::{Code, Fault, Stage};
use ima::settings::Settings;

use super::start::Start;
use crate::failure::{self, Ending};
use crate::files;
use crate::report::Report;

/// Where the kernel shows its command line.
const LINE: &str = "/proc/cmdline";

/// Reads the configuration, then the command line. The ending is known as soon as the configuration is.
///
/// # Errors
///
/// `ConfigUnreadable`, `ConfigInvalid`, `CmdlineInvalid`, `RootSyntax`, `NoRootNamed`.
pub fn settings(
    start: &Start,
    ending: &mut Ending,
    report: &mut Report,
) -> Result<Settings, Fault> {
    let config = configuration()?;
    *ending = Ending::of(&config);
    failure::catch_panics(*ending);
    report.enforce = match config.enforce {
        Enforce::Required => "required",
        Enforce::Permissive => "permissive",
    };
    let line = std::fs::read(LINE).map_err(|error| {
        Fault::new(Code::CmdlineInvalid, format!("{LINE}: {error}"))
            .cause("the kernel does not show its command line, and so not what to boot")
            .remedy("see the kernel's messages above; try again")
    })?;
    let arguments = start.arguments().to_vec();
    let mut warn = |fault| report.warn(fault);
    let settings = match start.root() {
        None => Settings::merge(config, &line, arguments, &mut warn)?,
        Some(root) => Settings::inside(config, &line, root, arguments, &mut warn)?,
    };
    let text = format!(
        "root {}, init {}, enforcement {}",
        settings.root, settings.init, report.enforce
    );
    report.done(Stage::Configuration, &text);
    Ok(settings)
}

fn configuration() -> Result<Config, Fault> {
    let unreadable =
        |why: String| Fault::new(Code::ConfigUnreadable, format!("{}: {why}", config::PATH));
    let initramfs = files::directory(Path::new("/")).map_err(|e| unreadable(files::describe(e)))?;
    let text = match files::open_in(&initramfs, Path::new(config::PATH)) {
        Ok(file) => {
            files::read(&file, config::MAX_CONFIG).map_err(|e| unreadable(e.to_string()))?
        }
        Err(files::OpenError::Missing(_)) => Vec::new(),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    Config::parse(&text)
        .map_err(|error| Fault::new(Code::ConfigInvalid, format!("{}: {error}", config::PATH)))
}
