//! Runs steps, one after the other or beside the others, and prints the summary and what failed.

use std::fmt;
use std::io::{self, BufReader, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::checks::program;
use crate::output::Output;
use crate::steps::{Action, Ended, Step};

/// What the steps need to know.
#[derive(Debug)]
pub struct Context {
    /// The directory of the project.
    pub top: PathBuf,
    /// What the names of the tests must contain.
    pub name: Option<String>,
    /// Whether the full matrix is run.
    pub all: bool,
    /// Environment variables of the tests.
    pub variables: Vec<(&'static str, String)>,
    /// Whether the steps that need root can be run.
    pub root: bool,
    /// What the tests said.
    pub output: Mutex<Output>,
}

impl Context {
    /// Returns a command that runs in the directory of the project, without input.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = program(&self.top, name);
        command
            .args(arguments)
            .current_dir(&self.top)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, and returns whether it succeeded.
    pub fn passes(&self, name: &str, arguments: &[&str]) -> Result<bool, Error> {
        self.run(self.command(name, arguments))
    }

    /// Runs a command with its output as it comes, keeps what tests say, and returns whether it succeeded.
    pub fn run(&self, mut command: Command) -> Result<bool, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        if let Some(output) = child.stdout.take() {
            self.copy(output)?;
        }
        Ok(child.wait()?.success())
    }

    /// Copies the output of a step to standard output, and keeps what tests say.
    fn copy(&self, output: impl io::Read) -> Result<(), Error> {
        let output = Output::copy(BufReader::new(output), &mut io::stdout())?;
        self.output().extend(output);
        Ok(())
    }

    /// Returns what the tests said so far.
    pub fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command whose results on standard output nobody needs. If it fails, its name is repeated after the summary.
    pub fn quietly(&self, name: &str, arguments: &[&str]) -> Result<bool, Error> {
        let status = self.command(name, arguments).stdout(Stdio::null()).status();
        let passed = status
            .map_err(|error| format!("{name}: {error}"))?
            .success();
        if !passed {
            let words = [&[name], arguments].concat();
            let line = format!("failed: {}", words.join(" "));
            self.output().failures.push(line);
        }
        Ok(passed)
    }
}

/// Prints a message to standard error.
pub fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "run: {text}");
}

/// The result of a step, for the summary.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    ended: Ended,
    duration: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} ", self.name)?;
        let seconds = self.duration.as_secs();
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        match &self.ended {
            Ended::Passed => write!(f, "passed in {minutes}:{seconds:02}"),
            Ended::Failed => write!(f, "FAILED in {minutes}:{seconds:02}"),
            Ended::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Runs these steps, and prints the summary; returns whether none failed.
pub fn all(steps: &[&'static Step], context: &Context) -> bool {
    let outcomes = thread::scope(|scope| {
        let mut started = Vec::new();
        for (number, step) in steps.iter().copied().enumerate() {
            let last = number + 1 == steps.len();
            started.push(if step.beside && !last && !needs_root(step, context) {
                say(format_args!(
                    "{} starts beside the next steps ...",
                    step.name
                ));
                Err(scope.spawn(move || beside(step, context)))
            } else {
                Ok(foreground(step, context))
            });
        }
        started
            .into_iter()
            .map(|outcome| {
                outcome.unwrap_or_else(|thread| {
                    let outcome = thread.join().expect("a step does not panic");
                    say(format_args!("{outcome}"));
                    outcome
                })
            })
            .collect::<Vec<_>>()
    });
    eprintln!();
    for outcome in &outcomes {
        println!("{outcome}");
    }
    for line in &context.output().failures {
        println!("{line}");
    }
    outcomes
        .iter()
        .all(|outcome| outcome.ended != Ended::Failed)
}

fn needs_root(step: &Step, context: &Context) -> bool {
    step.root && !context.root
}

/// Runs a step with its output as it comes.
fn foreground(step: &'static Step, context: &Context) -> Outcome {
    say(format_args!("{} ...", step.name));
    let start = Instant::now();
    let ended = if needs_root(step, context) {
        Ok(Ended::Skipped(
            "a chroot needs root: run tests/run with sudo".to_owned(),
        ))
    } else {
        match step.action {
            Action::Command(words, of_all) => command(words, of_all, context)
                .and_then(|command| Ok(Ended::when(context.run(command)?))),
            Action::Call(call) => call(context),
        }
    };
    let outcome = outcome(step, ended, start.elapsed());
    say(format_args!("{outcome}"));
    outcome
}

/// Runs a step to its end, and prints its output then.
fn beside(step: &'static Step, context: &Context) -> Outcome {
    let start = Instant::now();
    let run = || -> std::result::Result<_, Error> {
        let Action::Command(words, of_all) = step.action else {
            return Err("only a command can run beside other steps".into());
        };
        let mut log = tempfile::tempfile()?;
        let status = command(words, of_all, context)?
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()?;
        let duration = start.elapsed();
        log.rewind()?;
        context.copy(log)?;
        Ok((Ended::when(status.success()), duration))
    };
    match run() {
        Ok((ended, duration)) => outcome(step, Ok(ended), duration),
        Err(error) => outcome(step, Err(error), start.elapsed()),
    }
}

fn command(
    words: &[&str],
    of_all: &[&str],
    context: &Context,
) -> std::result::Result<Command, Error> {
    let (program, arguments) = words.split_first().ok_or("a step without a command")?;
    let mut command = context.command(program, arguments);
    if context.all {
        command.args(of_all);
    }
    Ok(command)
}

fn outcome(step: &Step, ended: std::result::Result<Ended, Error>, duration: Duration) -> Outcome {
    let ended = ended.unwrap_or_else(|error| {
        say(format_args!("{}: {error}", step.name));
        Ended::Failed
    });
    Outcome {
        name: step.name,
        ended,
        duration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Kind;

    const fn step(name: &'static str, words: &'static [&'static str]) -> Step {
        Step {
            name,
            about: "",
            kind: Kind::Check,
            action: Action::Command(words, &["--all"]),
            root: false,
            beside: false,
            packages: &[],
        }
    }

    fn context(all: bool) -> Context {
        Context {
            top: std::env::temp_dir(),
            name: None,
            all,
            variables: vec![("IMA_INIT_KILLS", "7".to_owned())],
            root: false,
            output: Mutex::default(),
        }
    }

    #[test]
    fn one_step_that_fails_fails_the_run() {
        const GOOD: Step = step("good", &["true"]);
        const BAD: Step = step("bad", &["false"]);
        const MISSING: Step = step("missing", &["/nonexistent/program"]);
        let context = context(false);
        assert!(all(&[&GOOD], &context));
        assert!(!all(&[&BAD, &GOOD], &context));
        assert!(!all(&[&GOOD, &MISSING], &context));
    }

    #[test]
    fn the_summary_names_a_command_that_failed_without_output() {
        let context = context(false);
        assert!(context.quietly("true", &[]).unwrap());
        assert!(!context.quietly("false", &["--series", "7.2"]).unwrap());
        assert_eq!(context.output().failures, ["failed: false --series 7.2"]);
    }

    #[test]
    fn without_root_a_step_that_needs_it_is_skipped() {
        const CHROOT: Step = Step {
            root: true,
            beside: true,
            ..step("chroot", &["false"])
        };
        let outcome = foreground(&CHROOT, &context(false));
        assert!(matches!(outcome.ended, Ended::Skipped(_)));
        assert!(all(&[&CHROOT], &context(false)));
    }

    /// The step beside the others ends after the one in the foreground has written the file that it waits for.
    #[test]
    fn a_step_runs_beside_the_next_and_has_its_own_duration() {
        const FIFO: &str = "tests-of-steps";
        let directory = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let status = Command::new("mkfifo")
            .arg(directory.path().join(FIFO))
            .status();
        assert!(status.unwrap().success());
        script(
            "reader",
            &format!("read -r line <{FIFO} && [ \"$line\" = 7 ]"),
        );
        script("writer", &format!("echo \"$IMA_INIT_KILLS\" >{FIFO}"));
        const READER: Step = Step {
            beside: true,
            ..step("reader", &["./reader"])
        };
        const WRITER: Step = step("writer", &["./writer"]);
        let context = Context {
            top: directory.path().to_owned(),
            ..context(false)
        };
        assert!(all(&[&READER, &WRITER], &context));
    }

    #[test]
    fn further_arguments_belong_to_the_full_matrix() {
        for (full, expected) in [(false, &["a"][..]), (true, &["a", "--all"])] {
            let command = command(&["true", "a"], &["--all"], &context(full)).unwrap();
            assert_eq!(command.get_args().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn the_summary_has_the_duration() {
        const STEP: Step = step("name", &["true"]);
        let shown =
            |ended, seconds| outcome(&STEP, Ok(ended), Duration::from_secs(seconds)).to_string();
        assert_eq!(shown(Ended::Passed, 75), "name             passed in 1:15");
        assert_eq!(shown(Ended::Failed, 5), "name             FAILED in 0:05");
        assert_eq!(
            shown(Ended::Skipped("why".to_owned()), 5),
            "name             skipped: why"
        );
    }
}
