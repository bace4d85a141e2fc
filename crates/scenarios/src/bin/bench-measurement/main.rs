//! Times of programs that replay a long measurement list in one bank, and the memory that they take.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use ima::hash::HashAlgorithm;
use ima::hex;

type Error = Box<dyn std::error::Error>;

/// Replay a measurement list with imactl, evmctl and Keylime
#[derive(Debug, Parser)]
#[command(after_help = "\
Examples:
  bench-measurement --imactl target/release/imactl --keylime tests/keylime
  bench-measurement --imactl target/release/imactl --keylime tests/keylime --entries 10000 --runs 1")]
struct Options {
    /// imactl
    #[arg(long, value_name = "FILE")]
    imactl: PathBuf,
    /// tests/keylime
    #[arg(long, value_name = "FILE")]
    keylime: PathBuf,
    /// Entries of the list
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    entries: u32,
    /// Times that each program is run; the shortest counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: u32,
}

/// What a program took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// By the clock.
    time: Duration,
    /// The most memory that was resident at once, in kB.
    memory: u64,
}

/// Of one of the algorithms that are always computed.
fn hash(algo: HashAlgorithm, bytes: &[u8]) -> Vec<u8> {
    algo.digest(bytes).unwrap_or_default()
}

/// The data of an entry of the template `ima-ng`: each field with its length before it (security/integrity/ima/ima_template.c).
fn template_data(number: u32) -> Vec<u8> {
    let digest = hash(HashAlgorithm::Sha256, &number.to_le_bytes());
    let digest = [b"sha256:\0", digest.as_slice()].concat();
    let name = format!("/usr/lib/x86_64-linux-gnu/library-{number}.so\0");
    let mut data = Vec::new();
    for field in [digest.as_slice(), name.as_bytes()] {
        let length = u32::try_from(field.len()).unwrap_or_default();
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(field);
    }
    data
}

/// The files that the programs are given.
struct Lists {
    directory: tempfile::TempDir,
    /// The value of PCR 10 in the bank SHA-256, in hexadecimal.
    pcr: String,
}

impl Lists {
    /// Writes a list in both forms, and the PCRs that it leaves.
    fn make(entries: u32) -> Result<Self, Error> {
        const TEMPLATE: &[u8] = b"ima-ng";
        let directory = tempfile::tempdir()?;
        let create = |name| File::create(directory.path().join(name)).map(BufWriter::new);
        let (mut binary, mut ascii) = (create("binary")?, create("ascii")?);
        let mut pcr = vec![0; 32];
        for number in 0..entries {
            let data = template_data(number);
            let digest = hash(HashAlgorithm::Sha1, &data);
            binary.write_all(&10_u32.to_le_bytes())?;
            binary.write_all(&digest)?;
            binary.write_all(&u32::try_from(TEMPLATE.len())?.to_le_bytes())?;
            binary.write_all(TEMPLATE)?;
            binary.write_all(&u32::try_from(data.len())?.to_le_bytes())?;
            binary.write_all(&data)?;
            let name = format!("/usr/lib/x86_64-linux-gnu/library-{number}.so");
            let file = hash(HashAlgorithm::Sha256, &number.to_le_bytes());
            let (digest, file) = (hex::encode(&digest), hex::encode(&file));
            writeln!(ascii, "10 {digest} ima-ng sha256:{file} {name}")?;
            let extended = hash(HashAlgorithm::Sha256, &data);
            pcr = hash(HashAlgorithm::Sha256, &[pcr, extended].concat());
        }
        binary.flush()?;
        ascii.flush()?;
        let pcr = hex::encode(&pcr);
        let mut text = String::new();
        for number in 0..24 {
            let zeros = "0".repeat(64);
            let value = if number == 10 { &pcr } else { &zeros };
            text += &format!("PCR-{number:02}: {value}\n");
        }
        std::fs::write(directory.path().join("pcrs"), text)?;
        // Every name is accepted: what is timed is the replay.
        let policy = serde_json::json!({
            "meta": { "version": 1, "generator": 0 }, "release": 0, "digests": {}, "excludes": [".*"], "keyrings": {},
            "ima": { "ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": null }, "ima-buf": {}, "verification-keys": "",
        });
        std::fs::write(directory.path().join("policy"), policy.to_string())?;
        Ok(Self { directory, pcr })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pcrs(&self) -> String {
        format!("sha256,{}", self.path("pcrs").display())
    }
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<Cost, Error> {
    // GNU time, since only a parent that waits itself learns what one child took.
    let report = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new("time");
    timed.args(["--format=%M", "--output"]).arg(report.path());
    timed.arg(command.get_program()).args(command.get_args());
    let start = Instant::now();
    let output = timed.stdin(Stdio::null()).output()?;
    let time = start.elapsed();
    if !output.status.success() {
        return Err(format!("{command:?}: {output:?}").into());
    }
    let memory = std::fs::read_to_string(report.path())?.trim().parse()?;
    Ok(Cost { time, memory })
}

fn best(command: &mut Command, runs: u32) -> Result<Cost, Error> {
    let mut best = run(command)?;
    for _ in 1..runs {
        let cost = run(command)?;
        best.time = best.time.min(cost.time);
        best.memory = best.memory.min(cost.memory);
    }
    Ok(best)
}

/// The table; ratios are to the first row.
fn table(entries: u32, rows: &[(&str, Cost)]) -> String {
    let mut text = format!(
        "{entries} entries\n\n| program | seconds | ratio | memory, MB | ratio |\n|---|---|---|---|---|\n"
    );
    let Some((_, first)) = rows.first() else {
        return text;
    };
    for (name, cost) in rows {
        text += &format!(
            "| {name} | {:.2} | {:.2} | {:.1} | {:.2} |\n",
            cost.time.as_secs_f64(),
            cost.time.as_secs_f64() / first.time.as_secs_f64(),
            cost.memory as f64 / 1000.0,
            cost.memory as f64 / first.memory as f64,
        );
    }
    text
}

fn measure(options: &Options) -> Result<String, Error> {
    let lists = Lists::make(options.entries)?;
    let program = |path: &Path| Command::new(path);
    let mut rows = Vec::new();
    let best = |command: &mut Command| best(command, options.runs);
    for (name, list) in [("imactl, binary", "binary"), ("imactl, ASCII", "ascii")] {
        let mut command = program(&options.imactl);
        command.args(["measurement", "--pcrs", &lists.pcrs()]);
        rows.push((name, best(command.arg(lists.path(list)))?));
    }
    let mut command = program(Path::new("evmctl"));
    command.args(["ima_measurement", "--pcrs", &lists.pcrs()]);
    rows.push(("evmctl, binary", best(command.arg(lists.path("binary")))?));
    let mut command = program(&options.keylime);
    command.args([lists.path("policy"), lists.path("ascii")]);
    let cost = best(command.args(["sha256", &lists.pcr]))?;
    rows.push(("Keylime, ASCII", cost));
    Ok(table(options.entries, &rows))
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use ima::bank::Bank;
    use ima::measurement::{ByteOrder, MeasurementList, PcrMatch};

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn both_forms_are_of_one_list_that_leaves_the_pcr() {
        let lists = Lists::make(5).unwrap();
        let read = |name| std::fs::read(lists.path(name)).unwrap();
        let order = ByteOrder::Little;
        let binary = MeasurementList::parse_binary(&read("binary"), Bank::Sha1, order).unwrap();
        let ascii = MeasurementList::parse_ascii(&read("ascii"), order).unwrap();
        assert_eq!(binary.entries(), ascii.entries());
        assert_eq!(binary.entries().len(), 5);
        assert_eq!(binary.first_wrong_digest(), None);
        let pcr = hex::decode(&lists.pcr).unwrap();
        assert!(matches!(
            binary.match_pcr(Bank::Sha256, 10, &pcr),
            PcrMatch::Whole
        ));
    }

    #[test]
    fn ratios_are_to_the_first() {
        let cost = |seconds, memory| Cost {
            time: Duration::from_secs(seconds),
            memory,
        };
        let text = table(3, &[("a", cost(2, 1000)), ("b", cost(5, 4000))]);
        assert!(
            text.ends_with("| a | 2.00 | 1.00 | 1.0 | 1.00 |\n| b | 5.00 | 2.50 | 4.0 | 4.00 |\n")
        );
    }
}
