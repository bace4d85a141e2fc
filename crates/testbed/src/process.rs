//! Child processes that do not outlive this process.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a program that the kernel kills when this process ends, however it ends.
///
/// The signal is sent at the end of the *thread* that started the child (prctl(2), PR_SET_PDEATHSIG), and a test runs in
/// a thread of its own that may hand its machine to another. Hence all children are started from one thread that lives
/// as long as the process. `setpriv` calls prctl(2) between fork and exec.
pub(crate) fn spawn(program: &str, prepare: impl FnOnce(&mut Command)) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    prepare(&mut command);

    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // The caller waits for the answer, so the channel is open.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, child) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts programs has ended"))?;
    child
        .recv()
        .map_err(|_| io::Error::other("the thread that starts programs has ended"))?
}

/// A handle that kills a child for which another thread waits. It holds a pidfd, so it never signals a later process with the
/// same process ID.
#[derive(Debug)]
pub(crate) struct Killer(OwnedFd);

impl Killer {
    pub(crate) fn of(child: &Child) -> io::Result<Killer> {
        Ok(Killer(pidfd_open(
            Pid::from_child(child),
            PidfdFlags::empty(),
        )?))
    }

    pub(crate) fn kill(&self) {
        // The only failure is that it has ended already.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}
