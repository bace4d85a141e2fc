//! The commands of TPM 2.0 that unseal a secret, and those that extend a PCR (TCG, TPM 2.0 Library, part 3: Commands; part 2:
//! Structures).
//!
//! The secret is sealed under a policy: values of PCRs. Each extension of a PCR by anybody, such as IMA's of PCR 10, advances a
//! counter of the TPM, and a policy session in which PolicyPCR has been executed is then no longer taken: TPM_RC_PCR_CHANGED. The
//! secret is asked for again in a new session.

use std::fmt;

use thiserror::Error;

use crate::bank::Bank;
use crate::hash::HashAlgorithm;

/// The longest response that is taken, in bytes (drivers/char/tpm/tpm.h, `TPM_BUFSIZE`).
pub const MAX_RESPONSE: usize = 4096;

/// In how many sessions a secret is asked for while PCRs are extended.
const MAX_ATTEMPTS: usize = 64;

/// `TPM_ST_NO_SESSIONS`, `TPM_ST_SESSIONS`
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

const CREATE_PRIMARY: u32 = 0x131;
const LOAD: u32 = 0x157;
const SEQUENCE_UPDATE: u32 = 0x15c;
const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;
const START_AUTH_SESSION: u32 = 0x176;
const POLICY_PCR: u32 = 0x17f;
const EVENT_SEQUENCE_COMPLETE: u32 = 0x185;
const HASH_SEQUENCE_START: u32 = 0x186;

/// `TPM_RH_OWNER`, `TPM_RH_NULL`, `TPM_RS_PW`
const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;

const ALG_NULL: u16 = 0x10;
const ALG_SHA256: u16 = Bank::Sha256.tpm_algorithm();

/// The most bytes that every TPM takes in one buffer (part 2, 10.4.8; TCG PC Client Platform TPM Profile, `TPM_PT_INPUT_BUFFER`).
const MAX_BUFFER: usize = 1024;

/// `TPM_RC_PCR_CHANGED`
pub const PCR_CHANGED: u32 = 0x128;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TpmError {
    /// The command or its response was not transmitted.
    #[error("{0}: {1}")]
    Transmission(&'static str, String),
    /// The response is none of that command.
    #[error("{0}: the response of the TPM is malformed")]
    Malformed(&'static str),
    /// The TPM refused it with this response code.
    #[error("{0}: TPM error {1:#x}")]
    Refused(&'static str, u32),
}

impl TpmError {
    /// The response code, without the number of the parameter, session or handle that it is about (part 2, 6.6.3).
    pub const fn code(&self) -> Option<u32> {
        match self {
            Self::Refused(_, code) if *code & 0x80 != 0 => Some(*code & 0xbf),
            Self::Refused(_, code) => Some(*code),
            _ => None,
        }
    }

    /// Whether the policy of the object does not hold: `TPM_RC_POLICY_FAIL`.
    pub fn is_of_policy(&self) -> bool {
        self.code() == Some(0x9d)
    }

    /// Whether the object is not one of this parent's, or is damaged: `TPM_RC_INTEGRITY`.
    pub fn is_of_integrity(&self) -> bool {
        self.code() == Some(0x9f)
    }
}

/// PCRs of a bank: bit 0 of the mask is PCR 0; those of a PC are numbered 0 to 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pcrs {
    /// The bank.
    pub bank: Bank,
    /// The mask.
    pub mask: u32,
}

impl Pcrs {
    /// Whether one of them is PCR `number`.
    pub const fn contains(self, number: u32) -> bool {
        self.mask & 1_u32.wrapping_shl(number) != 0
    }
}

impl fmt::Display for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = (0..24).filter(|number| self.contains(*number));
        match numbers.next() {
            None => f.write_str("no PCR")?,
            Some(first) => write!(f, "PCR {first}")?,
        }
        for number in numbers {
            write!(f, "+{number}")?;
        }
        write!(f, " ({})", self.bank.name())
    }
}

/// The key that a sealed object is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// A primary key of the owner hierarchy, made of the template that systemd has for P-256 (src/shared/tpm2-util.c).
    Ecc,
    /// The same for RSA with 2048 bits.
    Rsa,
    /// The key with this persistent handle: the storage root key is 0x81000001.
    Persistent(u32),
}

/// A sealed object, and the policy that its secret is given out under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its parent.
    pub parent: Parent,
    /// The private part: a TPM2B_PRIVATE, with its length.
    pub private: Vec<u8>,
    /// The public part: a TPM2B_PUBLIC, with its length.
    pub public: Vec<u8>,
    /// The PCRs whose values the policy demands; if none, there is no policy but the empty one.
    pub pcrs: Pcrs,
}

/// Transmits a command and returns the response; the reason if that fails.
pub type Transmit<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'a;

/// Has the TPM unseal the secret.
///
/// # Errors
///
/// The first command that failed.
pub fn unseal(sealed: &Sealed, transmit: &mut Transmit<'_>) -> Result<Vec<u8>, TpmError> {
    let mut tpm = Tpm(transmit);
    let parent = match sealed.parent {
        Parent::Persistent(handle) => handle,
        Parent::Ecc | Parent::Rsa => tpm.create_primary(sealed.parent)?,
    };
    let object = tpm.load(parent, sealed);
    let secret = match object {
        Ok(object) => {
            let secret = tpm.unseal(object, sealed.pcrs);
            tpm.flush(object);
            secret
        }
        Err(error) => Err(error),
    };
    if !matches!(sealed.parent, Parent::Persistent(_)) {
        tpm.flush(parent);
    }
    secret
}

/// The digest that a PCR of one bank was extended by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// The hash algorithm of the bank.
    pub algorithm: HashAlgorithm,
    /// The digest of what was measured.
    pub digest: Vec<u8>,
}

/// Has the TPM hash `data`, with the algorithm of each bank that it has, and extend PCR `pcr` of each by the digest. Returns
/// the digests.
///
/// # Errors
///
/// The command that failed. The PCR is extended by the last of them.
pub fn measure(
    data: &[u8],
    pcr: u8,
    transmit: &mut Transmit<'_>,
) -> Result<Vec<Extended>, TpmError> {
    const COMPLETE: &str = "TPM2_EventSequenceComplete";
    let mut tpm = Tpm(transmit);
    let sequence = tpm.start_hash_sequence()?;
    let (blocks, last) = data.as_chunks::<MAX_BUFFER>();
    let mut complete = || {
        for block in blocks {
            let command = Command::with_authorization(SEQUENCE_UPDATE, sequence, PASSWORD);
            tpm.execute("TPM2_SequenceUpdate", command.sized(block))?;
        }
        let handles = [pcr.into(), sequence];
        let command = Command::with_authorizations(EVENT_SEQUENCE_COMPLETE, &handles, PASSWORD);
        tpm.execute(COMPLETE, command.sized(last))
    };
    let body = complete().inspect_err(|_| tpm.flush(sequence))?;
    digests(&body).ok_or(TpmError::Malformed(COMPLETE))
}

struct Tpm<'a, 'b>(&'a mut Transmit<'b>);

impl Tpm<'_, '_> {
    /// Executes a command and returns the response behind its header.
    fn execute(&mut self, name: &'static str, command: Command) -> Result<Vec<u8>, TpmError> {
        let command = command.finish();
        let response = (self.0)(&command).map_err(|error| TpmError::Transmission(name, error))?;
        let (code, body) = response_of(&response).ok_or(TpmError::Malformed(name))?;
        match code {
            0 => Ok(body.to_vec()),
            code => Err(TpmError::Refused(name, code)),
        }
    }

    fn create_primary(&mut self, parent: Parent) -> Result<u32, TpmError> {
        const NAME: &str = "TPM2_CreatePrimary";
        let command = Command::with_authorization(CREATE_PRIMARY, OWNER, PASSWORD)
            // inSensitive: neither a password nor data.
            .sized(&[0, 0, 0, 0])
            .sized(&template(parent))
            .sized(&[])
            .long(0);
        let body = self.execute(NAME, command)?;
        handle(&body).ok_or(TpmError::Malformed(NAME))
    }

    fn load(&mut self, parent: u32, sealed: &Sealed) -> Result<u32, TpmError> {
        const NAME: &str = "TPM2_Load";
        let command = Command::with_authorization(LOAD, parent, PASSWORD)
            .bytes(&sealed.private)
            .bytes(&sealed.public);
        let body = self.execute(NAME, command)?;
        handle(&body).ok_or(TpmError::Malformed(NAME))
    }

    /// Starts a sequence that hashes with the algorithms of all banks. The TPM ends it when it is completed.
    fn start_hash_sequence(&mut self) -> Result<u32, TpmError> {
        const NAME: &str = "TPM2_HashSequenceStart";
        let command = Command::new(NO_SESSIONS, HASH_SEQUENCE_START);
        let body = self.execute(NAME, command.sized(&[]).short(ALG_NULL))?;
        handle(&body).ok_or(TpmError::Malformed(NAME))
    }

    fn unseal(&mut self, object: u32, pcrs: Pcrs) -> Result<Vec<u8>, TpmError> {
        let mut result = Err(TpmError::Malformed("TPM2_Unseal"));
        for _ in 0..MAX_ATTEMPTS {
            result = self.unseal_in_session(object, pcrs);
            match &result {
                Err(error) if error.code() == Some(PCR_CHANGED) => {}
                _ => return result,
            }
        }
        result
    }

    fn unseal_in_session(&mut self, object: u32, pcrs: Pcrs) -> Result<Vec<u8>, TpmError> {
        const NAME: &str = "TPM2_Unseal";
        let session = self.start_policy_session()?;
        let satisfied = match pcrs.mask {
            0 => Ok(()),
            _ => self.policy_pcr(session, pcrs),
        };
        let unsealed = satisfied.and_then(|()| {
            self.execute(NAME, Command::with_authorization(UNSEAL, object, session))
        });
        // Without continueSession the TPM has flushed a session that it has used.
        let body = unsealed.inspect_err(|_| self.flush(session))?;
        secret(&body).ok_or(TpmError::Malformed(NAME))
    }

    fn start_policy_session(&mut self) -> Result<u32, TpmError> {
        const NAME: &str = "TPM2_StartAuthSession";
        const POLICY: u8 = 1;
        let command = Command::new(NO_SESSIONS, START_AUTH_SESSION)
            .long(NULL)
            .long(NULL)
            // The nonce takes part in authorizations with a key, of which there is none here.
            .sized(&[0; 16])
            .sized(&[])
            .bytes(&[POLICY])
            .short(ALG_NULL)
            .short(ALG_SHA256);
        let body = self.execute(NAME, command)?;
        handle(&body).ok_or(TpmError::Malformed(NAME))
    }

    fn policy_pcr(&mut self, session: u32, pcrs: Pcrs) -> Result<(), TpmError> {
        let [select @ .., _] = pcrs.mask.to_le_bytes();
        let length = u8::try_from(select.len()).unwrap_or_default();
        let command = Command::new(NO_SESSIONS, POLICY_PCR)
            .long(session)
            .sized(&[])
            .long(1)
            .short(pcrs.bank.tpm_algorithm())
            .bytes(&[length])
            .bytes(&select);
        self.execute("TPM2_PolicyPCR", command).map(drop)
    }

    /// Frees an object or a session. What remains is lost at the end of this boot, so a failure does not matter.
    fn flush(&mut self, handle: u32) {
        let command = Command::new(NO_SESSIONS, FLUSH_CONTEXT).long(handle);
        let _ = self.execute("TPM2_FlushContext", command);
    }
}

/// The TPMT_PUBLIC of a primary key that stores others.
fn template(parent: Parent) -> Vec<u8> {
    const ALG_RSA: u16 = 0x01;
    const ALG_ECC: u16 = 0x23;
    const ALG_AES: u16 = 0x06;
    const ALG_CFB: u16 = 0x43;
    const NIST_P256: u16 = 0x03;
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, decrypt
    const ATTRIBUTES: u32 = 0x0003_0072;
    let is_rsa = parent == Parent::Rsa;
    let template = Fields::default()
        .short(if is_rsa { ALG_RSA } else { ALG_ECC })
        .short(ALG_SHA256)
        .long(ATTRIBUTES)
        .sized(&[])
        .short(ALG_AES)
        .short(128)
        .short(ALG_CFB)
        .short(ALG_NULL);
    let template = match is_rsa {
        true => template.short(2048).long(0).sized(&[]),
        false => {
            let curve = template.short(NIST_P256).short(ALG_NULL);
            curve.sized(&[]).sized(&[])
        }
    };
    template.0
}

/// Fields one behind the other, big-endian.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn short(self, number: u16) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn long(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// A TPM2B: its length and its bytes, which are few.
    fn sized(self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.short(length).bytes(bytes)
    }
}

struct Command {
    tag: u16,
    fields: Fields,
}

impl Command {
    fn new(tag: u16, code: u32) -> Self {
        Self {
            tag,
            fields: Fields::default().long(code),
        }
    }

    /// A command about an object, with one authorization: an empty password, or a policy session, which ends with the command.
    fn with_authorization(code: u32, object: u32, session: u32) -> Self {
        Self::with_authorizations(code, &[object], session)
    }

    /// The same about several objects, each with such an authorization.
    fn with_authorizations(code: u32, objects: &[u32], session: u32) -> Self {
        let mut command = Self::new(SESSIONS, code);
        let mut authorizations = Fields::default();
        for object in objects {
            command = command.long(*object);
            authorizations = authorizations.long(session).sized(&[]).bytes(&[0]);
            authorizations = authorizations.sized(&[]);
        }
        let authorizations = authorizations.0;
        let length = u32::try_from(authorizations.len()).unwrap_or_default();
        command.long(length).bytes(&authorizations)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.fields = self.fields.bytes(bytes);
        self
    }

    fn short(mut self, number: u16) -> Self {
        self.fields = self.fields.short(number);
        self
    }

    fn long(mut self, number: u32) -> Self {
        self.fields = self.fields.long(number);
        self
    }

    fn sized(mut self, bytes: &[u8]) -> Self {
        self.fields = self.fields.sized(bytes);
        self
    }

    fn finish(self) -> Vec<u8> {
        const TAG_AND_LENGTH: usize = 6;
        let length = self.fields.0.len().saturating_add(TAG_AND_LENGTH);
        let head = Fields::default()
            .short(self.tag)
            .long(u32::try_from(length).unwrap_or(u32::MAX));
        head.bytes(&self.fields.0).0
    }
}

/// The response code, and what stands behind the header.
fn response_of(response: &[u8]) -> Option<(u32, &[u8])> {
    let (tag, rest) = response.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (code, body) = rest.split_first_chunk()?;
    let tag = u16::from_be_bytes(*tag);
    let fits = usize::try_from(u32::from_be_bytes(*length)) == Ok(response.len());
    let is_known = [NO_SESSIONS, SESSIONS].contains(&tag);
    (fits && is_known).then_some((u32::from_be_bytes(*code), body))
}

fn handle(body: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*body.first_chunk()?))
}

/// The secret, from the response to Unseal: the length of the parameters, then a TPM2B.
fn secret(body: &[u8]) -> Option<Vec<u8>> {
    let (_, rest) = body.split_first_chunk::<4>()?;
    let (bytes, _) = sized(rest)?;
    Some(bytes.to_vec())
}

/// Hash algorithms of banks, with their numbers (TCG Algorithm Registry, `TPM_ALG_ID`).
const HASHES: [(u16, HashAlgorithm); 8] = [
    (Bank::Sha1.tpm_algorithm(), HashAlgorithm::Sha1),
    (Bank::Sha256.tpm_algorithm(), HashAlgorithm::Sha256),
    (Bank::Sha384.tpm_algorithm(), HashAlgorithm::Sha384),
    (Bank::Sha512.tpm_algorithm(), HashAlgorithm::Sha512),
    (0x12, HashAlgorithm::Sm3),
    (0x27, HashAlgorithm::Sha3_256),
    (0x28, HashAlgorithm::Sha3_384),
    (0x29, HashAlgorithm::Sha3_512),
];

/// The TPML_DIGEST_VALUES, from the response to EventSequenceComplete: behind the length of the parameters.
fn digests(body: &[u8]) -> Option<Vec<Extended>> {
    let (_, rest) = body.split_first_chunk::<4>()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let mut digests = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (number, behind) = rest.split_first_chunk()?;
        let number = u16::from_be_bytes(*number);
        let (_, algorithm) = HASHES.into_iter().find(|(known, _)| *known == number)?;
        let (digest, behind) = behind.split_at_checked(algorithm.digest_len())?;
        digests.push(Extended {
            algorithm,
            digest: digest.to_vec(),
        });
        rest = behind;
    }
    Some(digests)
}

/// The bytes of a TPM2B, and what stands behind it.
pub fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}
