//! A boot as a value: kernel, initramfs, root and command line. Tests change one thing and look what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ima::certificate::Certificate;
use ima_testbed::{Bus, Disk, Ending, Machine, Outcome, Running, Tpm};
use imactl::check;
use imactl::initramfs::{Compression, InitramfsBuilder};

use crate::built::{Kernel, PROGRAMS, scratch, source};
use crate::keys::{CA, RSA};
use crate::partitions::{self, Table};
use crate::tree::{Format, Tree};

pub const UUID: &str = "5e1f0e4a-7c1b-4a57-9d0c-8f6f4be2a001";
const UUID_BYTES: [u8; 16] = 0x5e1f_0e4a_7c1b_4a57_9d0c_8f6f_4be2_a001_u128.to_be_bytes();
pub const LABEL: &str = "ima-root";

pub const CERTIFICATE: &str = "etc/keys/x509_ima.der";
pub const DEFAULT_POLICY: &str = "etc/ima/ima_policy.default";
pub const POLICY: &str = "etc/ima/ima_policy";

pub struct Setup {
    pub kernel: Kernel,
    pub trusts_ca: bool,
    pub tpm: Tpm,
    /// ima-init.conf, in lines.
    pub config: Vec<String>,
    /// The other files of the initramfs.
    pub initramfs: BTreeMap<String, Vec<u8>>,
    /// Its modules, by file name, in the order in which they are loaded.
    pub modules: Vec<(String, Vec<u8>)>,
    /// Its programs beside the init, by path.
    pub programs: Vec<(String, Vec<u8>)>,
    pub root: Tree,
    pub format: Format,
    pub table: Table,
    pub bus: Bus,
    pub late: bool,
    pub compression: Compression,
    /// More disks, after the root's.
    pub more_disks: Vec<PathBuf>,
    /// root= on the command line.
    pub root_name: Option<String>,
    pub append: Vec<String>,
}

impl Setup {
    /// A boot that succeeds: everything signed, the default policy, a refusal switches off at once.
    pub fn new() -> Setup {
        let files = [
            (CERTIFICATE, RSA.der()),
            (DEFAULT_POLICY, source("policy/ima_policy.default")),
        ];
        Setup {
            kernel: Kernel::default(),
            trusts_ca: true,
            tpm: Tpm::None,
            config: vec![
                "on_failure=poweroff".to_owned(),
                "failure_delay=0".to_owned(),
            ],
            initramfs: files
                .map(|(path, content)| (path.to_owned(), content))
                .into(),
            modules: Vec::new(),
            programs: Vec::new(),
            root: Tree::small(),
            format: Format::Ext4 {
                uuid: UUID_BYTES,
                label: LABEL,
            },
            table: Table::None,
            bus: Bus::VirtioBlk,
            late: false,
            compression: Compression::None,
            more_disks: Vec::new(),
            root_name: Some("/dev/vda".to_owned()),
            append: Vec::new(),
        }
    }

    /// A file of the initramfs, in the place of the one that is there.
    pub fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.initramfs.insert(path.to_owned(), content.into());
    }

    pub fn drop_file(&mut self, path: &str) {
        self.initramfs
            .remove(path)
            .unwrap_or_else(|| panic!("{path} is not in the initramfs"));
    }

    /// A line of the configuration; one with the same key gives way.
    pub fn configure(&mut self, line: &str) {
        let key = line.split('=').next().unwrap_or(line);
        self.config
            .retain(|have| have.split('=').next() != Some(key));
        self.config.push(line.to_owned());
    }

    pub fn append(&mut self, parameters: &str) {
        self.append.push(parameters.to_owned());
    }

    /// The initramfs, as `imactl` makes it.
    fn builder(&self) -> InitramfsBuilder {
        let mut builder = InitramfsBuilder::new()
            .init(PROGRAMS.init.as_slice())
            .config(self.config.join("\n") + "\n")
            .compression(self.compression);
        for (path, content) in &self.initramfs {
            builder = builder.file(path, 0o644, content.as_slice());
        }
        for (path, content) in &self.programs {
            builder = builder.file(path, 0o755, content.as_slice());
        }
        for (name, content) in &self.modules {
            builder = builder.module(name, content.as_slice());
        }
        builder
    }

    /// The code with which `imactl` refuses to make this initramfs, before any machine has seen it.
    pub fn refused_on_the_desk(&self) -> Option<&'static str> {
        self.builder().check().err().map(|fault| fault.code().id())
    }

    /// The code of what `imactl check` says the init will refuse, from the images alone; not for a root on btrfs,
    /// which is not read without mounting it.
    pub fn checked(&self) -> Option<&'static str> {
        let image = self.root.image(&self.format);
        let initramfs = self.builder().unchecked().build().expect("an initramfs");
        let source = imactl::image::read(&image).expect("the image's tree");
        let root = check::Root::new(source, imactl::select::FileSystem::default());
        std::fs::remove_file(&image).expect("the image");
        let authorities: Vec<_> = self
            .trusts_ca
            .then(|| Certificate::parse_der(&CA.der()).expect("the CA"))
            .into_iter()
            .collect();
        // As the machine gets it: what is appended may end in init's arguments.
        let mut line: Vec<String> = Vec::new();
        line.extend(self.root_name.iter().map(|name| format!("root={name}")));
        line.extend(self.append.iter().cloned());
        let found = check::check(&check::Inputs {
            initramfs: Some(&InitramfsBuilder::from_image(&initramfs).expect("the initramfs")),
            root: Some(&root),
            kernel: Some(&self.kernel.configuration()),
            authorities: Some(&authorities),
            command_line: Some(&line.join(" ")),
        });
        found.refusal().map(|fault| fault.code().id())
    }

    fn initramfs(&self) -> PathBuf {
        let path = tempfile::NamedTempFile::new_in(scratch())
            .and_then(|file| Ok(file.keep()?.1))
            .expect("an initramfs");
        let archive = self.builder().unchecked().build().expect("an initramfs");
        std::fs::write(&path, archive).expect("an initramfs");
        path
    }

    fn machine(&self) -> (Machine, Vec<PathBuf>) {
        let image = self.root.image(&self.format);
        let disk = partitions::around(&image, self.table);
        let initramfs = self.initramfs();
        let kernel = if self.trusts_ca {
            self.kernel.with_ca()
        } else {
            self.kernel.without_ca()
        };
        let mut attached = Disk::new(&disk).bus(self.bus);
        if self.late {
            attached = attached.late();
        }
        let mut machine = Machine::new(kernel)
            .initramfs(&initramfs)
            .disk(attached)
            .tpm(self.tpm)
            .time_limit(Duration::from_secs(180))
            .signer(|request| Ok(RSA.sign_digest(&request.sha256)));
        for disk in &self.more_disks {
            machine = machine.disk(Disk::new(disk));
        }
        if let Some(name) = &self.root_name {
            machine = machine.append(format!("root={name}"));
        }
        for parameters in &self.append {
            machine = machine.append(parameters);
        }
        (machine, vec![image, disk, initramfs])
    }

    /// Start it, watch it, and give what became of it. Whatever comes to the real init must have passed `imactl check`.
    pub fn boot_with<T>(&self, watch: impl FnOnce(&Running) -> T) -> (T, Outcome) {
        let (machine, files) = self.machine();
        let running = machine.start().expect("the machine starts");
        let seen = watch(&running);
        let outcome = running.finish();
        for file in files {
            // A partitioned disk has an image of its own; otherwise they are the same.
            let _ = std::fs::remove_file(file);
        }
        if outcome.guest_ran() && !matches!(self.format, Format::Btrfs) {
            assert_eq!(self.checked(), None, "imactl check refuses what boots");
        }
        (seen, outcome)
    }

    pub fn boot(&self) -> Outcome {
        self.boot_with(|_| ()).1
    }
}

/// The init's words on the console, for an assertion's message.
pub fn story(outcome: &Outcome) -> String {
    let lines: Vec<&str> = outcome.console.lines().collect();
    let tail = &lines[lines.len().saturating_sub(60)..];
    format!(
        "ended with {}; the console ends with:\n{}",
        outcome.ending,
        tail.join("\n")
    )
}

/// The boot must be refused with this code, its cause and its remedy on the console, end so, and execute nothing of the
/// real root.
pub fn assert_refused(outcome: &Outcome, code: &str, ending: &Ending) {
    let entry = ima::fault::Code::from_id(code)
        .unwrap_or_else(|| panic!("{code} is not in the catalogue"))
        .entry();
    let heading = format!("[{code}] {}", entry.what);
    let Some((_, after)) = outcome.console.split_once(&heading) else {
        panic!("{code} is not on the console: {}", story(outcome));
    };
    let cause = after
        .find("cause: ")
        .unwrap_or_else(|| panic!("no cause: {}", story(outcome)));
    let remedy = after
        .find("remedy: ")
        .unwrap_or_else(|| panic!("no remedy: {}", story(outcome)));
    assert!(cause < remedy, "{}", story(outcome));
    for part in [&after[cause + 7..], &after[remedy + 8..]] {
        let words = part.lines().next().unwrap_or_default().trim();
        assert!(words.len() > 10, "says nothing: “{words}”");
    }
    assert_eq!(outcome.ending, *ending, "{}", story(outcome));
    assert!(
        !outcome.guest_ran(),
        "a program of the root ran: {}",
        story(outcome)
    );
}

/// The boot must reach the root's init, and that must be able to switch the machine off.
pub fn assert_booted(outcome: &Outcome) -> &ima_testbed::report::Report {
    assert_eq!(outcome.ending, Ending::PowerOff, "{}", story(outcome));
    assert_eq!(outcome.garbled, [""; 0]);
    let report = outcome
        .report()
        .unwrap_or_else(|| panic!("the root's init did not report: {}", story(outcome)));
    assert_eq!(report.pid, 1);
    report
}
