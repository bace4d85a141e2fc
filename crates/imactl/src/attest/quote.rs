//! What a TPM says of its PCRs and signs: `TPMS_ATTEST` with `TPMS_QUOTE_INFO` (TPM 2.0 Library, part 2, 10.12).

use std::collections::BTreeMap;

use ima::bank::Bank;
use ima::hash::HashAlgorithm;
use tpm2_protocol::data::{TpmsAttest, TpmuAttest};

use super::bank_of;
use crate::pcr::Pcrs;
use crate::tpm::decoded;

/// The places in the lists of structures of tpm2-tss (`TPM2_NUM_PCR_BANKS`; `TPML_DIGEST`).
const TSS_BANKS: usize = 16;
const TSS_DIGESTS: usize = 8;
/// The longest digest in them, in bytes (`TPMU_HA`).
const TSS_DIGEST_LEN: usize = 64;

/// PCRs of one bank, by a mask of which bit 0 is PCR 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// The bank.
    pub bank: Bank,
    /// The mask.
    pub mask: u32,
}

impl Selected {
    /// The numbers of the PCRs, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u32::BITS).filter(move |number| self.mask & 1_u32.wrapping_shl(*number) != 0)
    }
}

/// A quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// What the verifier chose (`extraData`).
    pub nonce: Vec<u8>,
    /// How often the TPM was reset: it lost power, or the machine was reset.
    pub resets: u32,
    /// How often the TPM was restarted or resumed since the last reset: PCRs may have kept their values.
    pub restarts: u32,
    /// Whether `clock` was never put back.
    pub is_clock_safe: bool,
    /// Milliseconds for which the TPM had power.
    pub clock: u64,
    /// The TPM's firmware.
    pub firmware_version: u64,
    /// The PCRs, in the order in which they enter the digest.
    pub selected: Vec<Selected>,
    /// The digest of their values.
    pub digest: Vec<u8>,
}

/// What was signed, and is no quote that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuote {
    /// The TPM did not make it, or it is cut off.
    #[error("{0}")]
    Malformed(String),
    /// It is something else that a TPM signs.
    #[error("it is {0}")]
    OtherType(String),
    /// A bank that is not known here.
    #[error("it has PCRs of a bank that is not known here")]
    Bank,
}

impl Quote {
    /// Decodes what a TPM signed.
    ///
    /// # Errors
    ///
    /// Why it is no quote.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoQuote> {
        let attest =
            decoded::<TpmsAttest>(bytes).map_err(|error| NoQuote::Malformed(error.to_string()))?;
        let TpmuAttest::Quote(quoted) = &attest.attested else {
            return Err(NoQuote::OtherType(attest.attest_type.to_string()));
        };
        let selected = quoted.pcr_select.iter().map(|selection| {
            let bank = bank_of(selection.hash).ok_or(NoQuote::Bank)?;
            let mut mask = [0; 4];
            for (to, from) in mask.iter_mut().zip(selection.pcr_select.iter()) {
                *to = *from;
            }
            let mask = u32::from_le_bytes(mask);
            Ok(Selected { bank, mask })
        });
        Ok(Self {
            nonce: attest.extra_data.to_vec(),
            resets: attest.clock_info.reset_count.value(),
            restarts: attest.clock_info.restart_count.value(),
            is_clock_safe: attest.clock_info.safe.into(),
            clock: attest.clock_info.clock.value(),
            firmware_version: attest.firmware_version.value(),
            selected: selected.collect::<Result<_, _>>()?,
            digest: quoted.pcr_digest.to_vec(),
        })
    }
}

/// The digest of the values of the PCRs in the order of the selection, as the TPM computes it (TPM 2.0 Library, part 4,
/// `PCRComputeCurrentDigest`). Nothing if a value is missing, has another length than its bank's, or one is there that was not
/// selected.
#[must_use]
pub fn pcr_digest(
    algorithm: HashAlgorithm,
    selected: &[Selected],
    values: &BTreeMap<Bank, Pcrs>,
) -> Option<Vec<u8>> {
    let taken = in_order(selected, values)?;
    algorithm.digest(&taken.concat())
}

/// The values of the selected PCRs; see [`pcr_digest`].
fn in_order<'a>(selected: &[Selected], values: &'a BTreeMap<Bank, Pcrs>) -> Option<Vec<&'a [u8]>> {
    let mut taken = Vec::new();
    for one in selected {
        for number in one.numbers() {
            let value = values.get(&one.bank)?.get(&number)?;
            if value.len() != one.bank.digest_len() {
                return None;
            }
            taken.push(value.as_slice());
        }
    }
    // A bank that was selected twice would leave room for values that were not selected.
    let there: usize = values.values().map(BTreeMap::len).sum();
    (there == taken.len()).then_some(taken)
}

/// The PCRs as `tpm2_quote --pcr` writes them for `tpm2_checkquote --pcr`: structures of tpm2-tss in memory, little-endian
/// (tpm2-tools, lib/pcr.c, `pcr_fwrite_serialized`). Nothing where [`pcr_digest`] gives nothing.
#[must_use]
pub fn tpm2_tools_pcrs(selected: &[Selected], values: &BTreeMap<Bank, Pcrs>) -> Option<Vec<u8>> {
    let taken = in_order(selected, values)?;
    let count = |len: usize| u32::try_from(len).ok().map(u32::to_le_bytes);
    // TPML_PCR_SELECTION: TPMS_PCR_SELECTION is hash, sizeofSelect, pcrSelect[4] and a byte of padding.
    let mut file = count(selected.len())?.to_vec();
    for one in selected {
        let [select @ .., _] = one.mask.to_le_bytes();
        file.extend(one.bank.tpm_algorithm().to_le_bytes());
        file.push(3);
        file.extend(select);
        file.extend([0, 0]);
    }
    let unused = TSS_BANKS.checked_sub(selected.len())?;
    file.resize(file.len().checked_add(unused.checked_mul(8)?)?, 0);
    // The lists of digests, each a TPML_DIGEST.
    let lists = taken.chunks(TSS_DIGESTS);
    file.extend(count(lists.len())?);
    for list in lists {
        file.extend(count(list.len())?);
        for place in 0..TSS_DIGESTS {
            let value = list.get(place).copied().unwrap_or_default();
            file.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
            file.extend(value);
            let unused = TSS_DIGEST_LEN.checked_sub(value.len())?;
            file.resize(file.len().checked_add(unused)?, 0);
        }
    }
    Some(file)
}
