//! Measures how fast imactl signs a Debian root, beside evmctl: the last step of `benches/sign`.

mod results;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use walkdir::WalkDir;

use results::{Content, Results, Times};

type Error = Box<dyn std::error::Error>;

/// Measure how fast imactl signs a root file system, beside evmctl
///
/// Unpacks the archive, signs its files several times with each program, and prints a table with the best times for each kind of
/// key. Needs root, evmctl, openssl and tar.
#[derive(Debug, Parser)]
#[command(name = "bench-sign", version, max_term_width = 100)]
struct Options {
    /// The program imactl
    #[arg(long, value_name = "FILE")]
    imactl: PathBuf,
    /// A tar archive of the root file system
    #[arg(long, value_name = "FILE")]
    archive: PathBuf,
    /// Sign this many times with each program
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

/// The kinds of keys that files are signed with, as `imactl keygen --type` names them.
const KINDS: [&str; 2] = ["rsa2048", "p256"];

/// With fewer files, starting the programs would take a noticeable part of the times.
const LEAST_FILES: usize = 5000;

/// The directory that everything is in, which is removed at the end.
struct Bench<'a> {
    options: &'a Options,
    directory: tempfile::TempDir,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn imactl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.options.imactl);
        command.args(arguments);
        command
    }

    /// Runs a command to its end, and returns how long it took.
    fn timed(&self, command: &mut Command) -> Result<Times, Error> {
        let errors = self.path("err");
        command
            .stdout(File::create(self.path("out"))?)
            .stderr(File::create(&errors)?);
        let processor = processor_time()?;
        let start = Instant::now();
        let status = command
            .status()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let clock = start.elapsed();
        let processor = processor_time()?.saturating_sub(processor);
        if !status.success() {
            let errors = fs::read(errors)?;
            let errors = String::from_utf8_lossy(&errors);
            return Err(format!("{command:?}: {status}: {}", errors.trim_end()).into());
        }
        Ok(Times { clock, processor })
    }

    /// Runs commands one after the other, all of them as often as the options say, and returns the best times of each.
    fn best<const N: usize>(&self, commands: &mut [Command; N]) -> Result<[Times; N], Error> {
        let mut best = [Times::MAX; N];
        for _ in 0..self.options.runs {
            for (best, command) in best.iter_mut().zip(commands.iter_mut()) {
                *best = best.min(self.timed(command)?);
            }
        }
        Ok(best)
    }

    /// Unpacks the archive without its devices, and reads every file, so that all are in the page cache from the first run on.
    fn unpack(&self) -> Result<(PathBuf, Content), Error> {
        let root = self.path("root");
        fs::create_dir(&root)?;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("--exclude=./dev").arg("-xf");
        self.timed(tar.arg(&self.options.archive))?;
        let content = content(&root)?;
        if content.files < LEAST_FILES {
            let files = content.files;
            return Err(format!(
                "the archive has only {files} files; {LEAST_FILES} are needed to measure"
            )
            .into());
        }
        Ok((root, content))
    }

    /// Makes a key of a kind, and measures the programs with it.
    fn measure(
        &self,
        kind: &str,
        root: &Path,
        content: Content,
        hashing: Duration,
    ) -> Result<Results, Error> {
        let keys = self.path(kind);
        let mut keygen = self.imactl(&[
            "keygen",
            "--unencrypted",
            "--type",
            kind,
            "--ca-type",
            "p256",
            "--out",
        ]);
        self.timed(keygen.arg(&keys))?;
        let [key, certificate] = ["ima.key", "ima.der"].map(|name| keys.join(name));

        let mut evmctl = Command::new("evmctl");
        evmctl.args(["ima_sign", "-r", "--hashalgo", "sha256", "--key"]);
        evmctl.arg(&key).arg(root);
        let sign = |arguments: &[&str]| {
            let mut sign = self.imactl(arguments);
            sign.arg("--key").arg(&key).arg("--cert").arg(&certificate);
            sign.arg(root);
            sign
        };
        let mut hash = self.imactl(&["evmctl", "ima_hash", "-n", "-r"]);
        hash.arg(root);
        let [evmctl, sign, incremental, hash] = self.best(&mut [
            evmctl,
            sign(&["sign"]),
            sign(&["sign", "--incremental"]),
            hash,
        ])?;

        let digests = self.path("digests");
        fs::write(&digests, results::digests(content.files))?;
        let mut signing = Times::MAX;
        for _ in 0..self.options.runs {
            let mut command = self.imactl(&["evmctl", "sign_hash", "-a", "sha256", "--key"]);
            command.arg(&key).stdin(File::open(&digests)?);
            signing = signing.min(self.timed(&mut command)?);
        }
        Ok(Results {
            evmctl,
            sign,
            incremental,
            hash,
            raw_hashing: hashing,
            raw_signing: signing.processor,
        })
    }
}

/// Returns the processor time, user and system, of all child processes that have ended (getrusage(2), RUSAGE_CHILDREN).
fn processor_time() -> Result<Duration, Error> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(time.num_microseconds().try_into()?))
}

/// Reads all regular files below a directory. Returns how many there are; one with several names counts once.
fn content(root: &Path) -> Result<Content, Error> {
    let mut content = Content::default();
    let mut seen = HashSet::new();
    for entry in WalkDir::new(root) {
        let entry = entry?;
        if !entry.file_type().is_file() {
            continue;
        }
        let data = entry.metadata()?;
        if seen.insert((data.dev(), data.ino())) {
            content.files += 1;
            content.bytes += io::copy(&mut File::open(entry.path())?, &mut io::sink())?;
        }
    }
    Ok(content)
}

/// Returns how many bytes a second openssl hashes with SHA-256 on one processor.
fn hash_rate() -> Result<f64, Error> {
    let mut command = Command::new("openssl");
    command.args([
        "speed", "-seconds", "1", "-bytes", "262144", "-evp", "sha256",
    ]);
    let output = command.stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    results::hash_rate(&text)
        .ok_or_else(|| format!("{command:?}: {}: no rate in {text:?}", output.status).into())
}

fn run(options: &Options) -> Result<(), Error> {
    let directory = tempfile::Builder::new()
        .prefix("ima-init-bench.")
        .tempdir()?;
    let bench = Bench { options, directory };
    let (root, content) = bench.unpack()?;
    let cores = std::thread::available_parallelism()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", content.shown(cores))?;
    let hashing = Duration::from_secs_f64(content.bytes as f64 / hash_rate()?);
    for kind in KINDS {
        let results = bench.measure(kind, &root, content, hashing)?;
        writeln!(out, "{}", results.table(kind, content.files, cores))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-sign: error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn files_with_several_names_count_once_and_links_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("one"), b"12345").unwrap();
        fs::write(at("sub/two"), b"123").unwrap();
        fs::hard_link(at("one"), at("sub/again")).unwrap();
        std::os::unix::fs::symlink("one", at("link")).unwrap();
        let expected = Content { files: 2, bytes: 8 };
        assert_eq!(content(directory.path()).unwrap(), expected);
    }

    #[test]
    fn the_best_times_are_measured_with_processor_time() {
        let options = Options::parse_from(["bench-sign", "--imactl=i", "--archive=a", "--runs=2"]);
        let bench = Bench {
            options: &options,
            directory: tempfile::tempdir().unwrap(),
        };
        let counted = bench.path("counted");
        let mut busy = Command::new("sh");
        busy.arg("-c")
            .arg("echo >>\"$1\"; i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done");
        busy.arg("sh").arg(&counted);
        let idle = Command::new("true");
        let [busy, idle] = bench.best(&mut [busy, idle]).unwrap();
        assert_eq!(fs::read(counted).unwrap(), b"\n\n");
        assert!(busy.processor > idle.processor, "{busy:?} {idle:?}");
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_message() {
        let options = Options::parse_from(["bench-sign", "--imactl=i", "--archive=a"]);
        let bench = Bench {
            options: &options,
            directory: tempfile::tempdir().unwrap(),
        };
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let error = bench.timed(&mut command).unwrap_err().to_string();
        assert!(error.ends_with("exit status: 3: reason"), "{error}");
    }
}
