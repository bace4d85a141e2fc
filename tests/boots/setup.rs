//! A boot as a value: kernel, initramfs, root and command line. Tests change one thing and look what comes of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ima::certificate::Certificate;
use ima::cpio::{self, Metadata};
use ima_testbed::report::{Mount, Report};
use ima_testbed::{Bus, Disk, Ending, Machine, Outcome, Running, Share, Tpm};
use imactl::check;
use imactl::initramfs::{Compression, InitramfsBuilder};
use imactl::uki::UnifiedKernelImage;

use crate::built::{Kernel, device_tree, scratch, source};
use crate::keys::{CA, Pair, RSA};
use crate::matrix::Action;
use crate::partitions::{self, Table};
use crate::secure_boot::Firmware;
use crate::tree::{Format, INIT, Tree};

pub const UUID: &str = "5e1f0e4a-7c1b-4a57-9d0c-8f6f4be2a001";
const UUID_BYTES: [u8; 16] = 0x5e1f_0e4a_7c1b_4a57_9d0c_8f6f_4be2_a001_u128.to_be_bytes();
pub const LABEL: &str = "ima-root";

pub const CERTIFICATE: &str = "etc/keys/x509_ima.der";
pub const VERITY_CERTIFICATE: &str = "etc/keys/x509_verity.der";
pub const EVM_CERTIFICATE: &str = "etc/keys/x509_evm.der";
pub const EVM_KEY: &str = "etc/keys/evm-trusted.blob";
pub const MASTER_KEY: &str = "etc/keys/kmk-user.blob";
/// How long a machine may run: far longer than it takes where the processors are shared with others.
pub const TIME_LIMIT: Duration = Duration::from_secs(420);

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
    /// The program that the kernel starts.
    pub init: &'static [u8],
    /// Its programs beside the init, by path.
    pub programs: Vec<(String, Vec<u8>)>,
    /// What is unpacked over it: entries of any kind, by path, as an archive behind its own.
    pub over: Vec<(String, Metadata, Vec<u8>)>,
    pub root: Tree,
    pub format: Format,
    /// The root's image, in the place of one made of `root`.
    pub disk: Option<PathBuf>,
    /// The disk in the place of one of the root's image, where that image is encrypted in it.
    pub container: Option<PathBuf>,
    /// The state that the TPM is started with, in the place of new state.
    pub tpm_state: Option<PathBuf>,
    /// What is written into the root's image when it is done: bytes at an offset.
    pub damage: Vec<(usize, Vec<u8>)>,
    /// The length to which the image is cut.
    pub cut: Option<u64>,
    /// The parts of the root's disk that cannot be read, in sectors.
    pub unreadable: Vec<Range<u64>>,
    /// How many bytes the root's disk answers for before it falls silent.
    pub answers: Option<u64>,
    /// What the console must say of it, where the code alone does not show that the fault was met.
    pub says: &'static str,
    pub table: Table,
    pub bus: Bus,
    pub late: bool,
    pub compression: Compression,
    /// Directories of the host.
    pub shares: Vec<Share>,
    /// More disks, after the root's.
    pub more_disks: Vec<PathBuf>,
    /// Whether what the machine writes to the root's disk stays there.
    keeps_writes: bool,
    /// The UEFI firmware that starts kernel, initramfs and command line as a unified kernel image; none where QEMU starts them.
    pub firmware: Option<Firmware>,
    /// root= on the command line.
    pub root_name: Option<String>,
    pub append: Vec<String>,
}

impl Setup {
    /// A boot that succeeds: everything signed, the default policy, a refusal switches off at once.
    pub fn new() -> Setup {
        Setup::on(Kernel::default())
    }

    /// The same on this kernel, with the programs for its processor.
    pub fn on(kernel: Kernel) -> Setup {
        let programs = kernel.programs();
        let files = [
            (CERTIFICATE, RSA.der()),
            (DEFAULT_POLICY, source("policy/ima_policy.default")),
        ];
        Setup {
            kernel,
            trusts_ca: true,
            tpm: Tpm::None,
            config: vec![
                "on_failure=poweroff".to_owned(),
                "failure_delay=0".to_owned(),
                // The commands of the guest program.
                "forward=testbed.*".to_owned(),
                // So that what the policy says of kexec is seen.
                "kexec=yes".to_owned(),
            ],
            initramfs: files
                .map(|(path, content)| (path.to_owned(), content))
                .into(),
            modules: Vec::new(),
            init: &programs.init,
            programs: Vec::new(),
            over: Vec::new(),
            root: Tree::small_of(programs),
            format: Format::Ext4 {
                uuid: UUID_BYTES,
                label: LABEL,
            },
            disk: None,
            container: None,
            tpm_state: None,
            damage: Vec::new(),
            cut: None,
            unreadable: Vec::new(),
            answers: None,
            says: "",
            table: Table::None,
            bus: Bus::VirtioBlk,
            late: false,
            compression: Compression::None,
            shares: Vec::new(),
            more_disks: Vec::new(),
            keeps_writes: false,
            firmware: None,
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

    /// The root gets etc/keys/x509_ima.der, and its init is signed with that key alone.
    pub fn trust_root_s_own(&mut self, key: &Pair) {
        self.root.add("etc/keys/x509_ima.der", 0o644, &key.der());
        let init = self.root.file(INIT).content.clone();
        self.root.add_signed(INIT, 0o755, &init, key);
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
            .init(self.init)
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

    /// The code of what `imactl check` says firmware, kernel or init will refuse, from the images alone; not for a root on btrfs,
    /// which is not read without mounting it.
    pub fn checked(&self) -> Option<&'static str> {
        match self.findings() {
            Ok(found) => found.refusal().map(|fault| fault.code().id()),
            Err(fault) => Some(fault.code().id()),
        }
    }

    /// What `imactl check` finds, or why it cannot read the root.
    pub fn findings(&self) -> imactl::Result<check::Findings> {
        let image = match self.format {
            // Of flash the volumes' contents are checked.
            Format::Ubifs => self.root.image(&Setup::new().format),
            Format::UbiSquashfs => self.root.image(&Format::Squashfs),
            _ => self.image(),
        };
        let disk = partitions::around(&image, self.table);
        let uki = self.unified_kernel_image();
        let uki = uki
            .as_deref()
            .map(|image| UnifiedKernelImage::parse(image).expect("a unified kernel image"));
        let decided_by = self.firmware.as_ref().zip(uki.as_ref());
        let decided_by = decided_by.map(|(firmware, uki)| firmware.decides_by(uki));
        let packed = match &uki {
            Some(uki) => uki.initramfs().expect("the initramfs").to_vec(),
            None => self.packed(),
        };
        let initramfs = InitramfsBuilder::from_image(&packed).expect("the initramfs");
        let line = match &uki {
            Some(uki) => uki.command_line().expect("a command line").to_owned(),
            None => self.command_line(),
        };
        let authorities = if self.trusts_ca {
            vec![Certificate::parse_der(&CA.der()).expect("the CA")]
        } else {
            self.kernel.authorities()
        };
        let configuration = self.kernel.configuration();
        let release = self.kernel.release();
        let inputs = check::Inputs {
            initramfs: Some(&initramfs),
            root: None,
            kernel: Some(&configuration),
            release: release.as_ref(),
            authorities: Some(&authorities),
            owner_keys: decided_by.as_ref().map_or(&[], |by| &by.owner_keys),
            command_line: Some(&line),
            boot_image: uki
                .as_ref()
                .zip(decided_by.as_ref())
                .map(|(image, by)| check::BootImage {
                    image,
                    trusted: by.trusted.as_deref(),
                    revoked: Some(&by.revoked),
                }),
        };
        let choice = check::RootChoice {
            tree: self.more_disks.first().cloned(),
            authorities: inputs.vouching(),
            verity_certificates: inputs.verity_certificates(),
            ..check::RootChoice::new(&initramfs, Some(&line))
        };
        let filesystem = imactl::select::FileSystem::default();
        let configured = |name: &str| self.config.iter().any(|line| line.starts_with(name));
        let read = match self.format {
            Format::Ubifs => crate::flash::checked_root(&image, "ubifs"),
            _ if configured("root=9p:") => crate::flash::checked_root(&image, "9p"),
            _ if configured("root=nfs:") => crate::flash::checked_root(&image, "nfs4"),
            _ if configured("root=virtiofs:") => crate::flash::checked_root(&image, "virtiofs"),
            _ => check::Root::read(&disk, filesystem, &choice),
        };
        let mut files = vec![disk, image];
        files.dedup();
        remove(&files);
        let root = read?;
        Ok(check::check(&check::Inputs {
            root: Some(&root),
            ..inputs
        }))
    }

    /// The unified kernel image, where the firmware starts one.
    pub fn unified_kernel_image(&self) -> Option<Vec<u8>> {
        let firmware = self.firmware.as_ref()?;
        let packed = self.initramfs();
        let image = firmware.image(&self.kernel_image(), &packed, &self.command_line());
        remove(&[packed]);
        Some(image)
    }

    /// The kernel, with the tests' CA or without.
    fn kernel_image(&self) -> PathBuf {
        match self.trusts_ca {
            true => self.kernel.with_ca(),
            false => self.kernel.without_ca(),
        }
    }

    /// The kernel command line; what is appended may end in init's arguments.
    fn command_line(&self) -> String {
        let name = self.root_name.iter().map(|name| format!("root={name}"));
        let line: Vec<String> = name.chain(self.append.iter().cloned()).collect();
        line.join(" ")
    }

    fn initramfs(&self) -> PathBuf {
        let path = tempfile::NamedTempFile::new_in(scratch())
            .and_then(|file| Ok(file.keep()?.1))
            .expect("an initramfs");
        std::fs::write(&path, self.packed()).expect("an initramfs");
        path
    }

    /// The initramfs, right or not, with what is unpacked over it.
    pub fn packed(&self) -> Vec<u8> {
        let mut archive = self.builder().unchecked().build().expect("an initramfs");
        if !self.over.is_empty() {
            let mut more = cpio::Writer::new();
            for (path, metadata, data) in &self.over {
                let written = more.entry(path.as_bytes(), metadata, data);
                written.expect("an entry of an initramfs");
            }
            archive.extend(more.finish());
        }
        archive
    }

    /// The root's image, damaged as it is to be.
    pub fn image(&self) -> PathBuf {
        let path = match &self.disk {
            Some(disk) => {
                let path = crate::media::blank(0);
                std::fs::copy(disk, &path).expect("a copy of the disk");
                path
            }
            None => self.root.image(&self.format),
        };
        let mut file = File::options().write(true).open(&path).expect("the image");
        for (offset, bytes) in &self.damage {
            file.seek(SeekFrom::Start(*offset as u64))
                .and_then(|_| file.write_all(bytes))
                .expect("damage");
        }
        if let Some(length) = self.cut {
            file.set_len(length).expect("a shorter image");
        }
        path
    }

    /// The machine, and the files that it is made of: the root's disk first.
    fn machine(&self) -> (Machine, Vec<PathBuf>) {
        let image = self.image();
        let disk = match &self.container {
            Some(container) => {
                let path = crate::media::blank(0);
                std::fs::copy(container, &path).expect("a copy of the disk");
                path
            }
            None => partitions::around(&image, self.table),
        };
        if self.kernel == Kernel::RaspberryPi {
            // QEMU takes only such lengths for SD cards.
            let card = File::options().write(true).open(&disk).expect("a disk");
            let length = card.metadata().expect("a length").len();
            card.set_len(length.next_power_of_two())
                .expect("an SD card");
        }
        let mut attached = Disk::new(&disk).bus(self.bus);
        if self.late {
            attached = attached.hotplug();
        }
        if self.keeps_writes {
            attached = attached.keep_writes();
        }
        if let Some(bytes) = self.answers {
            attached = attached.hang_after(bytes);
        }
        for sectors in &self.unreadable {
            attached = attached.unreadable(sectors.clone());
        }
        let (machine, others) = self.machine_with(attached);
        // Without a table, the image is the disk.
        let mut files = vec![disk, image];
        files.dedup();
        files.extend(others);
        (machine, files)
    }

    /// The machine with that disk, which keeps what is written to it, and the machine's other files.
    pub fn machine_on(&self, disk: &Path) -> (Machine, Vec<PathBuf>) {
        self.machine_with(Disk::new(disk).keep_writes())
    }

    /// The machine with that disk, and its other files.
    fn machine_with(&self, disk: Disk) -> (Machine, Vec<PathBuf>) {
        let initramfs = self.initramfs();
        let kernel = self.kernel_image();
        let mut files = vec![initramfs.clone()];
        let machine = match &self.firmware {
            None => Machine::new(kernel)
                .architecture(self.kernel.architecture())
                .initramfs(&initramfs)
                .append(self.command_line())
                .disk(disk),
            Some(firmware) => {
                let image = firmware.image(&kernel, &initramfs, &self.command_line());
                let (machine, file) = firmware.machine(&image, disk);
                files.push(file);
                machine
            }
        };
        let machine = match self.kernel {
            Kernel::RaspberryPi => machine.raspberry_pi(device_tree()),
            _ => machine,
        };
        let mut machine = machine
            .tpm(self.tpm)
            .time_limit(TIME_LIMIT)
            .signer(|request| Ok(RSA.sign_digest(&request.sha256)));
        for share in &self.shares {
            machine = machine.share(share.clone());
        }
        if let Some(state) = &self.tpm_state {
            machine = machine.tpm_state(state);
        }
        for disk in &self.more_disks {
            machine = machine.disk(Disk::new(disk));
        }
        (machine, files)
    }

    /// Start it, watch it, and give what became of it. Whatever comes to the real init must have passed `imactl check`.
    pub fn boot_with<T>(&self, watch: impl FnOnce(&Running) -> T) -> (T, Outcome) {
        let (seen, outcome) = self.boot_without_check(watch);
        if outcome.guest_ran() && !matches!(self.format, Format::Btrfs | Format::Filled { .. }) {
            assert_eq!(self.checked(), None, "imactl check refuses what boots");
        }
        (seen, outcome)
    }

    /// The same where `imactl check` looks at another root than the one that is booted in the end.
    pub fn boot_unchecked(&self) -> Outcome {
        self.boot_without_check(|_| ()).1
    }

    /// The same, watched.
    pub fn boot_without_check<T>(&self, watch: impl FnOnce(&Running) -> T) -> (T, Outcome) {
        let (machine, files) = self.machine();
        let running = machine.start().expect("the machine starts");
        let seen = watch(&running);
        let outcome = running.finish();
        remove(&files);
        (seen, outcome)
    }

    /// Start it, watch it, and take its power away.
    pub fn boot_and_kill<T>(&self, watch: impl FnOnce(&Running) -> T) -> (T, Outcome) {
        let (machine, files) = self.machine();
        let running = machine.start().expect("the machine starts");
        let seen = watch(&running);
        let outcome = running.kill();
        remove(&files);
        (seen, outcome)
    }

    pub fn boot(&self) -> Outcome {
        self.boot_with(|_| ()).1
    }

    /// Start it with a disk that keeps what is written to it, and give what became of it, the disk as it was and the disk as
    /// it is then. Both files are the caller's.
    pub fn boot_on_a_disk(&mut self) -> (Outcome, [PathBuf; 2]) {
        self.keeps_writes = true;
        let (machine, files) = self.machine();
        let (disk, others) = files.split_first().expect("a disk");
        let before = disk.with_extension("before");
        std::fs::copy(disk, &before).expect("a copy of the disk");
        let outcome = machine.start().expect("the machine starts").finish();
        remove(others);
        (outcome, [before, disk.clone()])
    }
}

fn remove(files: &[PathBuf]) {
    for file in files {
        std::fs::remove_file(file).expect("a file of the machine");
    }
}

/// The init's words on the console, for an assertion's message.
pub fn console_tail(outcome: &Outcome) -> String {
    let lines: Vec<&str> = outcome.console.lines().collect();
    let tail = &lines[lines.len().saturating_sub(60)..];
    format!(
        "ended with {}; the console ends with:\n{}",
        outcome.ending,
        tail.join("\n")
    )
}

/// The root's file system has no `security.ima`: the init warns of it, and refuses what has no signature then.
pub fn assert_no_signatures(outcome: &Outcome) {
    assert!(
        outcome.console_contains("[IMA-451]"),
        "{}",
        console_tail(outcome)
    );
    assert_refused(outcome, "IMA-704", Action::Poweroff);
}

/// The boot must be refused with this code, its cause and its remedy on the console, end so, and execute nothing of the
/// real root.
pub fn assert_refused(outcome: &Outcome, code: &str, action: Action) {
    let entry = ima::fault::Code::from_id(code)
        .unwrap_or_else(|| panic!("{code} is not in the catalogue"))
        .entry();
    let heading = format!("refused: [{code}] {}", entry.what);
    let Some((_, after)) = outcome.console.split_once(&heading) else {
        panic!("{code} is not on the console: {}", console_tail(outcome));
    };
    let cause = after
        .find("cause: ")
        .unwrap_or_else(|| panic!("no cause: {}", console_tail(outcome)));
    let remedy = after
        .find("remedy: ")
        .unwrap_or_else(|| panic!("no remedy: {}", console_tail(outcome)));
    assert!(cause < remedy, "{}", console_tail(outcome));
    for part in [&after[cause + 7..], &after[remedy + 8..]] {
        let words = part.lines().next().unwrap_or_default().trim();
        assert!(words.len() > 10, "says nothing: “{words}”");
    }
    assert!(action.is(&outcome.ending), "{}", console_tail(outcome));
    assert!(
        !outcome.guest_ran(),
        "a program of the root ran: {}",
        console_tail(outcome)
    );
}

/// The boot must reach the root's init, and that must be able to switch the machine off.
pub fn assert_booted(outcome: &Outcome) -> &Report {
    assert_eq!(
        outcome.ending,
        Ending::PowerOff,
        "{}",
        console_tail(outcome)
    );
    assert_eq!(outcome.invalid_messages, [""; 0]);
    let report = outcome
        .report()
        .unwrap_or_else(|| panic!("the root's init did not report: {}", console_tail(outcome)));
    assert_eq!(report.pid, 1);
    report
}

/// What is mounted as the root, as the real init sees it.
pub fn root_of(report: &Report) -> &Mount {
    let mut mounts = report.mounts.iter();
    mounts.find(|mount| mount.point == "/").expect("a root")
}

/// Where the file on an image begins that has this content.
pub fn place_of(image: &Path, content: &[u8]) -> usize {
    let image = std::fs::read(image).expect("the image");
    let mut blocks = image.chunks_exact(4096);
    let block = blocks.position(|block| content.starts_with(block));
    block.expect("the content") * 4096
}

/// Replaces bytes of a file.
pub fn overwrite(path: &Path, place: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.write_all_at(bytes, place))
        .expect("a change");
}
