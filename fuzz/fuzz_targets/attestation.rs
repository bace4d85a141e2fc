//! Any bytes as what a verifier is given: evidence, the parts of it, a public area, a challenge.
#![no_main]

use std::collections::BTreeMap;

use imactl::attest::credential::Challenge;
use imactl::attest::verify::{Expected, verify};
use imactl::attest::{Evidence, PublicArea, Quote};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Quote::parse(bytes);
    if let Ok(challenge) = Challenge::parse(bytes) {
        assert_eq!(challenge.encode().unwrap(), bytes);
    }
    if let Ok(key) = PublicArea::parse(bytes) {
        assert_eq!(key.encode().unwrap(), bytes);
        let _ = key.name();
        let _ = key.to_pem();
        let _ = key.verify(bytes, bytes);
    }
    let Ok(evidence) = Evidence::parse(bytes) else {
        return;
    };
    // The key in the evidence stands for the one that a verifier knows: its signatures may be good.
    if let Ok(key) = PublicArea::parse(&evidence.key) {
        let nonce = Quote::parse(&evidence.quote).map_or_else(|_| Vec::new(), |quote| quote.nonce);
        let expected = Expected {
            key: &key,
            nonce: &nonce,
            certificates: &[],
            policy: Some(b"policy"),
            manifests: &[],
            resets: None,
            pcrs: &BTreeMap::new(),
        };
        let _ = verify(&evidence, &expected);
    }
});
