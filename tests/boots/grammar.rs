//! The policy parser against the kernel's own: generated rules, each written to the policy file of a running kernel, must be taken
//! by the one exactly if they are taken by the other.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ima::policy::Policy;
use ima::policy::lint::{as_read_by, lint_sound_lines};
use ima::release::Release;
use imactl::kernel::check::{KernelConfig, Wanted, check};

use crate::asked::{Random, ask, bits};
use crate::built::{Kernel, debian_kernel, policy_parsers};

/// How many rules are generated for each kernel.
const RULES: usize = 100_000;

const ACTIONS: [&str; 9] = [
    "measure",
    "dont_measure",
    "appraise",
    "dont_appraise",
    "audit",
    "dont_audit",
    "hash",
    "dont_hash",
    "appraise",
];

const HOOKS: [&str; 21] = [
    "FILE_CHECK",
    "PATH_CHECK",
    "MODULE_CHECK",
    "FIRMWARE_CHECK",
    "FILE_MMAP",
    "MMAP_CHECK",
    "MMAP_CHECK_REQPROT",
    "BPRM_CHECK",
    "CREDS_CHECK",
    "KEXEC_KERNEL_CHECK",
    "KEXEC_INITRAMFS_CHECK",
    "POLICY_CHECK",
    "KEXEC_CMDLINE",
    "KEY_CHECK",
    "CRITICAL_DATA",
    "SETXATTR_CHECK",
    "POST_SETATTR",
    "MAX_CHECK",
    "NONE",
    "bprm_check",
    "",
];

const MASKS: [&str; 9] = [
    "MAY_EXEC",
    "MAY_READ",
    "MAY_WRITE",
    "MAY_APPEND",
    "^MAY_READ",
    "^^MAY_READ",
    "MAY_READ|MAY_EXEC",
    "^",
    "may_read",
];

const NUMBERS: [&str; 31] = [
    "-0",
    "0",
    "1",
    "10",
    "007",
    "+5",
    "++5",
    "-1",
    "0x10",
    "0X1f",
    "63",
    "64",
    "+0x5",
    "0x+5",
    "0x",
    "x",
    "4294967294",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "01021994",
    "0x01021994",
    "ffffffff",
    "ffffffffffffffff",
    "10000000000000000",
    "1_000",
    "5a",
    "",
    "0b1",
];

const UUIDS: [&str; 7] = [
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93bxyz",
    "c12a7328f81f11d2ba4b00a0c93ec93b",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
    "g12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "",
];

const TEMPLATES: [&str; 16] = [
    "ima",
    "ima-ng",
    "ima-sig",
    "ima-buf",
    "ima-modsig",
    "ima-ngv2",
    "ima-sigv2",
    "evm-sig",
    "d|n",
    "d-ng|n-ng",
    "n-ng|d-ng",
    "d-ng|n-ng|sig",
    "",
    "IMA",
    "ima-ng ",
    "d-ngv2|n-ng|sig",
];

const ALGORITHMS: [&str; 14] = [
    "sha256",
    "sha256,sha512",
    "sha1,sha1",
    "md4",
    "md5",
    "sm3",
    "sm3-256",
    "rmd160",
    "streebog256",
    "sha3-256",
    "wp512,tgr192",
    "sha256,",
    ",sha256",
    "SHA256",
];

const TYPES: [&str; 8] = [
    "imasig",
    "imasig|modsig",
    "sigv3",
    "modsig",
    "modsig|imasig",
    "",
    "IMASIG",
    "imasig|sigv3",
];

const LISTS: [&str; 8] = [
    ".ima",
    ".ima|.evm",
    "|",
    ".ima|",
    "|.ima",
    "a||b",
    "",
    "selinux",
];

const WORDS: [&str; 7] = ["ext4", "rootfs", "", "a=b", "tmpfs", "\u{e9}", "x|y"];

/// Keywords with their values and the signs between them.
fn condition(random: &mut Random) -> String {
    let ids = ["=", "=", "=", ">", "<", "", "==", ">="];
    let (keyword, sign, value) = match random.below(24) {
        0..=4 => ("func", "=", random.of(&HOOKS)),
        5 => ("mask", "=", random.of(&MASKS)),
        6 => ("fsmagic", "=", random.of(&NUMBERS)),
        7 => (random.of(&["fsname", "fs_subtype"]), "=", random.of(&WORDS)),
        8 => ("fsuuid", "=", random.of(&UUIDS)),
        9 => ("uid", random.of(&ids), random.of(&NUMBERS)),
        10 => ("euid", random.of(&ids), random.of(&NUMBERS)),
        11 => ("gid", random.of(&ids), random.of(&NUMBERS)),
        12 => ("egid", random.of(&ids), random.of(&NUMBERS)),
        13 => ("fowner", random.of(&ids), random.of(&NUMBERS)),
        14 => ("fgroup", random.of(&ids), random.of(&NUMBERS)),
        15 => ("pcr", "=", random.of(&NUMBERS)),
        16 => ("template", "=", random.of(&TEMPLATES)),
        17 => ("appraise_type", "=", random.of(&TYPES)),
        18 => (
            "appraise_flag",
            "=",
            random.of(&["check_blacklist", "x", ""]),
        ),
        19 => ("appraise_algos", "=", random.of(&ALGORITHMS)),
        20 => (
            "digest_type",
            "=",
            random.of(&["verity", "verity", "ima", ""]),
        ),
        21 => ("keyrings", "=", random.of(&LISTS)),
        22 => ("label", "=", random.of(&LISTS)),
        _ => (
            random.of(&[
                "permit_directio",
                "permit_directio=1",
                "#",
                "measure",
                "obj_user",
                "unknown",
                "none=1",
                "func",
            ]),
            "",
            "",
        ),
    };
    format!("{keyword}{sign}{value}")
}

/// Rules that are often near to what is taken: what goes with a hook, with one thing too many or too few.
fn sensible(random: &mut Random) -> String {
    let rule = random.of(&[
        "appraise func=BPRM_CHECK appraise_type=imasig",
        "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
        "appraise func=FILE_CHECK digest_type=verity appraise_type=sigv3",
        "appraise func=SETXATTR_CHECK appraise_algos=sha256,sha512",
        "appraise func=BPRM_CHECK appraise_type=imasig appraise_flag=check_blacklist",
        "appraise func=KEXEC_KERNEL_CHECK appraise_flag=check_blacklist appraise_type=imasig|modsig",
        "measure func=KEY_CHECK keyrings=.ima|.evm",
        "measure func=CRITICAL_DATA label=selinux",
        "measure func=KEXEC_CMDLINE template=ima-buf",
        "measure func=FILE_CHECK mask=^MAY_READ euid=0 template=ima-sig",
        "measure func=FILE_CHECK digest_type=verity template=ima-sigv2 pcr=11",
        "dont_measure fsmagic=0x9fa0",
        "dont_appraise fsname=rootfs",
        "audit func=BPRM_CHECK fowner>999 fgroup<5",
        "hash func=FILE_CHECK fsuuid=c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    ]);
    let mut words: Vec<String> = rule.split(' ').map(str::to_owned).collect();
    for _ in 0..random.below(3) {
        let place = random.below(words.len() + 1);
        match random.below(5) {
            0 if words.len() > 1 => drop(words.remove(place.min(words.len() - 1))),
            1 if !words.is_empty() => {
                let other = random.below(words.len());
                let last = words.len() - 1;
                words.swap(place.min(last), other);
            }
            2 => words.insert(place, random.of(&ACTIONS).to_owned()),
            _ => words.insert(place, condition(random)),
        }
    }
    words.join(" ")
}

/// Any conditions behind, or before, an action or none.
fn arbitrary(random: &mut Random) -> String {
    let mut words = Vec::new();
    if !random.one_in(12) {
        words.push(random.of(&ACTIONS).to_owned());
    }
    for _ in 0..random.below(5) {
        words.push(condition(random));
    }
    if random.one_in(20) && !words.is_empty() {
        words.rotate_right(1);
    }
    words.join(random.of(&[" ", " ", " ", "\t", "  ", " \t "]))
}

fn rule(random: &mut Random) -> String {
    let mut rule = match random.one_in(2) {
        true => sensible(random),
        false => arbitrary(random),
    };
    match random.below(40) {
        0 => rule.push_str(random.of(&[" ", "\t", "\r", " #", " # text", "#"])),
        1 => rule.insert_str(0, random.of(&[" ", "\t", "#", " #"])),
        2 if !rule.is_empty() => {
            // A letter more, less, or of the other case.
            let place = random.below(rule.len());
            if rule.is_char_boundary(place) && rule.is_char_boundary(place + 1) {
                match random.below(3) {
                    0 => drop(rule.remove(place)),
                    1 => rule.insert(place, 'x'),
                    _ => {
                        let upper = rule[place..=place].to_ascii_uppercase();
                        rule.replace_range(place..=place, &upper);
                    }
                }
            }
        }
        _ => {}
    }
    rule
}

fn generated(seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    (0..RULES).map(|_| rule(&mut random)).collect()
}

/// Whether a kernel of that release and configuration takes the rule, by this project's parser and `imactl kernel check`.
fn expected(rule: &str, release: Release, kernel: &KernelConfig) -> bool {
    if !lint_sound_lines(rule.as_bytes(), Some(release)).is_empty() {
        return false;
    }
    match Policy::parse(&as_read_by(rule.as_bytes(), Some(release))) {
        Ok(policy) => {
            let wanted = Wanted {
                policies: vec![&policy],
                ..Wanted::default()
            };
            let findings = check(kernel, &wanted);
            !findings
                .iter()
                .any(|finding| finding.reason.starts_with("policy line"))
        }
        Err(_) => false,
    }
}

/// A reason for which a kernel may think otherwise, and whether it applies to a rule.
type Excuse = (&'static str, fn(&str) -> bool);

const EXCUSES: [Excuse; 1] = [(
    "the kernel takes a carriage return for a part of the last value; it is refused here, for nobody means it",
    |rule| rule.ends_with('\r'),
)];

/// Offers the rules to a running kernel.
fn compare(kernel: &Path, release: Release, config: &KernelConfig, seed: u64, excused: &[Excuse]) {
    let rules = generated(seed);
    let console = ask(kernel, "rules", rules.join("\n"), "");
    let answers = bits(&console, "rules");
    assert_eq!(answers.len(), RULES.div_ceil(8), "{console}");
    let takes = |number: usize| answers[number / 8] & 0x80 >> (number % 8) != 0;
    judge(&rules, takes, release, config, excused);
}

/// From Linux 7.1 on, the kernel does not compare `appraise_type=` with what stands before it in all orders.
const NEWER_EXCUSES: [Excuse; 3] = [
    EXCUSES[0],
    (
        "the kernel takes imasig with digest_type=verity in this order, though such a rule denies everything",
        |rule| rule.contains("appraise_type=imasig") && rule.contains("digest_type=verity"),
    ),
    (
        "the kernel takes sigv3 after imasig|modsig, though not before it",
        |rule| rule.contains("imasig|modsig") && rule.contains("sigv3"),
    ),
];

/// Names the rules of which a kernel thinks otherwise, by the reasons for which that may be.
fn judge(
    rules: &[String],
    takes: impl Fn(usize) -> bool,
    release: Release,
    config: &KernelConfig,
    excused: &[Excuse],
) {
    let mut taken = 0;
    let mut wrong = Vec::new();
    let mut known = vec![0; excused.len()];
    for (number, rule) in rules.iter().enumerate() {
        let takes = takes(number);
        taken += usize::from(takes);
        if takes == expected(rule, release, config) {
            continue;
        }
        match excused.iter().position(|(_, applies)| applies(rule)) {
            Some(reason) => known[reason] += 1,
            None => wrong.push(format!(
                "{}: {rule:?}",
                if takes { "taken" } else { "refused" }
            )),
        }
    }
    println!(
        "Linux {release}: {taken} of {RULES} rules taken, {} answers differ",
        wrong.len()
    );
    for ((reason, _), count) in excused.iter().zip(known) {
        println!("  {count} more: {reason}");
    }
    assert!(
        taken > RULES / 20 && taken < RULES / 2,
        "{taken} rules are taken"
    );
    wrong.sort_by_key(String::len);
    wrong.dedup();
    wrong.truncate(40);
    assert!(
        wrong.is_empty(),
        "Linux {release} answers otherwise:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn rules_as_the_kernel_takes_them() {
    let kernel = Kernel::Full;
    let release = kernel
        .release()
        .expect("a release")
        .number()
        .expect("a number");
    let config = kernel.configuration();
    compare(
        &kernel.without_ca(),
        release,
        &config,
        0x1111_2222_3333_4444,
        &EXCUSES,
    );
}

#[test]
#[ignore = "another form of what is tested always; tests/run --all"]
fn rules_as_debian_s_kernel_takes_them() {
    let (kernel, release, config) = debian_kernel();
    compare(&kernel, release, &config, 0x5555_6666_7777_8888, &EXCUSES);
}

/// Kernels newer than those that are booted, of which the parser alone is compiled.
#[test]
fn rules_as_newer_kernels_take_them() {
    let config = b"CONFIG_IMA=y\nCONFIG_IMA_APPRAISE=y\nCONFIG_IMA_APPRAISE_MODSIG=y\nCONFIG_IMA_LSM_RULES=y\n\
          CONFIG_IMA_MEASURE_ASYMMETRIC_KEYS=y\nCONFIG_AUDIT=y\nCONFIG_FS_VERITY=y\nCONFIG_IMA_READ_POLICY=y\nCONFIG_IMA_WRITE_POLICY=y\nCONFIG_CRYPTO_SHA1=y\n\
          CONFIG_CRYPTO_SHA256=y\nCONFIG_CRYPTO_SHA3=y\n";
    let config = KernelConfig::parse(config).expect("a configuration");
    let parsers = policy_parsers();
    assert!(!parsers.is_empty());
    for (seed, (parser, release)) in (0x9999_aaaa_bbbb_cccc..).zip(parsers) {
        let rules = generated(seed);
        let mut child = Command::new(&parser)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the parser");
        let mut input = child.stdin.take().expect("its input");
        let text = rules.join("\n") + "\n";
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
        let output = child.wait_with_output().expect("the parser");
        writer.join().expect("a thread").expect("its input");
        assert!(output.status.success(), "{}", parser.display());
        let answers: Vec<&[u8]> = output.stdout.split(|byte| *byte == b'\n').collect();
        assert_eq!(answers.len(), RULES + 1);
        judge(
            &rules,
            |number| answers[number].starts_with(b"+"),
            release,
            &config,
            &NEWER_EXCUSES,
        );
    }
}
