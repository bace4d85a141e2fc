//! `imactl attest`, with an emulated TPM that was extended as the firmware, the kernel and the init extend one. Needs swtpm and
//! tpm2-tools.

mod common;

use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use common::{Ended, imactl, run, shell, with_keys};
use ima::bank::Bank;
use ima::boot_event;
use ima::hash::HashAlgorithm;
use ima::hex;
use ima::tpm::Extended;
use serde_json::{Value, json};

/// The banks of the emulated TPM that have PCRs.
const BANKS: [Bank; 2] = [Bank::Sha1, Bank::Sha256];

const NONCE: &str = "000102030405060708090a0b0c0d0e0f";
const OTHER_NONCE: &str = "f00102030405060708090a0b0c0d0e0f";

/// A policy, and what the init concludes of it.
const POLICY: &[u8] = b"appraise func=BPRM_CHECK appraise_type=imasig\n";

fn sha256(bytes: &[u8]) -> String {
    hex::encode(&HashAlgorithm::Sha256.digest(bytes).unwrap())
}

fn conclusion() -> String {
    format!(r#"{{"event":"policy","policy":"{}"}}"#, sha256(POLICY))
}

/// An emulated TPM, and the files of the test.
struct Host(tempfile::TempDir);

impl Host {
    fn start() -> Host {
        let host = Host(with_keys("p256"));
        std::fs::create_dir(host.at("state")).unwrap();
        let banks = BANKS.map(Bank::name).join(",");
        let arguments = ["--tpm2", "--tpmstate", "state", "--pcr-banks", &banks];
        run("swtpm_setup", arguments, host.0.path()).good();
        host.power_on();
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn address(&self) -> String {
        format!("swtpm:path={}", self.at("tpm").display())
    }

    fn power_on(&self) {
        let server = format!("type=unixio,path={}", self.at("tpm").display());
        let control = format!("type=unixio,path={}", self.at("tpm.ctrl").display());
        let state = format!("dir={}", self.at("state").display());
        let arguments = [
            "socket",
            "--tpm2",
            "--daemon",
            "--flags",
            "not-need-init,startup-clear",
            "--tpmstate",
            &state,
            "--server",
            &server,
            "--ctrl",
            &control,
        ];
        run("swtpm", arguments, self.0.path()).good();
    }

    fn power_off(&self) {
        let control = self.at("tpm.ctrl").display().to_string();
        let arguments = ["-s", "--unix", &control];
        let _ = run("swtpm_ioctl", arguments, self.0.path());
    }

    /// Runs imactl, with the TPM.
    fn tpm(&self, arguments: &str) -> Ended {
        self.imactl(&format!("{arguments} --tpm {}", self.address()))
    }

    fn imactl(&self, arguments: &str) -> Ended {
        imactl(arguments, self.0.path())
    }

    /// Runs a script of tpm2-tools.
    fn tools(&self, script: &str) {
        let script = format!("export TPM2TOOLS_TCTI={}\n{script}", self.address());
        shell(&script, self.0.path()).good();
    }

    /// Extends a PCR by the digest of `data` in each bank.
    fn extend(&self, pcr: u8, data: &[u8]) {
        self.extend_by(pcr, &digests(data));
    }

    fn extend_by(&self, pcr: u8, digests: &[Extended]) {
        let digests: Vec<String> = digests
            .iter()
            .map(|one| format!("{}={}", one.algorithm.name(), hex::encode(&one.digest)))
            .collect();
        self.tools(&format!("tpm2_pcrextend {pcr}:{}", digests.join(",")));
    }

    /// A boot: the firmware's event, the kernel's list, the init's conclusion. Returns the list.
    fn boot(&self) -> List {
        self.extend(0, FIRMWARE);
        let list = self.list();
        for entry in &list.0 {
            self.extend(10, &entry.data);
        }
        self.extend(13, conclusion().as_bytes());
        self.write("list", &list.bytes());
        self.write("firmware", &firmware_log(&[FIRMWARE]));
        let record = boot_event::record(13, &digests(conclusion().as_bytes()), &conclusion());
        self.write("programs", record.as_bytes());
        list
    }

    /// The list of a boot: boot_aggregate, a file with a signature, one without, and a buffer.
    fn list(&self) -> List {
        let mut pcrs = vec![vec![0; 32]; 10];
        pcrs[0] = Bank::Sha256.extend(&[0; 32], &HashAlgorithm::Sha256.digest(FIRMWARE).unwrap());
        let aggregate = ima::measurement::boot_aggregate(Bank::Sha256, &pcrs).unwrap();
        self.write("program", b"program");
        self.write("data", b"data");
        self.imactl("sign --key keys/ima.key --cert keys/ima.der --sidecar program")
            .good();
        let signature = std::fs::read(self.at("program.sig")).unwrap();
        let digest = |text: &[u8]| HashAlgorithm::Sha256.digest(text).unwrap();
        List(vec![
            Entry::new("ima-sig", &aggregate, b"boot_aggregate", b""),
            Entry::new(
                "ima-sig",
                &digest(b"program"),
                b"/usr/bin/program",
                &signature,
            ),
            Entry::new("ima-sig", &digest(b"data"), b"/etc/data", b""),
            Entry::new("ima-buf", &digest(b"ro"), b"kexec-cmdline", b"ro"),
        ])
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    fn key(&self) {
        self.tpm("attest key --directory keys").good();
    }

    fn quote(&self, nonce: &str, out: &str) {
        self.tpm(&format!(
            "attest quote --nonce {nonce} --out {out} --directory parts --list list --firmware-log firmware --log programs"
        ))
        .good();
    }

    /// The evidence that was written under that name.
    fn evidence(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.at(name)).unwrap()).unwrap()
    }

    /// Judges evidence, and returns the names of the findings, each once.
    #[track_caller]
    fn findings(&self, evidence: &Value, arguments: &str) -> Vec<String> {
        self.write("judged", evidence.to_string().as_bytes());
        let nonce = match arguments.contains("--nonce") {
            true => String::new(),
            false => format!("--nonce {NONCE}"),
        };
        let key = match arguments.contains("--ak") {
            true => "",
            false => "--ak keys/ak.pub",
        };
        let ended = self.imactl(&format!(
            "attest verify {key} {nonce} {arguments} --json judged"
        ));
        let report: Value =
            serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let findings = report["findings"].as_array().unwrap();
        let mut names: Vec<String> = Vec::new();
        for finding in findings {
            assert_eq!(finding["code"], "IMA-997");
            let name = finding["name"].as_str().unwrap().to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        assert_eq!(ended.code, i32::from(!names.is_empty()), "{ended:?}");
        assert_eq!(report["good"], json!(names.is_empty()));
        names
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn digests(data: &[u8]) -> Vec<Extended> {
    BANKS
        .map(|bank| Extended {
            algorithm: bank.algorithm(),
            digest: bank.algorithm().digest(data).unwrap(),
        })
        .to_vec()
}

const FIRMWARE: &[u8] = b"firmware";

/// The log of a firmware that extended PCR 0 by these, in the form of TPM 2.0.
fn firmware_log(events: &[&[u8]]) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    spec.extend(2_u32.to_le_bytes());
    for bank in BANKS {
        spec.extend(bank.tpm_algorithm().to_le_bytes());
        spec.extend((bank.digest_len() as u16).to_le_bytes());
    }
    spec.push(0);
    let mut log = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.extend(spec);
    for event in events {
        log.extend([0_u32, 8, 2].map(u32::to_le_bytes).concat());
        for bank in BANKS {
            log.extend(bank.tpm_algorithm().to_le_bytes());
            log.extend(bank.algorithm().digest(event).unwrap());
        }
        log.extend(0_u32.to_le_bytes());
    }
    log
}

/// An entry of a measurement list.
#[derive(Clone)]
struct Entry {
    template: &'static str,
    digest: Vec<u8>,
    data: Vec<u8>,
}

impl Entry {
    fn new(template: &'static str, digest: &[u8], name: &[u8], last: &[u8]) -> Entry {
        let mut data = Vec::new();
        let digest = [b"sha256:\0", digest].concat();
        for field in [&digest[..], &[name, b"\0"].concat(), last] {
            data.extend((field.len() as u32).to_le_bytes());
            data.extend(field);
        }
        let digest = HashAlgorithm::Sha1.digest(&data).unwrap();
        Entry {
            template,
            digest,
            data,
        }
    }
}

#[derive(Clone)]
struct List(Vec<Entry>);

impl List {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &self.0 {
            bytes.extend(10_u32.to_le_bytes());
            bytes.extend(&entry.digest);
            for part in [entry.template.as_bytes(), &entry.data] {
                bytes.extend((part.len() as u32).to_le_bytes());
                bytes.extend(part);
            }
        }
        bytes
    }
}

fn with(evidence: &Value, key: &str, value: Value) -> Value {
    let mut changed = evidence.clone();
    changed[key] = value;
    assert_ne!(changed, *evidence, "{key}");
    changed
}

fn base64(bytes: &[u8]) -> Value {
    Base64::encode_string(bytes).into()
}

fn binary(evidence: &Value, key: &str) -> Vec<u8> {
    Base64::decode_vec(evidence[key].as_str().unwrap()).unwrap()
}

/// A quote is good here and for tpm2-tools; each way to tamper with the evidence is refused by its name.
#[test]
fn tampering_is_refused_by_its_name() {
    let host = Host::start();
    let list = host.boot();
    host.key();
    host.quote(NONCE, "evidence");
    host.write("policy", POLICY);
    let evidence = host.evidence("evidence");
    let none = [""; 0];

    let all = "--policy policy --cert keys/ima.der";
    assert_eq!(host.findings(&evidence, ""), none);
    assert_eq!(host.findings(&evidence, all), none);
    let report = host.imactl(&format!(
        "attest verify --ak keys/ak.pub --nonce {NONCE} {all} --json evidence"
    ));
    let report: Value = serde_json::from_str(&report.good().out).unwrap();
    assert_eq!(report["entries"], 4);
    assert_eq!(report["quoted_entries"], 4);
    assert_eq!(report["good_signatures"], 1);
    assert_eq!(report["firmware_log"], true);
    assert_eq!(
        report["conclusions"],
        json!([{ "pcr": 13, "text": conclusion() }])
    );
    let numbers: Vec<u32> = (0..16).collect();
    let selected = BANKS.map(|bank| json!({ "bank": bank.name(), "pcrs": numbers }));
    assert_eq!(report["quote"]["selected"], json!(selected));
    let text = host.imactl(&format!(
        "attest verify --ak keys/ak.pub --nonce {NONCE} evidence"
    ));
    let text = text.good().out;
    assert!(
        text.contains("quoted sha1 PCRs 0-15; sha256 PCRs 0-15; TPM reset "),
        "{text}"
    );
    assert!(
        text.contains("4 entries, 4 of them quoted, 0 violations"),
        "{text}"
    );
    assert!(text.ends_with("the evidence is good\n"), "{text}");
    host.tools(&format!(
        "tpm2_checkquote -u parts/ak.pem -m parts/quote.msg -s parts/quote.sig -f parts/quote.pcrs -q {NONCE}"
    ));

    // The quote.
    assert_eq!(
        host.findings(&evidence, &format!("--nonce {OTHER_NONCE}")),
        ["stale-nonce"]
    );
    host.tpm("attest key --type rsa2048 --handle 0x81018020 --directory other")
        .good();
    assert_eq!(host.findings(&evidence, "--ak other/ak.pub"), ["other-key"]);
    for key in ["quote", "signature"] {
        let mut bytes = binary(&evidence, key);
        for place in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[place] ^= 1;
            assert_eq!(
                host.findings(&with(&evidence, key, base64(&bytes)), ""),
                ["other-key"]
            );
            bytes[place] ^= 1;
        }
    }
    let mut changed = evidence.clone();
    changed["pcrs"]["sha256"]["13"] = "00".repeat(32).into();
    assert_eq!(host.findings(&changed, ""), ["pcrs-not-quoted"]);
    let mut changed = evidence.clone();
    changed["pcrs"]["sha1"].as_object_mut().unwrap().remove("5");
    assert_eq!(host.findings(&changed, ""), ["pcrs-not-quoted"]);
    let mut changed = evidence.clone();
    changed["pcrs"]["sha1"]["16"] = "00".repeat(20).into();
    assert_eq!(host.findings(&changed, ""), ["pcrs-not-quoted"]);

    // The measurement list.
    let with_list = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut list = list.clone();
        change(&mut list.0);
        with(&evidence, "measurements", base64(&list.bytes()))
    };
    let forged = || Entry::new("ima-sig", &[7; 32], b"/usr/bin/program", b"");
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Vec<Entry>), &'a [&'a str]);
    let cases: [Case<'_>; 9] = [
        ("changed", &|list| list[1].data[20] ^= 1, &["entry-changed"]),
        (
            "its digest changed",
            &|list| list[1].digest[0] ^= 1,
            &["entry-changed"],
        ),
        (
            "changed with its digest",
            &|list| list[1] = forged(),
            &["list-not-replayed"],
        ),
        (
            "made a violation",
            &|list| list[1].digest = vec![0; 20],
            &["list-not-replayed"],
        ),
        (
            "removed",
            &|list| drop(list.remove(1)),
            &["list-not-replayed"],
        ),
        (
            "removed at the end",
            &|list| drop(list.pop()),
            &["list-not-replayed"],
        ),
        (
            "added",
            &|list| list.insert(2, forged()),
            &["list-not-replayed"],
        ),
        ("reordered", &|list| list.swap(1, 2), &["list-not-replayed"]),
        ("all removed", &|list| list.clear(), &["list-not-replayed"]),
    ];
    for (name, change, expected) in cases {
        assert_eq!(host.findings(&with_list(change), all), expected, "{name}");
    }
    // The PCR covers neither the name of a template nor the number of the PCR.
    let template = |name| with_list(&|list| list[2].template = name);
    for name in ["ima-buf", "d-ng|n-ng|evmsig", "unknown"] {
        assert_eq!(
            host.findings(&template(name), all),
            ["entry-unjudged"],
            "{name}"
        );
    }
    let mut other_pcr = list.bytes();
    let mut entry = List(vec![forged()]).bytes();
    entry[0] = 11;
    let after_the_first = List(list.0[..1].to_vec()).bytes().len();
    other_pcr.splice(after_the_first..after_the_first, entry);
    let other_pcr = with(&evidence, "measurements", base64(&other_pcr));
    assert_eq!(host.findings(&other_pcr, ""), ["entry-unjudged"]);
    let cut = list.bytes();
    let cut = with(&evidence, "measurements", base64(&cut[..cut.len() - 1]));
    assert_eq!(host.findings(&cut, ""), ["list-malformed"]);
    // What is measured after the quote is in the list, and is not judged: neither for its signature nor for anything else.
    let later = with_list(&|list| list.push(Entry::new("ima-sig", &[7; 32], b"/x", b"\x03\x02")));
    assert_eq!(host.findings(&later, all), none);
    let ended = host.imactl(&format!(
        "attest verify --ak keys/ak.pub --nonce {NONCE} judged"
    ));
    assert!(ended.good().out.contains("5 entries, 4 of them quoted"));

    // The logs.
    let log = firmware_log(&[b"another firmware"]);
    let changed = with(&evidence, "firmware_log", base64(&log));
    assert_eq!(host.findings(&changed, ""), ["log-not-replayed"]);
    let changed = with(&evidence, "firmware_log", base64(&log[..log.len() - 1]));
    assert_eq!(host.findings(&changed, ""), ["log-malformed"]);
    assert_eq!(
        host.findings(&with(&evidence, "firmware_log", Value::Null), all),
        none
    );

    // What the init concluded.
    let record = |pcr, digests: &[Extended], text: &str| {
        let log = boot_event::record(pcr, digests, text);
        with(&evidence, "programs_log", base64(log.as_bytes()))
    };
    let right = digests(conclusion().as_bytes());
    let lie = conclusion().replace(&sha256(POLICY), &sha256(b"lax"));
    let cases = [
        (
            "its text",
            record(13, &right, &lie),
            vec!["conclusion-changed"],
        ),
        (
            "text and digests",
            record(13, &digests(lie.as_bytes()), &lie),
            vec!["conclusions-not-replayed"],
        ),
        (
            "no digests",
            record(13, &[], &lie),
            vec!["conclusions-not-replayed", "conclusion-changed"],
        ),
        (
            "a digest left out",
            record(13, &right[..1], &conclusion()),
            vec!["conclusions-not-replayed", "conclusion-changed"],
        ),
        (
            "another PCR",
            record(12, &digests(lie.as_bytes()), &lie),
            vec!["conclusions-not-replayed", "log-not-replayed"],
        ),
        (
            "a PCR that programs can reset",
            record(16, &digests(lie.as_bytes()), &lie),
            vec!["pcr-not-selected", "log-not-replayed", "conclusion-changed"],
        ),
        (
            "all left out",
            with(&evidence, "programs_log", Value::Null),
            vec!["log-not-replayed"],
        ),
        (
            "no log",
            with(&evidence, "programs_log", base64(b"{}")),
            vec!["log-malformed", "log-not-replayed"],
        ),
    ];
    for (name, changed, expected) in cases {
        assert_eq!(host.findings(&changed, ""), expected, "{name}");
        let mut without_firmware = changed;
        without_firmware["firmware_log"] = Value::Null;
        assert_eq!(
            host.findings(&without_firmware, ""),
            expected,
            "{name}, no firmware's log"
        );
    }
    let left_out = with(&evidence, "programs_log", Value::Null);
    assert_eq!(
        host.findings(&left_out, "--policy policy"),
        ["log-not-replayed", "no-conclusion"]
    );
    host.write("lax", b"lax");
    assert_eq!(host.findings(&evidence, "--policy lax"), ["other-policy"]);

    // What else the verifier knows.
    host.imactl("keygen --out foreign --unencrypted --type p256 --ca-type p256")
        .good();
    assert_eq!(
        host.findings(&evidence, "--cert foreign/ima.der"),
        ["signatures-bad"]
    );
    std::fs::create_dir(host.at("root")).unwrap();
    std::fs::copy(host.at("program"), host.at("root/program")).unwrap();
    host.imactl("manifest make --from root --out one.manifest")
        .good();
    assert_eq!(
        host.findings(&evidence, "--manifest one.manifest"),
        ["unknown-files"]
    );
    std::fs::copy(host.at("data"), host.at("root/data")).unwrap();
    host.imactl("manifest make --from root --out both.manifest")
        .good();
    assert_eq!(host.findings(&evidence, "--manifest both.manifest"), none);
    assert_eq!(
        host.findings(
            &evidence,
            "--manifest both.manifest --manifest one.manifest"
        ),
        none
    );
    host.tools("tpm2_pcrread sha256:0,7,13 >references");
    assert_eq!(
        host.findings(&evidence, "--expect-pcrs sha256,references"),
        none
    );
    host.tools("sed 's/7 : 0x0/7 : 0x1/' references >others");
    assert_eq!(
        host.findings(&evidence, "--expect-pcrs sha256,others"),
        ["other-pcr"]
    );
    host.tools("tpm2_pcrread sha256:0,16 >references");
    assert_eq!(
        host.findings(&evidence, "--expect-pcrs sha256,references"),
        ["pcr-not-selected"]
    );
    let resets = &report["quote"]["reset_count"];
    assert_eq!(
        host.findings(&evidence, &format!("--reset-count {resets}")),
        none
    );
    assert_eq!(
        host.findings(&evidence, "--reset-count 99"),
        ["tpm-was-reset"]
    );

    // Keys that sign what others say, or nothing.
    for key in ["keys/ek.pub", "keys/ak.pem"] {
        host.imactl(&format!(
            "attest verify --ak {key} --nonce {NONCE} evidence"
        ))
        .refused("IMA-989");
    }
    host.imactl(&format!(
        "attest verify --ak keys/ak.pub --nonce {NONCE} list"
    ))
    .refused("IMA-989");
}

/// A TPM that was reset alone has no trace of the boot; made to look like before, it has another count of resets.
#[test]
fn reset_of_the_tpm_is_seen() {
    let host = Host::start();
    let list = host.boot();
    host.key();
    host.quote(NONCE, "evidence");
    let before = host.imactl(&format!(
        "attest verify --ak keys/ak.pub --nonce {NONCE} --json evidence"
    ));
    let before: Value = serde_json::from_str(&before.good().out).unwrap();
    let resets = before["quote"]["reset_count"].as_u64().unwrap();
    host.power_off();
    host.power_on();
    host.quote(NONCE, "after");
    let findings = host.findings(&host.evidence("after"), "");
    assert_eq!(
        findings,
        [
            "pcr-never-extended",
            "log-not-replayed",
            "conclusions-not-replayed"
        ]
    );
    host.extend(0, FIRMWARE);
    for entry in &list.0 {
        host.extend(10, &entry.data);
    }
    host.extend(13, conclusion().as_bytes());
    host.quote(NONCE, "replayed");
    let replayed = host.evidence("replayed");
    assert_eq!(host.findings(&replayed, ""), [""; 0]);
    assert_eq!(
        host.findings(&replayed, &format!("--reset-count {resets}")),
        ["tpm-was-reset"]
    );
}

/// Fewer PCRs or banks than the judgement needs, a list of another boot, a refused boot.
#[test]
fn what_is_missing_or_refused_is_named() {
    let host = Host::start();
    host.boot();
    host.key();
    let quote = |options: &str| {
        host.tpm(&format!(
            "attest quote --nonce {NONCE} --out evidence --list list --firmware-log firmware --log programs {options}"
        ))
        .good();
        host.findings(&host.evidence("evidence"), "")
    };
    assert_eq!(quote("--bank sha256"), [""; 0]);
    assert_eq!(quote("--bank sha256 --pcrs 0-10,13"), [""; 0]);
    assert_eq!(quote("--bank sha1"), ["pcr-not-selected"]);
    assert_eq!(quote("--pcrs 0-9,13"), ["pcr-not-selected"]);
    assert_eq!(quote("--pcrs 0-10"), ["pcr-not-selected"]);
    assert_eq!(quote("--pcrs 10,13"), ["pcr-not-selected"]);
    let refusal = r#"{"event":"refused","code":"IMA-502"}"#;
    host.extend(13, refusal.as_bytes());
    let mut log = std::fs::read(host.at("programs")).unwrap();
    log.extend(boot_event::record(13, &digests(refusal.as_bytes()), refusal).as_bytes());
    host.write("programs", &log);
    assert_eq!(quote(""), ["boot-refused"]);
    // Another firmware: its log is right, and boot_aggregate is that of another boot.
    host.extend(0, b"more");
    assert_eq!(quote(""), ["log-not-replayed", "boot-refused"]);
    host.write("firmware", &firmware_log(&[FIRMWARE, b"more"]));
    assert_eq!(quote(""), ["boot-aggregate-differs", "boot-refused"]);
    host.tpm(&format!(
        "attest quote --nonce {NONCE} --out evidence --list list --bank sha384"
    ))
    .refused("IMA-988");
    host.tpm(&format!(
        "attest quote --nonce {NONCE} --out evidence --list list --handle 0x81018030"
    ))
    .refused("IMA-988");
    let gone =
        format!("attest quote --nonce {NONCE} --out evidence --list list --tpm swtpm:path=none");
    host.imactl(&gone).refused("IMA-988");
}

/// The attestation key is shown to be in the TPM of the endorsement key, whose certificate a CA signed.
#[test]
fn challenges_are_answered_by_the_right_tpm_alone() {
    let host = Host::start();
    host.key();
    let certify = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=vendor \\
            -addext basicConstraints=critical,CA:TRUE 2>/dev/null
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.key -subj /CN=ek 2>/dev/null |
            openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -force_pubkey keys/ek.pem -outform der -out made.der 2>/dev/null
        tpm2_nvdefine 0x01c00002 -C o -s $(stat -c %s made.der) -a 'ownerread|ownerwrite|authread|authwrite' >/dev/null
        tpm2_nvwrite 0x01c00002 -C o -i made.der";
    host.tools(certify);
    // Again, with the certificate; the keys are the same.
    let before = std::fs::read(host.at("keys/ak.pub")).unwrap();
    host.key();
    assert_eq!(std::fs::read(host.at("keys/ak.pub")).unwrap(), before);
    let made = std::fs::read(host.at("made.der")).unwrap();
    assert_eq!(std::fs::read(host.at("keys/ek.der")).unwrap(), made);
    let challenge =
        "attest challenge --ek keys/ek.pub --ak keys/ak.pub --out challenge --secret secret";
    host.imactl(&format!("{challenge} --ek-cert keys/ek.der --ca ca.pem"))
        .good();
    host.tpm("attest activate challenge --out answer").good();
    let read = |name: &str| std::fs::read(host.at(name)).unwrap();
    assert_eq!(read("secret").len(), 32);
    assert_eq!(read("answer"), read("secret"));
    let refused = host
        .imactl(&format!(
            "{challenge} --ek-cert keys/ek.der --ca keys/ca.pem"
        ))
        .refused("IMA-989");
    assert!(
        refused
            .err
            .contains("none of the certificates given as --ca"),
        "{refused:?}"
    );

    // Elliptic curves, RSA keys, another handle.
    host.tpm("attest key --directory other --type rsa2048 --ek p256 --handle 0x81018020")
        .good();
    host.imactl(
        "attest challenge --ek other/ek.pub --ak other/ak.pub --out challenge2 --secret secret2",
    )
    .good();
    host.tpm("attest activate challenge2 --ek p256 --handle 0x81018020 --out answer2")
        .good();
    assert_eq!(read("answer2"), read("secret2"));
    let refused = host
        .imactl(&format!(
            "{} --ek-cert keys/ek.der --ca ca.pem",
            challenge.replace("keys/ek.pub", "other/ek.pub")
        ))
        .refused("IMA-989");
    assert!(refused.err.contains("for another key"), "{refused:?}");
    // Another attestation key of the same TPM; the other endorsement key.
    for arguments in [
        "attest activate challenge2 --ek p256 --out no-answer",
        "attest activate challenge2 --handle 0x81018020 --out no-answer",
    ] {
        let refused = host.tpm(arguments).refused("IMA-988");
        assert!(
            refused.err.contains("another attestation key"),
            "{refused:?}"
        );
    }
    host.imactl(&challenge.replace("--ak keys/ak.pub", "--ak keys/ek.pub"))
        .refused("IMA-989");
    host.imactl(&challenge.replace("--ek keys/ek.pub", "--ek keys/ak.pub"))
        .refused("IMA-989");
    // Another TPM.
    let other = Host::start();
    other.key();
    std::fs::copy(host.at("challenge"), other.at("challenge")).unwrap();
    other
        .tpm("attest activate challenge --out no-answer")
        .refused("IMA-988");
    for (host, name) in [(&host, "no-answer"), (&other, "no-answer")] {
        assert!(!Path::exists(&host.at(name)));
    }
    // A challenge of tpm2-tools is answered as well.
    host.tools(
        "head -c 32 /dev/urandom >secret3
        name=$(tpm2_readpublic -Q -c 0x81018010 -n name3 && xxd -p -c 99 name3)
        tpm2_makecredential -Q -T none -u keys/ek.pub -G rsa -s secret3 -n $name -o challenge3 ||
            tpm2_makecredential -Q -u keys/ek.pub -s secret3 -n $name -o challenge3",
    );
    host.tpm("attest activate challenge3 --out answer3").good();
    assert_eq!(read("answer3"), read("secret3"));
}
