//! Any bytes as the responses of a TPM, one after the other: the secret is in one of them.
#![no_main]

use ima::bank::Bank;
use ima::tpm::{self, Parent, Pcrs, Sealed};

libfuzzer_sys::fuzz_target!(|responses: Vec<Vec<u8>>| {
    let sealed = Sealed {
        parent: Parent::Ecc,
        private: vec![0, 0],
        public: vec![0, 0],
        pcrs: Pcrs {
            bank: Bank::Sha256,
            mask: 1 << 7,
        },
    };
    let mut next = responses.iter();
    let result = tpm::unseal(&sealed, &mut |_| {
        next.next().cloned().ok_or_else(String::new)
    });
    if let Ok(secret) = result {
        let holds = |response: &Vec<u8>| {
            (0..=response.len()).any(|start| response[start..].starts_with(&secret))
        };
        assert!(responses.iter().any(holds));
    }
});
