//! `ima_sign`, `ima_hash`, `sign`, `sign_hash`, `hmac`.

use std::io::BufRead as _;
use std::path::Path;

use ima::hash::HashAlgorithm;
use ima::signature::{
    ImaXattr, SignatureV2, SignatureV3, TYPE_EVM_PORTABLE, TYPE_SIGNATURE, V3_VERITY, v1, v3_digest,
};
use imactl::digest::DigestOf;
use imactl::sign::Place;
use imactl::{file, hex, xattr};

use super::evm::{Covered, Form};
use super::files::{each, regular};
use super::keys::SigningKey;
use super::options::Options;
use super::output::{Done, Failed, Output};

/// What signs: the key and the algorithm, read once for all files.
struct Work<'a> {
    options: &'a Options,
    algo: HashAlgorithm,
    key: SigningKey,
}

impl<'a> Work<'a> {
    fn new(options: &'a Options, output: &mut Output) -> Done<Self> {
        let algo = options.algorithm(output)?;
        Ok(Self {
            options,
            algo,
            key: SigningKey::load(options, algo, output)?,
        })
    }

    /// The value of an attribute over `digest`: version 2, or 1 with `--rsa`.
    fn signature(&self, form: Form, digest: &[u8], output: &mut Output) -> Done<Vec<u8>> {
        output.err(format_args!("hash({}): {}", self.algo, hex::encode(digest)));
        let (version, value) = if self.options.version_1 {
            let mut signature = self.signature_1(digest, output)?.encode();
            let kind = match form {
                Form::Bound | Form::Immutable => TYPE_SIGNATURE,
                Form::Portable => TYPE_EVM_PORTABLE,
            };
            // evmctl changes the version here too, and so writes a value that nothing verifies.
            if form == Form::Immutable
                && let Some(version) = signature.first_mut()
            {
                *version = 3;
            }
            ("-v1", [&[kind], &signature[..]].concat())
        } else {
            let signature = SignatureV2 {
                algo: self.algo,
                key_id: self.key.id,
                signature: self.key.sign(self.algo, digest, output)?,
            };
            let value = match form {
                Form::Bound => ImaXattr::Signature(signature),
                Form::Portable => ImaXattr::EvmPortable(signature),
                // evmctl changes the version and signs the digest itself, as for version 2.
                Form::Immutable => ImaXattr::SignatureV3(SignatureV3(signature)),
            };
            ("", value.encode())
        };
        output.err(format_args!(
            "evm/ima signature{version}: {} bytes",
            value.len() - 1
        ));
        Ok(value)
    }

    fn signature_1(&self, digest: &[u8], output: &mut Output) -> Done<v1::Signature> {
        let algo = v1::DigestAlgorithm::new(self.algo).ok_or_else(|| {
            output.err(format_args!(
                "Signature version 1 does not support hash algo {}",
                self.algo
            ));
            Failed::ERROR
        })?;
        let rsa = self.key.rsa(output)?;
        let (modulus, exponent) = rsa.rsa_numbers().unwrap_or_default();
        let header = v1::Header {
            time: now(),
            algo,
            key_id: v1::PublicKey::new(&modulus, &exponent).key_id(),
        };
        let signed = header.signed_digest(digest);
        output.err(format_args!("sighash: {}", hex::encode(&signed)));
        let number = rsa
            .sign_bare(&signed)
            .map_err(|fault| output.fault(&fault))?;
        Ok(v1::Signature { header, number })
    }

    fn ima_sign(&self, path: &Path, output: &mut Output) -> Done {
        let digest = digest(path, self.algo, output)?;
        let value = self.signature(Form::Bound, &digest, output)?;
        output.out(format_args!("{}", hex::encode(&value)));
        if self.options.sigfile {
            let name = Place::sidecar(path);
            output.err(format_args!("Writing to {}", name.display()));
            file::write(&name, &value, 0o644, true).map_err(|fault| output.fault(&fault))?;
        }
        set(self.options, "ima", path, &value, output)
    }

    fn sign(&self, path: &Path, output: &mut Output) -> Done {
        if self.options.ima_signature {
            self.ima_sign(path, output)?;
        }
        if self.options.ima_hash {
            hash(path, self.algo, self.options, output)?;
        }
        let form = match (self.options.portable, self.options.immutable) {
            (true, _) => Form::Portable,
            (_, true) => Form::Immutable,
            _ => Form::Bound,
        };
        let digest =
            Covered::gather(path, form, self.options, output)?.digest(self.algo, output)?;
        let value = self.signature(form, &digest, output)?;
        output.out(format_args!("{}", hex::encode(&value)));
        set(self.options, "evm", path, &value, output)
    }
}

/// Seconds since 1970, as `SOURCE_DATE_EPOCH` says where it is set: signatures of version 1 hold the time.
fn now() -> u32 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_secs() as u32)
    })
}

fn digest(path: &Path, algo: HashAlgorithm, output: &mut Output) -> Done<Vec<u8>> {
    let found = regular(path, output)?;
    found
        .digest(DigestOf::Content, algo)
        .map_err(|fault| output.fault(&fault))
}

fn set(options: &Options, name: &str, path: &Path, value: &[u8], output: &mut Output) -> Done {
    if options.print_only {
        return Ok(());
    }
    xattr::write(path, &options.xattr(name), value).map_err(|fault| {
        output.err(format_args!("setxattr failed: {}", path.display()));
        output.fault(&fault)
    })
}

fn hash(path: &Path, algo: HashAlgorithm, options: &Options, output: &mut Output) -> Done {
    let digest = digest(path, algo, output)?;
    let value = ImaXattr::Digest { algo, digest }.encode();
    output.err_part(&format!("hash({algo}): "));
    output.out(format_args!("{}", hex::encode(&value)));
    set(options, "ima", path, &value, output)
}

/// `ima_hash`
pub fn ima_hash(options: &Options, output: &mut Output) -> Done {
    // evmctl ends differently here than where it signs.
    let algo = options.algorithm(output).map_err(|_| Failed::ERROR)?;
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    each(options, output, &|path, output| {
        hash(path, algo, options, output)
    })
}

/// `ima_sign`
pub fn ima_sign(options: &Options, output: &mut Output) -> Done {
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    let work = Work::new(options, output)?;
    each(options, output, &|path, output| work.ima_sign(path, output))
}

/// `sign`: security.evm.
pub fn sign(options: &Options, output: &mut Output) -> Done {
    if options.operands.is_empty() {
        return Err(options.missing(output));
    }
    let work = Work::new(options, output)?;
    each(options, output, &|path, output| work.sign(path, output))
}

/// `sign_hash`: each line of standard input with the signature of the digest it begins with.
pub fn sign_hash(options: &Options, output: &mut Output) -> Done {
    let mut work = Work::new(options, output)?;
    std::mem::take(output).print();
    let mut any = false;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| {
            output.fault(&file::unreadable(Path::new("standard input"), &error))
        })?;
        let digits = line.split([' ', ',', '\t']).next().unwrap_or_default();
        let value = if options.verity {
            let Some((name, digits)) = digits.split_once(':') else {
                output.err(format_args!("Missing/invalid fsverity hash algorithm"));
                continue;
            };
            let algo = HashAlgorithm::from_name(name);
            let signed = algo
                .zip(hex::decode(digits))
                .filter(|(algo, digest)| digest.len() == algo.digest_len());
            let signed = signed.and_then(|(algo, digest)| {
                v3_digest(V3_VERITY, algo, &digest).map(|digest| (algo, digest))
            });
            let Some((algo, digest)) = signed else {
                output.err(format_args!("Missing fsverity hash"));
                continue;
            };
            work.algo = algo;
            ImaXattr::Verity(SignatureV3(SignatureV2 {
                algo,
                key_id: work.key.id,
                signature: work.key.sign(algo, &digest, output)?,
            }))
            .encode()
        } else {
            let digest =
                hex::decode(digits).filter(|digest| digest.len() == work.algo.digest_len());
            let Some(digest) = digest else {
                output.err(format_args!(
                    "`{digits}` is no {} digest in hexadecimal",
                    work.algo
                ));
                return Err(Failed::ERROR);
            };
            work.signature(Form::Bound, &digest, output)?
        };
        any = true;
        output.out(format_args!("{line} {}", hex::encode(&value)));
        std::mem::take(output).print();
    }
    if any {
        Ok(())
    } else {
        Err(options.missing(output))
    }
}

/// `hmac`: the kernel makes these itself, with a key that is only in its keyring.
pub fn hmac(_: &Options, output: &mut Output) -> Done {
    output.err(format_args!(
        "hmac is not done here: the kernel writes HMACs itself once its EVM key is loaded. \
         Sign with -o for what is to hold on another machine."
    ));
    Err(Failed::ERROR)
}
