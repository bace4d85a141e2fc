//! evmctl's options, as `getopt_long` takes them: anywhere, short ones together, long ones abbreviated.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use ima::hash::HashAlgorithm;
use ima::measurement::Bank;
use ima::signature::KeyId;

use super::output::{Done, Failed, Output};

/// The options in evmctl's own words, as far as they are taken here.
pub const HELP: &str = "  \
  -a, --hashalgo     md5, sha1, rmd160, sha224, sha256, sha384, sha512, sm3, sha3-* (default: sha256)
  -s, --imasig       make IMA signature
  -d, --imahash      make IMA hash
  -f, --sigfile      store IMA signature in .sig file instead of xattr
      --xattr-user   store xattrs in user namespace (for testing purposes)
      --veritysig    sign an fs-verity file digest hash
      --rsa          use RSA key type and signing scheme v1
  -k, --key          path to signing key (default: /etc/keys/{privkey,pubkey}_evm.pem)
                     or a pkcs11 URI
      --keyid n      overwrite signature keyid with a 32-bit value in hex (for signing)
      --keyid-from-cert file
                     read keyid value from SKID of a x509 cert file
  -o, --portable     generate portable EVM signatures
  -p, --pass         password for encrypted signing key
  -r, --recursive    recurse into directories (sign)
  -t, --type         file types to fix 'fxm' (f: file)
                     x - skip fixing if both ima and evm xattrs exist (use with caution)
                     m - stay on the same filesystem (like 'find -xdev')
  -n                 print result to stdout instead of setting xattr
  -u, --uuid         use custom FS UUID for EVM (unspecified: from FS, empty: do not use)
      --smack        use extra SMACK xattrs for EVM
      --m32          force EVM hmac/signature for 32 bit target system
      --m64          force EVM hmac/signature for 64 bit target system
      --ino          use custom inode for EVM
      --uid          use custom UID for EVM
      --gid          use custom GID for EVM
      --mode         use custom Mode for EVM
      --generation   use custom Generation for EVM(unspecified: from FS, empty: use 0)
      --ima          use custom IMA signature for EVM
      --selinux      use custom Selinux label for EVM
      --caps         use custom Capabilities for EVM(unspecified: from FS, empty: do not use)
      --verify-sig   verify measurement list signatures
      --verify-bank  verify this bank only
      --pcrs         read PCRs from [hash-algorithm,]file
      --ignore-violations ignore ToMToU measurement violations
      --engine e     only pkcs11, which needs no engine here
  -v                 increase verbosity level
  -h, --help         display this help and exit

Environment variables:

EVMCTL_KEY_PASSWORD  : Private key password to use; do not use --pass option
";

/// Where a signature's file system UUID comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Uuid {
    /// From the file system.
    #[default]
    Filesystem,
    /// None is signed.
    Without,
    /// This one, which is looked at only where it is used.
    Given(String),
}

/// The options given.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // a flag each, as evmctl has them
pub struct Options {
    pub help: bool,
    pub version: bool,
    /// Command and operands.
    pub operands: Vec<OsString>,
    /// The usage of the command.
    pub usage: String,
    pub verbose: u8,
    pub ima_signature: bool,
    pub ima_hash: bool,
    pub print_only: bool,
    /// As given; looked at by the command that hashes.
    pub algorithm: Option<String>,
    /// `Some(None)` where it is to be asked for.
    pub password: Option<Option<Vec<u8>>>,
    pub sigfile: bool,
    pub uuid: Uuid,
    pub version_1: bool,
    pub key: Option<OsString>,
    pub key_id: Option<KeyId>,
    pub key_id_from: Option<PathBuf>,
    pub portable: bool,
    pub immutable: bool,
    pub recursive: bool,
    /// As given; it counts with `recursive` only.
    pub types: Option<String>,
    pub bits_32: bool,
    pub smack: bool,
    pub inode: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u16>,
    pub generation: Option<u32>,
    pub ima: Option<Vec<u8>>,
    pub selinux: Option<Vec<u8>>,
    /// `Some(None)` where no capabilities are to count.
    pub caps: Option<Option<Vec<u8>>>,
    pub verify_signatures: bool,
    pub user_xattrs: bool,
    pub ignore_violations: bool,
    pub verity: bool,
    pub pcr_files: Vec<(Bank, PathBuf)>,
    pub verify_bank: Option<Bank>,
    pub hmac_key: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Only written together with the option: `-pX`, `--pass=X`.
    Attached,
}

/// Long names, the short one of the same meaning, and whether there is a value. `inode` is evmctl's, `ino` what its help says.
const LONG: [(&str, Option<u8>, Takes); 42] = [
    ("help", Some(b'h'), Takes::Nothing),
    ("imasig", Some(b's'), Takes::Nothing),
    ("imahash", Some(b'd'), Takes::Nothing),
    ("hashalgo", Some(b'a'), Takes::Value),
    ("pass", Some(b'p'), Takes::Attached),
    ("sigfile", Some(b'f'), Takes::Nothing),
    ("uuid", Some(b'u'), Takes::Attached),
    ("rsa", None, Takes::Nothing),
    ("key", Some(b'k'), Takes::Value),
    ("type", Some(b't'), Takes::Value),
    ("recursive", Some(b'r'), Takes::Nothing),
    ("m32", None, Takes::Nothing),
    ("m64", None, Takes::Nothing),
    ("portable", Some(b'o'), Takes::Nothing),
    ("smack", None, Takes::Nothing),
    ("version", None, Takes::Nothing),
    ("inode", None, Takes::Value),
    ("ino", None, Takes::Value),
    ("uid", None, Takes::Value),
    ("gid", None, Takes::Value),
    ("mode", None, Takes::Value),
    ("generation", None, Takes::Value),
    ("ima", None, Takes::Value),
    ("selinux", None, Takes::Value),
    ("caps", None, Takes::Attached),
    ("verify-sig", None, Takes::Nothing),
    ("engine", None, Takes::Value),
    ("provider", None, Takes::Value),
    ("xattr-user", None, Takes::Nothing),
    ("ignore-violations", None, Takes::Nothing),
    ("pcrs", None, Takes::Value),
    ("verify-bank", None, Takes::Attached),
    ("keyid", None, Takes::Value),
    ("keyid-from-cert", None, Takes::Value),
    ("veritysig", None, Takes::Nothing),
    ("hwtpm", None, Takes::Nothing),
    ("hmackey", None, Takes::Value),
    ("v2", None, Takes::Nothing),
    ("v3", None, Takes::Nothing),
    ("-n", Some(b'n'), Takes::Nothing),
    ("-v", Some(b'v'), Takes::Nothing),
    ("-i", Some(b'i'), Takes::Nothing),
];

impl Options {
    /// What evmctl says when an operand is missing.
    pub fn missing(&self, output: &mut Output) -> Failed {
        output.err(format_args!("Parameters missing"));
        output.out(format_args!("usage: {}", self.usage));
        Failed::ERROR
    }

    /// Reads a command line.
    pub fn parse(arguments: Vec<OsString>, output: &mut Output) -> Done<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let bytes = argument.as_bytes();
            if bytes == b"--" {
                options.operands.extend(arguments);
                break;
            }
            if let Some(long) = bytes.strip_prefix(b"--") {
                let mut parts = long.splitn(2, |&byte| byte == b'=');
                let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                let attached = parts.next().map(<[u8]>::to_vec);
                let (name, takes) = long_option(&name, output)?;
                let value = match takes {
                    Takes::Nothing if attached.is_some() => {
                        let text = format!("option '--{name}' doesn't allow an argument");
                        return Err(wrong(&text, output));
                    }
                    Takes::Value if attached.is_none() => match arguments.next() {
                        Some(next) => Some(next.into_vec()),
                        None => {
                            let text = format!("option '--{name}' requires an argument");
                            return Err(wrong(&text, output));
                        }
                    },
                    _ => attached,
                };
                options.set(name, value, output)?;
            } else if bytes.len() > 1 && bytes.first() == Some(&b'-') {
                options.short(bytes.get(1..).unwrap_or_default(), &mut arguments, output)?;
            } else {
                options.operands.push(argument);
            }
        }
        Ok(options)
    }

    fn short(
        &mut self,
        mut letters: &[u8],
        arguments: &mut impl Iterator<Item = OsString>,
        output: &mut Output,
    ) -> Done {
        while let Some((letter, rest)) = letters.split_first() {
            let shown = char::from(*letter);
            let found = LONG.iter().find(|(_, short, _)| *short == Some(*letter));
            let Some((name, _, takes)) = found else {
                return Err(wrong(&format!("invalid option -- '{shown}'"), output));
            };
            let value = match takes {
                Takes::Nothing => {
                    self.set(name, None, output)?;
                    letters = rest;
                    continue;
                }
                _ if !rest.is_empty() => Some(rest.to_vec()),
                Takes::Attached => None,
                Takes::Value => match arguments.next() {
                    Some(next) => Some(next.into_vec()),
                    None => {
                        let text = format!("option requires an argument -- '{shown}'");
                        return Err(wrong(&text, output));
                    }
                },
            };
            return self.set(name, value, output);
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Option<Vec<u8>>, output: &mut Output) -> Done {
        let bytes = value.clone().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match name {
            "help" => self.help = true,
            "version" => self.version = true,
            "-v" => self.verbose = self.verbose.saturating_add(1),
            "-n" => self.print_only = true,
            "imasig" => self.ima_signature = true,
            "imahash" => self.ima_hash = true,
            "hashalgo" => self.algorithm = Some(text),
            "pass" => self.password = Some(value),
            "sigfile" => self.sigfile = true,
            "uuid" if value.is_none() => self.uuid = Uuid::Without,
            "uuid" => self.uuid = Uuid::Given(text),
            "rsa" => self.version_1 = true,
            "key" => self.key = Some(OsString::from_vec(bytes)),
            "type" => self.types = Some(text),
            "recursive" => self.recursive = true,
            "m32" => self.bits_32 = true,
            "m64" => self.bits_32 = false,
            "portable" if self.immutable => output.err(format_args!(
                "Portable and immutable options are exclusive, ignoring portable option."
            )),
            "portable" => self.portable = true,
            "-i" if self.portable => output.err(format_args!(
                "Portable and immutable options are exclusive, ignoring immutable option."
            )),
            "-i" => self.immutable = true,
            "smack" => self.smack = true,
            "inode" | "ino" => self.inode = Some(number(name, &text, output)?),
            "uid" => self.uid = Some(number(name, &text, output)?),
            "gid" => self.gid = Some(number(name, &text, output)?),
            "mode" => self.mode = Some(number(name, &text, output)?),
            "generation" if text.is_empty() => self.generation = Some(0),
            "generation" => self.generation = Some(number(name, &text, output)?),
            "ima" => {
                self.ima = Some(imactl::hex::decode(&text).ok_or_else(|| {
                    output.err(format_args!("--ima {text}: not hexadecimal"));
                    Failed(1)
                })?);
            }
            "selinux" => self.selinux = Some(bytes),
            "caps" => self.caps = Some(value.filter(|value| !value.is_empty())),
            "verify-sig" => self.verify_signatures = true,
            "engine" | "provider" if text == "pkcs11" => {}
            "engine" | "provider" => {
                output.err(format_args!(
                    "{name} {text} isn't available: keys are read without OpenSSL's engines and providers; \
                     a pkcs11: URI needs none"
                ));
                return Err(Failed(1));
            }
            "xattr-user" => self.user_xattrs = true,
            "ignore-violations" => self.ignore_violations = true,
            "pcrs" => {
                let (bank, file) = match text.split_once(',') {
                    Some((bank, file)) => (bank, file),
                    None => ("sha1", text.as_str()),
                };
                self.pcr_files
                    .push((self::bank(bank, output)?, file.into()));
            }
            "verify-bank" => self.verify_bank = Some(bank(&text, output)?),
            "keyid" => {
                let digits = text.strip_prefix("0x").unwrap_or(&text);
                match u32::from_str_radix(digits, 16) {
                    Ok(id) if id != 0 => self.key_id = Some(KeyId(id.to_be_bytes())),
                    _ => {
                        output.err(format_args!("Invalid keyid value."));
                        return Err(Failed(1));
                    }
                }
            }
            "keyid-from-cert" => self.key_id_from = Some(PathBuf::from(OsStr::from_bytes(&bytes))),
            "veritysig" => self.verity = true,
            "hmackey" => self.hmac_key = Some(PathBuf::from(OsStr::from_bytes(&bytes))),
            // Not in 1.6.2: what is made without it anyway.
            "v2" => {}
            "v3" => {
                output.err(format_args!(
                    "--v3: signatures of version 3 on files are not made, as no kernel before 7.1 takes them. \
                     Sign without --v3, which makes version 2; sign_hash --veritysig makes version 3 of fs-verity digests."
                ));
                return Err(Failed(1));
            }
            // Of newer releases: which TPM is looked at by itself here.
            "hwtpm" => {}
            _ => return Err(wrong(&format!("unrecognized option '--{name}'"), output)),
        }
        Ok(())
    }

    /// The hash algorithm, by the kernel's name.
    pub fn algorithm(&self, output: &mut Output) -> Done<HashAlgorithm> {
        let name = self.algorithm.as_deref().unwrap_or("sha256");
        HashAlgorithm::from_name(name)
            .filter(|algo| algo.is_computable())
            .ok_or_else(|| {
                output.err(format_args!("Unknown hash algo: {name}"));
                Failed(1)
            })
    }

    /// Whether `-t` has that letter, below a directory.
    pub fn has_type(&self, letter: char) -> bool {
        self.recursive
            && self
                .types
                .as_deref()
                .is_some_and(|types| types.contains(letter))
    }

    /// The name of an attribute, in the namespace asked for.
    pub fn xattr(&self, name: &str) -> String {
        let namespace = if self.user_xattrs { "user" } else { "security" };
        format!("{namespace}.{name}")
    }
}

/// The option of that name or of the only one that begins so.
fn long_option(name: &str, output: &mut Output) -> Done<(&'static str, Takes)> {
    let options = || {
        LONG.iter()
            .filter(|(option, _, _)| !option.starts_with('-'))
            .map(|(option, _, takes)| (*option, *takes))
    };
    if let Some(found) = options().find(|(option, _)| *option == name) {
        return Ok(found);
    }
    let candidates: Vec<_> = options()
        .filter(|(option, _)| option.starts_with(name))
        .collect();
    match candidates.as_slice() {
        [] => Err(wrong(&format!("unrecognized option '--{name}'"), output)),
        [only] => Ok(*only),
        several => {
            let several: Vec<String> = several
                .iter()
                .map(|(option, _)| format!("'--{option}'"))
                .collect();
            let text = format!(
                "option '--{name}' is ambiguous; possibilities: {}",
                several.join(" ")
            );
            Err(wrong(&text, output))
        }
    }
}

fn wrong(text: &str, output: &mut Output) -> Failed {
    output.err(format_args!("evmctl: {text}"));
    Failed(1)
}

fn number<T: std::str::FromStr>(name: &str, text: &str, output: &mut Output) -> Done<T> {
    text.parse().map_err(|_| {
        output.err(format_args!(
            "--{name} {text}: not a decimal number that fits"
        ));
        Failed(1)
    })
}

fn bank(name: &str, output: &mut Output) -> Done<Bank> {
    Bank::ALL
        .into_iter()
        .find(|bank| bank.name() == name)
        .ok_or_else(|| {
            output.err(format_args!("Unknown algorithm '{name}'"));
            Failed(1)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failed> {
        let arguments = line.split(' ').map(OsString::from).collect();
        Options::parse(arguments, &mut Output::default())
    }

    #[test]
    fn options_as_getopt_takes_them() {
        let options = parse("ima_sign file -rfk key --hash sha512 -pword --pass -u -- -x").unwrap();
        assert!(options.recursive && options.sigfile);
        assert_eq!(options.key, Some("key".into()));
        assert_eq!(options.algorithm.as_deref(), Some("sha512"));
        assert_eq!(options.password, Some(None), "the last one counts");
        assert_eq!(options.uuid, Uuid::Without);
        assert_eq!(options.operands, ["ima_sign", "file", "-x"]);
        let options = parse("--keyid=aabbccdd --pcrs sha256,a --pcrs b --caps --ima 0aFf").unwrap();
        assert_eq!(options.key_id, Some(KeyId([0xaa, 0xbb, 0xcc, 0xdd])));
        assert_eq!(
            options.pcr_files,
            [(Bank::Sha256, "a".into()), (Bank::Sha1, "b".into())]
        );
        assert_eq!(options.caps, Some(None));
        assert_eq!(options.ima.as_deref(), Some(&[0x0a, 0xff][..]));
        for bad in [
            "--nosuch",
            "-z",
            "-k",
            "--key",
            "--i",
            "--sigfile=x",
            "--keyid 0",
            "--keyid x",
            "--engine gost",
            "--uid x",
            "--mode 70000",
            "--ima abc",
            "--pcrs sha0,f",
            "--v3",
            "--v2=x",
        ] {
            assert_eq!(parse(bad).unwrap_err(), Failed(1), "{bad}");
        }
        assert!(parse("--engine pkcs11 --hwtpm -v --v2").is_ok());
    }
}
