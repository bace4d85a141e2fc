//! A kernel under ima-init starts another one with an initramfs of ima-init (kexec_file_load(2)): both enforce the policy, and the
//! measurement list of the second has that of the first, which the TPM still holds.

use ima::bank::Bank;
use ima::measurement::{BOOT_AGGREGATE, ByteOrder, MeasurementList, PcrMatch};
use ima_testbed::Tpm;
use ima_testbed::report::decode_hex;

use crate::accepted::assert_all_attempts_passed;
use crate::attacks::{run_by_init, said};
use crate::built::{PROGRAMS, source};
use crate::keys::RSA;
use crate::setup::{DEFAULT_POLICY, Setup, assert_booted};
use crate::tree::Tree;

/// What the second command line has in addition.
const SECOND: &str = "testbed.boot=second";

/// A root that starts its kernel and initramfs once more, and then makes the attempts.
fn starts_twice() -> Setup {
    let mut setup = Setup::new();
    setup.tpm = Tpm::Swtpm;
    setup.configure("kexec=yes");
    setup.put(DEFAULT_POLICY, source("policy/ima_policy.measure"));
    setup.root = Tree::with_attempts(None);
    let script = format!(
        "if grep -q {SECOND} /proc/cmdline; then exec /sbin/second; fi
        say \"unsigned: $(guest tool kexec /boot/kernel /boot/unsigned x)\"
        say \"signed: $(guest tool kexec /boot/kernel /boot/initramfs \"$(cat /proc/cmdline) {SECOND}\")\""
    );
    run_by_init(&mut setup, &script);
    let initramfs = setup.packed();
    let kernel = std::fs::read(setup.kernel.with_ca()).expect("the kernel");
    let root = &mut setup.root;
    root.add_signed("sbin/second", 0o755, &PROGRAMS.guest, &RSA);
    root.add_signed("boot/kernel", 0o644, &kernel, &RSA);
    root.add_signed("boot/initramfs", 0o644, &initramfs, &RSA);
    root.add("boot/unsigned", 0o644, &initramfs);
    setup
}

#[test]
fn measurements_and_enforcement_survive_kexec() {
    let outcome = starts_twice().boot();
    let report = assert_booted(&outcome);
    assert_eq!(said(&outcome), ["unsigned: EACCES"]);
    assert_all_attempts_passed(report);

    let bytes = decode_hex(&report.measurements_binary).expect("a list");
    let list = MeasurementList::parse_binary(&bytes, Bank::Sha1, ByteOrder::Little);
    let list = list.expect("a list");
    assert!(report.pcr10.len() > 1, "one bank only");
    for (bank, pcr) in &report.pcr10 {
        let pcr = decode_hex(pcr).expect("a PCR");
        let bank = Bank::from_name(bank).expect("a bank");
        assert_ne!(list.match_pcr(bank, 10, &pcr), PcrMatch::No, "{bank}");
    }
    let names: Vec<String> = list
        .entries()
        .iter()
        .filter_map(|entry| entry.name())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let place = |wanted: &str| names.iter().position(|name| name.ends_with(wanted));
    let boots = names
        .iter()
        .filter(|name| name.as_bytes() == BOOT_AGGREGATE);
    assert_eq!(boots.count(), 2, "{names:?}");
    // Of the first boot: what was started, and with which command line.
    for wanted in ["boot/kernel", "boot/initramfs", "kexec-cmdline"] {
        let second = names
            .iter()
            .rposition(|name| name.as_bytes() == BOOT_AGGREGATE);
        assert!(
            place(wanted).is_some_and(|place| Some(place) < second),
            "{wanted}: {names:?}"
        );
    }
    let line = list
        .entries()
        .iter()
        .find(|entry| entry.name() == Some(b"kexec-cmdline"));
    let line = line
        .and_then(|entry| entry.fields().last())
        .expect("the command line");
    assert!(String::from_utf8_lossy(line).contains(SECOND), "{line:?}");
}
