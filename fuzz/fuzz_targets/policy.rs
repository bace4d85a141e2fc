//! Any bytes as an IMA policy: what is taken means the same when it is written in the kernel's form and read again.
#![no_main]

use ima::policy::{Hook, Policy, Query};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let errors = Policy::errors(data);
    let known = Policy::parse_known(data);
    let Ok(policy) = Policy::parse(data) else {
        assert!(!errors.is_empty());
        return;
    };
    assert!(errors.is_empty());
    assert_eq!(policy, known);
    assert!(policy.is_within(&policy));
    let _ = policy.appraisal(&Query::by_root(Hook::BprmCheck, 0xef53, "ext4"));
    for line in policy.lines() {
        let shown = format!("{}\n", line.rule);
        let again = Policy::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{shown}{error}"));
        assert_eq!(again.rules().next(), Some(&line.rule), "{shown}");
    }
});
