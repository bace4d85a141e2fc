//! Volumes of UBI's, which are not block devices: the file system's driver finds them by their names.

use std::path::Path;
use std::time::Duration;

use ima::cmdline::{RootName, UbiVolume, UbiVolumeId};
use ima::fault::{Cause, Code, Fault};
use ima::settings::Settings;

use super::waiting::{Search, wait_for};

use crate::kernel_files;

/// The class of UBI's devices and volumes (drivers/mtd/ubi/build.c, `ubi_class`).
const CLASS: &str = "/sys/class/ubi";

/// How many volumes are named; a device has 128 at most (drivers/mtd/ubi/ubi-media.h, UBI_MAX_VOLUMES).
const MAX_SHOWN: usize = 16;

/// Waits for the volume; gives the name under which the driver finds it, `ubiDEVICE_NUMBER`.
pub(super) fn wait(
    name: &RootName,
    volume: &UbiVolume,
    settings: &Settings,
) -> Result<String, Fault> {
    let search = Volumes {
        volume,
        state: State::read(Path::new(CLASS), volume),
    };
    wait_for(name, settings, search)
}

struct Volumes<'a> {
    volume: &'a UbiVolume,
    state: State,
}

/// What there is of UBI.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The kernel has no UBI.
    NoUbi,
    /// It has no device of that number.
    NoDevice,
    /// The device is there and has volumes of these numbers and names.
    Device(Vec<(u32, String)>),
}

impl State {
    fn read(class: &Path, wanted: &UbiVolume) -> Self {
        if !class.exists() {
            return Self::NoUbi;
        }
        let device = format!("ubi{}", wanted.device);
        if !class.join(&device).exists() {
            return Self::NoDevice;
        }
        let prefix = format!("{device}_");
        let entries = kernel_files::names(class);
        let volumes = entries.iter().filter_map(|entry| {
            let number = entry.strip_prefix(&prefix)?.parse().ok()?;
            // A volume that goes away meanwhile has no name.
            let name = kernel_files::text(class.join(entry).join("name")).ok()?;
            Some((number, name.trim_end_matches('\n').to_owned()))
        });
        let mut volumes: Vec<(u32, String)> = volumes.collect();
        volumes.sort();
        Self::Device(volumes)
    }

    /// The number of the volume, if it is there.
    fn number(&self, wanted: &UbiVolumeId) -> Option<u32> {
        let Self::Device(volumes) = self else {
            return None;
        };
        let is_wanted = |(number, name): &&(u32, String)| match wanted {
            UbiVolumeId::Number(wanted) => number == wanted,
            UbiVolumeId::Name(wanted) => name == wanted,
        };
        volumes.iter().find(is_wanted).map(|(number, _)| *number)
    }

    fn text(&self, device: u32) -> String {
        match self {
            Self::NoUbi => "the kernel has no UBI".to_owned(),
            Self::NoDevice => format!("there is no ubi{device}"),
            Self::Device(volumes) if volumes.is_empty() => format!("ubi{device} has no volume"),
            Self::Device(volumes) => {
                let shown: Vec<String> = volumes
                    .iter()
                    .take(MAX_SHOWN)
                    .map(|(number, name)| format!("{number} ({name})"))
                    .collect();
                format!("volumes of ubi{device}: {}", shown.join(", "))
            }
        }
    }
}

impl Search for Volumes<'_> {
    type Found = String;

    fn look(&mut self) -> Result<Option<String>, Fault> {
        self.state = State::read(Path::new(CLASS), self.volume);
        let number = self.state.number(&self.volume.volume);
        Ok(number.map(|number| format!("ubi{}_{number}", self.volume.device)))
    }

    fn present(&self) -> String {
        self.state.text(self.volume.device)
    }

    fn missing(&self, waited: Duration) -> Fault {
        let detail = format!(
            "{} after {} s; {}",
            self.volume,
            waited.as_secs(),
            self.present()
        );
        let fault = Fault::new(Code::RootMissing, detail);
        match self.state {
            State::NoUbi => fault.because(Cause::NO_UBI),
            State::NoDevice => {
                let number = self.volume.device.to_string();
                fault.because(Cause::NO_UBI_DEVICE.with(&[&number]))
            }
            State::Device(_) => fault.because(Cause::NO_UBI_VOLUME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_found_by_number_and_by_name() {
        let class = tempfile::tempdir().unwrap();
        let volume = |device, volume| UbiVolume { device, volume };
        let name = |text: &str| UbiVolumeId::Name(text.to_owned());
        for (directory, text) in [
            ("ubi0_0", "boot\n"),
            ("ubi0_12", "rootfs\n"),
            ("ubi1_0", "rootfs\n"),
        ] {
            let directory = class.path().join(directory);
            std::fs::create_dir(&directory).unwrap();
            std::fs::write(directory.join("name"), text).unwrap();
        }
        std::fs::create_dir(class.path().join("ubi0")).unwrap();
        std::fs::write(class.path().join("version"), "1\n").unwrap();
        for (wanted, expected) in [
            (volume(0, name("rootfs")), Some(12)),
            (volume(0, UbiVolumeId::Number(0)), Some(0)),
            (volume(0, UbiVolumeId::Number(1)), None),
            (volume(0, name("rootfs2")), None),
            // Its volume is there; its device is not.
            (volume(1, name("rootfs")), None),
        ] {
            let state = State::read(class.path(), &wanted);
            assert_eq!(state.number(&wanted.volume), expected, "{wanted}");
        }
        assert_eq!(
            State::read(class.path(), &volume(1, name("rootfs"))),
            State::NoDevice
        );
        assert_eq!(
            State::read(&class.path().join("none"), &volume(0, name("rootfs"))),
            State::NoUbi
        );
        let state = State::read(class.path(), &volume(0, name("x")));
        assert_eq!(state.text(0), "volumes of ubi0: 0 (boot), 12 (rootfs)");
    }
}
