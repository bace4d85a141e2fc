//! `imactl measurement`.

mod common;

use common::{MeasurementList, imactl, measurement_list, pcrs_with_10};

#[test]
fn lists_beside_pcrs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList {
        list,
        sha1,
        sha256,
        padded,
    } = measurement_list();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    write("list", &list);
    let first = list.len() / 2 + 4;
    assert!(
        list[..first]
            .windows(14)
            .any(|window| window == b"boot_aggregate")
    );
    for (name, value) in [("sha1", &sha1), ("sha256", &sha256), ("padded", &padded)] {
        write(name, pcrs_with_10(value).as_bytes());
    }
    write("zeros", pcrs_with_10(&[0; 32]).as_bytes());
    write("other", pcrs_with_10(&[9; 32]).as_bytes());
    let parsed = ima::measurement::MeasurementList::parse_binary(
        &list,
        ima::measurement::Bank::Sha1,
        ima::measurement::ByteOrder::Little,
    )
    .unwrap();
    write("ascii", &parsed.to_ascii());
    let mut longer = list.clone();
    longer.extend(&list);
    write("longer", &longer);
    let mut changed = list.clone();
    *changed.iter_mut().rev().nth(1).unwrap() ^= 1;
    write("changed", &changed);
    let mut aggregate = pcrs_with_10(&sha256);
    aggregate = aggregate.replace("PCR-03: 03", "PCR-03: 04");
    write("aggregate", aggregate.as_bytes());
    for (arguments, code, said) in [
        (
            "--pcrs sha256,sha256 list",
            0,
            "PCR 10 sha256: is the replay of the list\n",
        ),
        (
            "--pcrs sha1,sha1 --pcrs sha256,sha256 list",
            0,
            "PCR 10 sha1: is the replay of the list\n",
        ),
        (
            "--pcrs sha256,sha256 list",
            0,
            "boot_aggregate is that of PCRs",
        ),
        (
            "--pcrs sha256,sha256 ascii",
            0,
            "PCR 10 sha256: is the replay of the list\n",
        ),
        ("--pcrs sha256,sha256 longer", 0, "up to entry 2 of 4"),
        ("--pcrs sha256,padded list", 0, "SHA-1 digests with zeros"),
        (
            "--pcrs sha256,zeros list",
            1,
            "was not extended by this list",
        ),
        (
            "--pcrs sha256,other list",
            1,
            "is not the replay of the list",
        ),
        (
            "--pcrs sha256,aggregate list",
            1,
            "boot_aggregate is not that of PCRs",
        ),
        ("changed", 1, "entry 2 was changed"),
        ("list", 0, "PCR 10 sha256 would be"),
        ("--list list", 0, " boot_aggregate\n"),
    ] {
        let found = imactl(&format!("measurement {arguments}"), at);
        assert_eq!(found.code, code, "{arguments}: {found:?}");
        assert!(found.out.contains(said), "{arguments}: {found:?}");
    }
    write("cut", &list[..list.len() - 1]);
    imactl("measurement cut", at).refused("IMA-986");
    imactl("measurement --bank sha256 list", at).refused("IMA-986");
    let json = imactl("measurement --list --json --pcrs sha256,sha256 list", at)
        .good()
        .out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["entries"][1]["name"], "/init");
    assert_eq!(json["pcrs"][0]["good"], true);
    assert_eq!(json["boot_aggregate"], true);
}

/// As a kernel with CONFIG_IMA_STAGING gives it: what was taken out first, and the rest.
#[test]
fn a_list_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList { list, sha256, .. } = measurement_list();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    let first = entry_length(&list);
    write("first", &list[..first]);
    write("rest", &list[first..]);
    write("pcrs", pcrs_with_10(&sha256).as_bytes());
    imactl("measurement --pcrs sha256,pcrs first rest", at).good();
    for wrong in ["rest first", "rest", "first first rest"] {
        let found = imactl(&format!("measurement --pcrs sha256,pcrs {wrong}"), at);
        assert_eq!(found.code, 1, "{wrong}: {found:?}");
        let says = "the first entry is not boot_aggregate";
        assert_eq!(
            found.out.contains(says),
            wrong.starts_with("rest"),
            "{wrong}: {found:?}"
        );
    }
    // What PCR 10 held after the first entry, as a verifier keeps it.
    let replayed = imactl("measurement --json first", at).good().out;
    let replayed: serde_json::Value = serde_json::from_str(&replayed).unwrap();
    assert_eq!(replayed["begins_at_boot"], true);
    let before = replayed["replay_pcr10"]["sha256"].as_str().unwrap();
    imactl(
        &format!("measurement --pcrs sha256,pcrs --before sha256,{before} rest"),
        at,
    )
    .good();
    let other = "0".repeat(64);
    let found = imactl(
        &format!("measurement --pcrs sha256,pcrs --before sha256,{other} rest"),
        at,
    );
    assert_eq!(found.code, 1, "{found:?}");
    let found = imactl("measurement --before sha256,00 rest", at);
    assert!(
        found.code == 2 && found.err.contains("give a bank and a value"),
        "{found:?}"
    );
}

/// The length of the first entry of [`measurement_list`].
fn entry_length(list: &[u8]) -> usize {
    let template = 4 + 20 + 4 + "ima-ng".len();
    let data = u32::from_le_bytes(list[template..template + 4].try_into().unwrap());
    template + 4 + data as usize
}

#[test]
fn lists_of_two_boots() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList { list, .. } = measurement_list();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    write("first", &list);
    let beyond = entry_length(&list);
    write("shorter", &list[..beyond]);
    let mut other = list.clone();
    *other.last_mut().unwrap() = 0;
    let position = other
        .windows(32)
        .position(|bytes| bytes == [7; 32])
        .unwrap();
    other[position] = 8;
    write("other", &other);
    let digest = "07".repeat(32);
    let changed = format!("08{}", "07".repeat(31));
    for (arguments, code, says) in [
        ("first first", 0, "2 measurements in both lists"),
        ("first shorter", 1, &*format!("- /init  sha256:{digest}\n")),
        ("shorter first", 1, &format!("+ /init  sha256:{digest}\n")),
        ("--allowed first shorter", 0, "1 measurements in both lists"),
        (
            "--allowed shorter first",
            1,
            "0 with other contents, 1 in the second only",
        ),
        (
            "first other",
            1,
            &format!("- /init  sha256:{digest}\n+ /init  sha256:{changed}\n"),
        ),
        (
            "--allowed first other",
            1,
            &format!("+ /init  sha256:{changed}\n"),
        ),
    ] {
        let found = imactl(&format!("measurement diff {arguments}"), at);
        assert_eq!(found.code, code, "{arguments}: {found:?}");
        assert!(found.out.contains(says), "{arguments}: {found:?}");
    }
    let json = imactl("measurement diff --json first other", at).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["second"]["/init"][0], format!("sha256:{changed}"));
    assert_eq!(json["both"], 1);
    write("cut", &list[..list.len() - 1]);
    imactl("measurement diff first cut", at).refused("IMA-986");
    imactl("measurement diff first missing", at).refused("IMA-901");
}

/// What a root is predicted to measure is what its files are.
#[test]
fn a_predicted_list_allows_what_was_predicted() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir_all(at.join("root/bin")).unwrap();
    std::fs::write(at.join("root/bin/a program"), "one").unwrap();
    std::fs::write(at.join("root/bin/other"), "two").unwrap();
    let predicted = imactl("measurement predict --from root --template ima-ng", at)
        .good()
        .out;
    std::fs::write(at.join("predicted"), &predicted).unwrap();
    let lines: Vec<&str> = predicted.lines().collect();
    assert_eq!(lines.len(), 4, "{predicted}");
    let measured = lines
        .iter()
        .find(|line| line.ends_with(" /bin/a_program"))
        .unwrap();
    std::fs::write(at.join("measured"), format!("{measured}\n")).unwrap();
    imactl("measurement measured", at).good();
    imactl("measurement diff --allowed predicted measured", at).good();
    std::fs::write(at.join("root/bin/a program"), "three").unwrap();
    let predicted = imactl("measurement predict --from root --template ima-ng", at)
        .good()
        .out;
    std::fs::write(at.join("predicted"), &predicted).unwrap();
    let found = imactl("measurement diff --allowed predicted measured", at);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("+ /bin/a_program  sha256:"), "{found:?}");
    let found = imactl("measurement predict --from root --template evm-sig", at);
    assert!(
        found.code == 2 && found.err.contains("possible values"),
        "{found:?}"
    );
}

#[test]
fn violations_are_named_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList { list, .. } = measurement_list();
    let mut violation = list[entry_length(&list)..].to_vec();
    violation[4..24].fill(0);
    std::fs::write(at.join("list"), [list, violation.repeat(11)].concat()).unwrap();
    let found = imactl("measurement list", at).good().out;
    for says in [
        "13 entries, 11 violations\nentry 3 is a violation: /init\n",
        "entry 12 is a violation: /init\n1 more violations",
        "(open_writers in the audit log)",
    ] {
        assert!(found.contains(says), "{found}");
    }
    let json = imactl("measurement --json list", at).good().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["first_violations"][0]["entry"], 3);
}

/// The name of a template is in no digest: with another, a signature would pass for something else.
#[test]
fn an_entry_with_another_template_is_ambiguous() {
    let directory = common::with_keys("rsa2048");
    let at = directory.path();
    let field = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let entry = |template: &str| {
        let digest = [b"sha256:\0".as_slice(), &[7; 32]].concat();
        let data = [field(&digest), field(b"/init\0"), field(&[3, 2, 4, 0, 0])].concat();
        use sha1::Digest as _;
        let head = [&10_u32.to_le_bytes()[..], &sha1::Sha1::digest(&data)].concat();
        [head, field(template.as_bytes()), field(&data)].concat()
    };
    for (template, verdict) in [
        ("ima-sig", "/init: malformed"),
        ("ima-buf", "/init: ambiguous"),
        ("d-ng|n-ng|sig", "/init: malformed"),
        ("d-ng|n-ng|evmsig", "/init: ambiguous"),
        ("d-ng|n-ng|n-ng", "/init: ambiguous"),
    ] {
        std::fs::write(at.join("list"), entry(template)).unwrap();
        let found = imactl("measurement --cert keys/ima.der list", at);
        assert_eq!(found.code, 1, "{template}: {found:?}");
        assert!(found.out.contains(verdict), "{template}: {found:?}");
        let found = imactl(
            "evmctl ima_measurement --verify-sig --key keys/ima.der list",
            at,
        );
        assert_ne!(found.code, 0, "{template}: {found:?}");
        let says = if verdict.ends_with("malformed") {
            "/init: Invalid"
        } else {
            "/init: its "
        };
        assert!(found.err.contains(says), "{template}: {found:?}");
    }
}

/// Where nothing was compared, nothing is good.
#[test]
fn pcrs_that_cannot_be_compared_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let MeasurementList { list, sha256, .. } = measurement_list();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    write("list", &list);
    write("empty", b"");
    let pcrs = pcrs_with_10(&sha256);
    write("pcrs", pcrs.as_bytes());
    let others: Vec<&str> = pcrs
        .lines()
        .filter(|line| !line.contains("PCR-10"))
        .collect();
    write("others", others.join("\n").as_bytes());
    for arguments in [
        "--tpm device:/dev/zero list",
        "--tpm device:/dev/null list",
        "--tpm swtpm:host=localhost,port=1 list",
        "--pcrs sha256,list list",
        "--pcrs sha256,empty list",
        "--pcrs sha512,pcrs list",
        "--pcrs sha256,others list",
    ] {
        let found = imactl(&format!("measurement {arguments}"), at);
        assert_eq!(found.code, 2, "{arguments}: {found:?}");
        assert!(found.err.contains("IMA-985"), "{arguments}: {found:?}");
    }
    // The same entries again, for a PCR of which nothing is known.
    let mut moved = list.clone();
    moved[0] = 11;
    write("both", &[moved, list].concat());
    let found = imactl("measurement --pcrs sha256,pcrs both", at);
    assert_eq!(found.code, 1, "{found:?}");
}
