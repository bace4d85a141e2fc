//! Where in an initramfs the init stands: its own, or that of initramfs-tools or dracut.

use std::path::Path;

use ima::config;
use ima::fault::{Code, Fault};
use ima::layout;

use super::InitramfsBuilder;
use crate::Result;
use crate::file::{read_bounded, unreadable};

/// The init at the end of initramfs-tools' initramfs (initramfs/initramfs-tools/hooks/ima-init).
const RUN_INIT: &str = "usr/lib/ima-init/run-init";
/// The init that systemd starts in dracut's (initramfs/dracut/99ima-init/module-setup.sh).
const LOADER: &str = "usr/lib/ima-init/ima-init";
const UNIT: &str = "usr/lib/systemd/system/ima-init.service";
/// The init at the end of dracut's without systemd.
const SWITCH_ROOT: &str = "usr/bin/switch_root";
/// What only dracut's initramfs has.
const DRACUT: &str = "usr/lib/dracut-lib.sh";

/// The largest file of an initramfs's directory that is read.
const MAX_FILE: u64 = 16 << 20;

/// Where in the initramfs the init stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is /init, and finds and mounts the root itself.
    Alone,
    /// It is what the initramfs executes last, when the root is mounted.
    Leaving,
    /// systemd starts it when the root is mounted, and goes on afterwards.
    WithSystemd,
}

impl InitramfsBuilder {
    /// Where the init stands, by the files that the hook of initramfs-tools or the module of dracut has left.
    #[must_use]
    pub fn place(&self) -> Place {
        self.program().0
    }

    /// The same, and the init's path.
    pub(super) fn program(&self) -> (Place, &'static str) {
        let has = |path| self.data(path).is_some();
        if has(UNIT) {
            (Place::WithSystemd, LOADER)
        } else if has(RUN_INIT) {
            (Place::Leaving, RUN_INIT)
        } else if has(DRACUT) {
            (Place::Leaving, SWITCH_ROOT)
        } else {
            (Place::Alone, "init")
        }
    }

    /// Of a directory that is to become an initramfs, what the init reads there, and the init itself.
    ///
    /// # Errors
    ///
    /// `IMA-901` for what cannot be read; `IMA-911` for a directory that holds no init.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let mut builder = Self::new();
        let policies = [layout::POLICY, layout::DEFAULT_POLICY];
        let signatures = policies.map(|policy| format!("{policy}{}", layout::SIGNATURE));
        let mut paths = vec![
            "init",
            RUN_INIT,
            LOADER,
            UNIT,
            SWITCH_ROOT,
            DRACUT,
            config::PATH,
        ];
        paths.extend(policies);
        paths.extend(signatures.iter().map(String::as_str));
        for path in paths {
            builder = builder.taking(directory, path)?;
        }
        for keys in ["", "/ima", "/evm"] {
            let keys = format!("{}{keys}", layout::KEYS);
            let place = directory.join(keys.trim_start_matches('/'));
            let Ok(entries) = std::fs::read_dir(&place) else {
                continue;
            };
            for entry in entries {
                let name = entry
                    .map_err(|error| unreadable(&place, &error))?
                    .file_name();
                builder =
                    builder.taking(directory, &format!("{keys}/{}", name.to_string_lossy()))?;
            }
        }
        if builder.data(builder.program().1).is_none() {
            let detail = format!("{}: the init is not in it", directory.display());
            return Err(Fault::new(Code::InitramfsRefused, detail));
        }
        Ok(builder)
    }

    /// Takes a regular file in, if it is there; links are followed, as they are when an initramfs is packed from files of the
    /// system.
    fn taking(self, directory: &Path, path: &str) -> Result<Self> {
        let source = directory.join(path.trim_start_matches('/'));
        if !source.is_file() {
            return Ok(self);
        }
        let data = read_bounded(&source, MAX_FILE)?;
        let mode = if is_executable(&source) { 0o755 } else { 0o644 };
        Ok(self.file(path.trim_start_matches('/'), mode, data))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_known_by_what_hook_and_module_leave() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        let place = || InitramfsBuilder::from_directory(directory.path()).map(|made| made.place());
        assert_eq!(place().unwrap_err().code(), Code::InitramfsRefused);
        put("init");
        assert_eq!(place(), Ok(Place::Alone));
        put(DRACUT);
        assert_eq!(place().unwrap_err().code(), Code::InitramfsRefused);
        put(SWITCH_ROOT);
        assert_eq!(place(), Ok(Place::Leaving));
        put(UNIT);
        put(LOADER);
        assert_eq!(place(), Ok(Place::WithSystemd));
    }

    #[test]
    fn what_the_init_reads_is_taken_from_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            RUN_INIT,
            "etc/ima/ima-init.conf",
            "etc/ima/ima_policy",
            "etc/keys/ima/a.der",
            "etc/passwd",
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let made = InitramfsBuilder::from_directory(directory.path()).unwrap();
        assert_eq!(made.place(), Place::Leaving);
        for (path, there) in [
            ("etc/ima/ima_policy", true),
            ("etc/keys/ima/a.der", true),
            ("etc/passwd", false),
        ] {
            assert_eq!(made.data(path).is_some(), there, "{path}");
        }
    }
}
