//! `imactl events`.

mod common;

use common::imactl;
use ima::bank::Bank;
use ima::boot_event;
use ima::hash::HashAlgorithm;
use ima::hex;
use ima::tpm::Extended;

const PCR: u8 = 13;

fn digest(text: &str) -> Vec<u8> {
    HashAlgorithm::Sha256.digest(text.as_bytes()).unwrap()
}

/// The record of an event of the init.
fn record(text: &str) -> String {
    let digest = Extended {
        algorithm: HashAlgorithm::Sha256,
        digest: digest(text),
    };
    boot_event::record(PCR, &[digest], text)
}

/// PCRs of which all but one are zero, as tpm2_pcrread prints them.
fn pcrs(value: &[u8]) -> String {
    let line = |pcr| {
        let value = match pcr == PCR {
            true => hex::encode(value),
            false => "00".repeat(32),
        };
        format!("  {pcr:<2}: 0x{value}\n")
    };
    (0..24).map(line).collect()
}

#[test]
fn logs_beside_pcrs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
    let texts = [r#"{"event":"policy"}"#, r#"{"event":"root"}"#];
    let log = texts.map(record).concat();
    let value = texts.iter().fold(vec![0; 32], |value, text| {
        Bank::Sha256.extend(&value, &digest(text))
    });
    write("log", &log);
    write("pcrs", &pcrs(&value));
    write("first", &record(texts[0]));
    write("reordered", &[texts[1], texts[0]].map(record).concat());
    write("forged", &log.replace("policy", "polity"));
    write("other", &pcrs(&[7; 32]));
    for (arguments, code, said) in [
        (
            "--log log --pcrs sha256,pcrs",
            0,
            "15 of 15 PCRs are the replay of the logs\n",
        ),
        (
            "--log log --pcrs sha256,pcrs",
            0,
            "PCR 13 ima-init: {\"event\":\"policy\"}\n",
        ),
        (
            "--log first --pcrs sha256,pcrs",
            1,
            "PCR 13 sha256: is not the replay of the logs\n",
        ),
        ("--log reordered --pcrs sha256,pcrs", 1, "14 of 15 PCRs"),
        ("--log log --pcrs sha256,other", 1, "14 of 15 PCRs"),
        (
            "--log forged --pcrs sha256,pcrs",
            1,
            "was changed: the digest is of another text\n",
        ),
    ] {
        let found = imactl(&format!("events {arguments}"), at);
        assert_eq!(found.code, code, "{arguments}: {found:?}");
        assert!(found.out.contains(said), "{arguments}: {found:?}");
    }
    let json = imactl("events --json --log log --pcrs sha256,pcrs", at)
        .good()
        .out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["records"][0]["text"], texts[0]);
    assert_eq!(json["records"][0]["changed"], false);
    assert_eq!(json["pcrs"][11]["pcr"], 12);
    assert_eq!(json["pcrs"][12]["matches"], true);

    write("empty", "");
    write("cut", &log[..log.len() - 9]);
    for name in ["empty", "cut", "pcrs"] {
        imactl(&format!("events --log {name} --pcrs sha256,pcrs"), at).refused("IMA-987");
        imactl(
            &format!("events --firmware-log {name} --pcrs sha256,pcrs"),
            at,
        )
        .refused("IMA-987");
    }
    imactl("events --log log --pcrs sha512,pcrs", at).refused("IMA-985");
}
