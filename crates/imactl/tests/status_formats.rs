//! The formats that `imactl status --metrics` and `imactl report` write, on recorded trees.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::collections::{BTreeMap, BTreeSet};

use common::shell;
use imactl::status::{Status, System};
use proptest::prelude::*;
use recorded::{KEYS, KMSG, LIST, MOUNTS, POLICY, REPORT, Recorded, SECURE_BOOT, TPM};
use serde_json::json;

const NOW: u64 = 1_800_100_000;

fn read(tree: &Recorded) -> Status {
    Status::of(&System::recorded(tree.path()).unwrap(), NOW)
}

/// The samples of metrics by name and labels, if the text follows the rules of the format.
fn samples(text: &str) -> Result<BTreeMap<String, f64>, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut found = BTreeMap::new();
    let (mut families, mut family) = (BTreeSet::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or("HELP without a text")?;
            if !is_name(name) || help.is_empty() || !families.insert(name.to_owned()) {
                return Err(format!("{line}: no name, no text, or the second of it"));
            }
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")))
                .ok_or_else(|| format!("{name}: no TYPE behind its HELP"))?;
            if !["gauge", "counter"].contains(&kind)
                || (kind == "counter") != name.ends_with("_total")
            {
                return Err(format!("{name} is a {kind}"));
            }
            name.clone_into(&mut family);
            continue;
        }
        let (series, value) = line
            .rsplit_once(' ')
            .ok_or_else(|| format!("{line}: no value"))?;
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no }")?),
        };
        if name != family {
            return Err(format!("{line}: outside of its family"));
        }
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, value) = rest
                .split_once("=\"")
                .ok_or_else(|| format!("{line}: label"))?;
            if !is_name(label) {
                return Err(format!("{line}: {label} is no name"));
            }
            let mut escaped = false;
            let end = value.find(|character| {
                let is_end = character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
                is_end
            });
            rest = &value[end.ok_or_else(|| format!("{line}: no end of a value"))? + 1..];
            rest = match rest.strip_prefix(',') {
                Some(rest) => rest,
                None if rest.is_empty() => rest,
                None => return Err(format!("{line}: {rest}")),
            };
        }
        let value: f64 = value.parse().map_err(|_| format!("{line}: the value"))?;
        if found.insert(series.to_owned(), value).is_some() {
            return Err(format!("{line}: twice"));
        }
    }
    Ok(found)
}

#[test]
fn metrics_of_a_good_system() {
    let tree = Recorded::new();
    let found = samples(&read(&tree).metrics(&[])).unwrap();
    for (series, value) in [
        ("ima_status", 0.0),
        ("ima_status_timestamp_seconds", 1_800_100_000.0),
        ("ima_check_state{check=\"tpm\",state=\"good\"}", 1.0),
        ("ima_check_state{check=\"tpm\",state=\"failed\"}", 0.0),
        ("ima_booted_by_ima_init", 1.0),
        ("ima_policy_in_force", 1.0),
        ("ima_kernel_info{release=\"6.12.117-ima\"}", 1.0),
        ("ima_secure_boot_enabled", 1.0),
        ("ima_command_line_fixed", 1.0),
        ("ima_tpm_present", 1.0),
        ("ima_keyring_keys{keyring=\".ima\"}", 1.0),
        (
            "ima_certificate_expiry_timestamp_seconds{keyring=\".ima\",key_id=\"703856a8\",subject=\"CN=Local IMA\"}",
            4_102_444_800.0,
        ),
        ("ima_measurements{template=\"ima-ng\"}", 2.0),
        ("ima_pcr_matches{bank=\"sha256\",pcr=\"10\"}", 1.0),
        ("ima_denials_total", 0.0),
        ("ima_denials_incomplete", 0.0),
        ("ima_init_duration_seconds", 0.01602),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series}: {found:#?}");
    }
}

#[test]
fn metrics_of_bad_systems() {
    let tree = Recorded::new();
    tree.denial(400, 7, "/opt/tool", "IMA-signature-required", "bash");
    tree.denial(401, 7, "/opt/tool", "invalid-hash", "bash");
    tree.put(&format!("{TPM}/pcr-sha256/10"), "09".repeat(32).as_bytes());
    tree.put(SECURE_BOOT, &[6, 0, 0, 0, 0]);
    let warning = json!({"code": "IMA-551", "detail": "x", "cause": "c", "remedy": "r"});
    tree.change_report(|report| report["warnings"] = json!([warning, warning]));
    // Two certificates with the same labels are one series.
    tree.change_report(|report| {
        let key = report["keys"][0].clone();
        report["keys"] = json!([key, key]);
    });
    let found = samples(&read(&tree).metrics(&[])).unwrap();
    for (series, value) in [
        ("ima_status", 2.0),
        ("ima_secure_boot_enabled", 0.0),
        ("ima_denials_total", 2.0),
        ("ima_denials_by_cause_total{cause=\"invalid-hash\"}", 1.0),
        ("ima_pcr_matches{bank=\"sha256\",pcr=\"10\"}", 0.0),
        (
            "ima_check_state{check=\"measurements\",state=\"failed\"}",
            1.0,
        ),
        ("ima_init_warnings{code=\"IMA-551\"}", 2.0),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series}: {found:#?}");
    }
    // What cannot be seen has no series.
    for path in [REPORT, KMSG, LIST, KEYS] {
        tree.remove(path);
    }
    let found = samples(&read(&tree).metrics(&[])).unwrap();
    assert_eq!(found["ima_booted_by_ima_init"], 0.0);
    for absent in [
        "ima_denials",
        "ima_measurement",
        "ima_keyring",
        "ima_init_",
        "ima_certificate",
    ] {
        assert!(
            !found.keys().any(|series| series.starts_with(absent)),
            "{absent}: {found:#?}"
        );
    }
}

#[test]
fn metrics_are_written_beside_and_renamed() {
    let tree = Recorded::new();
    tree.remove(REPORT);
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("ima.prom");
    std::fs::write(&file, "old").unwrap();
    let script = format!("$IMACTL status --root . --metrics --out {}", file.display());
    // The state is in the metrics, not in the exit status.
    shell(&script, tree.path()).good();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(samples(&text).unwrap()["ima_status"], 2.0);
    assert_eq!(
        common::listing(out.path()),
        ["ima.prom".into()] as [std::path::PathBuf; 1]
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let ended = shell("$IMACTL status --root . --out x", tree.path());
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn a_page_shows_the_boot() {
    let tree = Recorded::new();
    tree.denial(400, 7, "/opt/tool", "IMA-signature-required", "bash");
    tree.change_report(|report| {
        report["warnings"] = json!([{"code": "IMA-551", "detail": "CN=x", "cause": "a sample", "remedy": "make keys"}]);
    });
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("boot.html");
    let script = format!("$IMACTL report --root . --out {}", file.display());
    shell(&script, tree.path()).good();
    let page = std::fs::read_to_string(&file).unwrap();
    for text in [
        "<!DOCTYPE html>",
        "Linux 6.12.117-ima, as of 20",
        "The policy is in force; 2 checks to look at",
        "<td class=\"name\">preflight</td>",
        "<td class=\"number\">4.2 ms</td>",
        "<td>CN=Local IMA</td><td>703856a8</td><td>RSA-2048</td><td>2100-01-01</td><td class=\"good\">taken</td>",
        "<h3>When a program, script or interpreter is executed <span class=\"dim\">BPRM_CHECK</span></h3>",
        "<li>denied without a good signature</li>",
        "<td>ima-ng</td><td class=\"number\">2</td>",
        "boot_aggregate is that of PCRs 0 to 9.",
        "<code>/opt/tool</code>",
        "it has no signature, or only a hash",
        "<td>IMA-551</td><td>CN=x</td><td>a sample</td><td>make keys</td>",
        "prefers-color-scheme:dark",
        "content=\"default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;\"",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    // Nothing is loaded and nothing runs.
    for forbidden in [
        "<script", "http:", "https:", "url(", "@import", "src=", "<link", "<img", "onload",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    // A system without the init has a page too.
    for path in [REPORT, KMSG, POLICY, LIST] {
        tree.remove(path);
    }
    let page = read(&tree).html();
    assert!(
        page.contains("this system was not booted by ima-init"),
        "{page}"
    );
}

/// The tags of a page in order, with their attributes.
fn tags(page: &str) -> Vec<&str> {
    page.split('<')
        .skip(1)
        .map(|piece| piece.split('>').next().unwrap())
        .collect()
}

/// A tree into which that text went wherever text comes from outside.
fn hostile(text: &str) -> Recorded {
    let tree = Recorded::new();
    // In audit records no text is cut off, and a name is not empty.
    let file = format!("/{text}").replace('\0', "");
    tree.denial(400, 7, &file, "IMA-signature-required", &file);
    let path = format!("/dev/{text}").replace([' ', '\t', '\n', '\\', '\0'], "_");
    tree.replace(MOUNTS, "/dev/vda", &path);
    tree.change_report(|report| {
        for (pointer, value) in [
            ("/slot", json!(text)),
            ("/keys/0/subject", json!(text)),
            ("/keys/0/key_id", json!(text)),
            ("/keys/0/algorithm", json!(text)),
            ("/keys/0/keyring", json!(text)),
            ("/policy/path", json!(text)),
            ("/policy/additional", json!([{"path": text, "accepted": false}])),
            ("/policy/proofs/0", json!(text)),
            ("/refused_slots", json!([{"slot": text, "code": text, "detail": text, "cause": text, "remedy": text}])),
            ("/warnings", json!([{"code": text, "detail": text, "cause": text, "remedy": text}])),
        ] {
            *report.pointer_mut(pointer).unwrap() = value;
        }
        let key = json!({"keyring": ".ima", "path": text, "subject": null, "accepted": false, "code": text});
        report["keys"].as_array_mut().unwrap().push(key);
        let times = report["times_us"].as_object_mut().unwrap();
        times.insert(format!("stage{text}"), json!(u64::MAX));
    });
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever files, certificates and slots are called, the page has the same tags with the same attributes, and the metrics are
    /// metrics.
    #[test]
    fn no_name_becomes_markup(text in "(<script>|</td>|\"|'|&lt;|-->|\\PC|[\\x00-\\x1f]|\u{202e}){1,8}") {
        let plain = read(&hostile("x"));
        let status = read(&hostile(&text));
        let (page, expected) = (status.html(), plain.html());
        prop_assert_eq!(tags(&page), tags(&expected));
        prop_assert!(!page.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{}", page);
        samples(&status.metrics(&[])).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in a file, the status is one, its page and its metrics are well formed, and its JSON is JSON.
    #[test]
    fn any_file_has_a_status(file in 0_usize..13, cut in 0_usize..400, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let tree = Recorded::new();
        let path = [
            REPORT, KMSG, LIST, KEYS, MOUNTS, POLICY, SECURE_BOOT, recorded::STUB, recorded::LOCKDOWN, recorded::CMDLINE,
            recorded::AUDIT_LOG, "proc/config.gz", "proc/stat",
        ][file];
        // A beginning as it should be, so that what follows is looked at.
        let mut content = std::fs::read(tree.path().join(path)).unwrap_or_default();
        content.truncate(cut);
        content.extend(&bytes);
        tree.put(path, &content);
        let status = read(&tree);
        samples(&status.metrics(&[])).map_err(TestCaseError::fail)?;
        let page = status.html();
        prop_assert!(page.ends_with("</body></html>\n"));
        let value = status.json(&[]);
        prop_assert!(value["checks"].as_array().is_some_and(|checks| checks.len() >= 10), "{value}");
    }
}
