//! The kernel command line, and the names of a root on it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::fault::{Cause, Code, Fault};
use crate::filesystem::Uuid;
use crate::hex;

/// The largest command line that is read, in bytes; no architecture's COMMAND_LINE_SIZE is larger than 16 KiB.
pub const MAX_CMDLINE: usize = 1 << 16;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name, as written: `-` and `_` are the same to the kernel.
    pub name: Cow<'a, str>,
    /// What stands behind `=`, without the quotes around it; nothing if there is no `=`.
    pub value: Option<Cow<'a, str>>,
}

impl<'a> Parameter<'a> {
    /// The parameter that a word of [`words`] is.
    pub fn of(word: &'a [u8]) -> Self {
        let (name, value) = split(word);
        Self {
            name: text(name),
            value: value.map(text),
        }
    }

    /// Whether this is the parameter of that name.
    pub fn is(&self, name: &str) -> bool {
        is_same_name(&self.name, name)
    }

    /// Whether it is `--`, behind which stand init's arguments (`parse_args`, kernel/params.c). Quotes around it change nothing.
    pub fn is_separator(&self) -> bool {
        self.value.is_none() && self.name == "--"
    }
}

/// The bytes as text, in which what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly everything is UTF-8, and to find that takes a fraction of the time that replacing takes.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Whether the kernel takes two names for the same (`parameq`, kernel/params.c): `-` and `_` are.
pub fn is_same_name(a: &str, b: &str) -> bool {
    let same = |a: u8, b: u8| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| same(a, b))
}

/// What parts parameters (`isspace`, lib/ctype.c): ASCII's blanks with the vertical tab, and Latin-1's no-break space, wherever
/// it stands: in the middle of a UTF-8 character too.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// Splits a command line into its words, quotes and all, as `next_arg` (lib/cmdline.c) does: blanks separate words unless they
/// stand within double quotes, and a quote that is not closed reaches to the end.
pub fn words<L: AsRef<[u8]> + ?Sized>(line: &L) -> impl Iterator<Item = &[u8]> {
    let line = line.as_ref();
    let mut rest = line.get(..MAX_CMDLINE).unwrap_or(line);
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !is_blank(*byte))?;
        rest = rest.get(start..)?;
        let mut quoted = false;
        let end = rest
            .iter()
            .position(|byte| {
                quoted ^= *byte == b'"';
                !quoted && is_blank(*byte)
            })
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(word)
    })
}

/// Splits a word into the name and the value that the kernel sees (`next_arg`): of the quotes, only those around the word or
/// around the value go away, and an `=` at the beginning belongs to the name.
fn split(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (quoted, body) = match word.strip_prefix(b"\"") {
        Some(body) => (true, body),
        None => (false, word),
    };
    let equals = body
        .iter()
        .skip(1)
        .position(|byte| *byte == b'=')
        .map(|at| at.saturating_add(1));
    let unclosed = |text: &'_ [u8]| text.strip_suffix(b"\"").map_or(text.len(), <[u8]>::len);
    let Some((name, Some(value))) = equals
        .and_then(|at| body.split_at_checked(at))
        .map(|(name, value)| (name, value.get(1..)))
    else {
        let length = if quoted { unclosed(body) } else { body.len() };
        return (body.get(..length).unwrap_or(body), None);
    };
    let (opened, value) = match value.strip_prefix(b"\"") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let length = if quoted || opened {
        unclosed(value)
    } else {
        value.len()
    };
    (name, Some(value.get(..length).unwrap_or(value)))
}

/// The parameters in order, up to `--`, behind which stand init's arguments. What is not UTF-8 in one is replaced.
pub fn parameters<L: AsRef<[u8]> + ?Sized>(line: &L) -> impl Iterator<Item = Parameter<'_>> {
    words(line)
        .map(Parameter::of)
        .take_while(|parameter| !parameter.is_separator())
}

/// The name of a root: `root=` (Documentation/admin-guide/kernel-parameters.txt, `root=`; block/early-lookup.c).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootName {
    /// `/dev/NAME`: the part behind `/dev/`.
    Device(String),
    /// `MAJOR:MINOR`
    Number {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// `UUID=`: of the file system; FAT's is not in the form of a UUID.
    Uuid(String),
    /// `LABEL=`: of the file system.
    Label(String),
    /// `PARTUUID=`, of a GPT or MBR partition, `/PARTNROFF=` behind it.
    PartUuid {
        /// A UUID (GPT) or `SSSSSSSS-PP` (MBR), in lower case.
        uuid: String,
        /// How many partitions further the root is.
        offset: i32,
    },
    /// `PARTLABEL=`: the name of a GPT partition.
    PartLabel(String),
    /// `PARTTYPE=`: the type of a GPT partition, a UUID in lower case. Not a form of the kernel's; lsblk names it so.
    PartType(String),
    /// A volume of UBI's, which is not block device (fs/ubifs/super.c, `open_ubi`): `ubi0:NAME`, `ubi0_1`, and with UBI's first
    /// device meant, `ubi:NAME` and `ubi1`; `!` may stand for `:`.
    Ubi(UbiVolume),
    /// A directory that the host of a virtual machine shares with it, by its tag: `virtiofs:TAG` and `9p:TAG`.
    Shared {
        /// The file system by which it is shared.
        by: Sharing,
        /// The tag.
        tag: String,
    },
    /// A directory of an NFS server, by `nfs:ADDRESS:/PATH`. An IPv6 address is in brackets.
    Nfs {
        /// The server's address: nothing resolves names in this initramfs.
        server: IpAddr,
        /// The absolute path.
        path: String,
    },
}

impl RootName {
    /// Whether somebody else serves the root's files, and may answer each read differently.
    pub const fn is_served(&self) -> bool {
        matches!(self, Self::Shared { .. } | Self::Nfs { .. })
    }

    /// Whether it is not block device, so that no device mapper can verify or decrypt it.
    pub const fn is_no_block_device(&self) -> bool {
        self.is_served() || matches!(self, Self::Ubi(_))
    }

    fn parse_nfs(text: &str) -> Option<Self> {
        let (server, path) = match text.strip_prefix('[') {
            Some(text) => {
                let (server, path) = text.split_once("]:")?;
                (IpAddr::V6(server.parse().ok()?), path)
            }
            None => {
                let (server, path) = text.split_once(':')?;
                (IpAddr::V4(server.parse().ok()?), path)
            }
        };
        path.starts_with('/').then(|| Self::Nfs {
            server,
            path: path.to_owned(),
        })
    }
}

/// The name of a directory of an NFS server as the kernel takes it: `ADDRESS:/PATH`.
pub fn nfs_source(server: IpAddr, path: &str) -> String {
    match server {
        IpAddr::V4(address) => format!("{address}:{path}"),
        IpAddr::V6(address) => format!("[{address}]:{path}"),
    }
}

/// A file system by which a host shares a directory with a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// virtiofs (fs/fuse/virtio_fs.c)
    Virtiofs,
    /// 9p over virtio (net/9p/trans_virtio.c)
    NineP,
}

impl Sharing {
    const ALL: [Self; 2] = [Self::Virtiofs, Self::NineP];

    /// The type's name, as `mount -t` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtiofs => "virtiofs",
            Self::NineP => "9p",
        }
    }
}

/// A volume of a device of UBI's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UbiVolume {
    /// The number of UBI's device.
    pub device: u32,
    /// Which of the device's volumes.
    pub volume: UbiVolumeId,
}

/// Which of a UBI device's volumes is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UbiVolumeId {
    /// The one of this number.
    Number(u32),
    /// The one of this name.
    Name(String),
}

impl UbiVolume {
    /// Parses a name that begins with `ubi`; nothing if it is none of the forms.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("ubi")?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (device, rest) = rest.split_at_checked(digits)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let name = rest.strip_prefix([':', '!']);
        let (device, volume) = match (device, name, rest.strip_prefix('_')) {
            ("", Some(name), _) => (0, UbiVolumeId::Name(name.to_owned())),
            (device, Some(name), _) => (number(device)?, UbiVolumeId::Name(name.to_owned())),
            (device, None, Some(volume)) => (number(device)?, UbiVolumeId::Number(number(volume)?)),
            (volume, None, None) if rest.is_empty() => (0, UbiVolumeId::Number(number(volume)?)),
            _ => return None,
        };
        let is_empty = matches!(&volume, UbiVolumeId::Name(name) if name.is_empty());
        (!is_empty).then_some(Self { device, volume })
    }
}

impl fmt::Display for UbiVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.volume {
            UbiVolumeId::Number(number) => write!(f, "ubi{}_{number}", self.device),
            UbiVolumeId::Name(name) => write!(f, "ubi{}:{name}", self.device),
        }
    }
}

impl RootName {
    /// The name with a text in it replaced, where a name is free to hold any text.
    #[must_use]
    pub fn replace(&self, from: &str, to: &str) -> Self {
        match self {
            Self::Device(name) => Self::Device(name.replace(from, to)),
            Self::Label(name) => Self::Label(name.replace(from, to)),
            Self::PartLabel(name) => Self::PartLabel(name.replace(from, to)),
            other => other.clone(),
        }
    }

    /// Parses the value of `root=`; nothing if it is none of the forms.
    pub fn parse(text: &str) -> Option<Self> {
        let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        if let Some(name) = text.strip_prefix("/dev/") {
            // udev's links, which nobody makes in this initramfs, say the same as the names do.
            for (directory, key) in [
                ("disk/by-uuid/", "UUID="),
                ("disk/by-label/", "LABEL="),
                ("disk/by-partuuid/", "PARTUUID="),
                ("disk/by-partlabel/", "PARTLABEL="),
            ] {
                if let Some(link) = name.strip_prefix(directory) {
                    // A link's name has no directory of its own.
                    let value = (!link.contains('/')).then(|| unescape(link)).flatten()?;
                    return Self::parse(&format!("{key}{value}"));
                }
            }
            // The character device of a volume, which the kernel takes too (init/do_mounts.c, `parse_root_device`).
            if let Some(volume) = UbiVolume::parse(name).filter(|_| name.contains('_')) {
                return Some(Self::Ubi(volume));
            }
            let clean = !name.is_empty()
                && name
                    .split('/')
                    .all(|part| !part.is_empty() && part != "." && part != "..");
            return clean.then(|| Self::Device(name.to_owned()));
        }
        if let Some(value) = text.strip_prefix("UUID=") {
            return some(value).map(Self::Uuid);
        }
        if let Some(value) = text.strip_prefix("LABEL=") {
            return some(value).map(Self::Label);
        }
        if let Some(value) = text.strip_prefix("PARTLABEL=") {
            return some(value).map(Self::PartLabel);
        }
        if let Some(value) = text.strip_prefix("PARTTYPE=") {
            let value = value.to_ascii_lowercase();
            return Uuid::parse(&value).map(|_| Self::PartType(value));
        }
        if let Some(value) = text.strip_prefix("PARTUUID=") {
            let (uuid, offset) = match value.split_once("/PARTNROFF=") {
                Some((uuid, offset)) => (uuid, offset.parse().ok()?),
                None => (value, 0),
            };
            let uuid = uuid.to_ascii_lowercase();
            let known = Uuid::parse(&uuid).is_some() || is_mbr_partition(&uuid);
            return known.then_some(Self::PartUuid { uuid, offset });
        }
        if let Some(volume) = UbiVolume::parse(text) {
            return Some(Self::Ubi(volume));
        }
        if let Some(text) = text.strip_prefix("nfs:") {
            return Self::parse_nfs(text);
        }
        for by in Sharing::ALL {
            let tag = text.strip_prefix(by.name());
            if let Some(tag) = tag.and_then(|rest| rest.strip_prefix(':')) {
                return some(tag).map(|tag| Self::Shared { by, tag });
            }
        }
        let (major, minor) = text.split_once(':')?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        Some(Self::Number {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

/// Undoes udev's escapes in the names of links: `\xHH` for a byte (systemd, src/shared/device-nodes.c, `encode_devnode_name`;
/// libblkid, `blkid_encode_string`). Nothing if the bytes are not text.
fn unescape(link: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(link.len());
    let mut rest = link.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|digits| {
            let (digits, after) = digits.split_first_chunk::<2>()?;
            let [byte] = hex::decode(digits)?.try_into().ok()?;
            Some((byte, after))
        });
        let (byte, left) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).ok()
}

/// The fault of a `root=` that is none of the forms.
pub fn unknown_root(shown: &str, value: &str) -> Fault {
    let fault = Fault::new(Code::RootSyntax, shown);
    // The kernel's oldest form (block/early-lookup.c, `devt_from_devnum`; include/linux/kdev_t.h, `new_decode_dev`).
    match hex::number(value.as_bytes()) {
        Some(number) => {
            let (major, minor) = (
                (number & 0xf_ff00) >> 8,
                (number & 0xff) | ((number >> 12) & 0xf_ff00),
            );
            let (major, minor) = (major.to_string(), minor.to_string());
            fault.because(Cause::ROOT_IN_HEXADECIMAL.with(&[&major, &minor]))
        }
        None => fault,
    }
}

fn is_mbr_partition(text: &str) -> bool {
    let is_hex = |text: &str| hex::decode(text).is_some();
    text.split_once('-').is_some_and(|(disk, part)| {
        disk.len() == 8 && part.len() == 2 && is_hex(disk) && is_hex(part)
    })
}

impl fmt::Display for RootName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "/dev/{name}"),
            Self::Number { major, minor } => write!(f, "{major}:{minor}"),
            Self::Uuid(uuid) => write!(f, "UUID={uuid}"),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::PartUuid { uuid, offset: 0 } => write!(f, "PARTUUID={uuid}"),
            Self::PartUuid { uuid, offset } => write!(f, "PARTUUID={uuid}/PARTNROFF={offset}"),
            Self::PartLabel(label) => write!(f, "PARTLABEL={label}"),
            Self::PartType(kind) => write!(f, "PARTTYPE={kind}"),
            Self::Ubi(volume) => volume.fmt(f),
            Self::Shared { by, tag } => write!(f, "{}:{tag}", by.name()),
            Self::Nfs { server, path } => write!(f, "nfs:{}", nfs_source(*server, path)),
        }
    }
}

/// Whether a pattern, with or without a `*` at its end, means the parameter of that name.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name
            .get(..prefix.len())
            .is_some_and(|start| is_same_name(prefix, start)),
        None => is_same_name(pattern, name),
    }
}

/// A name of `forward=`; with a `*` at its end, every name that begins so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Parses a name: letters, digits, `_`, `-` and `.`, then perhaps a `*`, which cannot stand alone.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let sound = !name.is_empty()
            && name != "--"
            && name.len() <= 128
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        sound.then(|| Self(text.to_owned()))
    }

    /// Whether the parameter of that name is meant.
    pub fn matches(&self, name: &str) -> bool {
        name_matches(&self.0, name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(line: &str) -> Vec<(String, Option<String>)> {
        parameters(line)
            .map(|p| (p.name.into_owned(), p.value.map(Cow::into_owned)))
            .collect()
    }

    fn pair(name: &str, value: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn words_quotes_and_the_double_dash() {
        assert_eq!(
            pairs("quiet  root=UUID=a=b\trootflags=\"a, b\" \"x y=1\" -- root=/dev/evil\n"),
            [
                pair("quiet", None),
                pair("root", Some("UUID=a=b")),
                pair("rootflags", Some("a, b")),
                pair("x y", Some("1")),
            ]
        );
        assert_eq!(pairs("a=\"b c"), [pair("a", Some("b c"))]);
        assert_eq!(pairs(" \n"), []);
        // The kernel's blanks are more than ASCII's: “à” ends in one.
        assert_eq!(
            pairs("a\u{b}b\u{c}c"),
            [pair("a", None), pair("b", None), pair("c", None)]
        );
        assert_eq!(
            pairs("aàb=1"),
            [pair("a\u{fffd}", None), pair("b", Some("1"))]
        );
    }

    #[test]
    fn quotes_are_taken_off_where_the_kernel_takes_them_off() {
        for (line, expected) in [
            ("\"a=b\"", pair("a", Some("b"))),
            ("a=\"b\"", pair("a", Some("b"))),
            ("\"a=\"b\"", pair("a", Some("b"))),
            ("\"a\"", pair("a", None)),
            ("a=b\"c\"", pair("a", Some("b\"c\""))),
            ("a=\"b\"c", pair("a", Some("b\"c"))),
            ("a\"b\"=c", pair("a\"b\"", Some("c"))),
            ("a=\"", pair("a", Some(""))),
            ("\"", pair("", None)),
            ("=", pair("=", None)),
            ("=a=b", pair("=a", Some("b"))),
        ] {
            assert_eq!(pairs(line), [expected], "{line}");
        }
    }

    #[test]
    fn a_double_dash_in_quotes_ends_the_parameters_too() {
        for line in ["a -- b", "a \"--\" b", "a \"--"] {
            assert_eq!(pairs(line), [pair("a", None)], "{line}");
        }
        for word in ["--\"\"", "\"--\"x", "--=", "---"] {
            assert_eq!(pairs(&format!("{word} b")).len(), 2, "{word}");
        }
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        let line = "ima-appraise=off";
        assert!(parameters(line).all(|p| p.is("ima_appraise")));
        assert!(!parameters(line).any(|p| p.is("ima_appraisex")));
    }

    #[test]
    fn root_names() {
        let part = |uuid: &str, offset| RootName::PartUuid {
            uuid: uuid.to_owned(),
            offset,
        };
        let ubi = |device, volume| RootName::Ubi(UbiVolume { device, volume });
        let uuid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let good = [
            ("/dev/vda2", RootName::Device("vda2".into())),
            ("/dev/disk/by-id/x", RootName::Device("disk/by-id/x".into())),
            ("8:1", RootName::Number { major: 8, minor: 1 }),
            ("/dev/disk/by-uuid/AB-1", RootName::Uuid("AB-1".into())),
            (
                "/dev/disk/by-partlabel/root",
                RootName::PartLabel("root".into()),
            ),
            // As udev writes links: a blank, a slash, UTF-8 and a backslash.
            (
                r"/dev/disk/by-label/my\x20root",
                RootName::Label("my root".into()),
            ),
            (
                r"/dev/disk/by-partlabel/a\x2fb\xc3\xa9\x5cx20\x5",
                RootName::PartLabel(r"a/b\u{e9}\x20\x5".replace(r"\u{e9}", "\u{e9}")),
            ),
            (r"/dev/disk/by-uuid/AB\x2d1", RootName::Uuid("AB-1".into())),
            // Elsewhere a backslash is one.
            (r"LABEL=my\x20root", RootName::Label(r"my\x20root".into())),
            ("UUID=ABCD-1234", RootName::Uuid("ABCD-1234".into())),
            ("LABEL=my root", RootName::Label("my root".into())),
            ("PARTLABEL=root", RootName::PartLabel("root".into())),
            (
                "PARTTYPE=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
                RootName::PartType("4f68bce3-e8cd-4db1-96e7-fbcaf984b709".into()),
            ),
            ("PARTUUID=1234abcd-02", part("1234abcd-02", 0)),
            ("PARTUUID=1234ABCD-02/PARTNROFF=-1", part("1234abcd-02", -1)),
            (&format!("PARTUUID={uuid}/PARTNROFF=1"), part(uuid, 1)),
            ("ubi0:rootfs", ubi(0, UbiVolumeId::Name("rootfs".into()))),
            ("ubi1!a:b", ubi(1, UbiVolumeId::Name("a:b".into()))),
            ("ubi:rootfs", ubi(0, UbiVolumeId::Name("rootfs".into()))),
            ("ubi1_12", ubi(1, UbiVolumeId::Number(12))),
            ("/dev/ubi1_2", ubi(1, UbiVolumeId::Number(2))),
            ("ubi3", ubi(0, UbiVolumeId::Number(3))),
            (
                "virtiofs:my:root",
                RootName::Shared {
                    by: Sharing::Virtiofs,
                    tag: "my:root".into(),
                },
            ),
            (
                "9p:root",
                RootName::Shared {
                    by: Sharing::NineP,
                    tag: "root".into(),
                },
            ),
            (
                "nfs:10.0.2.2:/srv/a:b",
                RootName::Nfs {
                    server: IpAddr::from([10, 0, 2, 2]),
                    path: "/srv/a:b".into(),
                },
            ),
            (
                "nfs:[fe80::1]:/",
                RootName::Nfs {
                    server: IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
                    path: "/".into(),
                },
            ),
            ("/dev/ubiblock0_0", RootName::Device("ubiblock0_0".into())),
        ];
        for (text, name) in good {
            assert_eq!(RootName::parse(text), Some(name), "{text}");
        }
        for bad in [
            "",
            "/dev/",
            "/dev/../vda",
            "/dev//vda",
            "vda",
            "UUID=",
            "LABEL=",
            "PARTUUID=",
            "PARTUUID=xyz",
            "8:",
            ":1",
            "8:1:2",
            "+8:1",
            "PARTUUID=1234abcd-02/PARTNROFF=x",
            "99999999999:1",
            "nfs",
            "/dev/nfs/..",
            "/dev/disk/by-label/",
            "/dev/disk/by-label/a/b",
            r"/dev/disk/by-label/\xff",
            "b302",
            "gpt-auto",
            "ubi",
            "ubi:",
            "ubi0:",
            "ubi0_",
            "ubi0_x",
            "ubi0_1:x",
            "ubi_1",
            "ubix:y",
            "ubi4294967296",
            "virtiofs:",
            "9p:",
            "9p",
            "nfs:",
            "nfs:10.0.2.2",
            "nfs:10.0.2.2:",
            "nfs:10.0.2.2:srv",
            "nfs:10.0.2:/srv",
            "nfs:server:/srv",
            "nfs:fe80::1:/srv",
            "nfs:[fe80::1]/srv",
            "nfs:[10.0.2.2]:/srv",
            "nfs:10.0.2.2,port=1:/srv",
        ] {
            assert_eq!(RootName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_in_hexadecimal_is_shown_in_decimal() {
        for (value, decimal) in [
            ("b302", Some("root=179:2,")),
            ("801", Some("root=8:1,")),
            ("0010fd05", Some("root=253:261,")),
            ("gpt-auto", None),
            ("+801", None),
            ("", None),
            ("fffffffff", None),
        ] {
            let fault = unknown_root(&format!("root={value}"), value);
            assert_eq!(fault.code(), Code::RootSyntax);
            let remedy = fault.remedy().to_string();
            assert_eq!(
                remedy.contains("in decimal"),
                decimal.is_some(),
                "{value}: {remedy}"
            );
            assert!(
                remedy.contains(decimal.unwrap_or_default()),
                "{value}: {remedy}"
            );
        }
    }

    #[test]
    fn patterns() {
        for good in ["a", "systemd.*", "-s", "3", "net.ifnames", "a_b-c*"] {
            assert!(Pattern::parse(good).is_some(), "{good}");
        }
        for bad in ["", "*", "a*b", "**", "a=b", "a b", "\"a", "--", "à"] {
            assert!(Pattern::parse(bad).is_none(), "{bad}");
        }
        let pattern = Pattern::parse("a-b*").unwrap();
        assert!(pattern.matches("a_b") && pattern.matches("a-bc") && !pattern.matches("a"));
    }

    proptest! {
        /// Whatever a label is, the link that udev makes of it names it.
        #[test]
        fn links_name_the_label(label in "\\PC{1,20}") {
            let mut link = String::new();
            for byte in label.bytes() {
                match byte {
                    b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'#' | b'+' | b'-' | b'.' | b':' | b'=' | b'@' | b'_' => link.push(byte.into()),
                    _ => link += &format!("\\x{byte:02x}"),
                }
            }
            let name = RootName::parse(&format!("/dev/disk/by-label/{link}"));
            prop_assert_eq!(name, Some(RootName::Label(label)));
        }

        #[test]
        fn hostile_lines_never_panic(line in "\\PC{0,200}|root=ubi[0-9:!_a]{0,8}") {
            for parameter in parameters(&line) {
                if let Some(name) = parameter.value.as_deref().and_then(RootName::parse) {
                    prop_assert_eq!(RootName::parse(&name.to_string()), Some(name));
                }
            }
        }

        #[test]
        fn plain_words_come_back(words in proptest::collection::vec("[a-z]{1,8}(=[a-z0-9/:]{0,8})?", 0..20)) {
            let found = pairs(&words.join(" "));
            let joined: Vec<String> = found
                .into_iter()
                .map(|(name, value)| value.map_or(name.clone(), |value| format!("{name}={value}")))
                .collect();
            prop_assert_eq!(joined, words);
        }
    }
}
