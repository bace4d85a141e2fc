//! Remote attestation of a machine that has booted: its TPM signs what firmware, kernel and init have measured, and the judgement of
//! `imactl attest verify` on that.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use ima::bank::Bank;
use ima::hash::HashAlgorithm;
use ima::hex;
use ima::measurement::{ByteOrder, Digested, MeasurementList};
use ima_testbed::{Running, Tpm};
use imactl::attest::device::{DEFAULT_HANDLE, DEFAULT_PCRS, Device};
use imactl::attest::verify::{Expected, Finding, Findings, verify};
use imactl::attest::{Evidence, KeyKind, PublicArea};
use imactl::measurement::{Comparison, Lists};
use imactl::tpm;

use crate::built::{Kernel, busybox, source};
use crate::keys::RSA;
use crate::setup::{DEFAULT_POLICY, Setup, TIME_LIMIT, console_tail};
use crate::tree::INIT;

const NONCE: [u8; 32] = [0x5a; 32];

const APPLETS: [&str; 9] = [
    "cat", "dd", "dmesg", "hexdump", "mount", "poweroff", "sh", "stty", "xxd",
];

/// Answers lines on the console, each with its number: `tpm` sends a command to the TPM, `file` shows a file, `write` writes a word to a
/// file, `run` executes a program.
const SCRIPT: &str = r#"#!/bin/busybox sh
export PATH=/bin
dmesg -n 1
exec </dev/console >/dev/console 2>/dev/null
stty -echo
mount -t securityfs securityfs /sys/kernel/security
exec 3<>/dev/tpmrm0
hex() { hexdump -ve '1/1 "%02x"'; }
echo "agent ready"
while read -r number verb what; do
    case $verb in
    tpm) echo "$what" | xxd -r -p >&3; answer=$(dd bs=4096 count=1 <&3 | hex) ;;
    file) answer=$(hex <"$what") ;;
    write) echo "${what%% *}" >"${what#* }" && answer=00 || answer=ff ;;
    run) "$what" >/dev/null && answer=00 || answer=ff ;;
    end) break ;;
    esac
    echo "answer$number=$answer="
done
poweroff -f
"#;

/// A machine whose root answers on the console.
fn machine() -> Setup {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.configure("measure_pcr=13");
    setup.put(DEFAULT_POLICY, policy());
    setup.append("ima_template=ima-sig");
    let root = &mut setup.root;
    root.add_signed("bin/busybox", 0o755, &busybox(), &RSA);
    for applet in APPLETS {
        root.link(&format!("bin/{applet}"), "busybox");
    }
    root.remove(INIT);
    root.add_signed(INIT, 0o755, SCRIPT.as_bytes(), &RSA);
    setup
}

fn policy() -> Vec<u8> {
    source("policy/ima_policy.measure")
}

/// The script in the machine.
struct Agent<'a> {
    running: &'a Running,
    asked: AtomicUsize,
}

impl Agent<'_> {
    fn ask(&self, what: &str) -> Vec<u8> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        self.running
            .send_text(&format!("{number} {what}\n"))
            .expect("a console");
        let mark = format!("answer{number}=");
        let answer = self.running.wait_for(&mark, TIME_LIMIT, |output| {
            let (_, rest) = output.console.split_once(&mark)?;
            Some(rest.split_once('=')?.0.to_owned())
        });
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        hex::decode(&answer).unwrap_or_else(|| panic!("{what}: {answer}"))
    }

    fn file(&self, path: &str) -> Vec<u8> {
        self.ask(&format!("file {path}"))
    }

    fn succeed(&self, what: &str) {
        assert_eq!(self.ask(what), [0], "{what}");
    }

    /// Hands each command on a connection to the machine's TPM, until the connection ends.
    fn hand_on(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut header = [0; 6];
        while stream.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
            let mut rest = vec![0; length as usize - header.len()];
            stream.read_exact(&mut rest)?;
            let command = hex::encode(&[&header[..], &rest].concat());
            stream.write_all(&self.ask(&format!("tpm {command}")))?;
        }
        Ok(())
    }

    /// What a program in the machine would do: makes a key, and has the TPM sign.
    fn attest(&self) -> (PublicArea, Evidence) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address").to_string();
        let tpm = tpm::Tpm::Socket(address);
        let quoted = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().expect("a connection");
                self.hand_on(stream).expect("a connection");
            });
            let mut device = Device::open(&tpm).expect("the TPM");
            let keys = device
                .make_keys(KeyKind::P256, KeyKind::P256, DEFAULT_HANDLE)
                .expect("keys");
            let quoted = device
                .quote(DEFAULT_HANDLE, &NONCE, &[], DEFAULT_PCRS)
                .expect("a quote");
            assert_eq!(quoted.key, keys.attestation);
            quoted
        });
        let securityfs = "/sys/kernel/security";
        let evidence = Evidence {
            quote: quoted.attest,
            signature: quoted.signature,
            key: quoted.key.encode().expect("a key"),
            pcrs: quoted.pcrs,
            measurements: self.file(&format!("{securityfs}/ima/binary_runtime_measurements")),
            measurements_bank: Bank::Sha1,
            byte_order: ByteOrder::Little,
            firmware_log: Some(self.file(&format!("{securityfs}/tpm0/binary_bios_measurements"))),
            programs_log: Some(self.file(ima::boot_event::LOG)),
        };
        (quoted.key, evidence)
    }
}

fn judge(key: &PublicArea, evidence: &Evidence, policy: &[u8]) -> Findings {
    let expected = Expected {
        key,
        nonce: &NONCE,
        certificates: std::slice::from_ref(&RSA.certificate),
        policy: Some(policy),
        manifests: &[],
        resets: None,
        pcrs: &BTreeMap::new(),
    };
    verify(evidence, &expected)
}

/// The evidence of a boot is good, and shows which policy the init proved. A list without one of its entries, or another policy, is
/// found.
#[test]
fn evidence_of_a_boot() {
    let ((key, evidence), outcome) = machine().boot_with(|running| {
        running.wait_for_console("agent ready").expect("the agent");
        let agent = Agent {
            running,
            asked: AtomicUsize::new(0),
        };
        let made = agent.attest();
        running.send_text("0 end\n").expect("a console");
        made
    });
    let found = judge(&key, &evidence, &policy());
    assert_eq!(found.findings, [], "{}", console_tail(&outcome));
    assert!(found.firmware_log_replayed);
    assert!(found.quoted > 3 && found.good_signatures > 1, "{found:?}");
    assert_eq!(found.violations, 0);
    let events: Vec<serde_json::Value> = found
        .conclusions
        .iter()
        .map(|(pcr, text)| {
            assert_eq!(*pcr, 13);
            serde_json::from_str(text).expect("JSON")
        })
        .collect();
    let [measured, root] = events.as_slice() else {
        panic!("{events:?}")
    };
    let digest = HashAlgorithm::Sha256.digest(&policy()).expect("a digest");
    assert_eq!(measured["policy"], hex::encode(&digest));
    assert_eq!(root["event"], "root");

    let other = judge(&key, &evidence, &source("policy/ima_policy.default"));
    assert!(matches!(other.findings[..], [Finding::OtherPolicy { .. }]));

    let parse = |bytes: &[u8]| {
        MeasurementList::parse_binary(bytes, Bank::Sha1, ByteOrder::Little).expect("a list")
    };
    let list = parse(&evidence.measurements);
    assert_eq!(list.to_binary(), evidence.measurements);
    // The second entry, by its place: the first has the length that the list of it alone has.
    let first = list.entries()[0].to_ascii(ByteOrder::Little);
    let second = list.entries()[1].to_ascii(ByteOrder::Little);
    let alone = |line: &[u8]| {
        MeasurementList::parse_ascii(line, ByteOrder::Little)
            .expect("an entry")
            .to_binary()
            .len()
    };
    let (start, length) = (alone(&first), alone(&second));
    let mut without = evidence.clone();
    without.measurements.drain(start..start + length);
    let found = judge(&key, &without, &policy());
    let of_the_list = |finding: &Finding| matches!(finding, Finding::ListNotReplayed(_));
    assert!(
        !found.findings.is_empty() && found.findings.iter().all(of_the_list),
        "{found:?}"
    );
}

/// Linux 7.2 gives the list away piece by piece. Evidence with all pieces is good; what the kernel still has is not the list.
#[test]
fn a_list_that_was_taken_out_of_the_kernel() {
    const LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
    let mut setup = machine();
    setup.kernel = Kernel::Newer;
    let later = b"#!/bin/busybox sh\n";
    setup.root.add_signed("bin/later", 0o755, later, &RSA);
    let ((key, evidence, pieces), outcome) = setup.boot_with(|running| {
        running.wait_for_console("agent ready").expect("the agent");
        let agent = Agent {
            running,
            asked: AtomicUsize::new(0),
        };
        let staged = format!("{LIST}_staged");
        agent.succeed(&format!("write A {staged}"));
        let first = agent.file(&staged);
        agent.succeed(&format!("write D {staged}"));
        assert_eq!(agent.file(&staged), [] as [u8; 0]);
        agent.succeed("run /bin/later");
        let (key, evidence) = agent.attest();
        running.send_text("0 end\n").expect("a console");
        (key, evidence, first)
    });
    let found = judge(&key, &evidence, &policy());
    assert!(
        found
            .findings
            .iter()
            .all(|finding| matches!(finding, Finding::ListNotReplayed(_))),
        "{found:?}"
    );
    assert!(!found.findings.is_empty(), "{}", console_tail(&outcome));
    let rest = &evidence.measurements;
    assert!(!pieces.is_empty() && !rest.is_empty());
    let mut whole = evidence.clone();
    whole.measurements = [&pieces[..], rest].concat();
    let found = judge(&key, &whole, &policy());
    assert_eq!(found.findings, [], "{}", console_tail(&outcome));

    // As files, in pieces, beside the PCRs that were quoted.
    let directory = tempfile::tempdir().expect("a directory");
    let paths = [("first", &pieces), ("rest", rest)].map(|(name, bytes)| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    });
    let lists = |paths| Lists {
        paths,
        bank: Bank::Sha1,
        order: ByteOrder::Little,
    };
    for (paths, consistent) in [(&paths[..], true), (&paths[1..], false)] {
        let mut reader = lists(paths).open().expect("a list");
        let mut comparison = Comparison::new(evidence.pcrs.clone());
        while let Some(entry) = reader.read().expect("an entry") {
            let mut digested = Digested::new(&entry, ByteOrder::Little);
            comparison.add(&entry, &mut digested, Bank::Sha1);
        }
        assert_eq!(comparison.is_consistent(), consistent, "{comparison:?}");
        assert_eq!(comparison.begins_at_boot, consistent);
    }
}
