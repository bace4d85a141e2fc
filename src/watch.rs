//! Says what the boot waits for where a device does not answer, and ends the boot where it never does.
//!
//! A read from such a device waits where no signal reaches (TASK_UNINTERRUPTIBLE; mm/filemap.c, `folio_wait_bit_common`), so
//! that PID 1 could neither say so nor stop by itself. Hence the one thread beside it. It opens nothing and reads nothing, so
//! that it cannot come to wait too.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ima::config::RootWait;
use ima::fault::{Code, Fault};
use log::warn;

use crate::failure::{self, Ending};

/// How often a line says what is waited for.
const NOTICE: Duration = Duration::from_secs(5);

/// What the boot does with the device, and since when.
struct Step {
    what: String,
    since: Instant,
}

static STEP: Mutex<Option<Step>> = Mutex::new(None);

fn set(step: Option<Step>) -> Option<Step> {
    std::mem::replace(
        &mut STEP.lock().unwrap_or_else(PoisonError::into_inner),
        step,
    )
}

/// Starts to watch: a step that takes longer than `limit` is refused, unless the root is waited for without end.
pub fn start(ending: Ending, limit: Duration, patience: RootWait) {
    let limit = match patience {
        RootWait::AtMost(_) => Some(limit),
        RootWait::Forever => None,
    };
    let watching = std::thread::Builder::new().stack_size(1 << 16);
    let started = watching.spawn(move || watch(ending, limit));
    if let Err(error) = started {
        warn!("root: nobody watches whether the device answers: {error}");
    }
}

/// Does something that may wait for a device, under the eyes of the watch. Within another, that one's time goes on.
pub fn during<T>(what: impl FnOnce() -> String, act: impl FnOnce() -> T) -> T {
    let outer = set(Some(Step {
        what: what(),
        since: Instant::now(),
    }));
    let result = act();
    set(outer);
    result
}

fn watch(ending: Ending, limit: Option<Duration>) {
    let mut said = Duration::ZERO;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let step = STEP.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((what, waited)) = step
            .as_ref()
            .map(|step| (step.what.clone(), step.since.elapsed()))
        else {
            said = Duration::ZERO;
            continue;
        };
        drop(step);
        if waited < said {
            said = Duration::ZERO;
        }
        if limit.is_some_and(|limit| waited >= limit) {
            let detail = format!("{what} takes {} s and goes on", waited.as_secs());
            let fault = Fault::new(Code::RootDevice, detail)
                .cause("the device does not answer: a bad medium, cable or controller, or one that is far slower than stall_timeout= allows")
                .remedy("see the kernel's messages above; replace the medium, or set stall_timeout= or rootwait=forever in ima-init.conf if it is only slow");
            failure::end_now(&fault, ending);
        }
        if waited >= said.saturating_add(NOTICE) {
            let until = limit.map_or_else(
                || "until it answers (rootwait)".to_owned(),
                |limit| format!("for {} s more", limit.saturating_sub(waited).as_secs()),
            );
            warn!(
                "root: waiting for the device: {what}, {} s so far, {until}",
                waited.as_secs()
            );
            said = waited;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_within_another_gives_way_to_it() {
        let of = || {
            let step = STEP.lock().unwrap();
            step.as_ref().map(|step| step.what.clone())
        };
        during(
            || "outer".to_owned(),
            || {
                during(
                    || "inner".to_owned(),
                    || assert_eq!(of().as_deref(), Some("inner")),
                );
                assert_eq!(of().as_deref(), Some("outer"));
            },
        );
        assert_eq!(of(), None);
    }
}
