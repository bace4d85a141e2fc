//! Leads a Debian system from nothing to enforcement and through its upkeep, over the serial console, as a person would: the
//! last step of `qemu/debian-setup`.

mod grub;
mod session;
mod stages;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use stages::{STAGES, Stage};

const USAGE: &str = "\
Usage: scenario-debian-setup --disk FILE [OPTION]... [STAGE]...

Boots the system of the disk image once for each STAGE, in this order whatever the order they are given in, and does there what
the stage is about. If none is given, these are install, log and enforced. What the system writes stays in the image.

  --disk FILE    an image of one ext4 file system with /boot in it
  --keep DIR     a copy of the image after each stage, as DIR/STAGE.img; made as sparse files
  --console DIR  the console of each stage, as DIR/STAGE.console
  --all          all stages
  --verbose      show the console while the machine runs
  --list         print the stages and what they show
";

type Error = Box<dyn std::error::Error>;

struct Options {
    disk: PathBuf,
    keep: Option<PathBuf>,
    console: Option<PathBuf>,
    verbose: bool,
    stages: Vec<&'static Stage>,
}

fn main() -> ExitCode {
    let arguments: VecDeque<String> = std::env::args().skip(1).collect();
    let has = |words: &[&str]| arguments.iter().any(|word| words.contains(&word.as_str()));
    if has(&["--help", "-h"]) {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if has(&["--list"]) {
        for stage in &STAGES {
            println!("{:<12} {}", stage.name, stage.about);
        }
        return ExitCode::SUCCESS;
    }
    match options(arguments).and_then(|options| stages::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario-debian-setup: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: VecDeque<String>) -> Result<Options, Error> {
    let (mut disk, mut keep, mut console) = (None, None, None);
    let (mut all, mut verbose) = (false, false);
    let mut chosen: Vec<String> = Vec::new();
    while let Some(option) = arguments.pop_front() {
        let mut value = || {
            arguments
                .pop_front()
                .ok_or_else(|| format!("{option} needs a value; --help shows the usage"))
        };
        match option.as_str() {
            "--disk" => disk = Some(value()?.into()),
            "--keep" => keep = Some(value()?.into()),
            "--console" => console = Some(value()?.into()),
            "--all" => all = true,
            "--verbose" => verbose = true,
            name if STAGES.iter().any(|stage| stage.name == name) => chosen.push(option),
            _ => return Err(format!("unknown argument {option}; --help shows the usage").into()),
        }
    }
    Ok(Options {
        disk: disk.ok_or("--disk is missing; --help shows the usage")?,
        keep,
        console,
        verbose,
        stages: STAGES
            .iter()
            .filter(|stage| {
                chosen.iter().any(|name| name == stage.name)
                    || all
                    || (chosen.is_empty() && stage.default)
            })
            .collect(),
    })
}
