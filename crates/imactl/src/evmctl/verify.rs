//! `ima_verify` and `verify`.

use std::path::Path;

use ima::signature::{ImaXattr, SignatureV2, TYPE_EVM_PORTABLE, TYPE_SIGNATURE, VERSION_2, v1};
use ima::verify::verify_digest;
use imactl::digest::DigestOf;
use imactl::sign::Place;
use imactl::{file, hex, xattr};
use rsa::traits::SignatureScheme as _;

use super::evm::{Covered, Form};
use super::files::regular;
use super::keys::{Certificates, rsa_public_key};
use super::options::Options;
use super::output::{Done, Failed, Output};

/// `ima_verify`
pub fn ima(options: &Options, output: &mut Output) -> Done {
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    let certificates = certificates(options, output);
    let mut end = Ok(());
    for path in &options.operands {
        let path = Path::new(path);
        match ima_file(path, &certificates, options, output) {
            Ok(()) => output.err(format_args!("{}: verification is OK", path.display())),
            Err(_) => end = Err(Failed(1)),
        }
    }
    end
}

/// `verify`: security.evm.
pub fn evm(options: &Options, output: &mut Output) -> Done {
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    let certificates = certificates(options, output);
    for path in &options.operands {
        let path = Path::new(path);
        evm_file(path, &certificates, options, output)?;
        output.err(format_args!("{}: verification is OK", path.display()));
    }
    Ok(())
}

fn certificates(options: &Options, output: &mut Output) -> Certificates {
    if options.version_1 {
        Certificates::default()
    } else {
        Certificates::load(options, output)
    }
}

fn ima_file(
    path: &Path,
    certificates: &Certificates,
    options: &Options,
    output: &mut Output,
) -> Done {
    let value = if options.sigfile {
        let name = Place::sidecar(path);
        output.err(format_args!("Reading to {}", name.display()));
        file::read_bounded(&name, 65_536).map_err(|fault| output.fault(&fault))?
    } else {
        attribute(path, &options.xattr("ima"), output)?
    };
    if value.first() != Some(&TYPE_SIGNATURE) {
        output.err(format_args!(
            "{}: xattr ima has no signature",
            path.display()
        ));
        return Err(Failed::ERROR);
    }
    let digest = |algo, output: &mut Output| {
        let found = regular(path, output)?;
        found
            .digest(DigestOf::Content, algo)
            .map_err(|fault| output.fault(&fault))
    };
    check(path, &value, certificates, options, &digest, output)
}

fn evm_file(
    path: &Path,
    certificates: &Certificates,
    options: &Options,
    output: &mut Output,
) -> Done {
    let name = options.xattr("evm");
    let value = attribute(path, &name, output)?;
    let form = match value.as_slice() {
        [TYPE_EVM_PORTABLE, VERSION_2, ..] => Form::Portable,
        [TYPE_EVM_PORTABLE, ..] => {
            output.err(format_args!("Portable sig: invalid type"));
            return Err(Failed::ERROR);
        }
        [TYPE_SIGNATURE, ..] => Form::Bound,
        _ => {
            output.err(format_args!("{name} has no signature"));
            return Err(Failed::ERROR);
        }
    };
    let digest = |algo, output: &mut Output| {
        Covered::gather(path, form, options, output)?.digest(algo, output)
    };
    check(path, &value, certificates, options, &digest, output)
}

fn attribute(path: &Path, name: &str, output: &mut Output) -> Done<Vec<u8>> {
    match xattr::read(path, name) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => {
            output.err(format_args!("getxattr failed: {}", path.display()));
            output.err(format_args!("errno: No data available (61)"));
            Err(Failed::ERROR)
        }
        Err(fault) => {
            output.err(format_args!("getxattr failed: {}", path.display()));
            Err(output.fault(&fault))
        }
    }
}

type ComputeDigest<'a> = &'a dyn Fn(ima::hash::HashAlgorithm, &mut Output) -> Done<Vec<u8>>;

/// Checks a value of security.ima or security.evm.
fn check(
    path: &Path,
    value: &[u8],
    certificates: &Certificates,
    options: &Options,
    digest: ComputeDigest<'_>,
    output: &mut Output,
) -> Done {
    if let [_, signature @ ..] = value
        && signature.first() == Some(&v1::VERSION)
    {
        return check_1(path, signature, options, digest, output);
    }
    let signature = match ImaXattr::parse(value) {
        Ok(ImaXattr::Signature(signature) | ImaXattr::EvmPortable(signature)) => signature,
        Ok(_) => {
            output.err(format_args!("{}: Invalid signature", path.display()));
            return Err(Failed::ERROR);
        }
        Err(error) => {
            output.err(format_args!(
                "{}: Invalid signature: {error}",
                path.display()
            ));
            return Err(Failed::ERROR);
        }
    };
    let digest = digest(signature.algo, output)?;
    if options.verbose > 0 {
        output.err(format_args!(
            "hash({}): {}",
            signature.algo,
            hex::encode(&digest)
        ));
    }
    check_2(
        &path.display().to_string(),
        &digest,
        &signature,
        certificates,
        output,
    )
}

/// Checks a signature of version 2 over `digest` by whatever key has its id.
pub fn check_2(
    name: &str,
    digest: &[u8],
    signature: &SignatureV2,
    certificates: &Certificates,
    output: &mut Output,
) -> Done {
    let mut why = None;
    for certificate in certificates.with_id(signature.key_id) {
        match verify_digest(certificate, signature.algo, digest, &signature.signature) {
            Ok(()) => return Ok(()),
            Err(error) => why = Some(error),
        }
    }
    match why {
        Some(error) => {
            output.err(format_args!("{name}: verification failed: 0 ({error})"));
            Err(Failed(1))
        }
        None => {
            output.err(format_args!(
                "key {}: {} (unknown keyid)",
                certificates.len() + 1,
                signature.key_id
            ));
            Err(Failed::ERROR)
        }
    }
}

/// Checks a signature of version 1: its header is part of what is signed, and the key is a bare one in PEM.
fn check_1(
    path: &Path,
    signature: &[u8],
    options: &Options,
    digest: ComputeDigest<'_>,
    output: &mut Output,
) -> Done {
    let v1::Signature { header, number } = v1::Signature::parse(signature).map_err(|error| {
        output.err(format_args!(
            "{}: Invalid signature: {error}",
            path.display()
        ));
        Failed::ERROR
    })?;
    let digest = digest(header.algo.algorithm(), output)?;
    output.err(format_args!("hash-v1: {}", hex::encode(&digest)));
    let default = std::ffi::OsStr::new("/etc/keys/pubkey_evm.pem");
    let key = rsa_public_key(Path::new(options.key.as_deref().unwrap_or(default)), output)?;
    let signed = header.signed_digest(&digest);
    output.err(format_args!("sighash: {}", hex::encode(&signed)));
    rsa::Pkcs1v15Sign::new_unprefixed()
        .verify(&key, &signed, &number)
        .map_err(|_| {
            output.err(format_args!("{}: verification failed", path.display()));
            Failed(1)
        })
}
