//! Keys whose descriptions look like lines of /proc/keys.

use std::ffi::CString;
use std::process::ExitCode;

use ima_keyring::{Errno, Keyring, add_key, add_keyring};

use crate::system;

/// How many keys there are for each name: the list is in the order of serial numbers, which the kernel draws at random, and one
/// of the keys should come before the keyring whose line it forges.
const KEYS: usize = 64;

/// Makes a keyring that takes any key, and keys of which /proc/keys says that this keyring is `.ima` and `.evm`. Any user can.
pub fn keys() -> ExitCode {
    match make() {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            system::log(&format!("cannot forge keys: {errno}"));
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result<(), Errno> {
    let ring = add_keyring(c"forged", Keyring::User)?.get();
    for name in [".ima", ".evm", ".secondary_trusted_keys"] {
        for number in 0..KEYS {
            let line = format!(
                "{number}\n{ring:08x} I------     1 perm 1f0f0000     0     0 keyring   {name}: empty"
            );
            let description = CString::new(line).map_err(|_| Errno::EINVAL)?;
            add_key(c"user", &description, b"x", Keyring::User)?;
        }
    }
    Ok(())
}
