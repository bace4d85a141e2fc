//! The backend for keys in tokens: PKCS #11 modules, loaded when they are asked for.
//!
//! A session a thread, so that a token that can work on several signatures at once does. Keys that want their PIN for every
//! single signature (CKA_ALWAYS_AUTHENTICATE) are not supported.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use der::asn1::{ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode as _, Encode as _};
use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::verify::verify_digest;
use rsa::pkcs1::RsaPublicKey;

use super::kind::{KeyKind, check_signs_digests, curve_by_oid};
use super::password::PasswordSource;
use super::signer::{Signer, check_belongs, check_digest};
use super::uri::Uri;
use crate::Result;

/// What is loaded if the URI names no module: p11-kit's, which knows the modules that the system has.
const DEFAULT_MODULE: &str = "p11-kit-proxy.so";

/// A private key that never leaves its token.
pub struct TokenKey {
    module: Pkcs11,
    slot: Slot,
    label: String,
    key: ObjectHandle,
    kind: KeyKind,
    public_key: Vec<u8>,
    /// Sessions that nobody uses at the moment; the login is the token's, not a session's.
    sessions: Mutex<Vec<Session>>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("token", &self.label)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A fault of the token, with the module's error.
fn failed(detail: impl Into<String>, error: impl fmt::Display) -> Fault {
    Fault::new(Code::TokenUnusable, detail).with_cause(shortened(error))
}

/// The words of an error, which a module may have made as long as it likes.
fn shortened(error: impl fmt::Display) -> String {
    let mut words = error.to_string();
    words.truncate(words.floor_char_boundary(300));
    words
}

impl TokenKey {
    /// Opens the one private key that `uri` means. The PIN is the URI's, or `pin`'s, and given to the token once: a token locks
    /// itself after a few wrong ones. `certificate` gives the public key where the token does not.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] for a malformed URI; [`Code::TokenUnusable`] if the module cannot be loaded, or there is no such
    /// token or key or several; [`Code::KeyPassword`] for a wrong PIN; [`Code::PrivateKeyMalformed`] for a key of a kind
    /// that is not used.
    pub fn open(
        uri: &str,
        pin: PasswordSource<'_>,
        certificate: Option<&Certificate>,
    ) -> Result<Self> {
        let uri = Uri::parse(uri)?;
        let path = uri
            .module_path
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_MODULE));
        let module = Pkcs11::new(path).map_err(|error| {
            Fault::new(Code::TokenUnusable, path.display().to_string())
                .because(Cause::MODULE_NOT_LOADED.with(&[&shortened(error)]))
        })?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Two keys of one module share it.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => {
                return Err(failed(
                    format!(
                        "{}: the module does not start (C_Initialize)",
                        path.display()
                    ),
                    error,
                ));
            }
        }
        let (slot, label) = find_token(&module, &uri)?;
        let session = module.open_ro_session(slot).map_err(|error| {
            failed(
                format!("token `{label}`: no session could be opened"),
                error,
            )
        })?;
        login(&module, slot, &session, &label, &uri, pin)?;
        let key = find_key(&session, &uri, &label)?;
        let (kind, public_key) = public_key(&session, key, &label, certificate)?;
        let token = Self {
            module,
            slot,
            label,
            key,
            kind,
            public_key,
            sessions: Mutex::new(vec![session]),
        };
        if let Some(certificate) = certificate {
            check_belongs(&token, certificate)?;
            token.try_out(certificate)?;
        }
        Ok(token)
    }

    /// What a token says its public key is may come from the certificate; only a signature proves it.
    fn try_out(&self, certificate: &Certificate) -> Result<()> {
        let algo = HashAlgorithm::Sha256;
        let digest = vec![7; algo.digest_len()];
        let signature = self.sign_digest(algo, &digest)?;
        verify_digest(certificate, algo, &digest, &signature).map_err(|error| {
            Fault::new(
                Code::KeyMismatch,
                format!(
                    "token `{}` and the certificate of `{}`",
                    self.label,
                    certificate.subject()
                ),
            )
            .because(Cause::TRIAL_SIGNATURE_BAD.with(&[&error.to_string()]))
        })
    }

    /// Signs whatever digest it is given, weak ones too: for the name `evmctl` alone.
    ///
    /// # Errors
    ///
    /// [`Code::SigningFailed`], [`Code::TokenUnusable`].
    pub fn sign_any(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        let sessions = || self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let free = sessions().pop();
        let session = match free {
            Some(session) => session,
            None => self.module.open_ro_session(self.slot).map_err(|error| {
                failed(
                    format!("token `{}`: no further session could be opened", self.label),
                    error,
                )
            })?,
        };
        let signature = self.sign_with(&session, algo, digest);
        sessions().push(session);
        signature
    }

    fn sign_with(&self, session: &Session, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        let refused = |error: Error| {
            Fault::new(
                Code::SigningFailed,
                format!(
                    "token `{}`, {} signature of a {algo} digest",
                    self.label, self.kind
                ),
            )
            .because(Cause::TOKEN_DOES_NOT_SIGN.with(&[&error.to_string()]))
        };
        let Some(curve) = self.kind.curve() else {
            let prefix = algo.digest_info_prefix().unwrap_or_default();
            return session
                .sign(&Mechanism::RsaPkcs, self.key, &[prefix, digest].concat())
                .map_err(refused);
        };
        // The leftmost bits as FIPS 186-5 has it; not every token cuts a longer digest itself.
        let digest = digest.get(..curve.field_len()).unwrap_or(digest);
        let raw = session
            .sign(&Mechanism::Ecdsa, self.key, digest)
            .map_err(refused)?;
        // PKCS #11 gives r and s beside each other.
        let (r, s) = raw.split_at(raw.len() / 2);
        // Ecdsa-Sig-Value of RFC 3279 section 2.2.3: a SEQUENCE of two INTEGERs.
        UintRef::new(r)
            .and_then(|r| [r, UintRef::new(s)?].to_der())
            .map_err(|error| Fault::new(Code::SigningFailed, error.to_string()))
    }
}

impl Signer for TokenKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn sign_digest(&self, algo: HashAlgorithm, digest: &[u8]) -> Result<Vec<u8>> {
        check_digest(algo, digest)?;
        self.sign_any(algo, digest)
    }
}

fn find_token(module: &Pkcs11, uri: &Uri) -> Result<(Slot, String)> {
    let slots = module
        .get_slots_with_token()
        .map_err(|error| failed("the module's tokens", error))?;
    let (mut found, mut labels) = (Vec::new(), Vec::new());
    for slot in slots {
        let Ok(info) = module.get_token_info(slot) else {
            continue;
        };
        if !info.token_initialized() {
            continue;
        }
        labels.push(info.label().to_owned());
        let wanted = [
            (&uri.token, info.label()),
            (&uri.manufacturer, info.manufacturer_id()),
            (&uri.model, info.model()),
            (&uri.serial, info.serial_number()),
        ]
        .into_iter()
        .all(|(wanted, has)| {
            wanted
                .as_deref()
                .is_none_or(|wanted| wanted == has.trim_end())
        });
        if wanted && uri.slot_id.is_none_or(|id| id == slot.id()) {
            found.push((slot, info.label().to_owned()));
        }
    }
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) if labels.is_empty() => {
            Err(Fault::new(Code::TokenUnusable, "no token").because(Cause::NO_TOKEN))
        }
        (None, _) => Err(Fault::new(Code::TokenUnusable, "no such token")
            .because(Cause::OTHER_TOKENS.with(&[&labels.join(", ")]))),
        (Some(_), _) => Err(
            Fault::new(Code::TokenUnusable, "more than one token is meant")
                .because(Cause::SEVERAL_TOKENS.with(&[&labels.join(", ")])),
        ),
    }
}

fn login(
    module: &Pkcs11,
    slot: Slot,
    session: &Session,
    label: &str,
    uri: &Uri,
    pin: PasswordSource<'_>,
) -> Result<()> {
    let info = module
        .get_token_info(slot)
        .map_err(|error| failed(format!("token `{label}`"), error))?;
    if !info.login_required() {
        return Ok(());
    }
    let pin = if info.protected_authentication_path() {
        // It is typed on the token's own keys.
        None
    } else {
        let bytes = match (&uri.pin_value, &uri.pin_source) {
            (Some(value), _) => value.clone(),
            (_, Some(path)) => crate::file::first_line(path)?,
            _ => pin()?,
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| Fault::new(Code::KeyPassword, "the PIN is not UTF-8"))?;
        Some(AuthPin::from(text))
    };
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
            _,
        )) => {
            Err(Fault::new(Code::KeyPassword, format!("token `{label}`")).because(Cause::PIN_WRONG))
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => {
            Err(Fault::new(Code::KeyPassword, format!("token `{label}`"))
                .because(Cause::PIN_LOCKED))
        }
        Err(error) => Err(failed(format!("token `{label}`: login"), error)),
    }
}

fn find_key(session: &Session, uri: &Uri, label: &str) -> Result<ObjectHandle> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(uri.object.clone().map(Attribute::Label));
    template.extend(uri.id.clone().map(Attribute::Id));
    let mut found = session.find_objects(&template).map_err(|error| {
        failed(
            format!("token `{label}`: its keys could not be listed"),
            error,
        )
    })?;
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Fault::new(Code::TokenUnusable, format!("token `{label}`"))
            .because(Cause::NO_PRIVATE_KEY)),
        (Some(_), more) => Err(Fault::new(Code::TokenUnusable, format!("token `{label}`"))
            .because(Cause::SEVERAL_PRIVATE_KEYS.with(&[&(more + 1).to_string()]))),
    }
}

/// Kind and public key: from the private key's own attributes, from the public key beside it in the token, or from the
/// certificate, which each token has at least one of.
fn public_key(
    session: &Session,
    key: ObjectHandle,
    label: &str,
    certificate: Option<&Certificate>,
) -> Result<(KeyKind, Vec<u8>)> {
    let read = |object, wanted: &[AttributeType]| {
        session.get_attributes(object, wanted).unwrap_or_default()
    };
    let own = read(key, &[AttributeType::KeyType, AttributeType::Id]);
    let key_type = own.iter().find_map(|attribute| match attribute {
        Attribute::KeyType(kind) => Some(*kind),
        _ => None,
    });
    let id = own.iter().find_map(|attribute| match attribute {
        Attribute::Id(id) => Some(id.clone()),
        _ => None,
    });
    let mut objects = vec![key];
    if let (Some(id), Some(key_type)) = (id, key_type) {
        let template = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(key_type),
            Attribute::Id(id),
        ];
        objects.extend(session.find_objects(&template).unwrap_or_default());
    }
    let found = objects.into_iter().find_map(|object| {
        if key_type == Some(KeyType::RSA) {
            let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
            match &read(object, &wanted)[..] {
                [
                    Attribute::Modulus(modulus),
                    Attribute::PublicExponent(exponent),
                ] if !modulus.is_empty() && !exponent.is_empty() => {
                    let bits = u32::try_from(modulus.len()).unwrap_or(0).saturating_mul(8);
                    let public_key = RsaPublicKey {
                        modulus: UintRef::new(modulus).ok()?,
                        public_exponent: UintRef::new(exponent).ok()?,
                    };
                    Some((KeyKind::Rsa(bits), public_key.to_der().ok()?))
                }
                _ => None,
            }
        } else {
            let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
            match &read(object, &wanted)[..] {
                [Attribute::EcParams(parameters), Attribute::EcPoint(point)] => {
                    let kind = curve_by_oid(ObjectIdentifier::from_der(parameters).ok()?)?;
                    // The point as an OCTET STRING, or bare from some modules.
                    let point = <&OctetStringRef>::from_der(point)
                        .map_or(point.as_slice(), OctetStringRef::as_bytes);
                    Some((kind, point.to_vec()))
                }
                _ => None,
            }
        }
    });
    match (found, certificate) {
        (Some(found), _) => Ok(found),
        (None, Some(certificate)) => {
            let kind = KeyKind::of(certificate)?;
            check_signs_digests(kind)?;
            Ok((kind, certificate.public_key_bytes().to_vec()))
        }
        (None, None) => Err(
            Fault::new(Code::PrivateKeyMalformed, format!("token `{label}`"))
                .because(Cause::PUBLIC_HALF_UNKNOWN),
        ),
    }
}
