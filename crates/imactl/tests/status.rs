//! `imactl status` on recorded trees: a good system, and one for each thing that can be wrong.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use common::{Ended, shell};
use recorded::{
    AUDIT_LOG, CMDLINE, KEYS, KMSG, LIST, LOCKDOWN, MOUNTS, POLICY, REPORT, Recorded, SECURE_BOOT,
    SETUP_MODE, STUB, TPM, record,
};
use serde_json::{Value, json};

fn status(tree: &Recorded, options: &str) -> Ended {
    let script = format!("LC_ALL=C.UTF-8 $IMACTL status --root . {options}");
    shell(&script, tree.path())
}

fn as_json(tree: &Recorded, options: &str) -> Value {
    let ended = status(tree, &format!("--json {options}"));
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn a_good_system() {
    let tree = Recorded::new();
    let ended = status(&tree, "").good();
    assert_eq!(
        ended.out,
        "\
✓ init          booted by ima-init in 16.0 ms
✓ kernel        6.12.117-ima, started by UEFI, in a unified kernel image (systemd-stub 252)
✓ Secure Boot   enabled; lockdown integrity
✓ command line  closed: in a unified kernel image under Secure Boot, which imactl check --uki verifies
✓ TPM           version 2, banks sha1, sha256
✓ keyrings      .builtin_trusted_keys 1 key (closed), .ima 1 key, .evm empty
✓ policy        in force: /etc/ima/ima_policy.default, 2 rules; proved at boot by record, read-back, canary
✓ root          ext4 on /dev/vda, read-only, nothing below IMA protects it
✓ measurements  2 entries, 0 violations; PCR 10 is their replay (sha1, sha256)
✓ denials       none since boot
✓ warnings      none
"
    );
    let value = as_json(&tree, "");
    assert_eq!(value["version"], 1);
    assert_eq!(value["status"], 0);
    assert_eq!(value["booted_by_ima_init"], true);
    assert_eq!(value["boot"]["secure_boot"], "enabled");
    assert_eq!(
        value["boot"]["command_line_fixed_by"],
        "unified kernel image"
    );
    assert_eq!(
        value["tpm"],
        json!({"version": "2", "banks": ["sha1", "sha256"]})
    );
    assert_eq!(
        value["keyrings"][1],
        json!({"name": ".ima", "keys": 1, "takes": "vouched"})
    );
    assert_eq!(value["policy"]["in_force"], true);
    assert_eq!(
        value["policy"]["proofs"],
        json!(["record", "read-back", "canary"])
    );
    assert_eq!(value["root"]["read_only"], true);
    assert_eq!(value["measurements"]["templates"], json!({"ima-ng": 2}));
    assert_eq!(value["measurements"]["boot_aggregate"], true);
    assert_eq!(value["denials"]["total"], 0);
    for check in value["checks"].as_array().unwrap() {
        assert_eq!(check["state"], "good", "{check}");
    }
}

/// Something that is changed in the good system, and what the status says of it.
struct Case {
    name: &'static str,
    change: fn(&Recorded),
    item: &'static str,
    state: &'static str,
    exit: i32,
    says: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "no report",
        change: |tree| tree.remove(REPORT),
        item: "init",
        state: "failed",
        exit: 2,
        says: "✗ init          this system was not booted by ima-init: no /run/ima-init/report.json\n",
    },
    Case {
        name: "a report that is no JSON",
        change: |tree| tree.put(REPORT, b"{"),
        item: "init",
        state: "failed",
        exit: 2,
        says: "✗ init          /run/ima-init/report.json cannot be read: ",
    },
    Case {
        name: "a report of another kernel",
        change: |tree| tree.replace(REPORT, recorded::KERNEL, "6.1"),
        item: "init",
        state: "failed",
        exit: 2,
        says: "is of another kernel, 6.1\n",
    },
    Case {
        name: "a slot that was refused",
        change: |tree| {
            tree.change_report(|report| {
                report["slot"] = json!("b");
                report["refused_slots"] = json!([
                    {"slot": "a", "code": "IMA-704", "detail": "/sbin/init", "cause": "c", "remedy": "r"},
                ]);
            });
        },
        item: "init",
        state: "attention",
        exit: 1,
        says: "in 16.0 ms, slot b\n                slot a was refused: IMA-704: /sbin/init\n",
    },
    Case {
        name: "Secure Boot is off",
        change: |tree| tree.put(SECURE_BOOT, &[6, 0, 0, 0, 0]),
        item: "secure-boot",
        state: "attention",
        exit: 1,
        says: "! Secure Boot   disabled: the firmware starts whatever lies on the disk; lockdown integrity\n",
    },
    Case {
        name: "the firmware is in setup mode",
        change: |tree| {
            tree.put(SECURE_BOOT, &[6, 0, 0, 0, 0]);
            tree.put(SETUP_MODE, &[6, 0, 0, 0, 1]);
        },
        item: "secure-boot",
        state: "attention",
        exit: 1,
        says: "! Secure Boot   in setup mode: ",
    },
    Case {
        name: "no lockdown under Secure Boot",
        change: |tree| tree.put(LOCKDOWN, b"[none] integrity confidentiality\n"),
        item: "secure-boot",
        state: "attention",
        exit: 1,
        says: "! Secure Boot   enabled; lockdown none\n",
    },
    Case {
        name: "a kernel without lockdown under Secure Boot",
        change: |tree| tree.remove(LOCKDOWN),
        item: "secure-boot",
        state: "attention",
        exit: 1,
        says: "it has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM)\n",
    },
    Case {
        name: "an open command line",
        change: |tree| tree.remove(STUB),
        item: "command-line",
        state: "attention",
        exit: 1,
        says: "! command line  open as far as can be seen: whoever writes it can leave out the init with rdinit=\n",
    },
    Case {
        name: "a unified kernel image without Secure Boot",
        change: |tree| tree.put(SECURE_BOOT, &[6, 0, 0, 0, 0]),
        item: "command-line",
        state: "attention",
        exit: 1,
        says: "! command line  open ",
    },
    Case {
        name: "appraisal is only logged",
        change: |tree| tree.put(CMDLINE, b"root=/dev/vda ima_appraise=log\n"),
        item: "policy",
        state: "failed",
        exit: 2,
        says: "✗ policy        not enforced: ima_appraise=log is on the command line\n",
    },
    Case {
        name: "no TPM",
        change: |tree| tree.remove(TPM),
        item: "tpm",
        state: "attention",
        exit: 1,
        says: "! TPM           none: nobody outside can verify what this system measures\n",
    },
    Case {
        name: "an empty .ima",
        change: |tree| tree.replace(KEYS, ".ima: 1", ".ima: empty"),
        item: "keyrings",
        state: "failed",
        exit: 2,
        says: ".ima has no key: every file that must be signed is denied\n",
    },
    Case {
        name: "keys on _ima",
        change: |tree| tree.replace(KEYS, ".ima: 1", "_ima: 1"),
        item: "keyrings",
        state: "attention",
        exit: 1,
        says: "_ima 1 key (open)\n                _ima takes any key that root adds\n",
    },
    Case {
        name: "no keyring for appraisal",
        change: |tree| tree.replace(KEYS, " .ima:", " .imb:"),
        item: "keyrings",
        state: "failed",
        exit: 2,
        says: "there is no keyring with keys for appraisal\n",
    },
    Case {
        name: "a certificate that has expired",
        change: |tree| {
            tree.change_report(|report| report["keys"][0]["not_after"] = json!(1_000_000_000))
        },
        item: "keyrings",
        state: "attention",
        exit: 1,
        says: "CN=Local IMA on .ima expired on 2001-09-09; the kernel trusts it all the same\n",
    },
    Case {
        name: "a permissive boot",
        change: |tree| tree.change_report(|report| report["enforce"] = json!("permissive")),
        item: "policy",
        state: "failed",
        exit: 2,
        says: "✗ policy        permissive: the init booted with enforce=permissive ",
    },
    Case {
        name: "a boot without a proof",
        change: |tree| tree.change_report(|report| report["policy"]["proofs"] = json!([])),
        item: "policy",
        state: "failed",
        exit: 2,
        says: "✗ policy        cannot tell: the init recorded no proof\n",
    },
    Case {
        name: "a kernel with fewer rules",
        change: |tree| tree.put(POLICY, b"appraise func=BPRM_CHECK\n"),
        item: "policy",
        state: "failed",
        exit: 2,
        says: "✗ policy        the kernel shows 1 rule, and the init loaded 2\n",
    },
    Case {
        name: "a kernel that appraises no programs",
        change: |tree| {
            tree.put(
                POLICY,
                b"measure func=BPRM_CHECK\nmeasure func=MMAP_CHECK\n",
            )
        },
        item: "policy",
        state: "failed",
        exit: 2,
        says: "✗ policy        not enforced: no rule that the kernel shows appraises programs\n",
    },
    Case {
        name: "another root",
        change: |tree| tree.replace(MOUNTS, "ext4 /dev/vda", "btrfs /dev/vdb"),
        item: "root",
        state: "attention",
        exit: 1,
        says: "the init mounted ext4: this is another root, or this runs in a container\n",
    },
    Case {
        name: "a PCR that does not fit",
        change: |tree| {
            tree.put(&format!("{TPM}/pcr-sha256/10"), "09".repeat(32).as_bytes());
        },
        item: "measurements",
        state: "failed",
        exit: 2,
        says: "they do not fit the TPM\n                PCR 10 sha256: is not the replay of the list\n",
    },
    Case {
        name: "a boot_aggregate that does not fit",
        change: |tree| {
            tree.put(&format!("{TPM}/pcr-sha256/3"), "09".repeat(32).as_bytes());
        },
        item: "measurements",
        state: "failed",
        exit: 2,
        says: "boot_aggregate is not that of PCRs 0 to 9\n",
    },
    Case {
        name: "an entry that was changed",
        change: |tree| {
            let mut list = tree.read(LIST);
            let last = list.len() - 2;
            list[last] ^= 1;
            tree.put(LIST, &list);
        },
        item: "measurements",
        state: "failed",
        exit: 2,
        says: "entry 2 was changed: its digest is not that of its data\n",
    },
    Case {
        name: "a list that ends in an entry",
        change: |tree| {
            let list = tree.read(LIST);
            tree.put(LIST, &list[..list.len() - 1]);
        },
        item: "measurements",
        state: "failed",
        exit: 2,
        says: "✗ measurements  the list cannot be parsed: ",
    },
    Case {
        name: "denials",
        change: |tree| {
            tree.denial(400, 7, "/opt/tool", "IMA-signature-required", "bash");
            tree.denial(401, 7, "/opt/tool", "IMA-signature-required", "sh");
            tree.denial(402, 7, "/lib/a b.so", "invalid-signature", "app");
        },
        item: "denials",
        state: "attention",
        exit: 1,
        says: "! denials       3 denials of 2 files since boot\n                \
               /lib/a b.so (for app): it was changed after it was signed, or its key is not on the keyring\n                  \
               remedy: imactl verify --cert CERTIFICATE FILE tells which; then install it or sign it again\n                \
               /opt/tool (for sh, 2 times): it has no signature, or only a hash\n                  \
               remedy: imactl sign ",
    },
    Case {
        name: "a kernel's log that lost records",
        change: |tree| tree.replace(KMSG, "5,0,0,-;", "5,17,0,-;"),
        item: "denials",
        state: "good",
        exit: 0,
        says: "none since boot; the kernel's log has lost its beginning, so there may be more\n",
    },
    Case {
        name: "a denial that a program made up",
        change: |tree| {
            let record = record(400, 7, "/opt/tool", "IMA-signature-required", "bash");
            let log = format!("5,0,0,-;x\n30,400,6000000,-;audit: type=1800 {record}\n");
            tree.put(KMSG, log.as_bytes());
        },
        item: "denials",
        state: "good",
        exit: 0,
        says: "✓ denials       none since boot\n",
    },
    Case {
        name: "a denial in auditd's log, and one of an earlier boot",
        change: |tree| {
            let now = record(400, 7, "/opt/tool", "IMA-signature-required", "bash");
            let before = now.replace("audit(18", "audit(17");
            let log = format!("type=INTEGRITY_DATA msg={before}\ntype=INTEGRITY_DATA msg={now}\n");
            tree.put(AUDIT_LOG, log.as_bytes());
            // In both logs it is one.
            tree.denial(400, 7, "/opt/tool", "IMA-signature-required", "bash");
        },
        item: "denials",
        state: "attention",
        exit: 1,
        says: "! denials       1 denial of 1 file since boot\n                /opt/tool (for bash): ",
    },
    Case {
        name: "names that would write to the terminal",
        change: |tree| {
            tree.denial(
                400,
                7,
                "/opt/\x1b[2Jx\u{202e}y\n✓ policy",
                "invalid-hash",
                "a\rb",
            )
        },
        item: "denials",
        state: "attention",
        exit: 1,
        says: "/opt/\\u{1b}[2Jx\\u{202e}y\\n✓ policy (for a\\rb): it was changed after it was hashed\n",
    },
    Case {
        name: "a log that cannot be read",
        change: |tree| tree.remove(KMSG),
        item: "denials",
        state: "not-visible",
        exit: 0,
        says: "· denials       the kernel's log cannot be read: run this as root\n",
    },
    Case {
        name: "warnings of the init",
        change: |tree| {
            tree.change_report(|report| {
                report["warnings"] = json!([{"code": "IMA-551", "detail": "CN=x", "cause": "a sample", "remedy": "make keys"}]);
            });
        },
        item: "warnings",
        state: "attention",
        exit: 1,
        says: "! warnings      1 warning at boot\n                IMA-551: CN=x: a sample\n                  remedy: make keys\n",
    },
];

#[test]
fn whatever_is_wrong_has_its_line_its_state_and_its_exit_status() {
    for case in CASES {
        let tree = Recorded::new();
        (case.change)(&tree);
        let ended = status(&tree, "");
        assert_eq!(ended.code, case.exit, "{}: {ended:?}", case.name);
        assert!(
            ended.out.contains(case.says),
            "{}: {}",
            case.name,
            ended.out
        );
        let value = as_json(&tree, "");
        assert_eq!(value["status"], case.exit, "{}", case.name);
        let checks = value["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["item"] == case.item);
        assert_eq!(check.unwrap()["state"], case.state, "{}", case.name);
        // What is accepted does not count.
        let others = checks.iter().any(|check| {
            check["item"] != case.item
                && ["attention", "failed"]
                    .iter()
                    .any(|bad| check["state"] == *bad)
        });
        if !others {
            let accepted = status(&tree, &format!("--accept {}", case.item));
            assert_eq!(accepted.code, 0, "{}: {accepted:?}", case.name);
        }
    }
}

#[test]
fn a_system_without_ima_init_shows_what_it_has() {
    let tree = Recorded::new();
    for path in [
        "run",
        "sys/kernel/security",
        "sys/firmware",
        TPM,
        KEYS,
        KMSG,
    ] {
        tree.remove(path);
    }
    tree.put("proc/sys/kernel/bootloader_type", b"114\n");
    let ended = status(&tree, "");
    assert_eq!(ended.code, 2, "{ended:?}");
    for line in [
        "✗ init          this system was not booted by ima-init: no /run/ima-init/report.json\n",
        "✓ kernel        6.12.117-ima, started by GRUB\n",
        "· Secure Boot   no UEFI: whether the boot loader verifies the kernel cannot be seen from here; no lockdown\n",
        "! TPM           none: ",
        "· keyrings      none can be seen: run this as root\n",
        "✗ policy        cannot tell: the init left no report, and the kernel shows no rules\n",
        "✓ root          ext4 on /dev/vda, read-only, nothing below IMA protects it\n",
        "· measurements  the list cannot be read: ",
        "· denials       the kernel's log cannot be read",
    ] {
        assert!(ended.out.contains(line), "{line}: {}", ended.out);
    }
    assert!(!ended.out.contains("warnings"), "{}", ended.out);
    let value = as_json(&tree, "");
    assert_eq!(value["booted_by_ima_init"], false);
    assert_eq!(value["policy"]["in_force"], false);
    // An empty tree is of a system too.
    let empty = tempfile::tempdir().unwrap();
    let ended = shell("$IMACTL status --root .", empty.path());
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn what_lies_below_the_root_is_named() {
    let tree = Recorded::new();
    tree.replace(MOUNTS, "ext4 /dev/vda ro", "erofs /dev/mapper/root ro");
    tree.change_report(|report| report["root"]["fstype"] = json!("erofs"));
    for (uuid, says) in [
        (
            "CRYPT-VERITY-ab-root",
            "erofs on /dev/mapper/root, read-only, with dm-verity\n",
        ),
        (
            "CRYPT-LUKS2-ab-root",
            "erofs on /dev/mapper/root, read-only, with LUKS\n",
        ),
        ("LVM-ab", "nothing below IMA protects it\n"),
    ] {
        tree.put("sys/block/dm-0/dm/name", b"root\n");
        tree.put("sys/block/dm-0/dm/uuid", uuid.as_bytes());
        let ended = status(&tree, "").good();
        assert!(ended.out.contains(says), "{uuid}: {}", ended.out);
    }
    tree.replace(MOUNTS, "erofs /dev/mapper/root ro", "overlay overlay rw");
    tree.change_report(|report| {
        report["root"]["verity"] = json!("ab");
        report["root"]["overlay"] = json!("tmpfs");
    });
    let ended = status(&tree, "").good();
    let says = "overlay on overlay, read-only, with dm-verity, a writable layer over it\n";
    assert!(ended.out.contains(says), "{}", ended.out);
}

#[test]
fn both_halves_of_a_boot_count() {
    let tree = Recorded::new();
    tree.change_report(|report| {
        let mut first = report.clone();
        first["warnings"] =
            json!([{"code": "IMA-551", "detail": "first", "cause": "c", "remedy": "r"}]);
        report["keys"] = json!([]);
        report["policy"]["proofs"] = json!(["appraisal"]);
        report["first_half"] = first;
    });
    let value = as_json(&tree, "");
    assert_eq!(value["status"], 1);
    assert_eq!(value["warnings"][0]["detail"], "first");
    assert_eq!(
        value["policy"]["proofs"],
        json!(["record", "read-back", "canary", "appraisal"])
    );
}

#[test]
fn signs_are_ascii_where_the_terminal_is() {
    let tree = Recorded::new();
    tree.remove(REPORT);
    tree.remove(KMSG);
    tree.remove(TPM);
    let ended = shell("LC_ALL=C $IMACTL status --root .", tree.path());
    assert!(ended.out.is_ascii(), "{}", ended.out);
    for line in ["X init", "+ kernel", "! TPM", "- denials"] {
        assert!(ended.out.contains(&format!("{line} ")), "{}", ended.out);
    }
}

/// A tree from a stranger leads to no other file, and a pipe in it does not block.
#[test]
fn links_in_a_tree_lead_nowhere_outside() {
    let tree = Recorded::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret\n").unwrap();
    tree.remove("proc/sys/kernel/osrelease");
    std::os::unix::fs::symlink(secret.path(), tree.path().join("proc/sys/kernel/osrelease"))
        .unwrap();
    tree.remove(KMSG);
    shell(&format!("mkfifo {KMSG}"), tree.path()).good();
    let ended = status(&tree, "");
    assert!(!ended.out.contains("secret"), "{}", ended.out);
    assert!(
        ended.out.contains("its release cannot be read"),
        "{}",
        ended.out
    );
}

/// What was recorded of this machine gives the same status as the machine.
#[test]
fn a_recording_gives_the_same_status() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let live = shell("$IMACTL status --record bundle --json || true", at).good();
    let recorded = shell("$IMACTL status --root bundle --json || true", at).good();
    let (mut live, mut recorded): (Value, Value) = (
        serde_json::from_str(&live.out).unwrap(),
        serde_json::from_str(&recorded.out).unwrap(),
    );
    for value in [&mut live, &mut recorded] {
        value["time"] = Value::Null;
        // The reason why a file cannot be read is another one: it is not in the tree.
        value["measurements"]["error"] = Value::Null;
        value["checks"] = Value::Null;
    }
    assert_eq!(live, recorded);
    let again = shell("$IMACTL status --record bundle", at);
    assert!(again.err.contains("bundle"), "{again:?}");
    assert_eq!(again.code, 2);
    for bad in ["--accept nothing", "--watch 0", "--root missing"] {
        let ended = shell(&format!("$IMACTL status {bad}"), at);
        assert_eq!(ended.code, 2, "{bad}: {ended:?}");
        assert!(!ended.err.is_empty(), "{bad}");
    }
}

/// The screen is drawn again each second, and nothing is done in between.
#[test]
fn watching_takes_little_time_of_the_processor() {
    let directory = tempfile::tempdir().unwrap();
    let script = "timeout 3.5 $IMACTL status --watch 1 >screens || test $? = 124; times";
    let ended = shell(script, directory.path()).good();
    let screens = std::fs::read_to_string(directory.path().join("screens")).unwrap();
    let drawn = screens.matches(" kernel  ").count();
    assert!((2..=4).contains(&drawn), "{drawn}: {screens}");
    // The times of the shell, then of what it ran: `0m0.010s 0m0.020s`.
    let times = ended.out.lines().nth(1).unwrap();
    for time in times.split(' ') {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        let seconds: f64 = seconds.parse().unwrap();
        assert!(minutes == "0" && seconds < 1.5, "{times}");
    }
}
