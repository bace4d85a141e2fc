//! Where status is read from: the running system, or a recorded tree of its files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2};

use crate::Result;
use crate::file::{unreadable, unwritable};
use crate::pcr;

/// The longest file that is read whole, in bytes: a measurement list of half a million entries.
const MAX_FILE: u64 = 128 << 20;

/// A system whose status is read.
#[derive(Debug)]
pub struct System {
    /// The directory of a recorded tree.
    tree: Option<OwnedFd>,
    /// What was read, by path, if it is to be recorded.
    recording: Option<RefCell<BTreeMap<String, Vec<u8>>>>,
}

impl System {
    /// The running system.
    #[must_use]
    pub const fn running() -> Self {
        Self {
            tree: None,
            recording: None,
        }
    }

    /// A system of which a directory has the files, each under its own path. Links in it lead nowhere outside of it.
    ///
    /// # Errors
    ///
    /// [`Code::InputUnreadable`](ima::fault::Code::InputUnreadable).
    pub fn recorded(directory: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| unreadable(directory, &errno.into()))?;
        Ok(Self {
            tree: Some(tree),
            recording: None,
        })
    }

    /// The same system; what is read of it is kept for [`System::write_recording`].
    #[must_use]
    pub fn recording(self) -> Self {
        Self {
            recording: Some(RefCell::default()),
            ..self
        }
    }

    /// Whether it is the running system.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.tree.is_none()
    }

    /// Opens a file by its absolute path.
    fn open(&self, path: &str) -> std::io::Result<File> {
        // A pipe in a recorded tree must not block.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match &self.tree {
            None => Ok(rustix::fs::open(path, flags, Mode::empty())?.into()),
            Some(tree) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                Ok(openat2(tree, path, flags, Mode::empty(), resolve)?.into())
            }
        }
    }

    /// Reads a file whole.
    ///
    /// # Errors
    ///
    /// What open(2) and read(2) say; `FileTooLarge` for one of more than 128 MiB.
    pub fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.keep(path, &bytes);
        Ok(bytes)
    }

    /// A file as text without blanks at its end; bytes that are not UTF-8 are replaced. Nothing if it cannot be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Opens a file of any length, to be read piece by piece.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn stream(&self, path: &str) -> std::io::Result<File> {
        if self.recording.is_some() {
            self.read(path)?;
        }
        self.open(path)
    }

    /// The names in a directory, in order; none if it cannot be read.
    #[must_use]
    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = self
            .open(directory)
            .ok()
            .and_then(|file| Dir::new(file).ok());
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        names
    }

    /// Keeps the content of a file for the recording, where another way than [`System::read`] led to it.
    pub(super) fn keep(&self, path: &str, bytes: &[u8]) {
        if let Some(recording) = &self.recording {
            recording
                .borrow_mut()
                .insert(path.to_owned(), bytes.to_vec());
        }
    }

    /// The list of keys: of the running system with each line confirmed by the kernel.
    pub(super) fn keys(&self) -> Option<String> {
        const KEYS: &str = "/proc/keys";
        if !self.is_running() {
            return self.text(KEYS);
        }
        let list = ima_keyring::list().ok()?;
        self.keep(KEYS, list.as_bytes());
        Some(list)
    }

    /// The PCRs by bank: from sysfs, of the running system else from the TPM itself.
    pub(super) fn pcrs(&self) -> BTreeMap<ima::bank::Bank, pcr::Pcrs> {
        let banks = pcr::in_sysfs(|path| self.text(path));
        if !banks.is_empty() || !self.is_running() {
            return banks;
        }
        let banks = pcr::read_system().unwrap_or_default();
        for (bank, pcrs) in &banks {
            for (number, value) in pcrs {
                let path = format!("{}/pcr-{bank}/{number}", pcr::SYSFS);
                self.keep(&path, crate::hex::encode(value).as_bytes());
            }
        }
        banks
    }

    /// Writes what was read into a directory that is made for it, each file under its own path, readable by its owner alone.
    ///
    /// # Errors
    ///
    /// [`Code::OutputUnwritable`](ima::fault::Code::OutputUnwritable), also for a directory that is there already.
    pub fn write_recording(&self, directory: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder
            .create(directory)
            .map_err(|error| unwritable(directory, &error))?;
        builder.recursive(true);
        let Some(recording) = &self.recording else {
            return Ok(());
        };
        for (path, bytes) in recording.borrow().iter() {
            let path = directory.join(path.trim_start_matches('/'));
            if let Some(parent) = path.parent() {
                builder
                    .create(parent)
                    .map_err(|error| unwritable(parent, &error))?;
            }
            crate::file::write(&path, bytes, 0o600, false)?;
        }
        Ok(())
    }
}
