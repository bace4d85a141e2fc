//! Which certificates are not to be trusted any more: `revoked_keys=` and `revoked_serials=` of the configuration.
//!
//! The kernel looks neither at validity dates nor at revocation lists of X.509, and its own list of revoked certificates
//! (`.blacklist`) is built in, filled by the firmware, or signed by a CA of the kernel's. This one is in the initramfs.

use crate::certificate::Certificate;
use crate::fault::{Cause, Code, Explanation, Fault};

/// The shortest end of a key identifier that names a key: what a signature has of it.
const SHORTEST: usize = 4;

/// The longest number that is taken, in bytes; a serial number has at most 20 (RFC 5280, 4.1.2.2).
const LONGEST: usize = 64;

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Ends of subject key identifiers.
    keys: Vec<Vec<u8>>,
    /// Serial numbers.
    serials: Vec<Serial>,
}

/// A serial number, which is unique among the certificates of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Serial {
    /// The end of the issuer's key identifier; without it, whichever issuer is meant.
    issuer: Option<Vec<u8>>,
    /// Without zeros before it.
    number: Vec<u8>,
}

impl Revocations {
    /// Takes the value of `revoked_keys=`: subject key identifiers or their ends, of at least four bytes, in hexadecimal.
    pub fn set_keys(&mut self, value: &str) -> bool {
        let keys: Option<Vec<_>> = value
            .split_ascii_whitespace()
            .map(|word| hex(word).filter(|id| id.len() >= SHORTEST))
            .collect();
        keys.map(|keys| self.keys = keys).is_some()
    }

    /// Takes the value of `revoked_serials=`: serial numbers in hexadecimal, each alone or behind the end of its issuer's key
    /// identifier and a `/`.
    pub fn set_serials(&mut self, value: &str) -> bool {
        let serial = |word: &str| {
            let (issuer, number) = match word.split_once('/') {
                Some((issuer, number)) => {
                    let issuer = hex(issuer).filter(|id| id.len() >= SHORTEST)?;
                    (Some(issuer), number)
                }
                None => (None, word),
            };
            let number = without_zeros(&hex(number)?).to_vec();
            (!number.is_empty()).then_some(Serial { issuer, number })
        };
        let serials: Option<Vec<_>> = value.split_ascii_whitespace().map(serial).collect();
        serials.map(|serials| self.serials = serials).is_some()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.serials.is_empty()
    }

    /// Returns the refusal of a revoked certificate, which is in the file `path`.
    pub fn refusal(&self, path: &str, certificate: &Certificate) -> Option<Fault> {
        let why = self.of(certificate)?;
        let detail = format!("{path}: {}", certificate.subject());
        Some(Fault::new(Code::CertificateRevoked, detail).because(why))
    }

    /// What of a certificate is revoked, for a message; nothing if it is none. A key counts by its own digest too, so that
    /// another certificate for it with another identifier is revoked with it; and a certificate that does not name its
    /// issuer's key may be of any issuer.
    pub fn of(&self, certificate: &Certificate) -> Option<Explanation> {
        let digest = certificate.public_key_sha1();
        let key = self.keys.iter().find(|id| {
            certificate.skid().is_some_and(|skid| skid.ends_with(id)) || digest.ends_with(id)
        });
        if let Some(id) = key {
            return Some(Cause::KEY_REVOKED.with(&[&crate::hex::encode(id)]));
        }
        let number = without_zeros(certificate.serial());
        let serial = self.serials.iter().find(|revoked| {
            let of_issuer = match (&revoked.issuer, certificate.akid()) {
                (Some(issuer), Some(akid)) => akid.ends_with(issuer),
                _ => true,
            };
            of_issuer && revoked.number == number
        });
        serial.map(|serial| Cause::SERIAL_REVOKED.with(&[&crate::hex::encode(&serial.number)]))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0);
    start.and_then(|at| number.get(at..)).unwrap_or_default()
}

/// Bytes in hexadecimal, with or without colons between them.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = match text.contains(':') {
        true => {
            let pairs = text.split(':').all(|pair| pair.len() == 2);
            pairs.then(|| text.replace(':', ""))?
        }
        false => text.to_owned(),
    };
    crate::hex::decode(&digits).filter(|bytes| (1..=LONGEST).contains(&bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_and_serials_are_hexadecimal() {
        let mut revoked = Revocations::default();
        for good in ["", "0123abcd", "01:23:AB:cd 00112233445566778899"] {
            assert!(revoked.set_keys(good), "{good}");
        }
        for bad in [
            "0123ab",
            "0123abcd0",
            "0123abcx",
            "01:23:abcd",
            "+123abcd",
            ":",
        ] {
            assert!(!revoked.set_keys(bad), "{bad}");
        }
        for good in ["", "01", "00:01", "0123abcd/01 02"] {
            assert!(revoked.set_serials(good), "{good}");
        }
        for bad in ["1", "00", "0123/01", "/01", "0123abcd/", "0123abcd/1/2"] {
            assert!(!revoked.set_serials(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_written_back(bytes in proptest::collection::vec(any::<u8>(), 1..LONGEST)) {
            prop_assert_eq!(hex(&crate::hex::encode(&bytes)), Some(bytes.clone()));
            let colons: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert_eq!(hex(&colons.join(":")), Some(bytes));
        }

        #[test]
        fn no_text_revokes_what_it_does_not_name(text in "\\PC{0,20}") {
            let mut revoked = Revocations::default();
            if !revoked.set_keys(&text) {
                prop_assert!(revoked.is_empty());
            }
        }
    }
}
