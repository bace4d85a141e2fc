//! One boot of the system with root logged in on the serial console, and commands whose results are checked.

use std::path::Path;
use std::time::{Duration, Instant};

use ima_testbed::{CommandOutput, Disk, Ending, Machine, SerialConsole};

use crate::{Error, grub};

/// Root's password in the system.
pub const ROOT_PASSWORD: &str = "root of the test";

/// From power-on to the login prompt, under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(300);
/// A command that does little.
const SHORT: Duration = Duration::from_secs(120);
/// One that installs, signs or makes an initramfs.
pub const LONG: Duration = Duration::from_secs(900);
/// All of one boot.
const MACHINE: Duration = Duration::from_secs(1800);

/// A boot of the system with root logged in on the serial console.
pub struct Session {
    serial: SerialConsole,
    /// The kernel's command line, without the console that the machine adds.
    pub command_line: String,
    /// The release of the kernel that GRUB would start.
    pub release: String,
    started: Instant,
}

impl Session {
    /// Boots what GRUB would, and logs in.
    pub fn start(image: &Path, verbose: bool) -> Result<Session, Error> {
        let files = tempfile::tempdir()?;
        let entry = match grub::read(image, "/boot/grub/grub.cfg")? {
            Some(text) => grub::first_entry(&text)?,
            None => entry_without_grub(image)?,
        };
        let (kernel, initramfs) = (files.path().join("kernel"), files.path().join("initramfs"));
        grub::take(image, &entry.kernel, &kernel)?;
        grub::take(image, &entry.initramfs, &initramfs)?;
        let mut machine = Machine::new(kernel)
            .initramfs(initramfs)
            .append(&entry.command_line)
            // Where the host is so busy that an emulated timer is late, the kernel would panic: "IO-APIC + timer doesn't work".
            .append("no_timer_check")
            .disk(Disk::new(image).keep_writes())
            .memory_mib(2048)
            .cpus(2)
            // A network of its own, from which nothing leads out.
            .qemu_argument("-nic")
            .qemu_argument("user,restrict=on,model=virtio-net-pci")
            .time_limit(MACHINE);
        if verbose {
            machine = machine.tee();
        }
        let started = Instant::now();
        // QEMU has read both files once it runs.
        let serial = SerialConsole::log_in(machine.start()?, "root", ROOT_PASSWORD, BOOT)?;
        let mut session = Session {
            serial,
            command_line: entry.command_line,
            release: entry.kernel.trim_start_matches("/boot/vmlinuz-").to_owned(),
            started,
        };
        // The kernel's messages would get between the lines; they stay in its log.
        session.expect_success(
            "dmesg --console-off; export SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 TERM=dumb LC_ALL=C",
        )?;
        Ok(session)
    }

    /// Returns the time since power-on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs a command, whatever its exit status.
    pub fn run(&mut self, command: &str) -> Result<CommandOutput, Error> {
        Ok(self.serial.run(command, SHORT)?)
    }

    /// Runs a command that takes long, whatever its exit status.
    pub fn run_long(&mut self, command: &str) -> Result<CommandOutput, Error> {
        Ok(self.serial.run(command, LONG)?)
    }

    /// Runs a command that must succeed, and returns its output.
    pub fn expect_success(&mut self, command: &str) -> Result<String, Error> {
        succeeded(self.run(command)?)
    }

    /// Runs a command that takes long and must succeed, and returns its output.
    pub fn expect_success_long(&mut self, command: &str) -> Result<String, Error> {
        succeeded(self.run_long(command)?)
    }

    /// Runs a command that must succeed and whose output must contain this text. Returns the output.
    pub fn expect_output(&mut self, command: &str, text: &str) -> Result<String, Error> {
        let output = self.expect_success(command)?;
        if output.contains(text) {
            Ok(output)
        } else {
            Err(format!("the output of “{command}” does not contain “{text}”:\n{output}").into())
        }
    }

    /// Runs a command that must exit with this status and whose output must contain this text. Returns the output.
    pub fn expect_failure(
        &mut self,
        command: &str,
        status: u32,
        text: &str,
    ) -> Result<String, Error> {
        let output = self.run_long(command)?;
        if output.status == status && output.contains(text) {
            Ok(output.output)
        } else {
            Err(format!(
                "“{command}” must exit with status {status} and print “{text}”; it exited with status {}:\n{}",
                output.status, output.output
            )
            .into())
        }
    }

    /// Runs a command that asks questions, and answers each in order. Returns all of its output.
    pub fn run_with_answers(
        &mut self,
        command: &str,
        answers: &[(&str, &str)],
    ) -> Result<CommandOutput, Error> {
        self.serial.start(command, SHORT)?;
        let mut all = String::new();
        for (question, answer) in answers {
            all.push_str(&self.serial.wait_for(question, LONG)?);
            self.serial.send_line(answer)?;
        }
        let mut output = self.serial.wait_for_exit(command, LONG)?;
        all.push_str(&output.output);
        output.output = all.replace('\r', "");
        Ok(output)
    }

    /// Switches the system off with systemctl, and saves the console to this file.
    pub fn power_off(self, console: Option<&Path>) -> Result<(), Error> {
        let outcome = self.serial.finish("systemctl poweroff")?;
        if let Some(path) = console {
            std::fs::write(path, &outcome.console)?;
        }
        if outcome.ending == Ending::PowerOff {
            return Ok(());
        }
        let lines: Vec<&str> = outcome.console.lines().collect();
        let tail = lines.len().saturating_sub(25);
        Err(format!(
            "the machine must power off; it ended with: {}; the console ends with:\n{}",
            outcome.ending,
            lines[tail..].join("\n")
        )
        .into())
    }
}

/// Returns what a fresh installation of Debian starts, before update-grub has run.
fn entry_without_grub(image: &Path) -> Result<grub::Entry, Error> {
    let names = grub::names(image, "/boot")?;
    let release = names
        .iter()
        .find_map(|name| name.strip_prefix("vmlinuz-"))
        .ok_or("the image has no /boot/vmlinuz-RELEASE")?;
    Ok(grub::Entry {
        kernel: format!("/boot/vmlinuz-{release}"),
        initramfs: format!("/boot/initrd.img-{release}"),
        command_line: "root=/dev/vda ro quiet".to_owned(),
    })
}

/// Returns the output of a command that must have succeeded.
pub fn succeeded(output: CommandOutput) -> Result<String, Error> {
    if output.success() {
        return Ok(output.output);
    }
    Err(format!(
        "“{}” exited with status {}:\n{}",
        output.command, output.status, output.output
    )
    .into())
}
