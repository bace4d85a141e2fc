//! Any bytes as an IMA policy: what is taken means the same when it is written in the kernel's form and read again.
#![no_main]

use ima::policy::lint::lint;
use ima::policy::{Hook, Policy, Query, format};
use ima::release::Release;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let errors = Policy::errors(data);
    let known = Policy::parse_known(data);
    let Ok(policy) = Policy::parse(data) else {
        assert!(!errors.is_empty());
        return;
    };
    assert!(errors.is_empty());
    assert_eq!(policy, known);
    assert!(policy.is_within(data));
    let _ = lint(data, &policy, Some(Release { major: 6, minor: 1 }));
    let formatted = format::format(data).expect("a policy without errors");
    assert_eq!(format::format(&formatted), Ok(formatted.clone()));
    let again = Policy::parse(&formatted).expect("its own form");
    assert!(again.rules().eq(policy.rules()));
    let _ = policy.appraisal(&Query::by_root(Hook::BprmCheck, 0xef53, "ext4"));
    for line in policy.lines() {
        let shown = format!("{}\n", line.rule);
        let again =
            Policy::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{shown}{error}"));
        assert_eq!(again.rules().next(), Some(&line.rule), "{shown}");
    }
});
