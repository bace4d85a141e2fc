//! The initramfs that a directory is to become.

use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use ima::config;
use ima::fault::{Code, Fault};
use ima::layout;

use super::InitramfsBuilder;
use super::place::{MADE_BY_HOOKS, Place};
use crate::Result;
use crate::file::{read_bounded, unreadable};
use crate::tree::Tree;

/// The largest file of an initramfs's directory that is read.
const MAX_FILE: u64 = 32 << 20;

impl InitramfsBuilder {
    /// Of a directory that is to become an initramfs, what the init reads there, and the init itself; all of it only where the
    /// init is in front of another one ([`InitramfsBuilder::tree`]).
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`] for what cannot be read; [`Code::InitramfsRefused`] for a directory that holds no init.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let mut builder = Self::new();
        let policies = [layout::POLICY, layout::DEFAULT_POLICY];
        let signatures = policies.map(|policy| format!("{policy}{}", layout::SIGNATURE));
        let mut paths = vec![
            "init",
            layout::FRONTED_INIT,
            layout::PROGRAM,
            layout::SIGNATURES,
            config::PATH,
        ];
        paths.extend(MADE_BY_HOOKS);
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
        if builder.init_entry().is_none() {
            let detail = format!("{}: the init is not in it", directory.display());
            return Err(Fault::new(Code::InitramfsRefused, detail));
        }
        if builder.place() != Place::Alone {
            builder.directory = Some(Tree::from_directory(directory)?);
        }
        Ok(builder)
    }

    /// Takes a regular file in, if it is there; links are followed, as they are when an initramfs is packed from files of the
    /// system.
    fn taking(self, directory: &Path, path: &str) -> Result<Self> {
        let source = directory.join(path.trim_start_matches('/'));
        // A link that leads nowhere on this system may lead somewhere in the initramfs.
        if let Ok(target) = std::fs::read_link(&source)
            && !source.is_file()
        {
            return Ok(self.symlink(path, target.into_os_string().into_vec()));
        }
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
    use crate::initramfs::place::{MADE_BY_HOOKS, UNIT};

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
        put("usr/lib/ima-init/init");
        assert_eq!(place(), Ok(Place::Front));
        put(UNIT);
        assert_eq!(place(), Ok(Place::FrontOfSystemd));
    }

    #[test]
    fn the_init_may_be_a_link_to_its_program() {
        let program = || InitramfsBuilder::new().file(layout::PROGRAM, 0o755, &b"x"[..]);
        for target in ["usr/lib/ima-init/ima-init", "/usr/lib/ima-init/ima-init"] {
            let linked = program().symlink("init", target);
            assert_eq!(linked.init_entry().unwrap().data, b"x", "{target}");
        }
        assert!(program().symlink("init", "init").init_entry().is_none());
        assert!(program().symlink("init", "nowhere").init_entry().is_none());
    }

    #[test]
    fn an_initramfs_of_an_older_hook_is_refused() {
        for path in MADE_BY_HOOKS {
            let older = InitramfsBuilder::new().file(path, 0o755, &b"x"[..]);
            assert_eq!(
                older.check_place().unwrap_err().code(),
                Code::PolicyNotLoaded
            );
            let now = older.symlink(layout::FRONTED_INIT, &b"/sbin/init"[..]);
            assert_eq!(now.check_place(), Ok(()));
        }
    }

    #[test]
    fn what_the_init_reads_is_taken_from_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            "init",
            "usr/lib/ima-init/init",
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
        assert_eq!(made.place(), Place::Front);
        for (path, there) in [
            ("etc/ima/ima_policy", true),
            ("etc/keys/ima/a.der", true),
            ("etc/passwd", false),
        ] {
            assert_eq!(made.data(path).is_some(), there, "{path}");
        }
    }
}
