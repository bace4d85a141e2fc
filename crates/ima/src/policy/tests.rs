use super::*;
use proptest::prelude::*;

const DEFAULT: &str = "\
# comment
appraise func=MMAP_CHECK euid=0 appraise_type=imasig
appraise func=BPRM_CHECK euid=0 appraise_type=imasig

\tappraise  func=MODULE_CHECK\teuid=0 appraise_type=imasig
";

fn kind(rule: &str) -> PolicyErrorKind {
    Policy::parse(rule.as_bytes()).expect_err(rule).kind
}

#[test]
fn a_policy_is_its_rules_with_their_lines() {
    let policy = Policy::parse(DEFAULT.as_bytes()).unwrap();
    let lines: Vec<usize> = policy.lines().iter().map(|line| line.number).collect();
    assert_eq!(lines, [2, 3, 5]);
    assert_eq!(
        policy.lines()[2].rule.to_string(),
        "appraise func=MODULE_CHECK euid=0 appraise_type=imasig"
    );
    assert!(policy.appraises() && !policy.is_empty());
    assert!(Policy::parse(b"# nothing\n \t\n").unwrap().is_empty());
}

#[test]
fn what_the_kernel_takes() {
    for rule in [
        "measure",
        "audit func=FILE_CHECK fowner=0 mask=^MAY_READ",
        "dont_appraise fsmagic=0x01021994",
        "dont_appraise fsmagic=9fa0",
        "dont_appraise fsname=rootfs",
        "measure func=PATH_CHECK mask=MAY_READ uid>999 gid<10",
        "measure func=FILE_MMAP mask=MAY_EXEC pcr=63 template=ima-ngv2",
        "measure template=d-ng|n-ng|sig func=BPRM_CHECK",
        "measure func=KEY_CHECK keyrings=.ima|.evm uid=0",
        "measure func=CRITICAL_DATA label=selinux|device-mapper",
        "measure func=KEXEC_CMDLINE template=ima-buf",
        "appraise func=SETXATTR_CHECK appraise_algos=sha256,sha384",
        "appraise func=MODULE_CHECK appraise_type=imasig|modsig",
        "appraise func=FILE_CHECK digest_type=verity appraise_type=sigv3",
        "measure func=FILE_CHECK digest_type=verity template=ima-sigv2",
        "appraise func=BPRM_CHECK appraise_flag=check_blacklist permit_directio",
        "dont_measure obj_type=var_log_t subj_user=system_u",
        "appraise fsuuid=c12a7328-f81f-11d2-ba4b-00a0c93ec93b fgroup=4294967294",
        "appraise fsname=a fsname=b",
        "measure pcr=1 pcr=2",
        "dont_hash fowner>+5",
        "dont_audit func=BPRM_CHECK uid=0",
        "measure pcr=-0",
        "measure func=KEXEC_CMDLINE fs_subtype=x",
        "measure func=FILE_CHECK fsname=fuse fs_subtype=sshfs",
        "appraise func=FILE_CHECK appraise_type=sigv3",
        "appraise func=FILE_CHECK appraise_type=sigv3 digest_type=verity",
        "measure fsmagic=0 fsmagic=0x9fa0",
        "measure fsuuid=00000000-0000-0000-0000-000000000000 fsuuid=c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    ] {
        let policy =
            Policy::parse(rule.as_bytes()).unwrap_or_else(|error| panic!("{rule}: {error}"));
        let shown = policy.lines()[0].rule.to_string();
        let again =
            Policy::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(again.lines()[0].rule, policy.lines()[0].rule, "{rule}");
    }
}

#[test]
fn what_the_kernel_refuses_and_why() {
    use PolicyErrorKind as K;
    for (rule, expected) in [
        ("apraise func=BPRM_CHECK", K::UnknownKeyword),
        ("appraise fnc=BPRM_CHECK", K::UnknownKeyword),
        ("appraise func>BPRM_CHECK", K::UnknownKeyword),
        ("appraise permit_directio=1", K::UnknownKeyword),
        ("appraise func=BPRM", K::BadValue),
        ("appraise func=", K::EmptyValue),
        ("appraise uid=", K::EmptyValue),
        ("appraise func=BPRM_CHECK # all programs", K::CommentInRule),
        ("/etc/ima/policy", K::Path),
        ("  /etc/ima/policy", K::Path),
        ("appraise func=BPRM_CHECK\r", K::CarriageReturn),
        ("appraise measure", K::SecondAction),
        ("func=BPRM_CHECK", K::NoAction),
        ("appraise func=BPRM_CHECK func=BPRM_CHECK", K::Duplicate),
        ("appraise uid=0 euid=0", K::Duplicate),
        ("appraise mask=MAY_EXEC mask=^MAY_EXEC", K::Duplicate),
        ("appraise obj_type=a obj_type=b", K::Duplicate),
        ("measure template=ima template=ima-ng", K::Duplicate),
        ("appraise mask=MAY_RUN", K::BadValue),
        ("appraise fsmagic=xyz", K::BadValue),
        ("appraise fsuuid=1234", K::BadValue),
        ("appraise uid=4294967295", K::BadValue),
        ("appraise uid=-1", K::BadValue),
        ("measure pcr=64", K::BadValue),
        ("appraise pcr=10", K::PcrWithoutMeasure),
        ("template=ima-sig measure", K::TemplateBeforeMeasure),
        ("measure template=ima-sigv3", K::BadValue),
        ("appraise template=ima-sig", K::TemplateBeforeMeasure),
        ("measure appraise_type=imasig", K::AppraiseOption),
        ("measure appraise_algos=sha256", K::AppraiseOption),
        ("appraise appraise_algos=sha257", K::BadValue),
        ("appraise appraise_algos=sha256,", K::BadValue),
        (
            "appraise appraise_type=imasig digest_type=verity",
            K::VerityNeedsSigv3,
        ),
        (
            "appraise digest_type=verity appraise_type=imasig",
            K::VerityNeedsSigv3,
        ),
        ("appraise digest_type=verity", K::VerityNeedsSigv3),
        (
            "appraise func=MODULE_CHECK digest_type=verity appraise_type=sigv3",
            K::NotForHook,
        ),
        (
            "appraise func=BPRM_CHECK appraise_type=imasig|modsig",
            K::NotForHook,
        ),
        (
            "appraise func=BPRM_CHECK appraise_type=imasig|modsig appraise_type=imasig",
            K::NotForHook,
        ),
        ("measure fsmagic=0x9fa0 fsmagic=0", K::Duplicate),
        ("measure fs_subtype=a fs_subtype=b", K::Duplicate),
        ("measure pcr=-1", K::BadValue),
        (
            "appraise func=MODULE_CHECK appraise_type=sigv3 appraise_type=imasig|modsig",
            K::Duplicate,
        ),
        (
            "appraise func=BPRM_CHECK appraise_type=imasig|modsig appraise_type=sigv3",
            K::Duplicate,
        ),
        ("appraise func=KEXEC_CMDLINE", K::ActionNotForHook),
        ("audit func=KEY_CHECK", K::ActionNotForHook),
        ("measure func=KEY_CHECK euid=0", K::NotForHook),
        ("measure func=KEY_CHECK label=x", K::NotForHook),
        ("measure func=CRITICAL_DATA fowner=0", K::NotForHook),
        ("measure keyrings=.ima", K::NotForHook),
        ("measure func=KEY_CHECK keyrings=.ima||.evm", K::BadValue),
        ("measure func=SETXATTR_CHECK", K::ActionNotForHook),
        ("appraise func=SETXATTR_CHECK", K::SetxattrNeedsAlgos),
        (
            "appraise func=SETXATTR_CHECK appraise_algos=sha256 uid=0",
            K::NotForHook,
        ),
        ("appraise\u{7}", K::NotText),
    ] {
        assert_eq!(kind(rule), expected, "{rule}");
    }
}

#[test]
fn bytes_that_a_kernel_would_misread() {
    use PolicyErrorKind as K;
    let comment_with_nul = Policy::errors(b"# harmless\0measure\n");
    assert_eq!(comment_with_nul[0].kind, K::Nul);
    let mut long = b"appraise func=BPRM_CHECK ".to_vec();
    long.resize(MAX_RULE, b' ');
    assert_eq!(Policy::errors(&long), []);
    long.push(b' ');
    assert_eq!(Policy::errors(&long)[0].kind, K::TooLong);
    let long_comment = [b"#".as_slice(), &[b'x'; 5000]].concat();
    assert_eq!(Policy::errors(&long_comment), []);
    assert_eq!(Policy::errors(b"measure fsname=\xff")[0].kind, K::NotText);
    assert_eq!(
        Policy::errors(&vec![b'\n'; MAX_POLICY + 1])[0].kind,
        K::FileTooLarge
    );
}

#[test]
fn every_error_is_told_with_its_line() {
    let errors = Policy::errors(b"measure\nmeasur\nappraise\nappraise fnc=1\r\n");
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 4]);
    assert_eq!(
        errors[0].to_string(),
        "line 2, `measur`: no keyword of the policy language"
    );
}

#[test]
fn the_first_matching_rule_decides() {
    const TMPFS: u64 = 0x0102_1994;
    let policy = |text: &str| Policy::parse(text.as_bytes()).unwrap();
    let tmpfs = Query::by_root(Hook::BprmCheck, TMPFS, "tmpfs");
    let rootfs = Query::by_root(Hook::BprmCheck, TMPFS, "rootfs");
    let default = policy(DEFAULT);
    assert!(default.appraisal(&tmpfs).is_some());
    assert!(
        default
            .appraisal(&Query {
                euid: 1000,
                uid: 1000,
                ..tmpfs
            })
            .is_none()
    );
    assert!(
        default
            .appraisal(&Query {
                euid: 1000,
                uid: 0,
                ..tmpfs
            })
            .is_none()
    );
    assert!(
        default
            .appraisal(&Query::by_root(Hook::FileCheck, TMPFS, "tmpfs"))
            .is_none()
    );
    let free_initramfs = policy("dont_appraise fsname=rootfs\nappraise func=BPRM_CHECK\n");
    assert!(free_initramfs.appraisal(&rootfs).is_none());
    assert!(free_initramfs.appraisal(&tmpfs).is_some());
    let free_tmpfs = policy("measure\ndont_appraise fsmagic=0x1021994\nappraise func=BPRM_CHECK\n");
    assert!(free_tmpfs.appraisal(&tmpfs).is_none());
    assert!(
        policy("appraise mask=^MAY_EXEC")
            .appraisal(&tmpfs)
            .is_some()
    );
    assert!(policy("appraise mask=MAY_READ").appraisal(&tmpfs).is_none());
    assert!(policy("appraise fowner=1").appraisal(&tmpfs).is_none());
    assert!(
        policy("appraise obj_type=bin_t")
            .appraisal(&tmpfs)
            .is_none()
    );
}

#[test]
fn a_policy_read_back_may_have_other_rules_around() {
    let written = b"appraise func=BPRM_CHECK\nmeasure func=MMAP_CHECK mask=MAY_EXEC\n";
    let read = b"appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\nappraise func=BPRM_CHECK \naudit\n\
          measure  mask=MAY_EXEC func=MMAP_CHECK \n";
    let policy = |text| Policy::parse(text).unwrap();
    assert!(policy(written).is_within(read));
    assert!(!policy(read).is_within(written));
    let swapped = b"measure func=MMAP_CHECK mask=MAY_EXEC\nappraise func=BPRM_CHECK\n";
    assert!(!policy(written).is_within(swapped));
    let twice = b"appraise func=BPRM_CHECK\nappraise func=BPRM_CHECK\n";
    assert!(!policy(twice).is_within(written));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Policy::errors(&bytes);
    }

    #[test]
    fn near_rules_do_no_harm_and_what_is_taken_comes_back(
        tokens in proptest::collection::vec(
            "(measure|appraise|func=[A-Z_]{3,12}|mask=\\^?MAY_[A-Z]{4}|uid[=<>][0-9]{1,11}|fsmagic=0?x?[0-9a-g]{1,9}|pcr=[0-9]{1,3}|template=ima-[a-z]{2,5}|appraise_type=(imasig|sigv3)|digest_type=verity|fsname=[a-z]{1,6})",
            0..6,
        )
    ) {
        let text = tokens.join(" ");
        if let Ok(policy) = Policy::parse(text.as_bytes()) {
            for line in policy.lines() {
                let again = Policy::parse(line.rule.to_string().as_bytes()).expect("its own form");
                prop_assert_eq!(&again.lines()[0].rule, &line.rule);
            }
        }
    }
}

#[test]
fn rules_as_the_kernel_shows_them() {
    // Read from securityfs of a 6.12 kernel.
    let shown = b"appraise func=BPRM_CHECK fowner=1001 appraise_type=sigv3 digest_type=verity \n\
                  appraise func=MMAP_CHECK euid=0 appraise_type=imasig \nsomething newer \n";
    let wanted = Policy::parse(
        b"appraise func=BPRM_CHECK fowner=1001 digest_type=verity appraise_type=sigv3\n\
          appraise func=MMAP_CHECK euid=0 appraise_type=imasig\n",
    )
    .unwrap();
    assert!(wanted.is_within(shown));
    assert_eq!(Policy::parse_known(shown).rules().count(), 2);
}

#[test]
fn every_keyword_that_is_listed_is_one() {
    for keyword in KEYWORDS {
        let unknown = |rule: String| {
            let errors = Policy::errors(rule.as_bytes());
            errors
                .iter()
                .any(|error| error.kind == PolicyErrorKind::UnknownKeyword)
        };
        let alone = unknown(format!("appraise {keyword}\n"));
        let with_value = unknown(format!("appraise {keyword}=x\n"));
        assert!(!alone || !with_value, "{keyword}");
    }
}
