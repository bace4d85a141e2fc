//! What the device does with its TPM: make keys, quote PCRs, answer a challenge.

use std::collections::BTreeMap;

use ima::bank::Bank;
use ima::fault::{Cause, Code, Fault};
use tpm2_protocol::basic::{TpmHandle, TpmInt32, TpmUint16};
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bDigest, Tpm2bEncryptedSecret, Tpm2bNonce, TpmAlgId, TpmRh, TpmSe, TpmaSession,
    TpmsAuthCommand, TpmtSigScheme, TpmtSymDefObject,
};
use tpm2_protocol::frame::{
    TpmActivateCredentialCommand, TpmActivateCredentialResponse, TpmCreatePrimaryCommand,
    TpmCreatePrimaryResponse, TpmEvictControlCommand, TpmEvictControlResponse,
    TpmFlushContextCommand, TpmFlushContextResponse, TpmFrame, TpmNvReadCommand,
    TpmNvReadPublicCommand, TpmNvReadPublicResponse, TpmNvReadResponse, TpmPolicySecretCommand,
    TpmPolicySecretResponse, TpmQuoteCommand, TpmQuoteResponse, TpmReadPublicCommand,
    TpmReadPublicResponse, TpmStartAuthSessionCommand, TpmStartAuthSessionResponse,
    TpmUnmarshalBody,
};

use super::credential::Challenge;
use super::{KeyKind, PublicArea, Quote, pcr_digest};
use crate::Result;
use crate::pcr::{self, Pcrs};
use crate::tpm::{Connection, Tpm, TpmError, empty_password, encoded};

/// The handle at which the attestation key stays: among those of keys of the endorsement hierarchy, and none that a profile of the
/// TCG gives to another key (TCG, Registry of Reserved TPM 2.0 Handles and Localities).
pub const DEFAULT_HANDLE: u32 = 0x8101_8010;

/// The PCRs that are quoted unless told: those that only a reset of the machine resets.
pub const DEFAULT_PCRS: u32 = 0xffff;

/// How often PCRs are read and quoted until both agree.
const MAX_ATTEMPTS: usize = 32;

/// Where manufacturers put the certificate of the endorsement key (TCG EK Credential Profile 2.5, 2.2.1.4).
const fn certificate_index(kind: KeyKind) -> u32 {
    match kind {
        KeyKind::Rsa2048 => 0x01c0_0002,
        KeyKind::P256 => 0x01c0_000a,
    }
}

/// How much of an NV index is read at once, in bytes: what every TPM gives (`TPM_PT_NV_BUFFER_MAX`; TCG PC Client Platform TPM
/// Profile, 4.4).
const NV_PIECE: u16 = 512;

/// A key and what endorses it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The attestation key.
    pub attestation: PublicArea,
    /// The endorsement key.
    pub endorsement: PublicArea,
    /// The certificate of the endorsement key in DER, if the TPM has one.
    pub certificate: Option<Vec<u8>>,
}

/// A quote that was made.
#[derive(Debug, Clone)]
pub struct Quoted {
    /// What the TPM signed.
    pub attest: Vec<u8>,
    /// The same, decoded.
    pub quote: Quote,
    /// The signature.
    pub signature: Vec<u8>,
    /// The key.
    pub key: PublicArea,
    /// The PCRs.
    pub pcrs: BTreeMap<Bank, Pcrs>,
}

/// The TPM of the device.
#[derive(Debug)]
pub struct Device<'a> {
    tpm: &'a Tpm,
    connection: Connection,
}

impl<'a> Device<'a> {
    /// Connects to a TPM.
    ///
    /// # Errors
    ///
    /// [`Code::TpmCommand`].
    pub fn open(tpm: &'a Tpm) -> Result<Self> {
        let connection = Connection::open(tpm).map_err(|error| error.fault(tpm))?;
        Ok(Self { tpm, connection })
    }

    fn execute<R: TpmUnmarshalBody>(
        &mut self,
        command: &impl TpmFrame,
        sessions: &[TpmsAuthCommand],
    ) -> Result<R> {
        let response = self.connection.execute(command, sessions);
        response.map_err(|error| error.fault(self.tpm))
    }

    /// A value that has no place in a command, or a response that has no encoding: none that a TPM gives.
    fn unusable(&self, error: tpm2_protocol::TpmError) -> Fault {
        let detail = format!("TPM {}: {error}", self.tpm);
        Fault::new(Code::TpmCommand, detail)
    }

    /// Makes the attestation key, and has it stay at `handle`. It is a primary key of the endorsement hierarchy: it is the same each
    /// time it is made, clearing the TPM does not change it, and the TPM states its count of resets in quotes by it as it is and not
    /// obfuscated (TPM 2.0 Library, part 1, 36.7). If it is at that handle already, nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Code::TpmCommand`].
    pub fn make_keys(&mut self, kind: KeyKind, endorsement: KeyKind, handle: u32) -> Result<Keys> {
        let attestation = self.with_primary(
            &PublicArea::attestation_template(kind),
            |device, transient, public| {
                if device.public_of(handle)?.as_ref() != Some(public) {
                    device.persist(transient, handle)?;
                }
                Ok(public.clone())
            },
        )?;
        let endorsement_key = self.with_primary(
            &PublicArea::endorsement_template(endorsement),
            |_, _, public| Ok(public.clone()),
        )?;
        Ok(Keys {
            attestation,
            endorsement: endorsement_key,
            certificate: self.read_nv(certificate_index(endorsement))?,
        })
    }

    /// Makes a primary key of the endorsement hierarchy, and removes it from the TPM's memory after `then`.
    fn with_primary<T>(
        &mut self,
        template: &PublicArea,
        then: impl FnOnce(&mut Self, TpmHandle, &PublicArea) -> Result<T>,
    ) -> Result<T> {
        let command = TpmCreatePrimaryCommand {
            handles: [TpmHandle::new(TpmRh::Endorsement.value())],
            in_public: template.inner().clone().into(),
            ..TpmCreatePrimaryCommand::default()
        };
        let made: TpmCreatePrimaryResponse = self.execute(&command, &[empty_password()])?;
        let [handle] = made.handles;
        let result = then(self, handle, &made.out_public.into());
        self.flush(handle);
        result
    }

    /// Removes an object or a session from the TPM's memory. If that fails, the next reset does.
    fn flush(&mut self, handle: TpmHandle) {
        let command = TpmFlushContextCommand {
            handles: [],
            flush_handle: handle,
        };
        let _: std::result::Result<TpmFlushContextResponse, TpmError> =
            self.connection.execute(&command, &[]);
    }

    fn persist(&mut self, transient: TpmHandle, handle: u32) -> Result<()> {
        let command = TpmEvictControlCommand {
            handles: [TpmHandle::new(TpmRh::Owner.value()), transient],
            persistent_handle: TpmHandle::new(handle),
        };
        self.execute::<TpmEvictControlResponse>(&command, &[empty_password()])
            .map(drop)
    }

    /// The public area of the key at a handle; nothing if there is none.
    fn public_of(&mut self, handle: u32) -> Result<Option<PublicArea>> {
        let command = TpmReadPublicCommand {
            handles: [TpmHandle::new(handle)],
        };
        match self
            .connection
            .execute::<TpmReadPublicResponse>(&command, &[])
        {
            Ok(response) => Ok(Some(response.out_public.into())),
            Err(error) if error.is_no_object() => Ok(None),
            Err(error) => Err(error.fault(self.tpm)),
        }
    }

    /// What an NV index has; nothing if there is no such index.
    fn read_nv(&mut self, index: u32) -> Result<Option<Vec<u8>>> {
        let index = TpmHandle::new(index);
        let command = TpmNvReadPublicCommand { handles: [index] };
        let response: TpmNvReadPublicResponse = match self.connection.execute(&command, &[]) {
            Err(error) if error.is_no_object() => return Ok(None),
            response => response.map_err(|error| error.fault(self.tpm))?,
        };
        let size = response.nv_public.data_size.value();
        let mut content = Vec::new();
        for offset in (0..size).step_by(NV_PIECE.into()) {
            let command = TpmNvReadCommand {
                handles: [index, index],
                size: TpmUint16::from(NV_PIECE.min(size - offset)),
                offset: TpmUint16::from(offset),
            };
            let piece: TpmNvReadResponse = self.execute(&command, &[empty_password()])?;
            content.extend_from_slice(&piece.data);
        }
        Ok(Some(content))
    }

    /// Has the key at `handle` sign the PCRs of `mask` in these banks, or in all that the TPM has if none is named.
    ///
    /// # Errors
    ///
    /// [`Code::TpmCommand`]; [`Code::AttestationInput`] for a key that cannot attest.
    pub fn quote(
        &mut self,
        handle: u32,
        nonce: &[u8],
        banks: &[Bank],
        mask: u32,
    ) -> Result<Quoted> {
        let command = TpmReadPublicCommand {
            handles: [TpmHandle::new(handle)],
        };
        let key: TpmReadPublicResponse = self.execute(&command, &[])?;
        let key = PublicArea::from(key.out_public);
        key.check_attests()?;
        for _ in 0..MAX_ATTEMPTS {
            let mut pcrs =
                pcr::read_banks(&mut self.connection).map_err(|error| error.fault(self.tpm))?;
            if let Some(bank) = banks.iter().find(|bank| !pcrs.contains_key(bank)) {
                let fault = Fault::new(Code::TpmCommand, format!("TPM {}", self.tpm));
                return Err(fault.because(Cause::BANK_NOT_ALLOCATED.with(&[bank.name()])));
            }
            pcrs.retain(|bank, _| banks.is_empty() || banks.contains(bank));
            for values in pcrs.values_mut() {
                values.retain(|number, _| mask & 1_u32.wrapping_shl(*number) != 0);
            }
            let selection: Vec<(Bank, u32)> = pcrs.keys().map(|bank| (*bank, mask)).collect();
            let command = TpmQuoteCommand {
                handles: [TpmHandle::new(handle)],
                qualifying_data: Tpm2bData::try_from(nonce)
                    .map_err(|error| self.unusable(error))?,
                in_scheme: TpmtSigScheme::default(),
                pcr_select: pcr::selection(&selection),
            };
            let response: TpmQuoteResponse = self.execute(&command, &[empty_password()])?;
            let attest = encoded(&*response.quoted).map_err(|error| self.unusable(error))?;
            let signature = encoded(&response.signature).map_err(|error| self.unusable(error))?;
            let refused = |why: &dyn std::fmt::Display| {
                Fault::new(Code::TpmCommand, format!("TPM {}: quote: {why}", self.tpm))
            };
            let algorithm = key
                .verify(&attest, &signature)
                .map_err(|error| refused(&error))?;
            let quote = Quote::parse(&attest).map_err(|error| refused(&error))?;
            // What is measured between the reading and the quote is in the quote alone.
            if pcr_digest(algorithm, &quote.selected, &pcrs).as_ref() == Some(&quote.digest) {
                return Ok(Quoted {
                    attest,
                    quote,
                    signature,
                    key,
                    pcrs,
                });
            }
        }
        let fault = Fault::new(Code::TpmCommand, format!("TPM {}", self.tpm));
        Err(fault.because(Cause::PCRS_RESTLESS))
    }

    /// Answers a challenge: has the TPM decrypt its secret, which it does only if the key at `handle` has the name that the challenge
    /// is for, and the endorsement key of that kind is the one that it was encrypted to.
    ///
    /// # Errors
    ///
    /// [`Code::TpmCommand`].
    pub fn activate(
        &mut self,
        challenge: &Challenge,
        endorsement: KeyKind,
        handle: u32,
    ) -> Result<Vec<u8>> {
        self.with_primary(
            &PublicArea::endorsement_template(endorsement),
            |device, endorsement, _| {
                let session = device.start_policy_session()?;
                let secret = device.activate_in(session, challenge, endorsement, handle);
                // Without continueSession the TPM has removed a session that it has used.
                secret.inspect_err(|_| device.flush(session))
            },
        )
    }

    fn activate_in(
        &mut self,
        session: TpmHandle,
        challenge: &Challenge,
        endorsement: TpmHandle,
        handle: u32,
    ) -> Result<Vec<u8>> {
        let command = TpmPolicySecretCommand {
            handles: [TpmHandle::new(TpmRh::Endorsement.value()), session],
            nonce_tpm: Tpm2bNonce::default(),
            cp_hash_a: Tpm2bDigest::default(),
            policy_ref: Tpm2bNonce::default(),
            expiration: TpmInt32::from(0),
        };
        self.execute::<TpmPolicySecretResponse>(&command, &[empty_password()])?;
        let command = TpmActivateCredentialCommand {
            handles: [TpmHandle::new(handle), endorsement],
            credential_blob: challenge.blob,
            secret: challenge.secret,
        };
        let policy = TpmsAuthCommand {
            session_handle: session,
            session_attributes: TpmaSession::empty(),
            ..TpmsAuthCommand::default()
        };
        let response = self
            .connection
            .execute::<TpmActivateCredentialResponse>(&command, &[empty_password(), policy]);
        match response {
            Ok(response) => Ok(response.cert_info.to_vec()),
            Err(error) if error.is_wrong_challenge() => {
                Err(error.fault(self.tpm).because(Cause::CHALLENGE_FOR_OTHER))
            }
            Err(error) => Err(error.fault(self.tpm)),
        }
    }

    fn start_policy_session(&mut self) -> Result<TpmHandle> {
        // The nonce takes part in authorizations with a secret, of which there is none here.
        let nonce_caller =
            Tpm2bNonce::try_from(&[0; 16][..]).map_err(|error| self.unusable(error))?;
        let command = TpmStartAuthSessionCommand {
            handles: [TpmHandle::new(TpmRh::Null.value()); 2],
            nonce_caller,
            encrypted_salt: Tpm2bEncryptedSecret::default(),
            session_type: TpmSe::Policy,
            symmetric: TpmtSymDefObject {
                algorithm: TpmAlgId::Null,
                ..TpmtSymDefObject::default()
            },
            auth_hash: TpmAlgId::Sha256,
        };
        let response: TpmStartAuthSessionResponse = self.execute(&command, &[])?;
        let [handle] = response.handles;
        Ok(handle)
    }
}
