//! The configuration in the initramfs and what it allows on the kernel command line; and the command line that userspace sees.

use std::io::Write as _;
use std::path::Path;

use ima::config::{self, Config};
use ima::fault::{Cause, Code, Fault, Stage};
use ima::layout;
use ima::settings::Settings;
use log::info;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use super::start::Start;
use crate::errno::{Errno, describe, from_io};
use crate::failure::{self, Ending};
use crate::features;
use crate::files::{self, Initramfs};
use crate::kernel_files;
use crate::report::Report;

/// For file systems that hold no programs.
const CLOSED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Reads the configuration, then the command line. The ending is known as soon as the configuration is.
///
/// # Errors
///
/// [`Code::ConfigUnreadable`], [`Code::ConfigInvalid`], [`Code::CmdlineInvalid`], [`Code::RootSyntax`],
/// [`Code::NoRootNamed`], [`Code::FeatureMissing`].
pub fn read(start: &Start, ending: &mut Ending, report: &mut Report) -> Result<Settings, Fault> {
    let config = configuration()?;
    *ending = Ending::of(&config);
    // After a panic nothing is measured, so no shell is started where a refusal is to be.
    failure::catch_panics(match config.measure_pcr {
        Some(_) => ending.without_shell(),
        None => *ending,
    });
    report.enforce = config.enforce;
    let line = layout::command_line(kernel_files::read).map_err(|errno| {
        Fault::new(
            Code::CmdlineInvalid,
            format!("{}: {}", layout::COMMAND_LINE, describe(errno)),
        )
        .because(Cause::COMMAND_LINE_UNREADABLE)
    })?;
    let arguments = start.arguments().to_vec();
    let mut warn = |fault| report.warn(fault);
    let settings = match (start, start.root()) {
        (Start::Front, _) => Settings::in_front(config, &line, &mut warn)?,
        (_, None) => Settings::merge(config, &line, arguments, &mut warn)?,
        (_, Some(root)) => Settings::inside(config, &line, root, arguments, &mut warn)?,
    };
    settings.features().try_for_each(features::require)?;
    let text = format!(
        "root {}, init {}, enforcement {}",
        settings.root,
        settings.init,
        report.enforce.name()
    );
    report.done(Stage::Configuration, &text);
    Ok(settings)
}

/// Mounts the filtered command line over `/proc/cmdline`, before any other program reads it. Root, and nobody else, can still
/// read the whole one at [`layout::TRUE_COMMAND_LINE`], in a second proc without anything mounted over its files. The kernel
/// requires such a proc too before it lets an unprivileged container mount its own (fs/namespace.c, `mnt_already_visible`).
///
/// # Errors
///
/// [`Code::CmdlineExposed`].
pub fn hide_command_line(settings: &Settings, report: &mut Report) -> Result<(), Fault> {
    let forwarded = &settings.forwarded;
    mount_over(&forwarded.line).map_err(|(what, errno)| {
        Fault::new(Code::CmdlineExposed, format!("{what}: {}", describe(errno)))
    })?;
    if !forwarded.withheld.is_empty() {
        info!(
            "{}: hidden from userspace: {}",
            Stage::Configuration,
            forwarded.withheld.join(" ")
        );
    }
    report.command_line = forwarded.clone();
    Ok(())
}

/// Mounts a file with this line over `/proc/cmdline`. The file is on its own tmpfs, read-only, and afterwards nothing but
/// the file is mounted of it, so that nobody can write to it.
fn mount_over(line: &str) -> Result<(), (&'static str, Errno)> {
    let private = Path::new(layout::PRIVATE);
    let proc = private.join("proc");
    let copies = private.join("cmdline");
    let at = |what: &'static str| move |errno| (what, errno);
    let directory = |path: &Path, mode| match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err((layout::PRIVATE, errno)),
    };
    if let Some(above) = private.parent() {
        directory(above, 0o755)?;
    }
    directory(private, 0o700)?;
    directory(&proc, 0o555)?;
    directory(&copies, 0o700)?;
    mount("proc", &proc, "proc", CLOSED, c"").map_err(at("a second proc"))?;
    let options = c"mode=0755,size=128k,nr_inodes=4";
    mount("tmpfs", &copies, "tmpfs", CLOSED, options).map_err(at("a tmpfs for the copy"))?;
    let copy = copies.join("cmdline");
    std::fs::File::create(&copy)
        .and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.write_all(b"\n")
        })
        .map_err(|error| from_io(&error))
        .map_err(at("the copy"))?;
    mount_bind(&copy, layout::COMMAND_LINE).map_err(at("the copy on /proc/cmdline"))?;
    // The flags of a bind mount can be changed only by a second call (mount(2)). Then the file system itself becomes read-only,
    // and is unmounted from where it was made.
    mount_remount(
        layout::COMMAND_LINE,
        MountFlags::BIND | MountFlags::RDONLY | CLOSED,
        "",
    )
    .map_err(at("/proc/cmdline, read-only"))?;
    mount_remount(&copies, MountFlags::RDONLY | CLOSED, "").map_err(at("the copy, read-only"))?;
    unmount(&copies, UnmountFlags::DETACH).map_err(at("unmounting the copy's tmpfs"))?;
    let _ = rustix::fs::rmdir(&copies);
    // What other programs will read.
    match kernel_files::read(layout::COMMAND_LINE) {
        Ok(seen) if seen.strip_suffix(b"\n") == Some(line.as_bytes()) => Ok(()),
        Ok(_) => Err(("/proc/cmdline shows another line", Errno::IO)),
        Err(errno) => Err(("/proc/cmdline", errno)),
    }
}

/// Reads the configuration file; the defaults without one.
fn configuration() -> Result<Config, Fault> {
    let unreadable =
        |why: String| Fault::new(Code::ConfigUnreadable, format!("{}: {why}", config::PATH));
    let initramfs = Initramfs::open().map_err(|e| unreadable(describe(e)))?;
    let text = match initramfs.file(Path::new(config::PATH)) {
        Ok(file) => {
            files::read(&file, config::MAX_CONFIG).map_err(|e| unreadable(e.to_string()))?
        }
        Err(files::OpenError::Missing(_)) => Vec::new(),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    Config::parse(&text)
        .map_err(|error| Fault::new(Code::ConfigInvalid, format!("{}: {error}", config::PATH)))
}
