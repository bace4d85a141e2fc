//! `ima_sign`, `ima_hash`, `sign`, `sign_hash`, `hmac`.

use std::io::BufRead as _;
use std::path::Path;

use ima::hash::HashAlgorithm;
use ima::signature::{ImaXattr, SignatureV2, SignatureV3, V3_VERITY, v3_digest};
use imactl::digest::Over;
use imactl::sign::Place;
use imactl::{file, hex, xattr};
use sha1::{Digest as _, Sha1};

use super::evm::{Covered, Form};
use super::files::{each, regular};
use super::keys::{SigningKey, version_1};
use super::options::Options;
use super::output::{Done, Failed, Said};

/// What signs: the key and the algorithm, read once for all files.
struct Work<'a> {
    options: &'a Options,
    algo: HashAlgorithm,
    key: SigningKey,
}

impl<'a> Work<'a> {
    fn new(options: &'a Options, said: &mut Said) -> Done<Self> {
        let algo = options.algorithm(said)?;
        Ok(Self {
            options,
            algo,
            key: SigningKey::load(options, algo, said)?,
        })
    }

    /// The value of an attribute over `digest`: version 2, or 1 with `--rsa`, without the byte of its type.
    fn signature(&self, digest: &[u8], said: &mut Said) -> Done<Vec<u8>> {
        said.err(format_args!("hash({}): {}", self.algo, hex::encode(digest)));
        let signature = if self.options.version_1 {
            self.signature_1(digest, said)?
        } else {
            let value = ImaXattr::Signature(SignatureV2 {
                algo: self.algo,
                key_id: self.key.id,
                signature: self.key.sign(self.algo, digest, said)?,
            })
            .encode();
            value.get(1..).unwrap_or_default().to_vec()
        };
        let version = if self.options.version_1 { "-v1" } else { "" };
        said.err(format_args!(
            "evm/ima signature{version}: {} bytes",
            signature.len()
        ));
        Ok(signature)
    }

    /// `struct signature_hdr` (include/linux/digsig.h): version, time, algorithm, hash, key id, one number: its length in bits
    /// and itself.
    fn signature_1(&self, digest: &[u8], said: &mut Said) -> Done<Vec<u8>> {
        let hash = match self.algo {
            HashAlgorithm::Sha1 => 0,
            HashAlgorithm::Sha256 => 1,
            other => {
                said.err(format_args!(
                    "Signature version 1 does not support hash algo {other}"
                ));
                return Err(Failed(super::ERROR));
            }
        };
        let rsa = self.key.rsa(said)?;
        let (modulus, exponent) = rsa.rsa_numbers().unwrap_or_default();
        let (_, id) = version_1(&modulus, &exponent);
        let mut value = vec![1];
        value.extend(now().to_le_bytes());
        value.extend([0, hash]);
        value.extend(id);
        value.push(1);
        let signed = Sha1::new()
            .chain_update(digest)
            .chain_update(&value)
            .finalize();
        said.err(format_args!("sighash: {}", hex::encode(&signed)));
        let signature = rsa
            .sign_bare(&signed.into())
            .map_err(|fault| said.fault(&fault))?;
        value.extend(((signature.len() * 8) as u16).to_be_bytes());
        value.extend(signature);
        Ok(value)
    }

    fn ima_sign(&self, path: &Path, said: &mut Said) -> Done {
        let digest = digest(path, self.algo, said)?;
        let mut value = vec![3];
        value.extend(self.signature(&digest, said)?);
        said.out(format_args!("{}", hex::encode(&value)));
        if self.options.sigfile {
            let name = Place::sidecar(path);
            said.err(format_args!("Writing to {}", name.display()));
            file::write(&name, &value, 0o644, true).map_err(|fault| said.fault(&fault))?;
        }
        set(self.options, "ima", path, &value, said)
    }

    fn sign(&self, path: &Path, said: &mut Said) -> Done {
        if self.options.ima_signature {
            self.ima_sign(path, said)?;
        }
        if self.options.ima_hash {
            hash(path, self.algo, self.options, said)?;
        }
        let form = match (self.options.portable, self.options.immutable) {
            (true, _) => Form::Portable,
            (_, true) => Form::Immutable,
            _ => Form::Bound,
        };
        let digest = Covered::gather(path, form, self.options, said)?.digest(self.algo, said)?;
        let mut value = vec![if form == Form::Portable { 5 } else { 3 }];
        value.extend(self.signature(&digest, said)?);
        if form == Form::Immutable
            && let Some(version) = value.get_mut(1)
        {
            *version = 3;
        }
        said.out(format_args!("{}", hex::encode(&value)));
        set(self.options, "evm", path, &value, said)
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

fn digest(path: &Path, algo: HashAlgorithm, said: &mut Said) -> Done<Vec<u8>> {
    let found = regular(path, said)?;
    found
        .digest(Over::Content, algo)
        .map_err(|fault| said.fault(&fault))
}

fn set(options: &Options, name: &str, path: &Path, value: &[u8], said: &mut Said) -> Done {
    if options.print_only {
        return Ok(());
    }
    xattr::write(path, &options.xattr(name), value).map_err(|fault| {
        said.err(format_args!("setxattr failed: {}", path.display()));
        said.fault(&fault)
    })
}

fn hash(path: &Path, algo: HashAlgorithm, options: &Options, said: &mut Said) -> Done {
    let digest = digest(path, algo, said)?;
    let value = ImaXattr::Digest { algo, digest }.encode();
    said.err_part(&format!("hash({algo}): "));
    said.out(format_args!("{}", hex::encode(&value)));
    set(options, "ima", path, &value, said)
}

/// `ima_hash`
pub fn ima_hash(options: &Options, said: &mut Said) -> Done {
    // evmctl ends differently here than where it signs.
    let algo = options.algorithm(said).map_err(|_| Failed(super::ERROR))?;
    if options.operands.is_empty() {
        return Err(super::missing("ima_hash", said));
    }
    each("ima_hash", options, said, &|path, said| {
        hash(path, algo, options, said)
    })
}

/// `ima_sign`
pub fn ima_sign(options: &Options, said: &mut Said) -> Done {
    if options.operands.is_empty() {
        return Err(super::missing("ima_sign", said));
    }
    let work = Work::new(options, said)?;
    each("ima_sign", options, said, &|path, said| {
        work.ima_sign(path, said)
    })
}

/// `sign`: security.evm.
pub fn sign(options: &Options, said: &mut Said) -> Done {
    if options.operands.is_empty() {
        return Err(super::missing("sign", said));
    }
    let work = Work::new(options, said)?;
    each("sign", options, said, &|path, said| work.sign(path, said))
}

/// `sign_hash`: each line of standard input with the signature of the digest it begins with.
pub fn sign_hash(options: &Options, said: &mut Said) -> Done {
    let mut work = Work::new(options, said)?;
    std::mem::take(said).print();
    let mut any = false;
    for line in std::io::stdin().lock().lines() {
        let line = line
            .map_err(|error| said.fault(&file::unreadable(Path::new("standard input"), &error)))?;
        let digits = line.split([' ', ',', '\t']).next().unwrap_or_default();
        let value = if options.verity {
            let Some((name, digits)) = digits.split_once(':') else {
                said.err(format_args!("Missing/invalid fsverity hash algorithm"));
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
                said.err(format_args!("Missing fsverity hash"));
                continue;
            };
            work.algo = algo;
            ImaXattr::Verity(SignatureV3(SignatureV2 {
                algo,
                key_id: work.key.id,
                signature: work.key.sign(algo, &digest, said)?,
            }))
            .encode()
        } else {
            let digest =
                hex::decode(digits).filter(|digest| digest.len() == work.algo.digest_len());
            let Some(digest) = digest else {
                said.err(format_args!(
                    "`{digits}` is no {} digest in hexadecimal",
                    work.algo
                ));
                return Err(Failed(super::ERROR));
            };
            let mut value = vec![3];
            value.extend(work.signature(&digest, said)?);
            value
        };
        any = true;
        said.out(format_args!("{line} {}", hex::encode(&value)));
        std::mem::take(said).print();
    }
    if any {
        Ok(())
    } else {
        Err(super::missing("sign_hash", said))
    }
}

/// `hmac`: the kernel makes these itself, with a key that is only in its keyring.
pub fn hmac(_: &Options, said: &mut Said) -> Done {
    said.err(format_args!(
        "hmac is not done here: the kernel writes HMACs itself once its EVM key is loaded. \
         Sign with -o for what is to hold on another machine."
    ));
    Err(Failed(super::ERROR))
}
