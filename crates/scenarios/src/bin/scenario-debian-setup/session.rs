//! One boot of the system with a person logged in: what GRUB would start, and commands whose end is judged.

use std::path::Path;
use std::time::{Duration, Instant};

use ima_testbed::{Disk, Ending, Machine, Person, Said};

use crate::{Error, Options, grub};

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

/// A boot with root logged in.
pub struct Session {
    person: Person,
    /// The kernel's command line, without the console that the machine adds.
    pub command_line: String,
    /// The release of the kernel that GRUB would start.
    pub release: String,
    started: Instant,
}

impl Session {
    /// Boots what GRUB would, and logs in.
    pub fn start(options: &Options) -> Result<Session, Error> {
        let image = &options.disk;
        let files = tempfile::tempdir()?;
        let entry = match grub::read(image, "/boot/grub/grub.cfg")? {
            Some(text) => grub::first_entry(&text)?,
            None => installed_first(image)?,
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
        if options.verbose {
            machine = machine.tee();
        }
        let started = Instant::now();
        // QEMU has read both files once it runs.
        let person = Person::log_in(machine.start()?, "root", ROOT_PASSWORD, BOOT)?;
        let mut session = Session {
            person,
            command_line: entry.command_line,
            release: entry.kernel.trim_start_matches("/boot/vmlinuz-").to_owned(),
            started,
        };
        // The kernel's messages would get between the lines; they stay in its log.
        session.must(
            "dmesg --console-off; export SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 TERM=dumb LC_ALL=C",
        )?;
        Ok(session)
    }

    /// Since power-on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Types a command and waits for its end, whatever its status.
    pub fn run(&mut self, command: &str) -> Result<Said, Error> {
        Ok(self.person.run(command, SHORT)?)
    }

    /// The same for one that takes longer.
    pub fn run_long(&mut self, command: &str) -> Result<Said, Error> {
        Ok(self.person.run(command, LONG)?)
    }

    /// Types a command that must succeed; gives its output.
    pub fn must(&mut self, command: &str) -> Result<String, Error> {
        good(self.run(command)?)
    }

    /// The same for one that takes longer.
    pub fn must_long(&mut self, command: &str) -> Result<String, Error> {
        good(self.run_long(command)?)
    }

    /// Types a command that must succeed and whose output must have this text.
    pub fn must_say(&mut self, command: &str, text: &str) -> Result<String, Error> {
        let output = self.must(command)?;
        if output.contains(text) {
            Ok(output)
        } else {
            Err(format!("“{command}” does not say “{text}”:\n{output}").into())
        }
    }

    /// Types a command that must end with this status and whose output must have this text.
    pub fn must_fail(&mut self, command: &str, status: u32, text: &str) -> Result<String, Error> {
        let said = self.run_long(command)?;
        if said.status == status && said.says(text) {
            Ok(said.output)
        } else {
            Err(format!(
                "“{command}” must end with status {status} and say “{text}”; its status is {}:\n{}",
                said.status, said.output
            )
            .into())
        }
    }

    /// Types a command that asks; each question with its answer, in order. Gives all that it said.
    pub fn asked(&mut self, command: &str, answers: &[(&str, &str)]) -> Result<Said, Error> {
        self.person.start(command, SHORT)?;
        let mut all = String::new();
        for (question, answer) in answers {
            all.push_str(&self.person.see(question, LONG)?);
            self.person.type_line(answer)?;
        }
        let mut said = self.person.end(command, LONG)?;
        all.push_str(&said.output);
        said.output = all.replace('\r', "");
        Ok(said)
    }

    /// Switches the system off as a person does, and keeps the console if that is wanted.
    pub fn switch_off(self, console: Option<&Path>) -> Result<(), Error> {
        let outcome = self.person.leave("systemctl poweroff")?;
        if let Some(path) = console {
            std::fs::write(path, &outcome.console)?;
        }
        if outcome.ending == Ending::PowerOff {
            return Ok(());
        }
        let lines: Vec<&str> = outcome.console.lines().collect();
        let tail = lines.len().saturating_sub(25);
        Err(format!(
            "switched off, the machine ended with: {}; the console ends with:\n{}",
            outcome.ending,
            lines[tail..].join("\n")
        )
        .into())
    }
}

/// What an installation of Debian starts before update-grub has run once.
fn installed_first(image: &Path) -> Result<grub::Entry, Error> {
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

/// The output of a command that must have succeeded.
pub fn good(said: Said) -> Result<String, Error> {
    if said.status == 0 {
        return Ok(said.output);
    }
    Err(format!(
        "“{}” ended with status {}:\n{}",
        said.command, said.status, said.output
    )
    .into())
}
