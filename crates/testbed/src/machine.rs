use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::{Running, TestbedError};

/// Whether the machine has a TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tpm {
    /// None at all.
    #[default]
    None,
    /// A TPM 2.0 of swtpm behind `tpm-tis`, new with each start.
    Swtpm,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM if a machine started with it shows the kernel's first line within seconds, else TCG. The answer is remembered
    /// for the process. `IMA_TESTBED_ACCEL=kvm` or `tcg` in the environment says it without trying.
    #[default]
    Auto,
    /// KVM, without trying it first.
    Kvm,
    /// QEMU's translator: works everywhere.
    Tcg,
    /// TCG that counts instructions (`-icount shift=0,sleep=off`): guest times hardly differ from run to run, for
    /// measuring.
    TcgCounting,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// /dev/vdX, a PCI device of its own.
    #[default]
    VirtioBlk,
    /// /dev/sdX on a controller that is there from the start.
    VirtioScsi,
}

/// A raw disk image.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) bus: Bus,
    pub(crate) serial: Option<String>,
    pub(crate) read_only: bool,
    pub(crate) snapshot: bool,
    pub(crate) late: bool,
    pub(crate) unreadable: Vec<Range<u64>>,
    pub(crate) answers: Option<u64>,
}

impl Disk {
    /// The image at `path`, there from the start. What the guest writes goes to a temporary file and is lost, so that
    /// machines can share an image.
    pub fn new(path: impl AsRef<Path>) -> Disk {
        Disk {
            path: path.as_ref().to_owned(),
            bus: Bus::default(),
            serial: None,
            read_only: false,
            snapshot: true,
            late: false,
            unreadable: Vec::new(),
            answers: None,
        }
    }

    /// How it is attached.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Disk {
        self.bus = bus;
        self
    }

    /// Its serial number, of at most 20 bytes: /sys/block/vdX/serial.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Disk {
        self.serial = Some(serial.into());
        self
    }

    /// The device refuses writes.
    #[must_use]
    pub fn read_only(mut self) -> Disk {
        self.read_only = true;
        self
    }

    /// What the guest writes goes to the image itself. It is not waited until it is on the host's medium: that is lost only
    /// with the host.
    #[must_use]
    pub fn keep_writes(mut self) -> Disk {
        self.snapshot = false;
        self
    }

    /// Reading these sectors (of 512 bytes) fails, as of a bad medium; up to `u64::MAX`, reading anything does. Said again, more
    /// do.
    #[must_use]
    pub fn unreadable(mut self, sectors: Range<u64>) -> Disk {
        self.unreadable.push(sectors);
        self
    }

    /// Requests to the device hang forever once this many bytes have been read or written. QEMU can still end, and the guest can
    /// still reset the device.
    #[must_use]
    pub fn hang_after(mut self, bytes: u64) -> Disk {
        self.answers = Some(bytes);
        self
    }

    /// The image as the options of `-drive`.
    fn drive(&self) -> String {
        let path = escape(&self.path);
        if self.unreadable.is_empty() {
            return format!("format=raw,file={path}");
        }
        let mut text = format!(
            "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={path}"
        );
        // A rule is of one sector or of all; the guest reads pages, of eight.
        let sectors = self.unreadable.iter().flat_map(|range| {
            let all = range.end == u64::MAX;
            let each = range.clone().step_by(8).map(Some);
            all.then_some(None)
                .into_iter()
                .chain(each.take_while(move |_| !all))
        });
        for (number, sector) in sectors.enumerate() {
            let mut rule = |option: &str| {
                text.push_str(&format!(",file.inject-error.{number}.{option}"));
            };
            for option in ["event=none", "iotype=read", "errno=5"] {
                rule(option);
            }
            if let Some(sector) = sector {
                rule(&format!("sector={sector}"));
            }
        }
        text
    }

    /// A byte a second, once as many as it answers are through.
    fn throttling(&self) -> String {
        self.answers
            .map(|bytes| format!(",throttling.bps-total=1,throttling.bps-total-max={bytes}"))
            .unwrap_or_default()
    }

    /// It is not there until [`Running::plug`] attaches it.
    #[must_use]
    pub fn late(mut self) -> Disk {
        self.late = true;
        self
    }
}

/// What a guest asks the host to sign: a file it has just made.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// The file's path in the guest.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

type Signer = Arc<dyn Fn(&SignRequest) -> Result<Vec<u8>, String> + Send + Sync>;

/// What a machine is made of. A value: it can be cloned, changed and started as often as wanted.
#[derive(Clone)]
pub struct Machine {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: Option<PathBuf>,
    pub(crate) append: Vec<String>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) tpm: Tpm,
    pub(crate) accel: Accel,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) extra: Vec<String>,
    pub(crate) time_limit: Duration,
    pub(crate) tee: bool,
    pub(crate) signer: Option<Signer>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("kernel", &self.kernel)
            .field("initramfs", &self.initramfs)
            .field("append", &self.append)
            .field("disks", &self.disks)
            .field("tpm", &self.tpm)
            .field("accel", &self.accel)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine (q35, one CPU, 512 MiB, serial console, no TPM, no disk, at most two minutes) with this bzImage. An ELF
    /// `vmlinux` does not do: QEMU then puts the initramfs over the ACPI tables, and the guest finds no TPM.
    pub fn new(kernel: impl AsRef<Path>) -> Machine {
        Machine {
            kernel: kernel.as_ref().to_owned(),
            initramfs: None,
            append: Vec::new(),
            disks: Vec::new(),
            tpm: Tpm::default(),
            accel: Accel::default(),
            memory_mib: 512,
            cpus: 1,
            extra: Vec::new(),
            time_limit: Duration::from_secs(120),
            tee: false,
            signer: None,
        }
    }

    /// The initramfs.
    #[must_use]
    pub fn initramfs(mut self, path: impl AsRef<Path>) -> Machine {
        self.initramfs = Some(path.as_ref().to_owned());
        self
    }

    /// One disk more. Those there from the start come in this order: the first is /dev/vda, or /dev/sda of its bus.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Machine {
        self.disks.push(disk);
        self
    }

    /// Whether there is a TPM.
    #[must_use]
    pub fn tpm(mut self, tpm: Tpm) -> Machine {
        self.tpm = tpm;
        self
    }

    /// More of the kernel command line. `console=ttyS0 no_timer_check` is there already.
    #[must_use]
    pub fn append(mut self, parameters: impl Into<String>) -> Machine {
        self.append.push(parameters.into());
        self
    }

    /// What executes the guest's instructions.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Machine {
        self.accel = accel;
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Machine {
        self.memory_mib = mib;
        self
    }

    /// Number of CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Machine {
        self.cpus = cpus;
        self
    }

    /// One more argument of QEMU, as it stands.
    #[must_use]
    pub fn qemu_argument(mut self, argument: impl Into<String>) -> Machine {
        self.extra.push(argument.into());
        self
    }

    /// How long the machine may run before it is killed; every wait ends by then.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Machine {
        self.time_limit = limit;
        self
    }

    /// Copy the console to our standard error as it comes.
    #[must_use]
    pub fn tee(mut self) -> Machine {
        self.tee = true;
        self
    }

    /// Who answers when the guest program asks for a signature of a file it has made: the value for its security.ima.
    #[must_use]
    pub fn signer(
        mut self,
        sign: impl Fn(&SignRequest) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Machine {
        self.signer = Some(Arc::new(sign));
        self
    }

    /// Start it.
    ///
    /// # Errors
    /// A file or program that is missing, or QEMU's refusal of the machine. The guest has not run then.
    pub fn start(&self) -> Result<Running, TestbedError> {
        let files = [
            ("kernel", Some(&self.kernel)),
            ("initramfs", self.initramfs.as_ref()),
        ]
        .into_iter()
        .filter_map(|(what, path)| Some((what, path?)))
        .chain(self.disks.iter().map(|disk| ("disk", &disk.path)));
        for (what, path) in files {
            std::fs::metadata(path).map_err(|source| TestbedError::Missing {
                what,
                path: path.clone(),
                source,
            })?;
        }
        Running::start(self)
    }

    /// The arguments of QEMU, for sockets in `directory`.
    pub(crate) fn arguments(&self, directory: &Path, tpm: Option<&Path>) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        let socket = |id: &str| {
            format!(
                "socket,id={id},path={}",
                escape(&directory.join(format!("{id}.socket")))
            )
        };

        add("-machine", "q35".into());
        match resolve(self.accel, &self.kernel) {
            Accel::Kvm => add("-accel", "kvm".into()),
            Accel::TcgCounting => {
                add("-accel", "tcg".into());
                add("-icount", "shift=0,sleep=off".into());
            }
            Accel::Tcg | Accel::Auto => add("-accel", "tcg".into()),
        }
        add("-cpu", "max".into());
        add("-smp", self.cpus.to_string());
        add("-m", format!("{}M", self.memory_mib));
        add("-display", "none".into());
        // A reset ends QEMU, as switching off does; its events say which it was.
        add(
            "-action",
            "reboot=shutdown,shutdown=poweroff,panic=none".into(),
        );
        add("-chardev", socket("qmp"));
        add("-mon", "chardev=qmp,mode=control".into());
        add("-chardev", socket("console"));
        add("-serial", "chardev:console".into());
        add("-device", "virtio-rng-pci".into());
        add("-device", "virtio-serial-pci".into());
        add("-chardev", socket("report"));
        add(
            "-device",
            format!("virtserialport,chardev=report,name={}", crate::report::PORT),
        );
        if let Some(tpm) = tpm {
            add("-chardev", format!("socket,id=tpm,path={}", escape(tpm)));
            add("-tpmdev", "emulator,id=tpm,chardev=tpm".into());
            add("-device", "tpm-tis,tpmdev=tpm".into());
        }
        if self.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi) {
            add("-device", "virtio-scsi-pci,id=scsi".into());
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let on = |yes| if yes { "on" } else { "off" };
            add(
                "-drive",
                format!(
                    "if=none,id=disk{number},snapshot={},cache=unsafe,readonly={},{}{}",
                    on(disk.snapshot),
                    on(disk.read_only),
                    disk.drive(),
                    disk.throttling()
                ),
            );
            if disk.late {
                // The root bus of q35 takes no devices later: a port for each that comes.
                if disk.bus == Bus::VirtioBlk {
                    add(
                        "-device",
                        format!(
                            "pcie-root-port,id=port{number},chassis={},slot={}",
                            number + 1,
                            number + 1
                        ),
                    );
                }
            } else {
                let pairs = self.device(number, disk);
                let text: Vec<String> = pairs
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                add("-device", text.join(","));
            }
        }
        add("-kernel", self.kernel.display().to_string());
        if let Some(initramfs) = &self.initramfs {
            add("-initrd", escape(initramfs));
        }
        // The kernel's test whether the timer's interrupts arrive takes the time by a loop, and panics ("IO-APIC + timer
        // doesn't work!") if the host has just given the machine no CPU (arch/x86/kernel/apic/io_apic.c, `check_timer`).
        let mut append = vec!["console=ttyS0".to_owned(), "no_timer_check".to_owned()];
        append.extend(self.append.iter().cloned());
        add("-append", append.join(" "));
        arguments.extend(["-no-user-config", "-nodefaults"].map(str::to_owned));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// The device of a disk, as the keys and values of `-device` and of QMP's `device_add`.
    pub(crate) fn device(&self, number: usize, disk: &Disk) -> Vec<(&'static str, String)> {
        let mut pairs = match disk.bus {
            Bus::VirtioBlk => vec![("driver", "virtio-blk-pci".to_owned())],
            Bus::VirtioScsi => vec![
                ("driver", "scsi-hd".to_owned()),
                ("bus", "scsi.0".to_owned()),
            ],
        };
        if disk.late && disk.bus == Bus::VirtioBlk {
            pairs.push(("bus", format!("port{number}")));
        }
        pairs.push(("id", format!("device{number}")));
        pairs.push(("drive", format!("disk{number}")));
        if let Some(serial) = &disk.serial {
            pairs.push(("serial", serial.clone()));
        }
        pairs
    }
}

/// QEMU doubles commas in values.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn resolve(accel: Accel, kernel: &Path) -> Accel {
    static FOUND: OnceLock<Accel> = OnceLock::new();
    if accel != Accel::Auto {
        return accel;
    }
    *FOUND.get_or_init(|| match std::env::var("IMA_TESTBED_ACCEL").as_deref() {
        Ok("kvm") => Accel::Kvm,
        Ok("tcg") => Accel::Tcg,
        _ if kvm_boots(kernel) => Accel::Kvm,
        _ => Accel::Tcg,
    })
}

/// A /dev/kvm that opens may fail when a register is set, or hang in the guest's decompressor: only a kernel that speaks
/// shows that it works.
fn kvm_boots(kernel: &Path) -> bool {
    let opens = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    opens
        && Machine::new(kernel)
            .accel(Accel::Kvm)
            .append("earlyprintk=ttyS0")
            .time_limit(Duration::from_secs(5))
            .start()
            .is_ok_and(|probe| probe.wait_for_console("Linux version").is_ok())
}
