//! The policies of `policy/`: each is accepted, and frees nothing that its comments do not say.

use ima::policy::{Hook, Policy, Query};

const TMPFS: u64 = 0x0102_1994;
const EXT4: u64 = 0xef53;

const SHIPPED: [(&str, &str); 4] = [
    (
        "default",
        include_str!("../../../policy/ima_policy.default"),
    ),
    (
        "measure",
        include_str!("../../../policy/ima_policy.measure"),
    ),
    (
        "initramfs",
        include_str!("../../../policy/ima_policy.initramfs"),
    ),
    ("files", include_str!("../../../policy/ima_policy.files")),
];

const HOOKS: [Hook; 5] = [
    Hook::MmapCheck,
    Hook::BprmCheck,
    Hook::ModuleCheck,
    Hook::FirmwareCheck,
    Hook::PolicyCheck,
];

#[test]
fn each_appraises_the_five_hooks_everywhere_but_in_an_initramfs() {
    for (name, text) in SHIPPED {
        let policy =
            Policy::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.ends_with('\n'), "{name} could not be loaded by path");
        for hook in HOOKS {
            for (magic, fsname) in [
                (EXT4, "ext4"),
                (TMPFS, "tmpfs"),
                (TMPFS, "shmem"),
                (0x858458f6, "ramfs"),
            ] {
                let query = Query::by_root(hook, magic, fsname);
                let rule = policy.appraisal(&query);
                assert!(
                    rule.is_some_and(|rule| rule.appraise_type.is_some()),
                    "{name}: {} on {fsname} needs no signature",
                    hook.name()
                );
            }
            let rootfs = Query::by_root(hook, TMPFS, "rootfs");
            assert_eq!(
                policy.appraisal(&rootfs).is_none(),
                name == "initramfs",
                "{name}"
            );
        }
    }
}

#[test]
fn only_files_appraises_reading() {
    for (name, text) in SHIPPED {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let read = Query::by_root(Hook::FileCheck, EXT4, "ext4");
        assert_eq!(policy.appraisal(&read).is_some(), name == "files", "{name}");
        let by_other = Query {
            fowner: 1000,
            ..read
        };
        assert!(policy.appraisal(&by_other).is_none(), "{name}");
    }
}
