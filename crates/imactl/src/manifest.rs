//! Manifests: what is to be signed, without the files. They are made where the files are, signed where the key is, and applied
//! where the files are again.
//!
//! A manifest is lines of JSON in UTF-8. The first says how the digests were made:
//!
//! ```json
//! {"manifest":"imactl","version":1,"algorithm":"sha256","over":"content"}
//! ```
//!
//! `over` is `content`, or `verity` for the digests of fs-verity. Each further line is a regular file, sorted by path:
//!
//! ```json
//! {"path":"usr/bin/true","size":35664,"digest":"9d5f…","ima":"030204…"}
//! ```
//!
//! The path is relative to the root; a percent sign and bytes that are not UTF-8 stand as `%25`, `%ff`. A file with several names
//! stands under the first. `ima` is the value of `security.ima`, in hexadecimal, and missing until the manifest is signed.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ima::certificate::Certificate;
use ima::fault::{Cause, Code, Fault};
use ima::hash::HashAlgorithm;
use ima::signature::ImaXattr;
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::digest::DigestOf;
use crate::hex;
use crate::percent::{escape, unescape};
use crate::select::{self, Appraisal};
use crate::sign::{ImaValue, Place};
use crate::tree::{Content, Kind, Tree};
use crate::verify::{NEWEST, Verdict, judge};
use crate::xattr::SECURITY_IMA;

/// The longest manifest that is read, in bytes: a million files with RSA-4096 signatures have 1.2 GB.
const MAX_MANIFEST: u64 = 4 << 30;

const VERSION: u32 = 1;

/// What is to be signed, or is signed already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The hash algorithm of all digests.
    pub algo: HashAlgorithm,
    /// What the digests are over.
    pub over: DigestOf,
    /// The files, sorted by path.
    pub files: Vec<File>,
}

/// A file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path below the root, in bytes.
    pub path: Vec<u8>,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Vec<u8>,
    /// The value of `security.ima`, once it is signed.
    pub ima: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    manifest: String,
    version: u32,
    algorithm: String,
    over: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    size: u64,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ima: Option<String>,
}

impl Manifest {
    /// The digests of a tree's regular files, or of those that `appraisal` has appraised, each once. `progress` is called once a
    /// file.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::FileChanged`], [`Code::SigningFailed`] for an algorithm that is not signed.
    pub fn of_tree(
        tree: &Tree,
        appraisal: Option<&Appraisal>,
        over: DigestOf,
        algo: HashAlgorithm,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Self> {
        if !crate::key::SIGNED.contains(&algo) {
            crate::key::check_digest(algo, &[])?;
        }
        let names = tree.names_by_inode();
        let files: Vec<Option<File>> = names
            .par_iter()
            .map(|(index, names)| {
                let inode = tree.inode(*index);
                let Kind::File(content) = &inode.kind else {
                    return Ok(None);
                };
                progress();
                if let Some(appraisal) = appraisal {
                    let head = content.head(select::HEAD)?;
                    // Any of its names may be the one that a rule is about.
                    let appraised = names.iter().any(|path| {
                        let file = select::File::of(path, inode, &head);
                        appraisal.appraised_by(&file).is_some()
                    });
                    if !appraised {
                        return Ok(None);
                    }
                }
                Ok(Some(File {
                    path: names.first().map_or_else(Vec::new, |name| name.to_vec()),
                    size: content.len(),
                    digest: content.digest(over, algo)?,
                    ima: None,
                }))
            })
            .collect::<Result<_>>()?;
        let mut files: Vec<File> = files.into_iter().flatten().collect();
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { algo, over, files })
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`], [`Code::ManifestMalformed`].
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = crate::file::read_bounded(path, MAX_MANIFEST)?;
        Self::parse(&bytes).map_err(|fault| crate::file::in_file(fault, path))
    }

    /// Refuses a manifest of no files: with it nothing would be signed, compared or applied, and no error would say so.
    ///
    /// # Errors
    ///
    /// [`Code::ManifestMalformed`]
    pub fn with_files(self) -> Result<Self> {
        if self.files.is_empty() {
            return Err(Fault::new(Code::ManifestMalformed, "it has no files")
                .because(Cause::EMPTY_MANIFEST));
        }
        Ok(self)
    }

    /// Reads a manifest from its bytes.
    ///
    /// # Errors
    ///
    /// [`Code::ManifestMalformed`] with the line, for everything that is not exactly as described: unknown fields, digests
    /// of another length, paths that lead out of the root, that stand twice or out of order.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut lines = bytes.split(|&byte| byte == b'\n').enumerate();
        let wrong = |line: usize, why: String| {
            let line = line.saturating_add(1);
            Fault::new(Code::ManifestMalformed, format!("line {line}: {why}"))
        };
        let header: Header = lines
            .next()
            .and_then(|(_, line)| serde_json::from_slice(line).ok())
            .ok_or_else(|| wrong(0, "the first line is not that of a manifest".to_owned()))?;
        if header.manifest != "imactl" || header.version != VERSION {
            return Err(wrong(
                0,
                format!(
                    "a manifest of version {} by `{}`; this reads version {VERSION} by `imactl`",
                    header.version, header.manifest
                ),
            ));
        }
        let algo: HashAlgorithm = header
            .algorithm
            .parse()
            .map_err(|error: ima::hash::UnknownHash| wrong(0, error.to_string()))?;
        if !crate::key::SIGNED.contains(&algo) {
            return Err(wrong(0, format!("digests of {algo}, which are not signed")));
        }
        let over = match &*header.over {
            "content" => DigestOf::Content,
            "verity" => DigestOf::Verity,
            other => return Err(wrong(0, format!("digests over `{other}`"))),
        };
        let mut files: Vec<File> = Vec::new();
        for (number, text) in lines {
            // The last line ends too.
            if text.is_empty() && number == bytes.iter().filter(|&&byte| byte == b'\n').count() {
                break;
            }
            let line: Line =
                serde_json::from_slice(text).map_err(|error| wrong(number, error.to_string()))?;
            let path = unescape(&line.path)
                .filter(|path| is_inside(path))
                .ok_or_else(|| {
                    wrong(
                        number,
                        format!("no path below the root: {}", line.path.escape_debug()),
                    )
                })?;
            if files.last().is_some_and(|before| before.path >= path) {
                return Err(wrong(
                    number,
                    "the paths are not sorted, or one stands twice".to_owned(),
                ));
            }
            let digest = hex::decode(&line.digest)
                .filter(|digest| digest.len() == algo.digest_len())
                .ok_or_else(|| wrong(number, format!("no digest of {algo}")))?;
            let ima = match line.ima {
                None => None,
                Some(value) => Some(
                    hex::decode(&value)
                        .ok_or_else(|| wrong(number, "ima is not hexadecimal".to_owned()))?,
                ),
            };
            files.push(File {
                path,
                size: line.size,
                digest,
                ima,
            });
        }
        Ok(Self { algo, over, files })
    }

    /// The manifest in bytes.
    ///
    /// # Errors
    ///
    /// None; JSON of these values can always be written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let header = Header {
            manifest: "imactl".to_owned(),
            version: VERSION,
            algorithm: self.algo.name().to_owned(),
            over: match self.over {
                DigestOf::Content => "content".to_owned(),
                DigestOf::Verity => "verity".to_owned(),
            },
        };
        let failed = |error: serde_json::Error| {
            Fault::new(Code::OutputUnwritable, format!("the manifest: {error}"))
        };
        let mut bytes = serde_json::to_vec(&header).map_err(failed)?;
        bytes.push(b'\n');
        for file in &self.files {
            let line = Line {
                path: escape(&file.path),
                size: file.size,
                digest: hex::encode(&file.digest),
                ima: file.ima.as_deref().map(hex::encode),
            };
            serde_json::to_writer(&mut bytes, &line).map_err(failed)?;
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// Writes the manifest to a file, beside its final name first.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut output = crate::file::Output::create(path)?;
        output
            .file()
            .write_all(&self.encode()?)
            .map_err(|error| crate::file::unwritable(path, &error))?;
        output.finish(0o644, true)
    }

    /// Signs every file on all cores. `progress` is called once a file.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] if `mark` is for other digests than these, [`Code::SigningFailed`].
    pub fn sign(&mut self, mark: &ImaValue, progress: &(dyn Fn() + Sync)) -> Result<()> {
        if mark.over() != self.over || mark.algo() != self.algo {
            return Err(
                Fault::new(Code::Usage, "the manifest has other digests").because(
                    Cause::MANIFEST_OF_OTHER_DIGESTS
                        .with(&[&self.algo.to_string(), &format!("{:?}", self.over)]),
                ),
            );
        }
        self.files.par_iter_mut().try_for_each(|file| {
            file.ima = Some(mark.value(&file.digest)?);
            progress();
            Ok(())
        })
    }

    /// Whether all signatures are of version 3.
    #[must_use]
    pub fn is_version_3(&self) -> bool {
        let values = self.files.iter().filter_map(|file| file.ima.as_deref());
        values
            .map(ImaXattr::parse)
            .all(|value| matches!(value, Ok(ImaXattr::SignatureV3(_))))
    }

    /// Checks that every file is signed by the key of one of these certificates.
    ///
    /// # Errors
    ///
    /// [`Code::VerificationFailed`] with the first that is not.
    pub fn check(&self, certificates: &[Certificate]) -> Result<()> {
        self.files.par_iter().try_for_each(|file| {
            let digest = |over, algo| {
                if (over, algo) == (self.over, self.algo) {
                    Ok(file.digest.clone())
                } else {
                    Err(Fault::new(Code::VerificationFailed, shown(&file.path))
                        .because(Cause::MANIFEST_SIGNATURE_OF_OTHER_DIGEST))
                }
            };
            let verdict = judge(file.ima.as_deref(), certificates, Some(NEWEST), &digest)?;
            match verdict {
                Verdict::Good(_) | Verdict::GoodV3(_) | Verdict::GoodVerity(_) => Ok(()),
                other => Err(Fault::new(
                    Code::VerificationFailed,
                    format!("{}: {other}", shown(&file.path)),
                )
                .because(Cause::MANIFEST_SIGNATURE_BAD)),
            }
        })
    }

    /// Puts the signatures onto a tree, of which an image is made then.
    ///
    /// # Errors
    ///
    /// [`Code::ManifestMalformed`] for a file that is not signed, [`Code::FileChanged`] for one that is not as it was;
    /// nothing is changed then.
    pub fn apply_to_tree(&self, tree: &mut Tree, progress: &(dyn Fn() + Sync)) -> Result<()> {
        self.files.par_iter().try_for_each(|file| {
            file.value()?;
            let content = match tree.get(&file.path).map(|inode| &inode.kind) {
                Some(Kind::File(content)) => content,
                _ => return Err(changed(&file.path, "it is not there, or no regular file")),
            };
            self.compare(file, content)?;
            progress();
            Ok(())
        })?;
        for file in &self.files {
            if let Some(inode) = tree.get_mut(&file.path) {
                let value = file.value()?.to_vec();
                inode.xattrs.insert(SECURITY_IMA.as_bytes().to_vec(), value);
            }
        }
        Ok(())
    }

    /// Puts the signatures onto the files of a directory of this machine. Symbolic links are not followed, and nothing outside
    /// `root` is touched.
    ///
    /// # Errors
    ///
    /// [`Code::ManifestMalformed`] for a file that is not signed, [`Code::InputUnreadable`] and [`Code::FileChanged`] for
    /// one that is not as it was: nothing is written then. [`Code::XattrUnwritable`] or [`Code::OutputUnwritable`] if one
    /// cannot be written; those before it have their signatures.
    pub fn apply(&self, root: &Path, place: Place, progress: &(dyn Fn() + Sync)) -> Result<()> {
        let directory = rustix::fs::open(
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| crate::file::unreadable(root, &errno.into()))?;
        let open = |file: &File| -> Result<(std::fs::File, PathBuf)> {
            let path = Path::new(std::ffi::OsStr::from_bytes(&file.path));
            let shown = root.join(path);
            let open = rustix::fs::openat2(
                &directory,
                path,
                // A pipe must not be waited for.
                OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            )
            .map_err(|errno| crate::file::unreadable(&shown, &errno.into()))?;
            Ok((open.into(), shown))
        };
        self.files.par_iter().try_for_each(|file| {
            file.value()?;
            let (open, shown) = open(file)?;
            self.compare_open(file, &open, &shown)?;
            progress();
            Ok(())
        })?;
        self.files.par_iter().try_for_each(|file| {
            let (open, shown) = open(file)?;
            match place {
                Place::Xattr => file.put(&open, &shown),
                Place::Sidecar => place.write(&shown, file.value()?),
            }
        })
    }

    /// Puts the signature of one of its files onto this open file, called `shown` in messages, whatever its path.
    ///
    /// # Errors
    ///
    /// [`Code::ManifestMalformed`] for a file that is not signed, [`Code::InputUnreadable`] and [`Code::FileChanged`] for
    /// one that is not as it was, [`Code::XattrUnwritable`].
    pub fn apply_to_file(&self, file: &File, open: &std::fs::File, shown: &Path) -> Result<()> {
        self.compare_open(file, open, shown)?;
        file.put(open, shown)
    }

    fn compare_open(&self, file: &File, open: &std::fs::File, shown: &Path) -> Result<()> {
        let meta = open
            .metadata()
            .map_err(|error| crate::file::unreadable(shown, &error))?;
        if !meta.is_file() {
            return Err(changed(&file.path, "it is not a regular file any more"));
        }
        let content = Content::Host {
            path: by_descriptor(open),
            len: meta.len(),
        };
        self.compare(file, &content)
    }

    /// Whether the content is what the manifest has the digest of.
    fn compare(&self, file: &File, content: &Content) -> Result<()> {
        if content.len() != file.size {
            return Err(changed(
                &file.path,
                &format!("it has {} bytes and had {}", content.len(), file.size),
            ));
        }
        if content.digest(self.over, self.algo)? != file.digest {
            return Err(changed(&file.path, "its content is another"));
        }
        Ok(())
    }
}

impl File {
    /// Writes `security.ima` of the open file.
    fn put(&self, open: &std::fs::File, shown: &Path) -> Result<()> {
        Place::Xattr
            .write(&by_descriptor(open), self.value()?)
            .map_err(|fault| crate::file::in_file(fault, shown))
    }

    fn value(&self) -> Result<&[u8]> {
        self.ima.as_deref().ok_or_else(|| {
            Fault::new(Code::ManifestMalformed, shown(&self.path))
                .because(Cause::MANIFEST_NOT_SIGNED)
        })
    }
}

/// The open file under a name that can be opened again.
fn by_descriptor(file: &std::fs::File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn changed(path: &[u8], change: &str) -> Fault {
    Fault::new(Code::FileChanged, shown(path))
        .because(Cause::CHANGED_SINCE_MANIFEST.with(&[change]))
}

fn shown(path: &[u8]) -> String {
    escape(path).escape_debug().to_string()
}

/// Whether a path can only lead to something below where it starts, links aside.
fn is_inside(path: &[u8]) -> bool {
    !path.is_empty()
        && !path.contains(&0)
        && path
            .split(|&byte| byte == b'/')
            .all(|part| !part.is_empty() && part != b"." && part != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Inode;

    fn file(content: &[u8]) -> Inode {
        Inode::new(Kind::File(Content::Bytes(content.into())), 0o755)
    }

    fn manifest(tree: &Tree) -> Manifest {
        Manifest::of_tree(tree, None, DigestOf::Content, HashAlgorithm::Sha256, &|| ()).unwrap()
    }

    #[test]
    fn a_manifest_written_is_the_same_read() {
        let mut tree = Tree::new();
        for name in [
            &b"a"[..],
            b"dir/b",
            b"100%",
            b"\xff\xfe",
            b"new\nline",
            "ünï".as_bytes(),
        ] {
            tree.insert(name, file(name)).unwrap();
        }
        tree.link(b"another", b"a").unwrap();
        tree.insert(b"link", Inode::new(Kind::Symlink(b"a".to_vec()), 0o777))
            .unwrap();
        let mut made = manifest(&tree);
        assert_eq!(made.files.len(), 6);
        let mut names: Vec<_> = made.files.iter().map(|file| file.path.clone()).collect();
        assert!(names.is_sorted());
        names.dedup();
        assert_eq!(names.len(), 6);
        assert_eq!(Manifest::parse(&made.encode().unwrap()).unwrap(), made);
        let fault = made.apply_to_tree(&mut tree, &|| ()).unwrap_err();
        assert_eq!(fault.code(), Code::ManifestMalformed);
        made.sign(&ImaValue::Digest(HashAlgorithm::Sha256), &|| ())
            .unwrap();
        assert_eq!(Manifest::parse(&made.encode().unwrap()).unwrap(), made);
        made.apply_to_tree(&mut tree, &|| ()).unwrap();
        let value = tree.get(b"\xff\xfe").unwrap().xattrs[&b"security.ima"[..]].clone();
        assert_eq!(value[..2], [4, 4]);
        tree.insert(b"dir/b", file(b"dir/c")).unwrap();
        let fault = made.apply_to_tree(&mut tree, &|| ()).unwrap_err();
        assert_eq!(fault.code(), Code::FileChanged);
        let wrong = made.sign(&ImaValue::Digest(HashAlgorithm::Sha512), &|| ());
        assert_eq!(wrong.unwrap_err().code(), Code::Usage);
    }

    #[test]
    fn refusals() {
        let head = r#"{"manifest":"imactl","version":1,"algorithm":"sha256","over":"content"}"#;
        let line = |path: &str| {
            format!(
                r#"{{"path":"{path}","size":0,"digest":"{}"}}"#,
                "00".repeat(32)
            )
        };
        let good = format!("{head}\n{}\n{}\n", line("a"), line("b"));
        assert_eq!(Manifest::parse(good.as_bytes()).unwrap().files.len(), 2);
        for (name, text) in [
            ("empty", String::new()),
            ("text", "hello\n".to_owned()),
            ("another version", head.replace(":1,", ":2,") + "\n"),
            ("another maker", head.replace("imactl", "other") + "\n"),
            ("no such hash", head.replace("sha256", "sha9") + "\n"),
            ("weak digests", head.replace("sha256", "md5") + "\n"),
            (
                "over something else",
                head.replace("content", "moon") + "\n",
            ),
            ("an unknown field", head.replace('}', r#","x":1}"#) + "\n"),
            ("up", format!("{head}\n{}\n", line("../etc/passwd"))),
            (
                "up, escaped",
                format!("{head}\n{}\n", line("%2e%2e/etc/passwd")),
            ),
            ("absolute", format!("{head}\n{}\n", line("/etc/passwd"))),
            ("NUL", format!("{head}\n{}\n", line("a%00"))),
            ("no path", format!("{head}\n{}\n", line(""))),
            ("a bad escape", format!("{head}\n{}\n", line("a%zz"))),
            ("twice", format!("{head}\n{}\n{}\n", line("a"), line("a"))),
            (
                "twice, escaped",
                format!("{head}\n{}\n{}\n", line("a"), line("%61")),
            ),
            (
                "unsorted",
                format!("{head}\n{}\n{}\n", line("b"), line("a")),
            ),
            ("an empty line", format!("{head}\n\n{}\n", line("a"))),
            (
                "a short digest",
                format!("{head}\n{}\n", line("a").replace("00\"}", "\"}")),
            ),
            ("cut", good[..good.len() - 10].to_owned()),
        ] {
            let fault = Manifest::parse(text.as_bytes()).unwrap_err();
            assert_eq!(fault.code(), Code::ManifestMalformed, "{name}: {fault}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            text in "[{}\":,a-z0-9%\\\\\\n]{0,200}",
        ) {
            let _ = Manifest::parse(&bytes);
            let head = r#"{"manifest":"imactl","version":1,"algorithm":"sha1","over":"content"}"#;
            let _ = Manifest::parse(format!("{head}\n{text}").as_bytes());
        }
    }
}
