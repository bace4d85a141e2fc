//! Any bytes as a signed root hash of dm-verity, and as the message of PKCS #7 in one.
#![no_main]

use ima::dm_verity::signed::{MAX_LENGTH, SignedRootHash};
use ima::pkcs7::DetachedSignature;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.len() <= MAX_LENGTH
        && let Ok(parsed) = SignedRootHash::parse(data)
    {
        assert_eq!(
            SignedRootHash::parse(&parsed.to_bytes()).as_ref(),
            Ok(&parsed)
        );
        assert!(parsed.certificates().contains(parsed.signer()));
    }
    if let Ok(parsed) = DetachedSignature::parse(data) {
        assert!(parsed.certificates().contains(parsed.signer()));
        assert!(
            parsed
                .verify(ima::verify::verify_digest, b"what nobody signed")
                .is_err()
        );
    }
});
