//! The fault matrix: one row a boot that must be refused, with the code, what the machine does then, and what `imactl check`
//! says of it without a boot.
//!
//! That nothing of the real root ran is seen from the guest: its program, in the place of init, would say so on the console,
//! report, and leave a mark on the disk; the disk must be what it was, byte by byte; and the kernel's own record of every
//! program that is executed (`audit func=BPRM_CHECK` in the policy) must name none of the root's.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use ima_testbed::report::MARK;
use ima_testbed::{Ending, Outcome};

use crate::built::{scratch, source};
use crate::keys::P256;
use crate::setup::{DEFAULT_POLICY, Setup, assert_booted, assert_refused, console_tail};
use crate::{
    composefs, features, flash, front, hostile, initramfs, lines, luks, measured, media, overlay,
    refused, script_control, shared, signed_verity, slots, verity, versions,
};

/// What the machine does after a refusal: `on_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Reboot,
    Poweroff,
    Halt,
    Panic,
}

impl Action {
    const ALL: [Action; 4] = [
        Action::Reboot,
        Action::Poweroff,
        Action::Halt,
        Action::Panic,
    ];

    /// The value of `on_failure`.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Reboot => "reboot",
            Action::Poweroff => "poweroff",
            Action::Halt => "halt",
            Action::Panic => "panic",
        }
    }

    /// Whether a machine that ended so did this.
    pub fn is(self, ending: &Ending) -> bool {
        match self {
            Action::Reboot => *ending == Ending::Reboot,
            Action::Poweroff => *ending == Ending::PowerOff,
            Action::Halt => *ending == Ending::Halt,
            Action::Panic => matches!(ending, Ending::Panic(_)),
        }
    }
}

/// What `imactl check` says of a fault, from kernel, initramfs, root and command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The init's code.
    Same,
    /// The same; and `imactl initramfs` does not make such an initramfs in the first place.
    Unmade,
    /// This one: the init sees less than there is to see, and so refuses later.
    Sooner(&'static str),
    /// Nothing, for the reason given: the fault is in none of these.
    Silent(&'static str),
    /// Not asked: the images are not what it reads, for the reason given.
    NotAsked(&'static str),
}

/// What other programs of the initramfs do is not looked at.
pub const SCRIPT: Check = Check::Silent("what a script of the initramfs does is not followed");

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub code: &'static str,
    pub action: Action,
    pub check: Check,
    /// The attributes of its test.
    attributes: &'static str,
}

impl Row {
    /// Returns a row, as the macro `faults!` makes it.
    pub const fn new(
        name: &'static str,
        code: &'static str,
        action: Action,
        check: Check,
        attributes: &'static str,
    ) -> Row {
        Row {
            name,
            code,
            action,
            check,
            attributes,
        }
    }

    /// Whether it is booted without `--all` too.
    fn is_always_booted(&self) -> bool {
        !self.attributes.contains("ignore")
    }
}

/// Rows, each with its test: `name: code, action, check, what makes the fault of a boot that succeeds;`. Of several rows that
/// differ in form alone, those with `#[ignore]` are booted by `tests/run --all`.
macro_rules! faults {
    ($($(#[$attribute:meta])* $name:ident: $code:literal, $action:ident, $check:expr, $fault:expr;)+) => {
        pub static ROWS: &[$crate::matrix::Row] = &[$($crate::matrix::Row::new(
            stringify!($name),
            $code,
            $crate::matrix::Action::$action,
            $check,
            stringify!($(#[$attribute])*),
        )),+];

        mod refuses {
            // The macro's own names; what the rows use comes along.
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                $(#[$attribute])*
                fn $name() {
                    let row = ROWS.iter().find(|row| row.name == stringify!($name));
                    $crate::matrix::refuse(row.expect("a row"), $fault);
                }
            )+
        }
    };
}
pub(crate) use faults;

fn rows() -> impl Iterator<Item = &'static Row> {
    [
        initramfs::ROWS,
        front::ROWS,
        refused::ROWS,
        hostile::ROWS,
        lines::ROWS,
        luks::ROWS,
        media::ROWS,
        verity::ROWS,
        composefs::ROWS,
        features::ROWS,
        signed_verity::ROWS,
        flash::ROWS,
        shared::ROWS,
        overlay::ROWS,
        slots::ROWS,
        measured::ROWS,
        script_control::ROWS,
        versions::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// A boot that shows what runs of the root, and would succeed.
pub fn watched() -> Setup {
    let mut setup = Setup::new();
    let mut policy = source("policy/ima_policy.default");
    policy.extend_from_slice(b"\naudit func=BPRM_CHECK\n");
    setup.put(DEFAULT_POLICY, policy);
    // The kernel's log of audit records is not to be cut short.
    setup.append("testbed.mark=yes sysctl.kernel.printk_ratelimit=0");
    setup
}

/// Boots with the fault, and sees what the row says.
pub fn refuse(row: &Row, fault: impl FnOnce(&mut Setup)) {
    assert!(
        rows().any(|listed| std::ptr::eq(listed, row)),
        "the rows of the module are not among those of rows()"
    );
    let mut setup = watched();
    setup.configure(&format!("on_failure={}", row.action.name()));
    fault(&mut setup);
    match row.check {
        Check::Same => assert_eq!(setup.checked(), Some(row.code), "imactl check"),
        Check::Unmade => {
            assert_eq!(setup.refused_on_the_desk(), Some(row.code));
            assert_eq!(setup.checked(), Some(row.code), "imactl check");
        }
        Check::Sooner(code) => assert_eq!(setup.checked(), Some(code), "imactl check"),
        Check::Silent(_) => assert_eq!(setup.checked(), None, "imactl check"),
        Check::NotAsked(_) => {}
    }
    let (outcome, disk) = setup.boot_on_a_disk();
    assert_refused(&outcome, row.code, row.action);
    assert!(
        outcome.console_contains(setup.says),
        "“{}” is not on the console: {}",
        setup.says,
        console_tail(&outcome)
    );
    assert_nothing_executed(&outcome);
    let [before, after] = disk;
    assert!(
        same(&before, &after),
        "the disk was written to: {}",
        console_tail(&outcome)
    );
    for path in [before, after] {
        std::fs::remove_file(path).expect("a disk");
    }
    record(row, &outcome);
}

/// The kernel records what it is asked to execute from the moment the policy is in force: of the root, there must be nothing.
/// The canary is not a program and of no root, the programs of an initramfs with an init of its own are in none of the tests'
/// roots. A switch_root that has refused, or ended before it could, was itself executed.
pub fn assert_nothing_executed(outcome: &Outcome) {
    for program in executed(outcome) {
        let it_refused = |after: &str| {
            [
                "refused: [IMA-10",
                "refused: [IMA-81",
                "switching to /rootfs",
            ]
            .iter()
            .any(|text| after.contains(text))
        };
        let record = outcome.console.split_once(program);
        let switching = program.ends_with("/switch_root.static")
            && (matches!(outcome.ending, Ending::Panic(_))
                || record.is_some_and(|(_, after)| it_refused(after)));
        assert!(
            ["canary", "/canary"].contains(&program)
                || front::EXECUTED.contains(&program)
                || switching,
            "{program} was executed: {}",
            console_tail(outcome)
        );
    }
}

/// The programs of the kernel's audit records (type 1805, AUDIT_INTEGRITY_RULE) on the console.
fn executed(outcome: &Outcome) -> Vec<&str> {
    let records = outcome
        .console
        .lines()
        .filter(|line| line.contains("audit: type=1805"));
    records
        .filter_map(|line| line.split_once("file=\"")?.1.split('"').next())
        .collect()
}

/// Whether two files have the same content.
pub fn same(a: &Path, b: &Path) -> bool {
    let mut files = [a, b].map(|path| File::open(path).expect("a disk"));
    let mut pieces = [vec![0; 1 << 20], vec![0; 1 << 20]];
    loop {
        let [a, b] = [0, 1].map(|at| files[at].read(&mut pieces[at]).expect("a disk"));
        if a != b || pieces[0][..a] != pieces[1][..b] {
            return false;
        }
        if a == 0 {
            return true;
        }
    }
}

/// The time from the start of the init to its refusal, by the kernel's clock, in seconds.
fn time_to_refusal(console: &str) -> Option<f64> {
    let time = |text: &str| -> Option<f64> {
        let line = console.lines().find(|line| line.contains(text))?;
        line.split(['[', ']']).nth(1)?.trim().parse().ok()
    };
    Some(
        time("ima-init: refused: [").or_else(|| time("refused: ["))?
            - time("Run /init as init process")?,
    )
}

/// Where the rows are written as they are seen.
fn table() -> PathBuf {
    scratch().join("refusals.tsv")
}

fn record(row: &Row, outcome: &Outcome) {
    static FILE: LazyLock<Mutex<File>> = LazyLock::new(|| {
        let mut file = File::create(table()).expect("the table of refusals");
        writeln!(file, "fault\tcode\taction\tms to refusal\timactl check").expect("the table");
        Mutex::new(file)
    });
    let time = time_to_refusal(&outcome.console).map_or_else(
        || "-".to_owned(),
        |seconds| format!("{:.0}", seconds * 1000.0),
    );
    let check = match row.check {
        Check::Same | Check::Unmade => row.code,
        Check::Sooner(code) => code,
        Check::Silent(reason) => &format!("nothing: {reason}"),
        Check::NotAsked(reason) => &format!("not asked: {reason}"),
    };
    let line = format!(
        "{}\t{}\t{}\t{time}\t{check}\n",
        row.name,
        row.code,
        row.action.name()
    );
    let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    file.write_all(line.as_bytes())
        .expect("the table of refusals");
}

/// What would show that something of the root ran, shows it where it does.
#[test]
fn what_runs_of_the_root_is_seen() {
    let mut setup = watched();
    let (outcome, [before, after]) = setup.boot_on_a_disk();
    assert_booted(&outcome);
    let programs = executed(&outcome);
    for wanted in ["/switch_root.static", "/sbin/init"] {
        assert!(
            programs.iter().any(|program| program.ends_with(wanted)),
            "{wanted}: {programs:?}: {}",
            console_tail(&outcome)
        );
    }
    assert!(!same(&before, &after));
    let tree = imactl::image::read_ext4(&after).expect("the root");
    let mark = MARK.trim_start_matches('/').as_bytes();
    assert!(tree.names().any(|(name, _)| name == mark));
}

/// Codes of refusals that no boot shows, and why.
const NOT_BOOTED: [(&str, &str); 6] = [
    (
        "IMA-112",
        "the kernel takes a 1 of root's always; calls that fail show it (faults.rs)",
    ),
    (
        "IMA-107",
        "the kernel kills before it refuses memory; calls that fail show it (faults.rs)",
    ),
    (
        "IMA-101",
        "said to somebody who calls ima-init on a running system; no machine ends by it",
    ),
    (
        "IMA-106",
        "a defect: an instruction that is put into the running init shows it (faults.rs)",
    ),
    ("IMA-811", "said to somebody who calls switch_root wrongly"),
    (
        "IMA-812",
        "said to somebody who calls switch_root on a running system",
    ),
];

#[test]
fn every_refusal_has_its_row() {
    for code in ima::fault::Code::ALL {
        let entry = code.entry();
        let of_the_boot = entry.severity == ima::fault::Severity::Refusal
            && entry.stage != ima::fault::Stage::Host;
        let rows = rows().filter(|row| row.code == entry.id).count();
        let excused = NOT_BOOTED.iter().any(|(code, _)| *code == entry.id);
        assert_eq!(of_the_boot, rows > 0 || excused, "{}", entry.id);
        assert!(rows == 0 || !excused, "{} is booted after all", entry.id);
    }
}

/// What is left to `tests/run --all` are further forms of what is booted always.
#[test]
fn every_refusal_is_booted_always() {
    let mut always = 0;
    for row in rows() {
        let same = |other: &&Row| other.code == row.code && other.is_always_booted();
        assert!(rows().any(|other| same(&other)), "{}", row.code);
        always += usize::from(row.is_always_booted());
    }
    assert!((120..rows().count()).contains(&always), "{always} rows");
}

#[test]
fn the_rows_are_many_and_of_every_action() {
    assert!(rows().count() >= 120, "{} rows", rows().count());
    for action in Action::ALL {
        let count = rows().filter(|row| row.action == action).count();
        assert!(count >= 20, "{action:?}: {count} rows");
    }
}

/// A root whose init is signed with a key of which the initramfs knows nothing.
pub fn sign_init_with_another_key(setup: &mut Setup) {
    let init = setup.root.file(crate::tree::INIT).content.clone();
    setup
        .root
        .add_signed(crate::tree::INIT, 0o755, &init, &P256);
}

/// The documentation of `imactl check` gives each reason for which its answer differs from the init's.
#[test]
fn what_check_cannot_know_is_documented() {
    let page = String::from_utf8(source("docs/reference/imactl.md")).expect("text");
    for row in rows() {
        if let Check::Silent(reason) | Check::NotAsked(reason) = row.check {
            assert!(page.contains(reason), "{}: {reason}", row.name);
        }
    }
}
