//! The files that packages brought onto a system, by the records of dpkg or rpm.
//!
//! dpkg keeps them in text files (`var/lib/dpkg`): the names of each package's files in `info/PACKAGE.list`, their MD5 digests
//! in `info/PACKAGE.md5sums`, those of configuration files in `status`, and names that were changed for another package's
//! sake in `diversions` (dpkg-divert(1)). The control scripts lie in `info` too, and dpkg executes them by their names. rpm is
//! asked itself.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ima::fault::{Code, Fault};
use ima::hash::HashAlgorithm;

use crate::file::read_bounded;
use crate::{Result, hex};

const DPKG: &str = "var/lib/dpkg";
/// Where rpm keeps its database: by default, and on systems whose /usr is replaced as a whole.
const RPM: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];
const MAX_TEXT: u64 = 256 << 20;
/// The control scripts that dpkg and debconf execute.
const SCRIPTS: [&str; 5] = ["preinst", "postinst", "prerm", "postrm", "config"];

/// What a package manager recorded of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The algorithm.
    pub algo: HashAlgorithm,
    /// The digest.
    pub digest: Vec<u8>,
}

impl Recorded {
    /// A digest in hexadecimal, whose length determines the algorithm, as in rpm and dpkg.
    fn parse(hex: &[u8]) -> Option<Self> {
        let algo = match hex.len() {
            32 => HashAlgorithm::Md5,
            40 => HashAlgorithm::Sha1,
            56 => HashAlgorithm::Sha224,
            64 => HashAlgorithm::Sha256,
            96 => HashAlgorithm::Sha384,
            128 => HashAlgorithm::Sha512,
            _ => return None,
        };
        let digest = hex::decode(std::str::from_utf8(hex).ok()?)?;
        Some(Self { algo, digest })
    }
}

/// The names that packages brought, without a leading slash, and the digest of each where one is recorded. Among them are
/// directories and symbolic links, and names that are no longer there.
pub type Names = BTreeMap<Vec<u8>, Option<Recorded>>;

/// Returns what the packages of the system below `root` brought.
///
/// # Errors
///
/// [`Code::NoPackages`] where there is no record, [`Code::InputUnreadable`] where one cannot be read.
pub fn names(root: &Path) -> Result<Names> {
    if root.join(DPKG).join("status").is_file() {
        return dpkg(&root.join(DPKG));
    }
    if RPM.iter().any(|path| root.join(path).is_dir()) {
        return rpm(root);
    }
    Err(Fault::new(Code::NoPackages, root.display().to_string()))
}

/// The lines of a text without their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
}

fn relative(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.iter()
        .copied()
        .skip_while(|&byte| byte == b'/')
        .collect()
}

fn dpkg(database: &Path) -> Result<Names> {
    let info = database.join("info");
    let unreadable = |error: std::io::Error| crate::file::unreadable(&info, &error);
    let diversions = read_bounded(&database.join("diversions"), MAX_TEXT).unwrap_or_default();
    let diversions = Diversions::parse(&diversions);
    let mut names = Names::new();
    let mut digests = HashMap::new();
    for entry in std::fs::read_dir(&info).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        // The name of a package for one architecture among several is NAME:ARCHITECTURE.
        let stem = path.file_stem().unwrap_or_default().as_bytes();
        let package = stem.split(|&byte| byte == b':').next().unwrap_or(stem);
        match extension {
            "list" => {
                for line in lines(&read_bounded(&path, MAX_TEXT)?) {
                    let name = diversions.place(package, relative(line));
                    names.entry(name).or_insert(None);
                }
            }
            "md5sums" => {
                for line in lines(&read_bounded(&path, MAX_TEXT)?) {
                    if let Some((digest, name)) = md5sum(line) {
                        let name = diversions.place(package, name);
                        digests.insert(name, digest);
                    }
                }
            }
            _ if SCRIPTS.contains(&extension) => {
                let name = [
                    b"var/lib/dpkg/info/",
                    path.file_name().unwrap_or_default().as_bytes(),
                ];
                names.insert(name.concat(), None);
            }
            _ => {}
        }
    }
    let status = read_bounded(&database.join("status"), MAX_TEXT)?;
    digests.extend(configuration_files(&status));
    for (name, digest) in digests {
        if let Some(recorded) = names.get_mut(&name) {
            *recorded = Some(digest);
        }
    }
    Ok(names)
}

/// A line of `info/PACKAGE.md5sums`: a digest, two spaces, a path without a leading slash.
fn md5sum(line: &[u8]) -> Option<(Recorded, Vec<u8>)> {
    let (digest, name) = line.split_at_checked(32)?;
    let name = name.strip_prefix(b"  ").or(name.strip_prefix(b" *"))?;
    Some((Recorded::parse(digest)?, relative(name)))
}

/// The `Conffiles:` of `status`: lines that begin with a space, each a path, a digest and sometimes a word more.
fn configuration_files(status: &[u8]) -> Vec<(Vec<u8>, Recorded)> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in lines(status) {
        let Some(entry) = line.strip_prefix(b" ") else {
            inside = line.starts_with(b"Conffiles:");
            continue;
        };
        if !inside {
            continue;
        }
        let mut words: Vec<&[u8]> = entry.split(|&byte| byte == b' ').collect();
        if words
            .last()
            .is_some_and(|last| matches!(*last, b"obsolete" | b"remove-on-upgrade"))
        {
            words.pop();
        }
        if let Some((digest, path)) = words.split_last()
            && let Some(recorded) = Recorded::parse(digest)
        {
            found.push((relative(&path.join(&b' ')), recorded));
        }
    }
    found
}

/// Names that lie elsewhere because another package or the administrator wants them.
struct Diversions(HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>);

impl Diversions {
    /// `diversions`: three lines each, the name, where its file lies, and the package that it does not concern (`:` for none).
    fn parse(text: &[u8]) -> Self {
        let lines: Vec<&[u8]> = lines(text).collect();
        Self(
            lines
                .chunks_exact(3)
                .filter_map(|diversion| match diversion {
                    [from, to, package] => Some((relative(from), (relative(to), package.to_vec()))),
                    _ => None,
                })
                .collect(),
        )
    }

    /// Where the file of this package lies.
    fn place(&self, package: &[u8], name: Vec<u8>) -> Vec<u8> {
        match self.0.get(&name) {
            Some((to, by)) if by != package => to.clone(),
            _ => name,
        }
    }
}

fn rpm(root: &Path) -> Result<Names> {
    let failed = |why: String| Fault::new(Code::PackageTool, format!("rpm --query --all: {why}"));
    let mut command = Command::new("rpm");
    if root != Path::new("/") {
        command.arg("--root").arg(root);
    }
    let output = command
        .args([
            "--query",
            "--all",
            "--queryformat",
            "[%{FILEDIGESTS}\\t%{FILENAMES}\\n]",
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, said.trim())));
    }
    Ok(rpm_lines(&output.stdout))
}

/// Lines of rpm's answer: a digest, empty for what is not a regular file, a tab, a path.
fn rpm_lines(text: &[u8]) -> Names {
    lines(text)
        .filter_map(|line| {
            let tab = line.iter().position(|&byte| byte == b'\t')?;
            let (digest, name) = line.split_at_checked(tab)?;
            Some((relative(name.get(1..)?), Recorded::parse(digest)))
        })
        .collect()
}

/// The path of a name below `root`, if its directory is there and below `root` too.
pub(crate) fn path(root: &Path, name: &[u8]) -> Option<PathBuf> {
    let path = root.join(OsStr::from_bytes(name));
    let directory = path.parent()?.canonicalize().ok()?;
    directory
        .starts_with(root.canonicalize().ok()?)
        .then(|| directory.join(path.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    const OTHER: &str = "d41d8cd98f00b204e9800998ecf8427e";

    #[test]
    fn dpkg_records() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = directory.path().join(DPKG).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "status",
            &format!(
                "Package: a\nConffiles:\n /etc/cron.daily/a {MD5}\n /etc/a b {OTHER} obsolete\n /etc/new newconffile\nDescription: x\n /etc/x {MD5}\n"
            ),
        );
        put(
            "info/a:amd64.list",
            "/.\n/usr\n/usr/bin/a\n/usr/bin/sh\n/etc/cron.daily/a\n/etc/a b\n/etc/new\n/etc/x\n",
        );
        put(
            "info/a:amd64.md5sums",
            &format!("{MD5}  usr/bin/a\n{OTHER}  usr/bin/sh\nnonsense\n"),
        );
        put("info/a:amd64.postinst", "#!/bin/sh\n");
        put("info/a:amd64.triggers", "");
        put("info/b.list", "/usr/bin/sh\n");
        put("diversions", "/usr/bin/sh\n/usr/bin/sh.a\nb\n");
        let names = names(directory.path()).unwrap();
        let digest = |hex: &str| Recorded::parse(hex.as_bytes());
        for (name, recorded) in [
            ("usr/bin/a", digest(MD5)),
            ("usr/bin/sh.a", digest(OTHER)),
            ("usr/bin/sh", None),
            ("etc/cron.daily/a", digest(MD5)),
            ("etc/a b", digest(OTHER)),
            ("etc/new", None),
            ("etc/x", None),
            ("usr", None),
            ("var/lib/dpkg/info/a:amd64.postinst", None),
        ] {
            assert_eq!(names.get(name.as_bytes()), Some(&recorded), "{name}");
        }
        assert!(!names.contains_key(&b"var/lib/dpkg/info/a:amd64.triggers"[..]));
    }

    #[test]
    fn rpm_records() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let names = rpm_lines(
            format!("{sha256}\t/usr/bin/a b\n\t/usr/bin\n{MD5}\t/usr/lib/c\n").as_bytes(),
        );
        let found: Vec<_> = names
            .iter()
            .map(|(name, recorded)| {
                let algo = recorded.as_ref().map(|recorded| recorded.algo);
                (String::from_utf8_lossy(name).into_owned(), algo)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("usr/bin".to_owned(), None),
                ("usr/bin/a b".to_owned(), Some(HashAlgorithm::Sha256)),
                ("usr/lib/c".to_owned(), Some(HashAlgorithm::Md5)),
            ]
        );
    }

    #[test]
    fn a_system_without_records_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            names(directory.path()).unwrap_err().code(),
            Code::NoPackages
        );
    }

    #[test]
    fn a_directory_that_leads_out_of_the_root_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (
            directory.path().join("root"),
            directory.path().join("outside"),
        );
        for path in [&root.join("usr/lib"), &outside] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("../outside", root.join("opt")).unwrap();
        let canonical = root.canonicalize().unwrap();
        assert_eq!(path(&root, b"lib/a"), Some(canonical.join("usr/lib/a")));
        assert_eq!(path(&root, b"opt/a"), None);
        assert_eq!(path(&root, b"none/a"), None);
    }

    proptest! {
        /// Whatever is in the records, the parsers return, and every name is relative.
        #[test]
        fn records_of_any_content_are_read(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(rpm_lines(&text).keys().all(|name| !name.starts_with(b"/")));
            for line in lines(&text) {
                if let Some((digest, name)) = md5sum(line) {
                    prop_assert_eq!(digest.digest.len(), 16);
                    prop_assert!(!name.starts_with(b"/"));
                }
            }
            let status = [b"Conffiles:\n ".to_vec(), text.clone()].concat();
            prop_assert!(configuration_files(&status).iter().all(|(name, _)| !name.starts_with(b"/")));
            let diversions = Diversions::parse(&text);
            prop_assert_eq!(diversions.place(b"a", b"\xff\xff none".to_vec()), b"\xff\xff none".to_vec());
        }
    }
}
