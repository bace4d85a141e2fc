//! `imactl setup`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use ima::config::Keyring;
use ima::fault::{Code, Fault};
use imactl::file::{self, unreadable, unwritable};
use imactl::setup::{self, Goal, Keys, Step, System};

use super::options::PasswordOptions;
use super::output;
use super::{Outcome, Result};

/// Bring this system under IMA, step by step, and back
///
/// On a Debian system with the packages ima-init and ima-init-switch-root. Without an option everything is put in place and
/// the next boot only logs what enforcement would deny; with --enforce, after that boot, what is not signed is denied; with
/// --undo the system boots as it did before. It says what it will do before it does it, and what the next boot will be. Each
/// can be run again at any time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl setup                                 keys, signatures, initramfs; the next boot only logs
  imactl setup --enforce                       the next boot denies what is not signed
  imactl setup --undo                          the next boot is as it was before
  imactl setup --dry-run                       says what would be done
  imactl setup --key ima.key --cert ima.der    with keys of yours")]
pub struct Setup {
    /// Have what is not signed denied from the next boot on
    #[arg(long, conflicts_with = "undo")]
    enforce: bool,
    /// Take ima-init out of the initramfs; keys and signatures stay
    #[arg(long)]
    undo: bool,
    /// Private key that signs; one is made if none is given
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Its certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Leave a private key that is made without a password
    #[arg(long)]
    unencrypted: bool,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    password: PasswordOptions,
}

impl Setup {
    pub fn run(self) -> Result {
        let goal = match (self.enforce, self.undo) {
            (true, _) => Goal::Enforce,
            (_, true) => Goal::Undo,
            _ => Goal::Log,
        };
        let system = setup::survey(Path::new("/"))?;
        let keys = Keys {
            given: self.key.clone().zip(self.cert.clone()),
            unencrypted: self.unencrypted,
        };
        let steps = system.steps(goal, &keys);
        describe(&system, goal, &steps)?;
        if self.dry_run {
            return Ok(Outcome::Good);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Fault::new(Code::SetupUnfit, "not as root")
                .cause("it writes to /etc and /boot, and signs files of root")
                .remedy("run it with sudo, or with --dry-run"));
        }
        if goal == Goal::Enforce {
            look_at_the_log()?;
        }
        if !self.yes && !agreed()? {
            output::warn(format_args!("nothing was done"));
            return Ok(Outcome::Good);
        }
        let password = self.take_password(&system, goal, &keys)?;
        let count = steps.len();
        for (number, step) in steps.iter().enumerate() {
            output::line(format_args!("[{}/{count}] {step}", number + 1))?;
            take(step, password.as_deref())?;
        }
        farewell(&system, goal)?;
        Ok(Outcome::Good)
    }

    /// The password of the key, once for all steps; none where no key is used or the key has none.
    fn take_password(
        &self,
        system: &System,
        goal: Goal,
        keys: &Keys,
    ) -> imactl::Result<Option<Vec<u8>>> {
        if goal == Goal::Undo || self.unencrypted {
            return Ok(None);
        }
        let (key, _) = system.keys(keys);
        if !key.exists() {
            return self.password.new_password().map(Some);
        }
        let asked = std::cell::RefCell::new(None);
        let ask = || {
            let password = self.password.password(&key.display().to_string(), false)?;
            *asked.borrow_mut() = Some(password.clone());
            Ok(password)
        };
        imactl::key::FileKey::load(&key, &ask)?;
        Ok(asked.into_inner())
    }
}

fn describe(system: &System, goal: Goal, steps: &[Step]) -> imactl::Result<()> {
    let kernels: Vec<&str> = system
        .kernels
        .iter()
        .map(|kernel| kernel.release.as_str())
        .collect();
    output::line(format_args!(
        "This system: {}, {} {}",
        system.tool.name(),
        if kernels.len() == 1 {
            "kernel"
        } else {
            "kernels"
        },
        kernels.join(", ")
    ))?;
    if goal != Goal::Undo {
        match system.keyring {
            Keyring::Untrusted => output::line(format_args!(
                "Keys go onto _ima: this kernel has no .ima, which takes only keys that a CA in the kernel has signed. Until the\n\
                 first key is on it in a boot, root could put another there (imactl explain IMA-555)."
            ))?,
            Keyring::Trusted => output::line(format_args!(
                "Keys go onto .ima: the kernel takes only a certificate that a CA it trusts has signed. Such a CA is in the kernel\n\
                 (imactl kernel add-ca) or enrolled as a machine owner key; without one the next boot is refused (IMA-504)."
            ))?,
        }
    }
    output::line(format_args!("\nWhat will be done:"))?;
    for (number, step) in steps.iter().enumerate() {
        output::line(format_args!("  {}. {step}", number + 1))?;
    }
    Ok(())
}

/// Before enforcement: what the boots so far would have denied.
fn look_at_the_log() -> imactl::Result<()> {
    if !Path::new("/run/ima-init/report.json").exists() {
        return Err(
            Fault::new(Code::SetupUnfit, "this boot was not under ima-init")
                .cause("what enforcement would deny is not known before a boot that logs it")
                .remedy("run imactl setup, boot, use the system, then run imactl setup --enforce"),
        );
    }
    let log = Command::new("dmesg")
        .output()
        .map_err(|error| step_failed("dmesg", &error.to_string()))?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    // The records go to auditd then, and the kernel's log has those from before it was started.
    if Path::new("/run/auditd.pid").exists() {
        output::line(format_args!(
            "\nauditd takes the kernel's records here; what enforcement would have denied is told by:\n\
             ausearch -m INTEGRITY_DATA --start boot\n\
             The kernel's own log has:"
        ))?;
    }
    let denied = setup::denials(&log);
    if denied.is_empty() {
        return output::line(format_args!(
            "\nSince this boot nothing was used that enforcement would have denied."
        ));
    }
    output::line(format_args!(
        "\nSince this boot these were used, and enforcement would have denied them (what is on a file system of the disk is\nsigned now):"
    ))?;
    for (name, cause) in denied {
        output::line(format_args!("  {name}: {cause}"))?;
    }
    Ok(())
}

fn agreed() -> imactl::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Fault::new(Code::SetupUnfit, "there is no terminal to ask on")
                .cause("without an answer nothing is done")
                .remedy("run it on a terminal, or with --yes"),
        );
    }
    let _ = write!(std::io::stdout(), "\nGo on? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn step_failed(step: &str, why: &str) -> Fault {
    Fault::new(Code::SetupStep, format!("{step}: {why}"))
}

fn take(step: &Step, password: Option<&[u8]>) -> imactl::Result<()> {
    match step {
        Step::Run(words) => {
            let Some((program, arguments)) = words.split_first() else {
                return Ok(());
            };
            // This very program, whatever the path finds.
            let program = if program == "imactl" {
                std::env::current_exe().unwrap_or_else(|_| program.into())
            } else {
                program.into()
            };
            let mut command = Command::new(&program);
            command.args(arguments);
            if let Some(password) = password {
                use std::os::unix::ffi::OsStrExt as _;
                command.env("EVMCTL_KEY_PASSWORD", std::ffi::OsStr::from_bytes(password));
            }
            let status = command
                .status()
                .map_err(|error| step_failed(&program.display().to_string(), &error.to_string()))?;
            if status.success() {
                return Ok(());
            }
            Err(step_failed(&step.to_string(), &status.to_string()))
        }
        Step::Keep(_, to) if to.exists() => Ok(()),
        Step::Copy(from, to) | Step::Keep(from, to) => {
            let bytes = std::fs::read(from).map_err(|error| unreadable(from, &error))?;
            above(to)?;
            file::write(to, &bytes, 0o644, true)
        }
        Step::Write(path, text) => {
            above(path)?;
            file::write(path, text.as_bytes(), 0o644, true)
        }
        Step::Private(path) => {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| unwritable(path, &error))
        }
        Step::Remove(path) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(unwritable(path, &error))
            }
            _ => Ok(()),
        },
    }
}

fn above(path: &Path) -> imactl::Result<()> {
    let above = path.parent().unwrap_or(path);
    std::fs::create_dir_all(above).map_err(|error| unwritable(above, &error))
}

fn farewell(system: &System, goal: Goal) -> imactl::Result<()> {
    let policy = system.policy();
    let by_hand = if system.grub {
        ""
    } else {
        "\nGRUB is not installed here: add ima_appraise=log to the kernel command line yourself before you boot; without it the\n\
         next boot enforces."
    };
    match goal {
        Goal::Log => output::line(format_args!(
            "\nThe next boot loads the certificate and {}, and executes the signed switch_root of this system. Nothing is denied;\n\
             what would be is in the kernel's log (journalctl -k --grep type=1800).{by_hand}\n\
             Then: imactl setup --enforce\n\
             Way back: imactl setup --undo; from the boot loader: initrd ...before-ima-init",
            policy.display()
        )),
        Goal::Enforce => output::line(format_args!(
            "\nThe next boot enforces {}: what root executes or maps and is not signed is denied.{}\n\
             A new program is signed with: imactl sign --key KEY --cert CERTIFICATE FILE\n\
             Way back: imactl setup --undo; from the boot loader: initrd ...before-ima-init (remove these files from /boot once\n\
             you no longer need them)",
            policy.display(),
            if system.grub {
                ""
            } else {
                "\nGRUB is not installed here: take ima_appraise=log off the kernel command line yourself; with it the next boot is\n\
                 refused (IMA-204)."
            }
        )),
        Goal::Undo => output::line(format_args!(
            "\nThe next boot is as it was before ima-init. Signatures and keys stay where they are; they do no harm.{}",
            if system.grub {
                ""
            } else {
                "\nTake ima_appraise=log off the kernel command line if you put it there."
            }
        )),
    }
}
