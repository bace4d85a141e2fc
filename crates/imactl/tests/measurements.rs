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
        ("--pcrs sha256,zeros list", 1, "was never extended"),
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
