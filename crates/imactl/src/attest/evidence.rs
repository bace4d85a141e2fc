//! Evidence: a quote, and the logs that explain what was quoted, in one file.
//!
//! The file is JSON in UTF-8, whose byte strings are Base64:
//!
//! | key | value |
//! |---|---|
//! | `evidence`, `version` | `imactl`, 1 |
//! | `quote` | what the TPM signed (`TPMS_ATTEST`) |
//! | `signature` | the signature (`TPMT_SIGNATURE`) |
//! | `key` | the public area of the key (`TPM2B_PUBLIC`), so that a verifier finds the one it knows; it proves nothing |
//! | `pcrs` | by bank and number, the values that were quoted, in hexadecimal |
//! | `measurements` | the kernel's measurement list, binary, read after the quote |
//! | `measurements_bank` | the bank whose template digests the list has |
//! | `big_endian` | whether the list is from a big-endian machine |
//! | `firmware_log` | the firmware's event log, or null |
//! | `programs_log` | the log of what programs measured, ima-init's conclusions among it, or null |

use std::collections::BTreeMap;
use std::path::Path;

use base64ct::{Base64, Encoding as _};
use ima::bank::Bank;
use ima::fault::{Code, Fault};
use ima::measurement::ByteOrder;
use serde::{Deserialize, Serialize};

use super::malformed;
use crate::Result;
use crate::file::{in_file, read_bounded};
use crate::hex;
use crate::pcr::{COUNT, Pcrs};

/// The longest evidence that is read, in bytes. A list of a million entries has some 200 MB, and a third more in Base64.
pub const MAX_EVIDENCE: u64 = 512 << 20;

const VERSION: u32 = 1;

/// A quote and what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What the TPM signed (`TPMS_ATTEST`).
    pub quote: Vec<u8>,
    /// The signature (`TPMT_SIGNATURE`).
    pub signature: Vec<u8>,
    /// The public area of the key (`TPM2B_PUBLIC`).
    pub key: Vec<u8>,
    /// The values of the PCRs.
    pub pcrs: BTreeMap<Bank, Pcrs>,
    /// The measurement list, binary.
    pub measurements: Vec<u8>,
    /// The bank whose template digests it has.
    pub measurements_bank: Bank,
    /// The byte order of the machine.
    pub byte_order: ByteOrder,
    /// The firmware's event log.
    pub firmware_log: Option<Vec<u8>>,
    /// The log of what programs measured.
    pub programs_log: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    evidence: String,
    version: u32,
    quote: String,
    signature: String,
    key: String,
    pcrs: BTreeMap<String, BTreeMap<u32, String>>,
    measurements: String,
    measurements_bank: String,
    big_endian: bool,
    firmware_log: Option<String>,
    programs_log: Option<String>,
}

impl Evidence {
    /// Reads evidence from a file.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::AttestationInput`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_bounded(path, MAX_EVIDENCE)?).map_err(|fault| in_file(fault, path))
    }

    /// Reads evidence from its bytes.
    ///
    /// # Errors
    ///
    /// [`Code::AttestationInput`] for everything that is not exactly as described.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| malformed("not evidence").with_cause(error.to_string()))?;
        if document.evidence != "imactl" || document.version != VERSION {
            return Err(malformed(format!(
                "evidence of version {} by `{}`; this reads version {VERSION} by `imactl`",
                document.version, document.evidence
            )));
        }
        let binary = |name: &str, text: &str| {
            Base64::decode_vec(text).map_err(|_| malformed(format!("{name} is not Base64")))
        };
        let bank = |name: &str| {
            Bank::from_name(name).ok_or_else(|| malformed(format!("`{name}` is no bank of PCRs")))
        };
        let log =
            |name: &str, text: Option<&String>| text.map(|text| binary(name, text)).transpose();
        let mut pcrs = BTreeMap::new();
        for (name, values) in &document.pcrs {
            let bank = bank(name)?;
            let values = values.iter().map(|(number, digits)| {
                hex::decode(digits)
                    .filter(|value| value.len() == bank.digest_len() && *number < COUNT)
                    .map(|value| (*number, value))
                    .ok_or_else(|| malformed(format!("PCR {number} of {name} has no digest")))
            });
            pcrs.insert(bank, values.collect::<Result<Pcrs>>()?);
        }
        Ok(Self {
            quote: binary("quote", &document.quote)?,
            signature: binary("signature", &document.signature)?,
            key: binary("key", &document.key)?,
            pcrs,
            measurements: binary("measurements", &document.measurements)?,
            measurements_bank: bank(&document.measurements_bank)?,
            byte_order: match document.big_endian {
                true => ByteOrder::Big,
                false => ByteOrder::Little,
            },
            firmware_log: log("firmware_log", document.firmware_log.as_ref())?,
            programs_log: log("programs_log", document.programs_log.as_ref())?,
        })
    }

    /// The evidence in bytes.
    ///
    /// # Errors
    ///
    /// None; JSON of these values can always be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let text = |bytes: &Vec<u8>| Base64::encode_string(bytes);
        let values = |pcrs: &Pcrs| {
            let values = pcrs.iter();
            values
                .map(|(number, value)| (*number, hex::encode(value)))
                .collect()
        };
        let document = Document {
            evidence: "imactl".to_owned(),
            version: VERSION,
            quote: text(&self.quote),
            signature: text(&self.signature),
            key: text(&self.key),
            pcrs: self
                .pcrs
                .iter()
                .map(|(bank, pcrs)| (bank.name().to_owned(), values(pcrs)))
                .collect(),
            measurements: text(&self.measurements),
            measurements_bank: self.measurements_bank.name().to_owned(),
            big_endian: self.byte_order == ByteOrder::Big,
            firmware_log: self.firmware_log.as_ref().map(text),
            programs_log: self.programs_log.as_ref().map(text),
        };
        let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| {
            Fault::new(Code::OutputUnwritable, format!("the evidence: {error}"))
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn evidence() -> impl Strategy<Value = Evidence> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        (
            [bytes(), bytes(), bytes(), bytes()],
            proptest::option::of(bytes()),
            any::<bool>(),
            0..COUNT,
        )
            .prop_map(
                |([quote, signature, key, measurements], log, big, number)| {
                    let value = vec![7; Bank::Sha384.digest_len()];
                    Evidence {
                        quote,
                        signature,
                        key,
                        pcrs: BTreeMap::from([(Bank::Sha384, Pcrs::from([(number, value)]))]),
                        measurements,
                        measurements_bank: Bank::Sha1,
                        byte_order: if big {
                            ByteOrder::Big
                        } else {
                            ByteOrder::Little
                        },
                        firmware_log: log.clone(),
                        programs_log: log,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn evidence_round_trips(evidence in evidence()) {
            let bytes = evidence.encode().unwrap();
            prop_assert_eq!(Evidence::parse(&bytes).unwrap(), evidence);
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = Evidence::parse(&bytes);
        }
    }

    #[test]
    fn what_is_not_exactly_evidence_is_refused() {
        let good = Evidence {
            quote: vec![1],
            signature: vec![2],
            key: vec![3],
            pcrs: BTreeMap::from([(Bank::Sha1, Pcrs::from([(0, vec![0; 20])]))]),
            measurements: vec![4],
            measurements_bank: Bank::Sha1,
            byte_order: ByteOrder::Little,
            firmware_log: None,
            programs_log: Some(vec![5]),
        };
        let text = String::from_utf8(good.encode().unwrap()).unwrap();
        assert!(Evidence::parse(text.as_bytes()).is_ok());
        for (from, to) in [
            ("\"imactl\"", "\"other\""),
            ("\"version\": 1", "\"version\": 2"),
            ("\"AQ==\"", "\"AQ\""),
            ("\"0\": \"00", "\"0\": \""),
            ("\"0\": \"00", "\"24\": \"00"),
            ("\"sha1\": {", "\"sha3\": {"),
            ("\"key\"", "\"extra\": 1, \"key\""),
            ("\"signature\"", "\"signatures\""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let fault = Evidence::parse(changed.as_bytes()).unwrap_err();
            assert_eq!(fault.code(), Code::AttestationInput, "{from}");
        }
    }
}
