//! The policies of `policy/`: each is accepted, and leaves no gap that its comments do not name.

use ima::policy::cover::{DEMANDED, On, Scope};
use ima::policy::lint::lint;
use ima::policy::{Hook, Policy, Query};

const TMPFS: u64 = 0x0102_1994;
const EXT4: u64 = 0xef53;

const SHIPPED: [(&str, &str); 3] = [
    (
        "default",
        include_str!("../../../policy/ima_policy.default"),
    ),
    (
        "measure",
        include_str!("../../../policy/ima_policy.measure"),
    ),
    ("files", include_str!("../../../policy/ima_policy.files")),
];

const EUID: &str = include_str!("../../../policy/ima_policy.euid");

fn parse(name: &str, text: &str) -> Policy {
    assert!(text.ends_with('\n'), "{name} could not be loaded by path");
    Policy::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn each_demands_a_signature_of_everyone_on_every_file_system() {
    for (name, text) in SHIPPED {
        let policy = parse(name, text);
        assert_eq!(
            policy.gap(&DEMANDED, On::Any, Scope::Everyone),
            None,
            "{name}"
        );
        for (magic, fsname) in [
            (EXT4, "ext4"),
            (TMPFS, "tmpfs"),
            (TMPFS, "shmem"),
            (TMPFS, "rootfs"),
            (0x8584_58f6, "ramfs"),
            (0x6573_5546, "fuse"),
        ] {
            let on = On::This {
                name: fsname,
                magic,
            };
            let hooks = [DEMANDED.as_slice(), &[Hook::FirmwareCheck]].concat();
            assert_eq!(policy.gap(&hooks, on, Scope::Everyone), None, "{name}");
        }
    }
}

/// FUSE has no fs-verity digest (fs/verity), so a rule that demands a signature of one is never satisfied there.
#[test]
fn each_lets_nothing_run_from_fuse() {
    for (name, text) in SHIPPED {
        let policy = parse(name, text);
        for fsname in ["fuse", "fuseblk"] {
            for hook in [Hook::BprmCheck, Hook::MmapCheck] {
                let query = Query::by_root(hook, 0x6573_5546, fsname);
                assert!(
                    policy.appraisal(&query).is_some_and(|rule| rule.verity),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_policy_with_euid_covers_root_alone_and_is_warned_of() {
    let policy = parse("euid", EUID);
    assert_eq!(policy.gap(&DEMANDED, On::Any, Scope::Root), None);
    let gaps = policy.gaps(&DEMANDED, On::Any, Scope::Everyone);
    assert_eq!(gaps.count(), DEMANDED.len());
    assert_eq!(lint(EUID.as_bytes(), &policy, None).len(), DEMANDED.len());
}

#[test]
fn only_files_appraises_reading_and_of_every_owner() {
    for (name, text) in SHIPPED {
        let policy = parse(name, text);
        for fowner in [0, 1, 1000] {
            let read = Query {
                fowner,
                euid: fowner,
                ..Query::by_root(Hook::FileCheck, EXT4, "ext4")
            };
            assert_eq!(policy.appraisal(&read).is_some(), name == "files", "{name}");
        }
    }
}
