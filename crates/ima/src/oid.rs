//! Object identifiers of keys, signatures, certificates and PKCS #7 messages.
//!
//! Each is a constant of its own: a table to search would bring the names of all registered identifiers into the init.

pub use const_oid::ObjectIdentifier;
pub use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE,
    ID_CE_SUBJECT_KEY_IDENTIFIER,
};
pub use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512,
    ID_EC_PUBLIC_KEY, ID_SHA_256, ID_SHA_384, ID_SHA_512, RSA_ENCRYPTION, SECP_256_R_1,
    SECP_384_R_1, SECP_521_R_1, SHA_1_WITH_RSA_ENCRYPTION, SHA_224_WITH_RSA_ENCRYPTION,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};

const fn oid(number: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(number)
}

/// The curve P-192 (RFC 5480).
pub const PRIME_192_V1: ObjectIdentifier = oid("1.2.840.10045.3.1.1");

/// ECDSA over SHA-1 (RFC 3279).
pub const ECDSA_WITH_SHA_1: ObjectIdentifier = oid("1.2.840.10045.4.1");
/// ECDSA over SHA3-256 (RFC 9688).
pub const ECDSA_WITH_SHA3_256: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.10");
/// ECDSA over SHA3-384 (RFC 9688).
pub const ECDSA_WITH_SHA3_384: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.11");
/// ECDSA over SHA3-512 (RFC 9688).
pub const ECDSA_WITH_SHA3_512: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.12");
/// RSA PKCS #1 v1.5 over SHA3-256 (RFC 9688).
pub const RSA_WITH_SHA3_256: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.14");
/// RSA PKCS #1 v1.5 over SHA3-384 (RFC 9688).
pub const RSA_WITH_SHA3_384: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.15");
/// RSA PKCS #1 v1.5 over SHA3-512 (RFC 9688).
pub const RSA_WITH_SHA3_512: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.16");

/// ML-DSA-44, of keys and signatures (RFC 9881).
pub const ML_DSA_44: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.17");
/// ML-DSA-65 (RFC 9881).
pub const ML_DSA_65: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.18");
/// ML-DSA-87 (RFC 9881).
pub const ML_DSA_87: ObjectIdentifier = oid("2.16.840.1.101.3.4.3.19");

/// Content of PKCS #7: data (RFC 5652, section 4).
pub const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
/// Content of PKCS #7: signed data (RFC 5652, section 5.1).
pub const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
/// Signed attribute of PKCS #7: the digest of the content (RFC 5652, section 11.2).
pub const MESSAGE_DIGEST: ObjectIdentifier = oid("1.2.840.113549.1.9.4");
/// Attribute of a certificate request: the extensions that are requested (PKCS #9, RFC 2985).
pub const EXTENSION_REQUEST: ObjectIdentifier = oid("1.2.840.113549.1.9.14");

/// Attribute of names: common name (RFC 4519).
pub const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
/// Attribute of names: organization (RFC 4519).
pub const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
/// Attribute of names: organizational unit (RFC 4519).
pub const ORGANIZATIONAL_UNIT: ObjectIdentifier = oid("2.5.4.11");
