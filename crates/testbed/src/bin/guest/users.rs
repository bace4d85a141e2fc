//! Attempts by processes that are not root: an ordinary user, and a user with every capability.
//!
//! A process makes each, which first takes the user's IDs: a rule with `euid=0` compares the effective user ID alone, and with
//! capabilities a process needs no such ID to do what root can.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use ima_testbed::report::AttemptResult;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    set_capabilities, set_keep_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::attempts::{add_policy, load_module, not_made, run};

/// `nobody` on most systems; no user needs to exist for its ID.
const ID: u32 = 65534;

/// A user who makes attempts.
#[derive(Clone, Copy)]
pub enum User {
    /// Without capabilities.
    Ordinary,
    /// With all of root's capabilities, also in the ambient set, so that a program it executes has them too. systemd starts a
    /// service so that has `User=nobody` and `AmbientCapabilities=~`.
    Capable,
}

impl User {
    const ALL: [(User, &'static str); 2] =
        [(User::Ordinary, "ordinary"), (User::Capable, "capable")];

    fn name(self) -> &'static str {
        match self {
            User::Ordinary => "ordinary",
            User::Capable => "capable",
        }
    }

    /// Makes this process one of the user's.
    fn become_it(self) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(ID), Gid::from_raw(ID));
        let all = capabilities(None)?.permitted;
        let keep = matches!(self, User::Capable);
        set_keep_capabilities(keep)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        if keep {
            set_capabilities(
                None,
                CapabilitySets {
                    effective: all,
                    permitted: all,
                    inheritable: all,
                },
            )?;
            for capability in all.iter() {
                configure_capability_in_ambient_set(capability, true)?;
            }
        } else if capabilities(None)?.effective != CapabilitySet::empty() {
            return Err(io::Error::other("the capabilities stay"));
        }
        Ok(())
    }
}

/// Something that a user tries.
#[derive(Clone, Copy)]
pub enum Action {
    /// Executes the file.
    Run,
    /// Loads the file as a module.
    LoadModule,
    /// Has the file taken as a policy.
    AddPolicy,
}

impl Action {
    const ALL: [(Action, &'static str); 3] = [
        (Action::Run, "run"),
        (Action::LoadModule, "load-module"),
        (Action::AddPolicy, "add-policy"),
    ];

    fn name(self) -> &'static str {
        match self {
            Action::Run => "run",
            Action::LoadModule => "load-module",
            Action::AddPolicy => "add-policy",
        }
    }

    fn take(self, file: &Path) -> AttemptResult {
        match self {
            Action::Run => run(file),
            Action::LoadModule => load_module(file),
            Action::AddPolicy => add_policy(file),
        }
    }
}

/// Has a process of `user` try it.
pub fn attempt(user: User, action: Action, file: &Path) -> AttemptResult {
    let made = || -> io::Result<AttemptResult> {
        let output = Command::new(std::env::current_exe()?)
            .args(["as-user", user.name(), action.name()])
            .arg(file)
            .stdin(Stdio::null())
            .output()?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            io::Error::other(format!("{}: {said}", output.status))
        })
    };
    made().unwrap_or_else(not_made)
}

/// `guest as-user USER ACTION FILE`: prints the result as JSON.
pub fn as_user(words: &[String]) -> ExitCode {
    fn named<T: Copy>(all: &[(T, &str)], wanted: &str) -> Option<T> {
        Some(all.iter().find(|(_, name)| *name == wanted)?.0)
    }
    let [user, action, file] = words else {
        return ExitCode::from(2);
    };
    let (Some(user), Some(action)) = (named(&User::ALL, user), named(&Action::ALL, action)) else {
        return ExitCode::from(2);
    };
    let result = match user.become_it() {
        Ok(()) => action.take(Path::new(file)),
        Err(error) => not_made(error),
    };
    match serde_json::to_string(&result) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}
