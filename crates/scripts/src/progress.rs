//! Runs a command with its output in a file, and shows that it makes progress.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;

/// Run a command with its output in a file, and show that it makes progress
///
/// On a terminal, one line shows the time taken, the number of lines in the file and the last of them. Elsewhere such a line is
/// printed each half minute. If the command fails, the end of the file is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is that of the command, 128 and the number of the signal if one ended it, or 127 if it could not be run.

Example:
  script-helper progress --title 'compiling the kernel' --log compile.log -- make -j2 vmlinux")]
pub struct Options {
    /// What the command does
    #[arg(long)]
    title: String,
    /// The file for the output of the command
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// The time between two lines where there is no terminal.
const PACE: Duration = Duration::from_secs(30);

/// How many lines of the file are shown after a failure.
const SHOWN: usize = 30;

/// How much is read at a time.
const CHUNK: usize = 1 << 16;

/// How much of the last line is kept.
const MAX_LAST: usize = 200;

/// What was read: the number of whole lines, and the last text that is not blank.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    lines: u64,
    last: String,
}

impl Seen {
    /// Counts the lines of a part of the output. Programs draw bars of their own with carriage returns.
    fn add(&mut self, part: &[u8]) {
        let count = part.iter().filter(|byte| **byte == b'\n').count();
        self.lines = self.lines.saturating_add(count as u64);
        let mut texts = part.rsplit(|byte| matches!(byte, b'\n' | b'\r'));
        if let Some(text) = texts.find(|text| !text.trim_ascii().is_empty()) {
            self.last = String::from_utf8_lossy(text)
                .chars()
                .map(|character| {
                    if character.is_control() {
                        ' '
                    } else {
                        character
                    }
                })
                .take(MAX_LAST)
                .collect();
        }
    }
}

/// Returns a duration as minutes and seconds.
fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Prints a message to standard error.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Copies the output to the file, and sends what was seen after each part.
fn copy(mut from: impl Read, to: &mut impl Write, seen: &mpsc::Sender<Seen>) -> io::Result<()> {
    let mut part = vec![0; CHUNK];
    let mut so_far = Seen::default();
    loop {
        let len = from.read(&mut part)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&part[..len])?;
        so_far.add(&part[..len]);
        // Nobody receives it any more once the command is given up.
        let _ = seen.send(so_far.clone());
    }
}

/// Runs a command to its end with its output in a file. Returns its exit status, as a shell does.
pub fn run(title: &str, log_path: &Path, command: &[String]) -> Result<u8, Error> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    if let Some(directory) = log_path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut log =
        File::create(log_path).map_err(|error| format!("{}: {error}", log_path.display()))?;
    let start = Instant::now();
    let terminal = io::stderr().is_terminal();
    if !terminal {
        say(&format!("{} ...", title));
    }
    let (output, input) = io::pipe()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(input.try_clone()?)
        .stderr(input)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let (sender, seen) = mpsc::channel();
    let copied = thread::spawn(move || copy(output, &mut log, &sender));
    if terminal {
        draw(title, &seen)?;
    } else {
        report(title, start, &seen);
    }
    copied.join().map_err(|_| "the output was not copied")??;
    let status = child.wait()?;
    if status.success() {
        say(&format!("{}: done in {}", title, shown(start.elapsed())));
    } else {
        for line in end_of(log_path)? {
            say(&format!("    {line}"));
        }
        say(&format!(
            "{} failed; the whole output is in {}",
            title,
            log_path.display()
        ));
    }
    Ok(code(status))
}

/// Shows one line on a terminal until the output ends.
fn draw(title: &str, seen: &mpsc::Receiver<Seen>) -> Result<(), Error> {
    let style = ProgressStyle::with_template("{prefix}  {elapsed}  [{pos}] {wide_msg}")?;
    let bar = ProgressBar::no_length()
        .with_style(style)
        .with_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_secs(1));
    for seen in seen {
        bar.set_position(seen.lines);
        bar.set_message(seen.last);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Prints a line each half minute until the output ends.
fn report(title: &str, start: Instant, seen: &mpsc::Receiver<Seen>) {
    let mut so_far = Seen::default();
    let mut due = start + PACE;
    loop {
        match seen.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(seen) => so_far = seen,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= due {
            let last: String = so_far.last.chars().take(60).collect();
            let time = shown(start.elapsed());
            say(&format!("{title}: {time}, {} lines: {last}", so_far.lines));
            due += PACE;
        }
    }
}

/// Returns the last lines of a file.
fn end_of(path: &Path) -> io::Result<VecDeque<String>> {
    let mut last = VecDeque::new();
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(&line?).into_owned());
    }
    Ok(last)
}

/// Returns the exit status for a command that ended so, as a shell does.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Runs the command of the command line.
pub fn main(options: &Options) -> Result<ExitCode, Error> {
    run(&options.title, &options.log, &options.command).map(ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str) -> (u8, String) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log/file");
        let command = ["sh", "-c", script].map(str::to_owned);
        let status = run("a test", &log, &command).unwrap();
        (status, std::fs::read_to_string(log).unwrap())
    }

    #[test]
    fn the_file_has_all_output_and_the_status_is_the_command_s() {
        assert_eq!(
            run_shell("echo out; echo error >&2; printf end"),
            (0, "out\nerror\nend".to_owned())
        );
        assert_eq!(run_shell("echo bad; exit 3"), (3, "bad\n".to_owned()));
        assert_eq!(run_shell("kill -TERM $$").0, 143);
    }

    #[test]
    fn a_command_that_cannot_be_run_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let command = ["/nonexistent/program".to_owned()];
        let error = run("a test", &directory.path().join("log"), &command).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("/nonexistent/program: "), "{error}");
    }

    #[test]
    fn lines_are_counted_and_the_last_text_is_kept() {
        let mut seen = Seen::default();
        for (part, lines, last) in [
            (&b"one\ntwo\n"[..], 2, "two"),
            (b"\n\n", 4, "two"),
            (b" 10%\r 20%\r", 4, " 20%"),
            (b"\x1b[31mred\xff", 4, " [31mred\u{fffd}"),
        ] {
            seen.add(part);
            assert_eq!((seen.lines, seen.last.as_str()), (lines, last));
        }
        seen.add(&[b'x'; 1000]);
        assert_eq!(seen.last.len(), MAX_LAST);
    }

    #[test]
    fn the_end_of_a_file_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let end = end_of(file.path()).unwrap();
        assert_eq!(end.len(), SHOWN);
        assert_eq!((end[0].as_str(), end[SHOWN - 1].as_str()), ("70", "99"));
    }

    #[test]
    fn durations_have_minutes_and_seconds() {
        for (seconds, expected) in [(0, "0:00"), (75, "1:15"), (3600, "60:00")] {
            assert_eq!(shown(Duration::from_secs(seconds)), expected);
        }
    }
}
