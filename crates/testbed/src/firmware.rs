//! UEFI firmware (OVMF), and the variables that it is started with.

use std::path::{Path, PathBuf};

use crate::TestbedError;
use crate::disk::escape;

/// The files of Debian's package `ovmf`. This OVMF keeps its variables in memory that only its own code in system management mode
/// can write, and starts no UEFI shell under Secure Boot.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The line of OVMF that nothing was started, or that all that was started has come back.
pub(crate) const NOTHING_TO_BOOT: &str = "BdsDxe: No bootable option or device was found.";

/// Attributes of a variable (UEFI specification, section 8.2, "GetVariable").
const NON_VOLATILE: u32 = 1;
const BOOT_SERVICE: u32 = 2;
const RUNTIME: u32 = 4;
const TIME_BASED: u32 = 0x20;

/// The attributes of variables that only signed data can change.
const AUTHENTICATED: u32 = NON_VOLATILE | BOOT_SERVICE | RUNTIME | TIME_BASED;

/// A GUID as it is stored: its first three groups are little-endian.
type Guid = [u8; 16];

/// `EFI_GLOBAL_VARIABLE` (8be4df61-93ca-11d2-aa0d-00e098032b8c).
const GLOBAL: Guid = guid(0x8be4_df61_93ca_11d2_aa0d_00e0_9803_2b8c);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID` (d719b2cb-3d3a-4596-a3bc-dad00e67656f).
const SECURITY_DATABASE: Guid = guid(0xd719_b2cb_3d3a_4596_a3bc_dad0_0e67_656f);
/// The GUID of shim (605dab50-e046-4300-abb6-3dd810dd8b23).
const SHIM: Guid = guid(0x605d_ab50_e046_4300_abb6_3dd8_10dd_8b23);
/// `EFI_CERT_X509_GUID` (a5c059a1-94e4-4aa7-87b5-ab155c2bf072).
const CERT_X509: Guid = guid(0xa5c0_59a1_94e4_4aa7_87b5_ab15_5c2b_f072);
/// `EFI_CERT_SHA256_GUID` (c1c41626-504c-4092-aca9-41f936934328).
const CERT_SHA256: Guid = guid(0xc1c4_1626_504c_4092_aca9_41f9_3693_4328);

const fn guid(text: u128) -> Guid {
    let b = text.to_be_bytes();
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

/// The UEFI firmware OVMF, on x86-64, with the variables that it is started with. Each machine gets a copy of them, and what the
/// firmware and the guest change is lost, but for [`Uefi::in_file`].
///
/// Without a platform key, Secure Boot is disabled; with one, it is enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uefi {
    variables: Vec<Variable>,
    /// The file that has them, in the place of `variables`.
    file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: &'static str,
    vendor: Guid,
    attributes: u32,
    data: Vec<u8>,
}

impl Uefi {
    /// Returns firmware without keys.
    #[must_use]
    pub fn new() -> Uefi {
        Uefi::default()
    }

    /// Returns firmware with the variables in this file, which keeps what the firmware and the guest change: a copy of
    /// `OVMF_VARS_4M.fd`, or one that a tool has written.
    #[must_use]
    pub fn in_file(path: impl AsRef<Path>) -> Uefi {
        Uefi {
            variables: Vec::new(),
            file: Some(path.as_ref().to_owned()),
        }
    }

    /// Returns firmware with Secure Boot enabled: the certificate (DER), of an RSA key of 2048 bits or more, is that of the
    /// platform key and of the key exchange key, which sign changes of the databases.
    #[must_use]
    pub fn with_platform_key(certificate: &[u8]) -> Uefi {
        Uefi::new()
            .add("PK", GLOBAL, AUTHENTICATED, CERT_X509, certificate)
            .add("KEK", GLOBAL, AUTHENTICATED, CERT_X509, certificate)
    }

    /// Adds a certificate (DER) to `db`: programs that its key signed are started.
    #[must_use]
    pub fn allow(self, certificate: &[u8]) -> Uefi {
        self.add(
            "db",
            SECURITY_DATABASE,
            AUTHENTICATED,
            CERT_X509,
            certificate,
        )
    }

    /// Adds a certificate (DER) to `dbx`: programs that its key signed are not started.
    #[must_use]
    pub fn forbid(self, certificate: &[u8]) -> Uefi {
        self.add(
            "dbx",
            SECURITY_DATABASE,
            AUTHENTICATED,
            CERT_X509,
            certificate,
        )
    }

    /// Adds the Authenticode digest of a program to `dbx`: this program is not started.
    #[must_use]
    pub fn forbid_program(self, sha256: [u8; 32]) -> Uefi {
        self.add(
            "dbx",
            SECURITY_DATABASE,
            AUTHENTICATED,
            CERT_SHA256,
            &sha256,
        )
    }

    /// Adds a certificate (DER) to the keys of the machine's owner (`MokList`), which shim trusts beside those in `db`.
    #[must_use]
    pub fn machine_owner_key(self, certificate: &[u8]) -> Uefi {
        self.add(
            "MokList",
            SHIM,
            NON_VOLATILE | BOOT_SERVICE,
            CERT_X509,
            certificate,
        )
    }

    /// Sets `SbatLevel`, the list of the oldest generations of programs that shim starts: lines like `systemd,2` behind a first
    /// one, `sbat,1,` and the date of the list. shim replaces it if the one that it brings is of a later date.
    #[must_use]
    pub fn sbat_level(mut self, list: &str) -> Uefi {
        self.variables.push(Variable {
            name: "SbatLevel",
            vendor: SHIM,
            attributes: NON_VOLATILE | BOOT_SERVICE,
            data: list.as_bytes().to_vec(),
        });
        self
    }

    /// Returns the data of a variable that was added, such as `db`.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&[u8]> {
        let found = self.variables.iter().find(|it| it.name == name);
        found.map(|variable| variable.data.as_slice())
    }

    /// Adds a list of one signature (UEFI specification, section 32.4.1, `EFI_SIGNATURE_LIST`) to a variable.
    fn add(
        mut self,
        name: &'static str,
        vendor: Guid,
        attributes: u32,
        kind: Guid,
        signature: &[u8],
    ) -> Uefi {
        let each = GUID_LENGTH + signature.len();
        let mut list = kind.to_vec();
        // The length of the list, of a header that no kind has, and of each signature with its owner.
        for number in [GUID_LENGTH + 12 + each, 0, each] {
            list.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        list.extend(GLOBAL);
        list.extend(signature);
        let found = self.variables.iter_mut().find(|it| it.name == name);
        match found {
            Some(variable) => variable.data.extend(list),
            None => self.variables.push(Variable {
                name,
                vendor,
                attributes,
                data: list,
            }),
        }
        self
    }

    /// Writes the store of variables into this directory, if no file has it already.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), TestbedError> {
        let package = "firmware of Debian's package ovmf";
        let mut needed = vec![(package, CODE.as_ref()), (package, VARIABLES.as_ref())];
        let file = self
            .file
            .as_deref()
            .map(|file| ("file with the firmware's variables", file));
        needed.extend(file);
        for (what, path) in needed {
            let missing = |source| TestbedError::Missing {
                what,
                path: path.to_owned(),
                source,
            };
            std::fs::metadata(path).map_err(missing)?;
        }
        if file.is_some() && self.variables.is_empty() {
            return Ok(());
        }
        let mut store =
            std::fs::read(VARIABLES).map_err(TestbedError::io("read the firmware's variables"))?;
        if file.is_some() || !self.fill(&mut store) {
            let full = std::io::Error::other("too many, or not an empty store");
            return Err(TestbedError::io("write the firmware's variables")(full));
        }
        std::fs::write(store_in(directory), store)
            .map_err(TestbedError::io("write the firmware's variables"))
    }

    /// Puts the variables into an empty store. Returns whether it is one, with room for them.
    ///
    /// edk2, MdePkg/Include/Pi/PiFirmwareVolume.h and MdeModulePkg/Include/Guid/VariableFormat.h: behind the header of the
    /// firmware volume is that of the store, and behind this the variables, each at a multiple of four.
    fn fill(&self, store: &mut [u8]) -> bool {
        let Some(length) = store.get(48..50) else {
            return false;
        };
        let header = usize::from(length[0]) | usize::from(length[1]) << 8;
        let Some(length) = store.get(header + GUID_LENGTH..header + GUID_LENGTH + 4) else {
            return false;
        };
        let end =
            header + u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let mut at = header + STORE_HEADER;
        for variable in &self.variables {
            let bytes = variable.bytes();
            let Some(room) = store.get_mut(at..at + bytes.len()) else {
                return false;
            };
            if at + bytes.len() > end || room.iter().any(|byte| *byte != 0xff) {
                return false;
            }
            room.copy_from_slice(&bytes);
            at += bytes.len().next_multiple_of(4);
        }
        true
    }

    /// Returns the arguments of QEMU, with the store in this directory if no file has it.
    pub(crate) fn arguments(&self, directory: &Path) -> Vec<[String; 2]> {
        let store = self.file.clone().unwrap_or_else(|| store_in(directory));
        let flash = |unit: u8, options: &str, path: &Path| {
            let path = escape(path);
            let drive = format!("if=pflash,format=raw,unit={unit}{options},file={path}");
            ["-drive".to_owned(), drive]
        };
        let global = |property: &str| ["-global".to_owned(), property.to_owned()];
        vec![
            ["-machine".to_owned(), "smm=on".to_owned()],
            global("driver=cfi.pflash01,property=secure,value=on"),
            flash(0, ",readonly=on", Path::new(CODE)),
            flash(1, "", &store),
        ]
    }
}

const GUID_LENGTH: usize = 16;

/// The length of a `VARIABLE_STORE_HEADER`.
const STORE_HEADER: usize = 28;

fn store_in(directory: &Path) -> PathBuf {
    directory.join("variables.fd")
}

impl Variable {
    /// Returns the variable as it is stored (`AUTHENTICATED_VARIABLE_HEADER`, name, data).
    fn bytes(&self) -> Vec<u8> {
        // VARIABLE_DATA, VAR_ADDED.
        let mut bytes = vec![0xaa, 0x55, 0x3f, 0];
        bytes.extend(self.attributes.to_le_bytes());
        // The monotonic count, which is not used. Then the time of the last change, and the index of a key: none.
        bytes.extend([0; 8]);
        bytes.extend([0; 16]);
        bytes.extend([0; 4]);
        let name: Vec<u8> = self
            .name
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        for length in [name.len(), self.data.len()] {
            bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(self.vendor);
        bytes.extend(name);
        bytes.extend(&self.data);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of 256 bytes in a firmware volume whose header has 72.
    fn empty() -> Vec<u8> {
        let mut store = vec![0xff; 400];
        store[48..50].copy_from_slice(&72_u16.to_le_bytes());
        store[72 + 16..72 + 20].copy_from_slice(&256_u32.to_le_bytes());
        store
    }

    #[test]
    fn variables_are_written_behind_one_another() {
        let mut store = empty();
        let uefi = Uefi::new().allow(b"123").sbat_level("sbat,1,2\n");
        assert!(uefi.fill(&mut store));
        let first = &store[100..];
        assert_eq!(first[..8], [0xaa, 0x55, 0x3f, 0, 0x27, 0, 0, 0]);
        // Name and data: "db" with its zero, a list with one signature.
        assert_eq!(first[36..44], [6, 0, 0, 0, 47, 0, 0, 0]);
        assert_eq!(first[44..60], SECURITY_DATABASE);
        assert_eq!(first[60..66], *b"d\0b\0\0\0");
        assert_eq!(first[66..82], CERT_X509);
        assert_eq!(first[82..94], [47, 0, 0, 0, 0, 0, 0, 0, 19, 0, 0, 0]);
        assert_eq!(first[110..113], *b"123");
        // 113 bytes, up to a multiple of four.
        assert_eq!(first[113..116], [0xff; 3]);
        assert_eq!(first[116..120], [0xaa, 0x55, 0x3f, 0]);
    }

    #[test]
    fn signatures_of_one_variable_are_joined() {
        let uefi = Uefi::new().forbid(b"one").forbid_program([7; 32]);
        assert_eq!(uefi.variables.len(), 1);
        let data = &uefi.variables[0].data;
        assert_eq!(data.len(), 47 + 28 + 16 + 32);
        assert_eq!(data[47..63], CERT_SHA256);
    }

    #[test]
    fn variables_in_a_file_are_used_as_they_are() {
        let uefi = Uefi::in_file("/dev/null");
        let arguments = uefi.arguments(Path::new("/run")).concat();
        assert!(
            arguments.iter().any(|it| it.ends_with(",file=/dev/null")),
            "{arguments:?}"
        );
        assert_eq!(uefi.variable("db"), None);
        let list = Uefi::new().allow(b"123");
        assert_eq!(list.variable("db").map(<[u8]>::len), Some(47));
    }

    #[test]
    fn stores_without_room_are_refused() {
        let mut store = empty();
        assert!(!Uefi::new().allow(&[0; 256]).fill(&mut store));
        store[100] = 0xaa;
        assert!(!Uefi::new().allow(b"123").fill(&mut store));
        assert!(!Uefi::new().allow(b"123").fill(&mut []));
    }

    #[test]
    fn guids_are_stored_with_little_endian_groups() {
        assert_eq!(
            GLOBAL,
            [
                0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03,
                0x2b, 0x8c
            ]
        );
    }
}
