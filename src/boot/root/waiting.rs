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

/// Waits until there is a device of that name.
///
/// # Errors
///
/// [`Code::RootMissing`], [`Code::RootAmbiguous`], [`Code::RootDevice`].
pub(super) fn wait(name: &RootName, settings: &Settings) -> Result<Device, Fault> {
    let patience = settings.rootwait;
    let started = Instant::now();
    // Before the devices are listed for the first time, so that none that appears between the list and the wait is missed.
    let uevents = Uevents::listen().map_err(|errno| {
        warn!("root: the kernel does not announce new devices ({errno}); looking for them every second instead");
    });
    let mut next_notice = NOTICE;
    loop {
        let devices = devices::all();
        let found = devices::named(name, &devices, settings.gpt_is_forced);
        match found.as_slice() {
            [] => {}
            [device] => return Ok(device.clone()),
            several => {
                let paths: Vec<String> = several.iter().map(Device::path).collect();
                let detail = format!("{name} is {}", paths.join(" and "));
                return Err(Fault::new(Code::RootAmbiguous, detail));
            }
        }
        let waited = started.elapsed();
        let left = match patience {
            RootWait::AtMost(most) => most.saturating_sub(waited),
            RootWait::Forever => NOTICE,
        };
        if left.is_zero() {
            return Err(missing::fault(name, waited, &devices, settings));
        }
        if waited >= next_notice {
            let until = match patience {
                RootWait::AtMost(most) => {
                    format!("for {} s more", most.saturating_sub(waited).as_secs())
                }
                RootWait::Forever => "until it comes (rootwait)".to_owned(),
            };
            warn!(
                "root: waiting for {name} {until}; block devices: {}",
                devices::list(&devices)
            );
            next_notice = waited.saturating_add(NOTICE);
        }
        let pause = left.min(next_notice.saturating_sub(waited));
        match &uevents {
            Ok(uevents) => uevents.wait(pause),
            Err(()) => std::thread::sleep(pause.min(Duration::from_secs(1))),
        }
    }
}
