//! The tokens that `systemd-cryptenroll --tpm2-device=` writes (systemd, src/shared/tpm2-util.c, `tpm2_make_luks2_json`).

use base64ct::{Base64, Encoding as _};

use super::{Container, base64, says, strings};
use crate::bank::Bank;
use crate::fault::{Cause, Code, Fault};
use crate::json::Value;
use crate::tpm::{self, Parent, Pcrs, Sealed};

/// The PCR that IMA extends with each measurement (CONFIG_IMA_MEASURE_PCR_IDX).
pub const IMA_PCR: u32 = 10;

/// The passphrase of a keyslot, sealed by a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The sealed passphrase.
    pub sealed: Sealed,
    pub(super) keyslots: Vec<String>,
}

impl Container {
    /// The tokens of the TPM's, in the order of the header.
    ///
    /// # Errors
    ///
    /// [`Code::LuksToken`] if there is none that can be used, [`Code::LuksPcr10`] if what makes it unusable is PCR 10.
    pub fn tokens(&self) -> Result<Vec<Token>, Fault> {
        let mut found = Vec::new();
        let mut fault = Fault::new(Code::LuksToken, "no token has the type systemd-tpm2");
        for token in &self.tokens {
            if !says(token, "type", "systemd-tpm2") {
                continue;
            }
            match Token::of(token) {
                Ok(token) => found.push(token),
                Err(reason) => fault = reason,
            }
        }
        match found.is_empty() {
            true => Err(fault),
            false => Ok(found),
        }
    }
}

impl Token {
    fn of(token: &Value) -> Result<Self, Fault> {
        let unusable = |key: &str| {
            Fault::new(Code::LuksToken, format!("its {key} is not usable"))
                .because(Cause::LUKS_TOKEN_MALFORMED)
        };
        // These are parts of the policy that the init cannot satisfy.
        let asks = |keys: &[&str]| {
            keys.iter().any(|key| {
                let value = token.get(key);
                !matches!(value, None | Some(Value::Bool(false) | Value::Null))
            })
        };
        for (keys, what) in [
            (["tpm2-pin", "tpm2_salt"], "a PIN"),
            (["tpm2_pubkey", "tpm2_pubkey_pcrs"], "signed PCR values"),
            (
                ["tpm2_pcrlock", "tpm2_pcrlock_nv"],
                "a policy of systemd-pcrlock",
            ),
        ] {
            if asks(&keys) {
                let detail = format!("the token demands {what}");
                return Err(Fault::new(Code::LuksToken, detail).because(Cause::LUKS_TOKEN_DEMANDS));
            }
        }
        let pcrs = pcrs(token).ok_or_else(|| unusable("tpm2-pcrs"))?;
        if pcrs.contains(IMA_PCR) {
            return Err(Fault::new(Code::LuksPcr10, format!("sealed to {pcrs}")));
        }
        let (private, public) = blob(token).ok_or_else(|| unusable("tpm2-blob"))?;
        Ok(Self {
            sealed: Sealed {
                parent: parent(token).ok_or_else(|| unusable("tpm2_srk or tpm2-primary-alg"))?,
                private,
                public,
                pcrs,
            },
            keyslots: strings(token.get("keyslots")).ok_or_else(|| unusable("keyslots"))?,
        })
    }

    /// The passphrase of the keyslot, of the secret that was unsealed.
    pub fn passphrase(secret: &[u8]) -> String {
        Base64::encode_string(secret)
    }
}

fn pcrs(token: &Value) -> Option<Pcrs> {
    let mut mask = 0_u32;
    for number in token.get("tpm2-pcrs")?.elements()? {
        let number = u32::try_from(number.number()?).ok()?;
        mask |= (number < 24).then(|| 1_u32.checked_shl(number)).flatten()?;
    }
    let bank = match token.get("tpm2-pcr-bank") {
        // systemd before 250 wrote none.
        None => Bank::Sha256,
        Some(bank) => Bank::from_name(bank.string()?)?,
    };
    Some(Pcrs { bank, mask })
}

/// Of the sealed object, the private part and the public part, each with its length before it.
fn blob(token: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let blob = base64(token.get("tpm2-blob"))?;
    let (_, behind) = tpm::sized(&blob)?;
    let (_, rest) = tpm::sized(behind)?;
    let private = blob.len().checked_sub(behind.len())?;
    // More would be a seed: an object that was sealed for the TPM elsewhere and must be imported first.
    rest.is_empty().then(|| {
        let (private, public) = blob.split_at_checked(private)?;
        Some((private.to_vec(), public.to_vec()))
    })?
}

fn parent(token: &Value) -> Option<Parent> {
    /// Handles of persistent objects begin with this byte (`TPM_HT_PERSISTENT`).
    const PERSISTENT: u8 = 0x81;
    if let Some(srk) = token.get("tpm2_srk") {
        // As tpm2-tss serializes a resource, it begins with the handle (`iesys_MU_IESYS_RESOURCE_Marshal`).
        let bytes = base64(Some(srk))?;
        let handle: [u8; 4] = *bytes.first_chunk()?;
        let is_persistent = handle.first() == Some(&PERSISTENT);
        return is_persistent.then(|| Parent::Persistent(u32::from_be_bytes(handle)));
    }
    match token.get("tpm2-primary-alg") {
        // systemd before 250 wrote none.
        None => Some(Parent::Ecc),
        Some(algorithm) => match algorithm.string()? {
            "ecc" => Some(Parent::Ecc),
            "rsa" => Some(Parent::Rsa),
            _ => None,
        },
    }
}
