//! Machines whose power fails at a random moment, on a root that is mounted for writing: the file system is clean once its
//! journal has been replayed, and the next boot from the same disk succeeds.
//!
//! A chain of boots on one disk: each is killed, and the next one, killed in its turn, boots from what was left. A boot that
//! lives long enough must reach the real init; none may refuse or panic. After each kill a copy of the disk is checked.
//! `IMA_INIT_KILLS` says how many kills there are (12), `IMA_INIT_SEED` repeats a run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ima_testbed::{Outcome, Running};

use crate::built::scratch;
use crate::setup::{Setup, console_tail};
use crate::tree::run;

/// How long the real init writes at most, after the time that a boot takes.
const WRITING: Duration = Duration::from_secs(3);

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: Duration) -> Duration {
        let nanoseconds = u64::try_from(limit.as_nanos())
            .expect("a short time")
            .max(1);
        Duration::from_nanos(self.next() % nanoseconds)
    }
}

pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => otherwise,
    }
}

/// How far the killed boots came.
#[derive(Default)]
struct Tally {
    before_the_mount: u32,
    before_the_real_init: u32,
    in_the_real_init: u32,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        if !outcome.reports.is_empty() {
            self.in_the_real_init += 1;
        } else if outcome.console_contains("mounted on /rootfs") {
            self.before_the_real_init += 1;
        } else {
            self.before_the_mount += 1;
        }
    }
}

/// A copy of the disk has nothing to repair, once its journal is replayed and the files that were being deleted are.
fn assert_clean(disk: &Path) {
    let copy = disk.with_extension("copy");
    std::fs::copy(disk, &copy).expect("a copy of the disk");
    let check = |options: &str| {
        let output = Command::new("e2fsck").arg(options).arg(&copy).output();
        let output = output.expect("e2fsck");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), words)
    };
    // Without -f this looks no further than a mount does.
    let (status, words) = check("-p");
    let replay = |line: &str| {
        ["recovering journal", " orphaned ", ": clean, "]
            .iter()
            .any(|known| line.contains(known))
    };
    let only_that = words.lines().all(|line| line.is_empty() || replay(line));
    assert!(
        matches!(status, Some(0 | 1)) && only_that,
        "e2fsck -p: {words}"
    );
    let (status, words) = check("-fn");
    assert_eq!(status, Some(0), "e2fsck -fn after the replay: {words}");
    std::fs::remove_file(copy).expect("the copy");
}

/// Until the real init has reported; how long that took.
fn reached(running: &Running) -> Duration {
    if let Err(error) = running.wait_for_report() {
        panic!("the boot does not reach the real init: {error}");
    }
    running.elapsed()
}

/// Every other kill of a run: two chains go side by side.
fn chain(which: u64) {
    let kills = number("IMA_INIT_KILLS", 12).div_ceil(2);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let seed = number("IMA_INIT_SEED", now.as_secs());
    println!("chain {which} with IMA_INIT_SEED={seed}");
    let mut random = Random(seed ^ which);
    let mut setup = Setup::new();
    setup.append("rw testbed.write=yes");
    let disk = setup.image();
    let (machine, files) = setup.machine_on(&disk);
    let start = || machine.start().expect("the machine starts");
    // This one too is cut off while it writes.
    let running = start();
    let boot = reached(&running);
    assert!(!refused(&running.kill()));
    assert_clean(&disk);
    let mut tally = Tally::default();
    for kill in 1..=kills {
        let moment = random.below(boot + WRITING);
        let running = start();
        let ended = running.run_for(moment.saturating_sub(running.elapsed()));
        let outcome = running.kill();
        ended.unwrap_or_else(|error| panic!("kill {kill}: {error}: {}", console_tail(&outcome)));
        assert!(
            !refused(&outcome),
            "kill {kill}: {}",
            console_tail(&outcome)
        );
        tally.add(&outcome);
        assert_clean(&disk);
    }
    // The last kill's next boot.
    let running = start();
    reached(&running);
    assert!(!refused(&running.kill()));
    for file in files.iter().chain([&disk]) {
        std::fs::remove_file(file).expect("a file of the machine");
    }
    let summary = format!(
        "{kills} kills within {:.1} s of power-on (seed {seed}, chain {which}): {} before the root was mounted, {} before the \
         real init, {} in the real init, each with a boot before it that was killed too; every file system clean\n",
        (boot + WRITING).as_secs_f64(),
        tally.before_the_mount,
        tally.before_the_real_init,
        tally.in_the_real_init,
    );
    print!("{summary}");
    std::fs::write(scratch().join(format!("kills-{which}.txt")), summary).expect("the summary");
    assert!(
        tally.in_the_real_init > 0,
        "no kill came late enough to show anything"
    );
}

fn refused(outcome: &Outcome) -> bool {
    outcome.console_contains("refused: [") || outcome.console_contains("Kernel panic")
}

#[test]
fn at_random_moments() {
    chain(1);
}

#[test]
fn at_other_random_moments() {
    chain(2);
}

/// A file system that needs repair is distinguished from a clean one.
#[test]
fn damage_is_seen() {
    let disk = Setup::new().image();
    assert_clean(&disk);
    run(Command::new("debugfs")
        .args(["-w", "-R", "clri /sbin"])
        .arg(&disk));
    let result = std::panic::catch_unwind(|| assert_clean(&disk));
    assert!(result.is_err());
    std::fs::remove_file(disk).expect("the disk");
}
