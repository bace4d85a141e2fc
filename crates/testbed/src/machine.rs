use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::disk::{Bus, Disk, DiskHandle, escape};
use crate::report::{decode_hex, encode_hex};
use crate::{Architecture, Running, Share, TestbedError, Uefi};

/// The TPM of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tpm {
    /// No TPM.
    #[default]
    None,
    /// A TPM 2.0 emulated by swtpm behind a TIS interface, with new state at each start.
    Swtpm,
    /// A TPM 1.2 emulated by swtpm, likewise.
    Swtpm12,
}

/// The accelerator: what executes the instructions of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accel {
    /// KVM if a machine started with it prints the first line of the kernel within seconds, otherwise TCG. The result is cached
    /// for the process. `IMA_TESTBED_ACCEL=kvm` or `tcg` in the environment sets it without a try. Always TCG if the architecture
    /// is not that of the host, and with [`Machine::uefi`].
    #[default]
    Auto,
    /// KVM, without a try.
    Kvm,
    /// TCG, the translator of QEMU, which works everywhere.
    Tcg,
    /// TCG that counts instructions (`-icount shift=0,sleep=off`), for measurements: times in the guest differ little between
    /// runs.
    TcgCounting,
}

/// A request of the guest program to sign a file that it has just made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignRequest {
    /// The path of the file in the guest.
    pub path: String,
    /// The SHA-256 digest of its content.
    pub sha256: [u8; 32],
}

type Signer = Arc<dyn Fn(&SignRequest) -> Result<Vec<u8>, String> + Send + Sync>;

/// The description of a machine. It is a value: clone it, change it, and start it as often as needed.
#[derive(Clone)]
pub struct Machine {
    pub(crate) architecture: Architecture,
    pub(crate) uefi: Option<Uefi>,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initramfs: Option<PathBuf>,
    pub(crate) append: Vec<String>,
    pub(crate) disks: Vec<(DiskHandle, Disk)>,
    pub(crate) shares: Vec<Share>,
    pub(crate) tpm: Tpm,
    pub(crate) tpm_state: Option<PathBuf>,
    pub(crate) accel: Accel,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) raspberry_pi: Option<PathBuf>,
    pub(crate) extra: Vec<String>,
    pub(crate) time_limit: Duration,
    pub(crate) tee: bool,
    pub(crate) signer: Option<Signer>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("architecture", &self.architecture)
            .field("uefi", &self.uefi)
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
    /// Describes a machine with this kernel: the architecture of the host, one CPU, 512 MiB of memory, a serial console, no TPM, no
    /// disk, and a time limit of two minutes.
    ///
    /// The kernel must be the image that [`Architecture::kernel_image`] names. With an ELF `vmlinux` for x86-64, QEMU places the
    /// initramfs over the ACPI tables, and the guest finds no TPM.
    pub fn new(kernel: impl AsRef<Path>) -> Machine {
        Machine {
            kernel: Some(kernel.as_ref().to_owned()),
            ..Machine::without_kernel()
        }
    }

    /// Describes a machine that its firmware starts from this disk, with the boot loader on it: on x86-64 the BIOS executes the
    /// first sector. Initramfs and kernel command line are those of the boot loader; [`Machine::initramfs`] and
    /// [`Machine::append`] have no effect. [`Accel::Auto`] is TCG.
    pub fn from_disk(disk: Disk) -> Machine {
        Machine::without_kernel().disk(disk)
    }

    /// Describes a machine without a kernel and without a disk: [`Machine::from_disk`] is for one disk, this for several, of which the
    /// firmware starts the one that says so.
    #[must_use]
    pub fn without_kernel() -> Machine {
        Machine {
            architecture: Architecture::default(),
            uefi: None,
            kernel: None,
            initramfs: None,
            append: Vec::new(),
            disks: Vec::new(),
            shares: Vec::new(),
            tpm: Tpm::default(),
            tpm_state: None,
            accel: Accel::default(),
            memory_mib: 512,
            cpus: 1,
            raspberry_pi: None,
            extra: Vec::new(),
            time_limit: Duration::from_secs(120),
            tee: false,
            signer: None,
        }
    }

    /// Sets the architecture.
    #[must_use]
    pub fn architecture(mut self, architecture: Architecture) -> Machine {
        self.architecture = architecture;
        self
    }

    /// Sets the firmware: UEFI, in place of a BIOS on x86-64. A kernel must be a program for UEFI then, such as a unified kernel
    /// image, which gets the command line as its load options. Under Secure Boot the firmware verifies it.
    #[must_use]
    pub fn uefi(mut self, firmware: Uefi) -> Machine {
        self.uefi = Some(firmware);
        self
    }

    /// Sets the board: a Raspberry Pi 3 (64-bit Arm) with this device tree, 4 CPUs, 1 GiB of memory, and the disk as its SD card. It has
    /// no TPM, and the guest program no way to report: what it tried is on the console, a line for each attempt.
    #[must_use]
    pub fn raspberry_pi(mut self, device_tree: impl AsRef<Path>) -> Machine {
        self.raspberry_pi = Some(device_tree.as_ref().to_owned());
        self.architecture(Architecture::Aarch64)
            .cpus(4)
            .memory_mib(1024)
    }

    /// Sets the initramfs.
    #[must_use]
    pub fn initramfs(mut self, path: impl AsRef<Path>) -> Machine {
        self.initramfs = Some(path.as_ref().to_owned());
        self
    }

    /// Adds a disk. The disks that are present from the start have this order: the first on its bus is `/dev/vda` or `/dev/sda`.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Machine {
        self.add_disk(disk);
        self
    }

    /// Adds a disk as [`Machine::disk`] does, and returns its handle for [`Running::plug`].
    pub fn add_disk(&mut self, disk: Disk) -> DiskHandle {
        let handle = DiskHandle::unique();
        self.disks.push((handle, disk));
        handle
    }

    /// Adds a directory of the host that the machine can mount.
    #[must_use]
    pub fn share(mut self, share: Share) -> Machine {
        self.shares.push(share);
        self
    }

    /// Returns the handles of the disks, in the order in which they were added.
    pub fn disks(&self) -> impl Iterator<Item = DiskHandle> {
        self.disks.iter().map(|(handle, _)| *handle)
    }

    /// Sets the TPM.
    #[must_use]
    pub fn tpm(mut self, tpm: Tpm) -> Machine {
        self.tpm = tpm;
        self
    }

    /// Sets the directory with the state (`--tpmstate dir=`) that an emulated TPM is started with, in place of new state. It is
    /// copied: what the machine changes is lost.
    #[must_use]
    pub fn tpm_state(mut self, directory: impl AsRef<Path>) -> Machine {
        self.tpm_state = Some(directory.as_ref().to_owned());
        self
    }

    /// Appends parameters to the kernel command line. It begins with `console=` for the serial console and, on x86-64, with
    /// `no_timer_check`; in an emulated machine, it goes on with an `initcall_blacklist=` that makes its start faster.
    #[must_use]
    pub fn append(mut self, parameters: impl Into<String>) -> Machine {
        self.append.push(parameters.into());
        self
    }

    /// Sets the accelerator.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Machine {
        self.accel = accel;
        self
    }

    /// Sets the amount of memory, in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Machine {
        self.memory_mib = mib;
        self
    }

    /// Sets the number of CPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Machine {
        self.cpus = cpus;
        self
    }

    /// Adds an argument to the command line of QEMU, unchanged.
    #[must_use]
    pub fn qemu_argument(mut self, argument: impl Into<String>) -> Machine {
        self.extra.push(argument.into());
        self
    }

    /// Sets how long the machine may run before it is killed. Every wait ends by then.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Machine {
        self.time_limit = limit;
        self
    }

    /// Copies the serial console to standard error while the machine runs.
    #[must_use]
    pub fn tee(mut self) -> Machine {
        self.tee = true;
        self
    }

    /// Sets the function that answers signature requests of the guest program with the value for `security.ima`.
    #[must_use]
    pub fn signer(
        mut self,
        sign: impl Fn(&SignRequest) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Machine {
        self.signer = Some(Arc::new(sign));
        self
    }

    /// Sets a shell command that answers signature requests of the guest program. It is run as `COMMAND SHA256 PATH` by `sh`, with the
    /// digest in hexadecimal, and must print the value for `security.ima` in hexadecimal.
    #[must_use]
    pub fn sign_command(self, command: impl Into<String>) -> Machine {
        let command = command.into();
        self.signer(move |request| run_sign_command(&command, request))
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// A file or program is missing, or QEMU refused the machine. The guest has not run then.
    pub fn start(&self) -> Result<Running, TestbedError> {
        let files = [
            ("kernel", self.kernel.as_ref()),
            ("initramfs", self.initramfs.as_ref()),
        ]
        .into_iter()
        .filter_map(|(what, path)| Some((what, path?)))
        .chain(self.disks.iter().map(|(_, disk)| ("disk", &disk.path)));
        for (what, path) in files {
            std::fs::metadata(path).map_err(|source| TestbedError::Missing {
                what,
                path: path.clone(),
                source,
            })?;
        }
        if self.uefi.is_some() && self.architecture != Architecture::X86_64 {
            return Err(TestbedError::NoFirmware {
                architecture: self.architecture,
            });
        }
        Running::start(self)
    }

    /// Returns the arguments of QEMU, for sockets in `directory`.
    pub(crate) fn arguments(&self, directory: &Path, tpm: Option<&Path>) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        let socket = |id: &str| {
            format!(
                "socket,id={id},path={}",
                escape(&directory.join(format!("{id}.socket")))
            )
        };

        let machine = match &self.raspberry_pi {
            Some(device_tree) => {
                add("-dtb", device_tree.display().to_string());
                "raspi3b"
            }
            None => self.architecture.machine_type(),
        };
        add("-machine", machine.into());
        let accel = self.resolve_accel();
        match accel {
            Accel::Kvm => add("-accel", "kvm".into()),
            Accel::TcgCounting => {
                add("-accel", "tcg".into());
                add("-icount", "shift=0,sleep=off".into());
            }
            Accel::Tcg | Accel::Auto => add("-accel", "tcg".into()),
        }
        if let Some(uefi) = &self.uefi {
            for [option, value] in uefi.arguments(directory) {
                add(&option, value);
            }
        }
        if self.raspberry_pi.is_none() {
            let cpu = match accel {
                Accel::Kvm => "max",
                _ => self.architecture.cpu(),
            };
            add("-cpu", cpu.into());
        }
        add("-smp", self.cpus.to_string());
        add("-m", format!("{}M", self.memory_mib));
        add("-display", "none".into());
        // A reset ends QEMU, as power-off does. Its events show which of them it was.
        add(
            "-action",
            "reboot=shutdown,shutdown=poweroff,panic=none".into(),
        );
        add("-chardev", socket("qmp"));
        add("-mon", "chardev=qmp,mode=control".into());
        let console = escape(&directory.join("console"));
        add("-chardev", format!("pipe,id=console,path={console}"));
        add("-serial", "chardev:console".into());
        add("-chardev", socket("report"));
        if self.raspberry_pi.is_none() {
            add("-device", "virtio-rng-pci".into());
            add("-device", "virtio-serial-pci".into());
            add(
                "-device",
                format!("virtserialport,chardev=report,name={}", crate::report::PORT),
            );
        }
        if let Some(tpm) = tpm {
            add("-chardev", format!("socket,id=tpm,path={}", escape(tpm)));
            add("-tpmdev", "emulator,id=tpm,chardev=tpm".into());
            add(
                "-device",
                format!("{},tpmdev=tpm", self.architecture.tpm_device()),
            );
        }
        if self
            .disks
            .iter()
            .any(|(_, disk)| disk.bus == Bus::VirtioScsi)
        {
            add("-device", "virtio-scsi-pci,id=scsi".into());
        }
        for (number, (_, disk)) in self.disks.iter().enumerate() {
            let on = |yes| if yes { "on" } else { "off" };
            let interface = match self.raspberry_pi {
                Some(_) => "sd",
                None => "none",
            };
            add(
                "-drive",
                format!(
                    "if={interface},id=disk{number},snapshot={},cache=unsafe,readonly={},{}{}",
                    on(disk.snapshot),
                    on(disk.read_only),
                    disk.drive(),
                    disk.throttling()
                ),
            );
            if self.raspberry_pi.is_some() {
                continue;
            }
            if disk.hotplug {
                // The root bus takes no devices later: each disk gets a port.
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
        if self
            .shares
            .iter()
            .any(|share| matches!(share, Share::Virtiofs { .. }))
        {
            // virtiofsd writes to the memory of the machine.
            add(
                "-object",
                format!(
                    "memory-backend-memfd,id=memory,size={}M,share=on",
                    self.memory_mib
                ),
            );
            add("-machine", "memory-backend=memory".into());
        }
        for (number, share) in self.shares.iter().enumerate() {
            for [option, value] in share.arguments(number, directory) {
                add(&option, value);
            }
        }
        if let Some(kernel) = &self.kernel {
            add("-kernel", kernel.display().to_string());
            if let Some(initramfs) = &self.initramfs {
                add("-initrd", escape(initramfs));
            }
            let mut append = vec![self.architecture.command_line()];
            if accel != Accel::Kvm {
                append.push(WITHOUT_JITTER.to_owned());
            }
            append.extend(self.append.iter().cloned());
            add("-append", append.join(" "));
        }
        arguments.extend(["-no-user-config", "-nodefaults"].map(str::to_owned));
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// Returns the device of a disk as keys and values for `-device` and for the QMP command `device_add`.
    pub(crate) fn device(&self, number: usize, disk: &Disk) -> Vec<(&'static str, String)> {
        let mut pairs = match disk.bus {
            Bus::VirtioBlk => vec![("driver", "virtio-blk-pci".to_owned())],
            Bus::VirtioScsi => vec![
                ("driver", "scsi-hd".to_owned()),
                ("bus", "scsi.0".to_owned()),
            ],
        };
        if disk.hotplug && disk.bus == Bus::VirtioBlk {
            pairs.push(("bus", format!("port{number}")));
        }
        pairs.push(("id", format!("device{number}")));
        pairs.push(("drive", format!("disk{number}")));
        if disk.boot {
            pairs.push(("bootindex", "1".to_owned()));
        }
        if let Some(serial) = &disk.serial {
            pairs.push(("serial", serial.clone()));
        }
        pairs
    }

    /// Returns the accelerator to use: never [`Accel::Auto`].
    fn resolve_accel(&self) -> Accel {
        static FOUND: OnceLock<Accel> = OnceLock::new();
        if self.accel != Accel::Auto {
            return self.accel;
        }
        // The kernel that is tried is started without UEFI.
        let (Some(kernel), None) = (&self.kernel, &self.uefi) else {
            return Accel::Tcg;
        };
        if Some(self.architecture) != Architecture::host() {
            return Accel::Tcg;
        }
        *FOUND.get_or_init(|| match std::env::var("IMA_TESTBED_ACCEL").as_deref() {
            Ok("kvm") => Accel::Kvm,
            Ok("tcg") => Accel::Tcg,
            _ if kvm_boots(self.architecture, kernel) => Accel::Kvm,
            _ => Accel::Tcg,
        })
    }
}

fn run_sign_command(command: &str, request: &SignRequest) -> Result<Vec<u8>, String> {
    let output = Command::new("sh")
        .args(["-c", &format!("{command} \"$@\""), "sh"])
        .arg(encode_hex(&request.sha256))
        .arg(&request.path)
        .output()
        .map_err(|error| format!("cannot start sh: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    decode_hex(String::from_utf8_lossy(&output.stdout).trim())
        .ok_or_else(|| format!("{command}: the output is not a value in hexadecimal"))
}

/// Leaves the jitter entropy source out, whose start-up test takes a quarter of an emulated kernel's start
/// (crypto/jitterentropy-kcapi.c, `jent_mod_init`). The machine has virtio-rng.
const WITHOUT_JITTER: &str = "initcall_blacklist=jent_mod_init";

/// Returns whether a kernel boots with KVM. A /dev/kvm that can be opened may still fail when a register is set, or hang in the
/// decompressor of the guest: only the output of a kernel shows that it works.
fn kvm_boots(architecture: Architecture, kernel: &Path) -> bool {
    let opens = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    opens
        && Machine::new(kernel)
            .architecture(architecture)
            .accel(Accel::Kvm)
            .append(architecture.early_console())
            .time_limit(Duration::from_secs(5))
            .start()
            .is_ok_and(|probe| probe.wait_for_console("Linux version").is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments differ between architectures in nothing but what [`Architecture`] says.
    #[test]
    fn arguments_follow_the_architecture() {
        for architecture in Architecture::ALL {
            let machine = Machine::new("kernel")
                .architecture(architecture)
                .accel(Accel::Tcg)
                .append("quiet")
                .disk(Disk::new("disk"));
            let arguments = machine.arguments(Path::new("/run"), Some(Path::new("/run/tpm")));
            let has = |option: &str, value: &str| {
                arguments
                    .windows(2)
                    .any(|pair| pair[0] == option && pair[1] == value)
            };
            assert!(has("-machine", architecture.machine_type()));
            assert!(has(
                "-device",
                &format!("{},tpmdev=tpm", architecture.tpm_device())
            ));
            let x86 = architecture == Architecture::X86_64;
            let line = match (architecture.console(), x86) {
                (console, true) => {
                    format!("console={console} no_timer_check {WITHOUT_JITTER} quiet")
                }
                (console, false) => format!("console={console} {WITHOUT_JITTER} quiet"),
            };
            assert!(has("-append", &line), "{arguments:?}");
        }
    }

    /// QEMU takes neither `-initrd` nor `-append` without `-kernel`.
    #[test]
    fn a_machine_from_a_disk_has_no_kernel() {
        let machine = Machine::from_disk(Disk::new("disk")).append("quiet");
        let arguments = machine.arguments(Path::new("/run"), None);
        for option in ["-kernel", "-initrd", "-append"] {
            assert!(arguments.iter().all(|it| it != option), "{arguments:?}");
        }
        assert!(arguments.iter().any(|it| it.contains("file=disk")));
    }

    #[test]
    fn uefi_is_for_x86_64() {
        let machine = Machine::from_disk(Disk::new("/dev/null")).uefi(Uefi::new());
        let arguments = machine.arguments(Path::new("/run"), None);
        let store = "if=pflash,format=raw,unit=1,file=/run/variables.fd";
        assert!(arguments.iter().any(|it| it == store), "{arguments:?}");
        let refused = machine.architecture(Architecture::Aarch64).start();
        assert!(matches!(refused, Err(TestbedError::NoFirmware { .. })));
    }

    #[test]
    fn sign_commands_get_the_digest_and_the_path() {
        let request = SignRequest {
            path: "/a b".to_owned(),
            sha256: [0xab; 32],
        };
        let sign = |command: &str| run_sign_command(command, &request);
        assert_eq!(
            sign("sign() { test \"$2\" = '/a b' && printf %.4s \"$1\"; }; sign"),
            Ok(vec![0xab, 0xab])
        );
        assert!(sign("echo no hex; :").unwrap_err().contains("hexadecimal"));
        assert!(sign("echo why >&2; false").unwrap_err().contains("why"));
    }

    #[test]
    fn clones_share_handles() {
        let mut machine = Machine::new("kernel");
        let first = machine.add_disk(Disk::new("a"));
        let second = machine.add_disk(Disk::new("a"));
        assert_ne!(first, second);
        assert!(machine.clone().disks().eq([first, second]));
    }
}
