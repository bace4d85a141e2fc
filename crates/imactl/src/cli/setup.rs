//! `imactl setup`

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use ima::config::Keyring;
use ima::fault::{Cause, Code, Fault};
use imactl::file::{self, unreadable, unwritable};
use imactl::files;
use imactl::setup::{self, Goal, IMPORT, MOKUTIL, Signatures, Signing, Step, System};
use imactl::sign::{ImaValue, Place, SignOptions};

use super::check::Check;
use super::keygen::Keygen;
use super::options::{AppraisalOptions, KeyOptions, PASSWORD_VARIABLE, PasswordOptions};
use super::outcome::{Outcome, Result};
use super::output;
use super::sign::mark;

/// The commands that the messages of set-up name.
const ENFORCE: &str = "imactl setup --enforce";
const UNDO: &str = "imactl setup --undo";
const ENROL_CA: &str = "imactl setup --enrol-ca";
const MOVE_CA_KEY: &str = "imactl setup --move-ca-key DIRECTORY";
const SIGN_FILE: &str = "imactl sign --key KEY --cert CERTIFICATE FILE";
const EXPLAIN_UNTRUSTED: &str = "imactl explain IMA-555";
/// All of them, for the test that each is a command.
#[cfg(test)]
pub const COMMANDS: [&str; 6] = [
    ENFORCE,
    UNDO,
    ENROL_CA,
    MOVE_CA_KEY,
    SIGN_FILE,
    EXPLAIN_UNTRUSTED,
];

/// The longest file with a password for MokManager, in bytes (mokutil, src/mokutil.c, `PASSWORD_MAX`, and the end of the line).
const MAX_MOK_PASSWORD: u64 = 257;

/// Bring this system under IMA, step by step, and back
///
/// On a Debian system with the packages ima-init and ima-init-switch-root. Without an option everything is put in place and
/// the next boot only logs what enforcement would deny; with --enforce, after that boot, what is not signed is denied; with
/// --undo the system boots as it did before. It says what it will do before it does it, and what the next boot will be. Each
/// can be run again at any time.
///
/// Signed is what packages brought, of all owners, and what is named with --sign; a program that somebody put into /home or
/// /usr/local is not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl setup                                 keys, signatures, initramfs; the next boot only logs
  imactl setup --sign /usr/local/bin           signs the programs there too
  imactl setup --enforce                       the next boot denies what is not signed
  imactl setup --undo                          the next boot is as it was before
  imactl setup --dry-run                       says what would be done
  imactl setup --key ima.key --cert ima.der    with keys of yours
  imactl setup --enrol-ca                      has the CA enrolled as a machine owner key (MOK), under Secure Boot
  imactl setup --move-ca-key /media/stick      moves the private key of the CA off this system")]
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
    /// Move the private key of the CA that is made (ca.key) to this directory, which should not be on this system: a mounted
    /// stick. Without it the directory is asked for
    #[arg(long, value_name = "DIR", conflicts_with = "undo")]
    move_ca_key: Option<PathBuf>,
    /// Have the CA that is made enrolled as a machine owner key (MOK), by which the kernel trusts it: on machines that start by shim
    /// under Secure Boot. Without it this is asked where it helps
    #[arg(long, conflicts_with_all = ["undo", "key"])]
    enrol_ca: bool,
    /// The password that MokManager asks for at the next boot, in a file; one is made and shown if none is given
    #[arg(long, value_name = "FILE", requires = "enrol_ca")]
    mok_password: Option<PathBuf>,
    /// Sign this file, or what lies below this directory, beside what packages brought; can be given more than once
    #[arg(long, value_name = "PATH", conflicts_with = "undo")]
    sign: Vec<PathBuf>,
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
        let signing = Signing {
            given: self.key.clone().zip(self.cert.clone()),
            unencrypted: self.unencrypted,
            named: self.sign.clone(),
            enrol: self.is_to_enrol(&system, goal),
        };
        if signing.enrol {
            system.check_owner_key()?;
        }
        let steps = system.steps(goal, &signing);
        describe(&system, goal, &steps)?;
        if self.dry_run {
            return Ok(Outcome::Good);
        }
        if !rustix::process::geteuid().is_root() {
            return Err(
                Fault::new(Code::SetupUnfit, "not as root").because(Cause::SETUP_NOT_AS_ROOT)
            );
        }
        if goal == Goal::Enforce {
            look_at_the_log()?;
        }
        if !self.yes && !agreed()? {
            output::warn(format_args!("nothing was done"));
            return Ok(Outcome::Good);
        }
        let password = self.take_password(&system, goal, &signing)?;
        let count = steps.len();
        let mok_password = signing.enrol.then(|| self.mok_password()).transpose()?;
        for (number, step) in steps.iter().enumerate() {
            output::line(format_args!("[{}/{count}] {step}", number + 1))?;
            take(step, password.as_deref(), mok_password.as_deref())?;
        }
        closing_message(&system, goal)?;
        if let Some(password) = mok_password {
            output::line(format_args!("{}", at_the_next_boot(&password)))?;
        }
        if goal != Goal::Undo {
            self.move_authority_key()?;
        }
        Ok(Outcome::Good)
    }

    /// Whether the CA is enrolled as a machine owner key: if that was asked for, or if it helps and a person agrees.
    fn is_to_enrol(&self, system: &System, goal: Goal) -> bool {
        if self.enrol_ca {
            return true;
        }
        // With enforcement comes a boot that has shown whether the CA is trusted.
        let helps = goal == Goal::Log && self.key.is_none() && system.takes_owner_keys();
        if !helps || self.yes || self.dry_run || !std::io::stdin().is_terminal() {
            return false;
        }
        let answer = answer(
            "Secure Boot is on. The kernel trusts CAs that the owner of the machine has enrolled (MOK).\n\
             Have the CA of this system enrolled at the next boot, at the machine's own screen and keyboard? [y/N] ",
        );
        is_yes(answer.as_deref())
    }

    /// The password for MokManager: of the file, or one that is made.
    fn mok_password(&self) -> imactl::Result<String> {
        let Some(path) = &self.mok_password else {
            return one_time_password();
        };
        let bytes = file::read_bounded(path, MAX_MOK_PASSWORD)?;
        let text = String::from_utf8_lossy(&bytes);
        let password = text.trim_end_matches('\n');
        // mokutil reads lines, and MokManager no other characters.
        if password.is_empty() || !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let what = format!("{}: not one line of ASCII", path.display());
            return Err(step_failed(MOKUTIL, &what));
        }
        Ok(password.to_owned())
    }

    /// Moves the CA's private key to the directory that is given or asked for, or says that it is still there.
    fn move_authority_key(&self) -> imactl::Result<()> {
        let Some(key) = setup::authority_key(Path::new("/")) else {
            return Ok(());
        };
        let directory = match &self.move_ca_key {
            Some(directory) => Some(directory.clone()),
            None if self.yes => None,
            None => answer(&format!(
                "\n{} issues certificates that this system and its kernel trust, and is not needed here.\n\
                 Directory to move it to, such as a mounted stick [leave it]: ",
                key.display()
            ))
            .map(PathBuf::from),
        };
        match directory {
            Some(directory) => {
                let to = move_secret(&key, &directory)?;
                output::line(format_args!("\n{} is now {}", key.display(), to.display()))
            }
            None => output::line(format_args!(
                "\n{0} is still on this system: whoever can read it and knows the password issues certificates that this system\n\
                 trusts. Move it away: {MOVE_CA_KEY}",
                key.display()
            )),
        }
    }

    /// The password of the key, once for all steps; none where no key is used or the key has none.
    fn take_password(
        &self,
        system: &System,
        goal: Goal,
        signing: &Signing,
    ) -> imactl::Result<Option<Vec<u8>>> {
        if goal == Goal::Undo || self.unencrypted {
            return Ok(None);
        }
        let (key, _) = system.keys(signing);
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
                 first key is on it in a boot, root could put another there ({EXPLAIN_UNTRUSTED})."
            ))?,
            Keyring::Trusted => output::line(format_args!(
                "Keys go onto .ima: the kernel takes only a certificate that a CA it trusts has signed. Such a CA is in the kernel\n\
                 (imactl kernel add-ca) or enrolled as a machine owner key ({ENROL_CA}); without one the next boot is refused (IMA-504)."
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
    if !Path::new(ima::layout::REPORT).exists() {
        return Err(
            Fault::new(Code::SetupUnfit, "this boot was not under ima-init")
                .because(Cause::BOOT_NOT_OBSERVED),
        );
    }
    let mut log = output_of("dmesg", &[])?;
    // auditd takes the kernel's records; the kernel's log then has only those from before it was started.
    if Path::new("/run/auditd.pid").exists() {
        log.push_str(&output_of("ausearch", &AUSEARCH)?);
    }
    let denied = setup::denials(&log);
    if denied.is_empty() {
        return output::line(format_args!(
            "\nSince this boot nothing was used that enforcement would have denied."
        ));
    }
    output::line(format_args!(
        "\nSince this boot these were used, and enforcement would have denied them. Name those that are to run with --sign PATH;\n\
         of the others only what a package brought is signed:"
    ))?;
    for (name, cause) in denied {
        output::line(format_args!("  {name}: {cause}"))?;
    }
    Ok(())
}

/// Prints this boot's records as auditd keeps them. Without `--input-logs` ausearch reads its standard input where that is no
/// terminal.
const AUSEARCH: [&str; 6] = [
    "--input-logs",
    "--raw",
    "--message",
    "INTEGRITY_DATA",
    "--start",
    "boot",
];

/// Runs a program that prints a log, and returns what it printed.
fn output_of(program: &str, arguments: &[&str]) -> imactl::Result<String> {
    let output = child(program, arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| unread_log(program, &error.to_string()))?;
    printed(program, &output)
}

/// What a program printed. `ausearch --raw` ends with 1 and prints nothing at all where there is no record.
fn printed(program: &str, output: &std::process::Output) -> imactl::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let none = program == "ausearch" && output.status.code() == Some(1) && errors.trim().is_empty();
    if output.status.success() || none {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(unread_log(
        program,
        &format!("{}: {}", output.status, errors.trim()),
    ))
}

fn unread_log(program: &str, why: &str) -> Fault {
    step_failed(program, why).because(Cause::LOG_NOT_READ.with(&[program]))
}

fn agreed() -> imactl::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Fault::new(Code::SetupUnfit, "there is no terminal to ask on")
                .because(Cause::NO_TERMINAL),
        );
    }
    let answer = answer("\nGo on? [y/N] ");
    Ok(is_yes(answer.as_deref()))
}

fn is_yes(answer: Option<&str>) -> bool {
    matches!(answer, Some("y" | "Y" | "yes"))
}

/// Returns eight random digits, which are on the same keys of every keyboard: MokManager knows the layout of the US alone.
fn one_time_password() -> imactl::Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| step_failed(MOKUTIL, "the system gives no random numbers"))?;
    let number = u64::from_le_bytes(bytes) % 100_000_000;
    Ok(format!("{number:08}"))
}

/// Asks shim, through `mokutil`, to have the certificate enrolled. mokutil reads the password twice from its standard input
/// (src/mokutil.c, `get_password`).
fn enrol(mokutil: &str, certificate: &Path, password: &str) -> imactl::Result<()> {
    let step = format!("{MOKUTIL} {IMPORT} {}", certificate.display());
    let failed = |why: &dyn std::fmt::Display| step_failed(&step, &why.to_string());
    let mut child = child(mokutil, &[IMPORT])
        .arg(certificate)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error).because(Cause::MOKUTIL_MISSING))?;
    if let Some(mut input) = child.stdin.take() {
        // If it ends without reading, its status says why.
        let _ = writeln!(input, "{password}\n{password}");
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(&status))
}

/// What the person will see at the next boot.
fn at_the_next_boot(password: &str) -> String {
    format!(
        "\nBefore the next boot reaches this system, shim's MokManager shows a blue screen (\"Shim UEFI key management\") for ten seconds:\n\
         press a key, choose \"Enroll MOK\", \"Continue\", \"Yes\", enter the password {password}, and choose \"Reboot\".\n\
         Without this the kernel does not trust the CA, and ima-init refuses the boot (IMA-504). mokutil --list-enrolled shows the CA\n\
         afterwards; mokutil --revoke-import withdraws the request before."
    )
}

/// What is answered to a question; nothing for an empty answer.
fn answer(question: &str) -> Option<String> {
    let _ = write!(std::io::stdout(), "{question}");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    let answer = answer.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

/// Moves a file into a directory, which may be on another file system, readable by its owner alone.
fn move_secret(from: &Path, directory: &Path) -> imactl::Result<PathBuf> {
    let to = directory.join(from.file_name().unwrap_or_default());
    if to.exists() {
        return Err(Fault::new(Code::OutputUnwritable, to.display().to_string())
            .because(Cause::TARGET_THERE));
    }
    let bytes = std::fs::read(from).map_err(|error| unreadable(from, &error))?;
    file::write(&to, &bytes, 0o600, true)?;
    std::fs::remove_file(from).map_err(|error| unwritable(from, &error))?;
    Ok(to)
}

/// Another program, without the password of the key in its environment: update-initramfs and update-grub run hooks of any
/// package.
fn child(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove(PASSWORD_VARIABLE);
    command
}

/// Runs a program of the system to its end.
fn run(program: &str, arguments: &[&str]) -> imactl::Result<()> {
    let failed = |why: &str| step_failed(&[&[program], arguments].concat().join(" "), why);
    let status = child(program, arguments)
        .status()
        .map_err(|error| failed(&error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(&status.to_string()))
}

fn step_failed(step: &str, why: &str) -> Fault {
    Fault::new(Code::SetupStep, format!("{step}: {why}"))
}

/// Signs what packages brought and what was named.
fn sign(signatures: &Signatures, password: PasswordOptions) -> Result {
    let Signatures {
        policy,
        key,
        certificate,
        named,
    } = signatures;
    let appraisal = AppraisalOptions {
        for_policy: Some(policy.clone()),
        filesystem: None,
    };
    let key = KeyOptions::of_key(key.clone(), certificate.clone(), password);
    let appraisal = appraisal.appraisal("ext4", None)?;
    let options = SignOptions {
        mark: ImaValue::Signature(key.identity_for(appraisal.as_ref())?),
        appraisal,
        place: Place::Xattr,
        incremental: true,
        certificate: key.certificate()?,
        evm: None,
    };
    let found = files::collect_with_packages(named, Path::new("/"))?;
    mark(found, named, &options, false)
}

/// Takes a step, with the password of the keys, and the one for MokManager.
fn take(step: &Step, password: Option<&[u8]>, mok_password: Option<&str>) -> imactl::Result<()> {
    let done = |outcome: Outcome| match outcome {
        Outcome::Good => Ok(()),
        Outcome::Findings | Outcome::Found(_) => {
            Err(step_failed(&step.to_string(), "see the lines above"))
        }
    };
    let password = password.map(<[u8]>::to_vec);
    match step {
        Step::MakeKeys {
            directory,
            unencrypted,
        } => {
            let password = password.filter(|_| !unencrypted);
            Keygen::with_defaults(directory.clone(), password)
                .run()
                .and_then(done)
        }
        Step::Sign(signatures) => {
            let password = PasswordOptions {
                known: password,
                ..PasswordOptions::default()
            };
            sign(signatures, password).and_then(done)
        }
        Step::Check(boot) => Check::of_system(boot).run().and_then(done),
        Step::Enrol(certificate) => enrol(MOKUTIL, certificate, mok_password.unwrap_or_default()),
        Step::Run(program) => run(program.name, program.arguments),
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

fn closing_message(system: &System, goal: Goal) -> imactl::Result<()> {
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
             Then: {ENFORCE}\n\
             Way back: {UNDO}; from the boot loader: initrd ...before-ima-init",
            policy.display()
        )),
        Goal::Enforce => output::line(format_args!(
            "\nThe next boot enforces {}: what any user executes or maps and is not signed is denied.{}\n\
             A new program is signed with: {SIGN_FILE}\n\
             Way back: {UNDO}; from the boot loader: initrd ...before-ima-init (remove these files from /boot once\n\
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn no_hook_of_update_initramfs_finds_the_password() {
        let command = child("update-initramfs", &["-u", "-k", "all"]);
        let removed: Vec<_> = command.get_envs().collect();
        assert_eq!(removed, [(OsStr::new("EVMCTL_KEY_PASSWORD"), None)]);
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-u", "-k", "all"]);
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_arguments() {
        let fault = run("false", &["-u", "all"]).unwrap_err();
        assert_eq!(fault.code(), Code::SetupStep);
        assert!(
            fault.detail().starts_with("false -u all: exit status: 1"),
            "{fault}"
        );
        run("true", &[]).unwrap();
    }

    #[test]
    fn the_keys_that_are_made_have_the_password() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let step = |unencrypted| Step::MakeKeys {
            directory: keys.clone(),
            unencrypted,
        };
        take(&step(false), Some(b"a secret"), None).unwrap();
        let load = |password: &'static [u8]| {
            imactl::key::FileKey::load(&keys.join("ima.key"), &|| Ok(password.to_vec()))
        };
        load(b"a secret").unwrap();
        assert_eq!(load(b"another").unwrap_err().code(), Code::KeyPassword);
        // Keys that exist are never replaced.
        assert_eq!(
            take(&step(false), Some(b"another"), None)
                .unwrap_err()
                .code(),
            Code::OutputUnwritable
        );
        load(b"a secret").unwrap();
    }

    #[test]
    fn the_key_of_the_ca_is_moved_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let stick = directory.path().join("stick");
        std::fs::create_dir(&stick).unwrap();
        let key = directory.path().join("ca.key");
        std::fs::write(&key, "secret").unwrap();
        let moved = move_secret(&key, &stick).unwrap();
        assert!(!key.exists());
        let mode = std::fs::metadata(&moved).unwrap().permissions().mode();
        assert_eq!(
            (std::fs::read(&moved).unwrap(), mode & 0o777),
            (b"secret".to_vec(), 0o600)
        );
        std::fs::write(&key, "another").unwrap();
        assert_eq!(
            move_secret(&key, &stick).unwrap_err().code(),
            Code::OutputUnwritable
        );
        assert!(key.exists());
    }

    /// A program in mokutil's place, which keeps what it is given.
    #[test]
    fn mokutil_gets_the_certificate_and_the_password_twice() {
        let directory = tempfile::tempdir().unwrap();
        let mokutil = |script: &str| {
            let path = directory.path().join("mokutil");
            let text = format!("#!/bin/sh\ncd {}\n{script}\n", directory.path().display());
            file::write(&path, text.as_bytes(), 0o755, true).unwrap();
            path.display().to_string()
        };
        let keeps = mokutil("echo \"$@\" >arguments; cat >input");
        enrol(&keeps, Path::new("/private/ca.der"), "12345678").unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("arguments"), "--import /private/ca.der\n");
        assert_eq!(read("input"), "12345678\n12345678\n");

        let fault = enrol(&mokutil("exit 255"), Path::new("ca.der"), "1").unwrap_err();
        assert_eq!(fault.code(), Code::SetupStep);
        let detail = "mokutil --import ca.der: exit status: 255";
        assert_eq!(fault.detail(), detail);
        let fault = enrol("/nonexistent/mokutil", Path::new("ca.der"), "1").unwrap_err();
        assert!(fault.remedy().contains("install mokutil"), "{fault}");
    }

    #[test]
    fn the_person_is_told_the_password() {
        let password = one_time_password().unwrap();
        let digits = password.len() == 8 && password.bytes().all(|byte| byte.is_ascii_digit());
        assert!(digits, "{password}");
        assert_ne!(password, one_time_password().unwrap());
        let text = at_the_next_boot(&password);
        assert!(text.contains(&format!("the password {password}")), "{text}");
    }

    #[test]
    fn a_password_for_mok_manager_is_one_line() {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            setup: Setup,
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let words = [
                "setup",
                "--enrol-ca",
                "--mok-password",
                path.to_str().unwrap(),
            ];
            let arguments = <Arguments as clap::Parser>::parse_from(words);
            arguments.setup.mok_password().ok()
        };
        assert_eq!(read("a secret\n").as_deref(), Some("a secret"));
        for content in ["", "\n", "two\nlines", "\u{e4}", &"x".repeat(300)] {
            assert_eq!(read(content), None, "{content:?}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let shell = |script: &str| {
            let output = Command::new("sh").args(["-c", script]).output().unwrap();
            move |program: &str| printed(program, &output)
        };
        assert_eq!(shell("echo record")("ausearch").unwrap(), "record\n");
        assert_eq!(shell("exit 1")("ausearch").unwrap(), "");
        for (script, program) in [
            ("exit 1", "dmesg"),
            (
                "echo 'Error opening /var/log/audit' >&2; exit 1",
                "ausearch",
            ),
            ("exit 10", "ausearch"),
        ] {
            let fault = shell(script)(program).unwrap_err();
            assert_eq!(fault.code(), Code::SetupStep, "{script}");
        }
        assert_eq!(
            output_of("/nonexistent/ausearch", &AUSEARCH)
                .unwrap_err()
                .code(),
            Code::SetupStep
        );
    }
}
