//! The wait for the root's device.

use std::time::{Duration, Instant};

use ima::cmdline::RootName;
use ima::config::RootWait;
use ima::fault::{Code, Fault};
use ima::settings::Settings;
use log::warn;

use super::devices::{self, Device};
use super::missing;
use crate::uevent::Uevents;

/// How often a line says what is waited for.
const NOTICE: Duration = Duration::from_secs(5);

/// Waits until there is a block device of that name.
///
/// # Errors
///
/// [`Code::RootMissing`], [`Code::RootAmbiguous`], [`Code::RootDevice`].
pub(super) fn wait(name: &RootName, settings: &Settings) -> Result<Device, Fault> {
    let devices = Vec::new();
    let search = BlockDevices {
        name,
        settings,
        devices,
    };
    wait_for(name, settings, search)
}

/// Where a root is looked for until it is there.
pub(super) trait Search {
    /// What is found.
    type Found;

    /// Looks once; nothing if it is not there yet.
    fn look(&mut self) -> Result<Option<Self::Found>, Fault>;

    /// What was there at the last look, for messages.
    fn present(&self) -> String;

    /// The fault of a root that was not there at the last look either.
    fn missing(&self, waited: Duration) -> Fault;
}

/// Waits for what is searched for as long as the settings say.
///
/// # Errors
///
/// What the search says.
pub(super) fn wait_for<S: Search>(
    name: &RootName,
    settings: &Settings,
    mut search: S,
) -> Result<S::Found, Fault> {
    let patience = settings.rootwait;
    let started = Instant::now();
    // Before the devices are listed for the first time, so that none that appears between the list and the wait is missed.
    let uevents = Uevents::listen().map_err(|errno| {
        warn!("root: the kernel does not announce new devices ({errno}); looking for them every second instead");
    });
    let mut next_notice = NOTICE;
    loop {
        if let Some(found) = search.look()? {
            return Ok(found);
        }
        let waited = started.elapsed();
        let left = match patience {
            RootWait::AtMost(most) => most.saturating_sub(waited),
            RootWait::Forever => NOTICE,
        };
        if left.is_zero() {
            return Err(search.missing(waited));
        }
        if waited >= next_notice {
            let until = match patience {
                RootWait::AtMost(most) => {
                    format!("for {} s more", most.saturating_sub(waited).as_secs())
                }
                RootWait::Forever => "until it comes (rootwait)".to_owned(),
            };
            warn!("root: waiting for {name} {until}; {}", search.present());
            next_notice = waited.saturating_add(NOTICE);
        }
        let pause = left.min(next_notice.saturating_sub(waited));
        match &uevents {
            Ok(uevents) => uevents.wait(pause),
            Err(()) => std::thread::sleep(pause.min(Duration::from_secs(1))),
        }
    }
}

/// The block device of a name.
struct BlockDevices<'a> {
    name: &'a RootName,
    settings: &'a Settings,
    /// Those that were there at the last look.
    devices: Vec<Device>,
}

impl Search for BlockDevices<'_> {
    type Found = Device;

    fn look(&mut self) -> Result<Option<Device>, Fault> {
        self.devices = devices::all();
        let found = devices::named(self.name, &self.devices, self.settings.gpt_is_forced);
        match found.as_slice() {
            [] => Ok(None),
            [device] => Ok(Some(device.clone())),
            several => {
                let paths: Vec<String> = several.iter().map(Device::path).collect();
                let detail = format!("{} is {}", self.name, paths.join(" and "));
                Err(Fault::new(Code::RootAmbiguous, detail))
            }
        }
    }

    fn present(&self) -> String {
        format!("block devices: {}", devices::list(&self.devices))
    }

    fn missing(&self, waited: Duration) -> Fault {
        missing::fault(self.name, waited, &self.devices, self.settings)
    }
}
