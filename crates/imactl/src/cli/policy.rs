//! `imactl policy`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ima::certificate::Certificate;
use ima::fault::{Code, Fault};
use ima::policy::lint::{as_read_by, lint, lint_sound_lines};
use ima::policy::{Policy, format};
use ima::release::Release;
use imactl::check::{Root, simulate};
use imactl::file::{read_bounded, write};
use imactl::nearest;
use imactl::verify::nothing_checked;
use imactl::words;
use serde_json::json;

use super::options::{self, FileSystemOptions, OutputOptions};
use super::outcome::{Outcome, Result};
use super::output;

/// Check, explain, try out and format policies
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    Check(Check),
    Explain(Explain),
    Simulate(Simulate),
    Fmt(Fmt),
}

impl PolicyCommand {
    pub fn run(self) -> Result {
        match self {
            Self::Check(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Simulate(command) => command.run(),
            Self::Fmt(command) => command.run(),
        }
    }
}

/// Find what the kernel would refuse in a policy, by line and word, and what its author may not have meant
///
/// All errors are named, not the first alone. A policy without rules is an error: the init refuses it. Warnings have a code that
/// `imactl explain` knows: rules that are never reached, exemptions that free every program in memory, a missing final newline,
/// with --kernel rules that this kernel does not know. Exit status 1 if there is an error, or with --strict a warning.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl policy check policy/ima_policy.default
  imactl policy check --kernel 6.1 --strict ima_policy
  imactl policy check --json ima_policy | jq '.errors[].line'")]
pub struct Check {
    /// Policy files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Release of the oldest kernel that the policy is for, such as 6.1
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Release>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: OutputOptions,
}

impl Check {
    fn run(self) -> Result {
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for path in &self.files {
            let text = read_bounded(path, MAX_POLICY)?;
            let text = as_read_by(&text, self.kernel);
            let shown = output::shown(path);
            for error in Policy::errors(&text) {
                let near = nearest::in_policy(&error);
                if !self.output.json {
                    output::line(format_args!("{shown}: {}", nearest::with(&error, near)))?;
                }
                errors.push(json!({
                    "file": path.to_string_lossy(), "line": error.line, "token": error.token, "error": error.to_string(),
                    "nearest": near,
                }));
            }
            let findings = match Policy::parse(&text) {
                Ok(policy) => {
                    if policy.is_empty() {
                        if !self.output.json {
                            output::line(format_args!(
                                "{shown}: no rules; the init refuses to boot with it"
                            ))?;
                        }
                        errors.push(json!({"file": path.to_string_lossy(), "error": "no rules"}));
                    }
                    lint(&text, &policy, self.kernel)
                }
                Err(_) => lint_sound_lines(&text, self.kernel),
            };
            for finding in findings {
                let entry = finding.code.entry();
                if !self.output.json {
                    output::line(format_args!(
                        "{shown}: warning: {finding}\n  remedy: {}",
                        entry.remedy
                    ))?;
                }
                warnings.push(json!({
                    "file": path.to_string_lossy(), "line": finding.line, "code": entry.id, "warning": entry.what,
                    "detail": finding.detail, "cause": entry.cause, "remedy": entry.remedy,
                }));
            }
        }
        let good = errors.is_empty() && (warnings.is_empty() || !self.strict);
        if self.output.json {
            output::json(&json!({"errors": errors, "warnings": warnings}))?;
        }
        Ok(if good {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }
}

/// Say in plain words what a policy does, hook by hook
///
/// For each access the rules are tried in order and the first that fits decides; those of one hook stand together here. What is
/// measured, audited or hashed is decided apart from what is appraised.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl policy explain policy/ima_policy.default
  imactl policy explain --json ima_policy | jq '.hooks[].hook'")]
pub struct Explain {
    /// The policy
    file: PathBuf,
    #[command(flatten)]
    output: OutputOptions,
}

impl Explain {
    fn run(self) -> Result {
        let policy = options::policy(&self.file)?;
        let sections = words::sections(&policy);
        if self.output.json {
            let hooks: Vec<_> = sections
                .iter()
                .flat_map(|section| section.steps.iter().map(|step| (section.hook, step)))
                .map(|(hook, step)| json!({"hook": hook.name(), "line": step.line, "text": step.text}))
                .collect();
            output::json(&json!({"hooks": hooks}))?;
            return Ok(Outcome::Good);
        }
        for section in sections {
            let about = if section.appraisal {
                ""
            } else {
                " (measuring)"
            };
            let name = section.hook.name();
            output::line(format_args!("When {} ({name}){about}:", section.when))?;
            for step in &section.steps {
                output::line(format_args!("  line {:<4} {}", step.line, step.text))?;
            }
            if let Some(otherwise) = section.otherwise {
                output::line(format_args!("  otherwise {otherwise}"))?;
            }
        }
        output::line(format_args!("{}", words::EVERYTHING_ELSE))?;
        Ok(Outcome::Good)
    }
}

/// Find which files of a root a policy would deny, and why
///
/// Each file is looked at through the hooks that its kind makes possible, as `sign --for-policy` does, and judged by its
/// security.ima and the certificates: no signature, a digest only, an unknown key, other content. A digest is enough where the
/// rule asks for no signature. Exit status 1 if there is any.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl policy simulate --root root.img --cert ima.der ima_policy
  imactl policy simulate --root rootfs/ --cert ima.der --json ima_policy | jq '.denied[].path'")]
pub struct Simulate {
    /// The policy
    policy: PathBuf,
    /// The root: an image (ext4, squashfs, erofs), a directory, or a tar archive with PAX attributes
    #[arg(long, value_name = "PATH")]
    root: PathBuf,
    /// Certificates of keys that will be on .ima; DER, or PEM with any number of them. Without one every signature is of an
    /// unknown key
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// Certificates of keys that will be on .evm; EVM is then on
    #[arg(long = "evm-cert", value_name = "FILE")]
    evm: Vec<PathBuf>,
    #[command(flatten)]
    filesystem: FileSystemOptions,
    /// Release of the oldest kernel that will appraise the files, such as 6.12
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<Release>,
    #[command(flatten)]
    output: OutputOptions,
}

impl Simulate {
    fn run(self) -> Result {
        let policy = options::policy(&self.policy)?;
        let filesystem = self.filesystem.filesystem()?;
        let read = |paths: &[PathBuf]| -> imactl::Result<Vec<Certificate>> {
            let all: imactl::Result<Vec<_>> = paths
                .iter()
                .map(|path| options::certificates(path))
                .collect();
            Ok(all?.concat())
        };
        let (certificates, evm) = (read(&self.certificates)?, read(&self.evm)?);
        let root = Root::new(imactl::image::read(&self.root)?, filesystem);
        let found = simulate(&root, &policy, &certificates, &evm, self.kernel)?;
        if found.appraised == 0 {
            return Err(nothing_checked("the policy appraises no file of the root"));
        }
        let denied = found.denied;
        if self.output.json {
            let denied: Vec<_> = denied
                .iter()
                .map(|refused| {
                    let hooks: Vec<_> = refused
                        .hooks
                        .iter()
                        .map(|(hook, line)| json!({"hook": hook.name(), "line": line}))
                        .collect();
                    json!({
                        "path": format!("/{}", String::from_utf8_lossy(&refused.path)),
                        "verdict": refused.verdict.word(),
                        "detail": refused.verdict.to_string(),
                        "denied": hooks,
                    })
                })
                .collect();
            output::json(&json!({"denied": denied}))?;
        } else {
            for refused in &denied {
                let name = String::from_utf8_lossy(&refused.path);
                let hooks: Vec<String> = refused
                    .hooks
                    .iter()
                    .map(|(hook, line)| format!("{} (line {line})", hook.name()))
                    .collect();
                output::line(format_args!(
                    "/{}: {}; denied at {}",
                    name.escape_debug(),
                    refused.verdict,
                    hooks.join(", ")
                ))?;
            }
            output::line(format_args!(
                "{} of {} appraised files denied",
                denied.len(),
                found.appraised
            ))?;
        }
        Ok(if denied.is_empty() {
            Outcome::Good
        } else {
            Outcome::Findings
        })
    }
}

/// Bring policies into one form
///
/// Rules as the kernel shows them, comments as they are, a newline at the end. A file with an error is left alone. Each file is
/// written beside and renamed. Exit status 1 with --check if a file is not in this form.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imactl policy fmt ima_policy
  imactl policy fmt --check policy/ima_policy.default")]
pub struct Fmt {
    /// Policy files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; name the files that are not in this form
    #[arg(long)]
    check: bool,
}

impl Fmt {
    fn run(self) -> Result {
        let mut outcome = Outcome::Good;
        for path in &self.files {
            let text = read_bounded(path, MAX_POLICY)?;
            let formatted = format::format(&text).map_err(|error| {
                Fault::new(Code::PolicyInvalid, format!("{}: {error}", path.display()))
            })?;
            if formatted == text {
                continue;
            }
            if self.check {
                output::line(format_args!("{}", output::shown(path)))?;
                outcome = Outcome::Findings;
            } else {
                // What a link points to is replaced, not the link.
                let path = std::fs::canonicalize(path)
                    .map_err(|error| imactl::file::unreadable(path, &error))?;
                write(&path, &formatted, mode(&path)?, true)?;
            }
        }
        Ok(outcome)
    }
}

/// The permissions that a file has, for what replaces it.
fn mode(path: &Path) -> imactl::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(path).map_err(|error| imactl::file::unreadable(path, &error))?;
    Ok(meta.permissions().mode() & 0o7777)
}

const MAX_POLICY: u64 = 4 << 20;
