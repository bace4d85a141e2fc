//! Runs the tests of the project as named steps: the program behind `tests/run`.

mod checks;
mod output;
mod run;
mod space;
mod steps;
mod tables;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use steps::{Kind, STEPS, Step};

type Error = Box<dyn std::error::Error>;

/// Run the tests of the project, step by step
///
/// All steps are run even if one fails. The summary at the end shows the result and the duration of each.
#[derive(Debug, Parser)]
#[command(
    name = "tests/run",
    bin_name = "tests/run",
    max_term_width = 100,
    after_help = "\
Exit status:
  0  every step passed
  1  a step failed; the summary says which. Or there is too little room for what is built
  2  the command line is wrong

Examples:
  tests/run
  tests/run --quick
  tests/run --list
  tests/run --step clippy
  tests/run policy_of_the_root
  tests/run --kills 200 random_moments
  tests/run --faults 240 every_call"
)]
struct Options {
    /// Only the steps that start no machine and need no kernel
    #[arg(long, conflicts_with = "all")]
    quick: bool,
    /// The full matrix: further refusals and stages of the Debian systems, 240 faults and 200 kills
    #[arg(long)]
    all: bool,
    /// Only this step; may be repeated
    #[arg(long = "step", value_name = "NAME", conflicts_with = "quick", value_parser = PossibleValuesParser::new(STEPS.map(|step| step.name)))]
    steps: Vec<String>,
    /// Print the steps, and exit
    #[arg(long)]
    list: bool,
    /// Print the Debian packages that the steps need, and exit
    #[arg(long, hide = true)]
    packages: bool,
    /// Kill machines this many times [default: 12, with --all 200]; 200 take about a quarter of an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kills: Option<u32>,
    /// Let this many system calls of the init fail, each in a boot of its own, and as many in front of another initramfs
    /// [default: 12, with --all 240]; 240 take about half an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    faults: Option<u32>,
    /// Only tests whose name contains this
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Options {
    /// Returns whether a step is chosen.
    fn chooses(&self, step: &Step) -> bool {
        if !self.steps.is_empty() {
            return self.steps.iter().any(|name| name == step.name);
        }
        match step.kind {
            Kind::Check => self.name.is_none(),
            Kind::Test => true,
            Kind::Boot => !self.quick,
            Kind::System => !self.quick && self.name.is_none(),
        }
    }

    fn chosen(&self) -> Vec<&'static Step> {
        STEPS.iter().filter(|step| self.chooses(step)).collect()
    }

    /// Returns a number for the boots: the one that is given, or that of the full matrix.
    fn number(&self, given: Option<u32>, of_all: u32) -> Option<u32> {
        given.or(self.all.then_some(of_all))
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let chosen = options.chosen();
    if options.packages {
        for package in steps::packages(&chosen).iter().filter(|_| !options.list) {
            println!("{package}");
        }
        return ExitCode::SUCCESS;
    }
    if options.list {
        for step in &STEPS {
            println!("{:<16} {}", step.name, step.about);
        }
        return ExitCode::SUCCESS;
    }
    let context = run::Context {
        top: Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .map_or_else(PathBuf::new, Path::to_owned),
        name: options.name.clone(),
        all: options.all,
        variables: [
            ("IMA_INIT_KILLS", options.number(options.kills, 200)),
            ("IMA_INIT_FAULTS", options.number(options.faults, 240)),
        ]
        .into_iter()
        .filter_map(|(name, number)| Some((name, number?.to_string())))
        .collect(),
        root: rustix::process::geteuid().is_root(),
        output: Mutex::default(),
    };
    if chosen.iter().any(|step| step.kind != Kind::Check)
        && let Err(text) = space::check(&space::filled())
    {
        run::say(format_args!("error: {text}"));
        return ExitCode::FAILURE;
    }
    if run::all(&chosen, &context) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn chosen(arguments: &[&str]) -> Vec<&'static str> {
        let arguments = [&["x"], arguments].concat();
        let options = Options::try_parse_from(arguments).expect("a command line");
        options.chosen().iter().map(|step| step.name).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_choose_the_steps() {
        assert_eq!(chosen(&[]).len(), STEPS.len());
        assert_eq!(chosen(&["--all"]).len(), STEPS.len());
        assert_eq!(chosen(&["some_test"]), ["units", "build", "boots"]);
        assert_eq!(chosen(&["--quick", "some_test"]), ["units"]);
        assert_eq!(chosen(&["--step", "boots", "some_test"]), ["boots"]);
        assert_eq!(
            chosen(&["--step", "units", "--step", "formatting"]),
            ["formatting", "units"]
        );
        let quick = chosen(&["--quick"]);
        assert!(
            quick.contains(&"evmctl") && !quick.contains(&"build"),
            "{quick:?}"
        );
        for wrong in [
            &["--step", "nothing"][..],
            &["--kills", "0"],
            &["--faults", "many"],
            &["--quick", "--all"],
            &["one", "two"],
        ] {
            assert!(
                Options::try_parse_from([&["x"], wrong].concat()).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_full_matrix_has_more_faults_unless_a_number_is_given() {
        let options = |arguments: &[&str]| {
            Options::try_parse_from([&["x"], arguments].concat()).expect("a command line")
        };
        for (arguments, expected) in [
            (&[][..], None),
            (&["--all"], Some(240)),
            (&["--all", "--faults", "3"], Some(3)),
            (&["--faults", "3"], Some(3)),
        ] {
            let options = options(arguments);
            assert_eq!(options.number(options.faults, 240), expected);
        }
    }
}
