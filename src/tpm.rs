//! The TPM 2.0 of the machine.

use std::fs::File;
use std::io::{Read as _, Write as _};

use ima::tpm::MAX_RESPONSE;

/// The TPM behind the kernel's resource manager, which keeps the objects of its users apart. Only a TPM 2.0 has it.
pub const PATH: &str = "/dev/tpmrm0";

/// Opens the TPM.
///
/// # Errors
///
/// The path, and what open(2) says.
pub fn open() -> Result<File, String> {
    File::options()
        .read(true)
        .write(true)
        .open(PATH)
        .map_err(|error| format!("{PATH}: {error}"))
}

/// Transmits a command; the response is read whole (drivers/char/tpm/tpm-dev-common.c, `tpm_common_read`).
///
/// # Errors
///
/// What write(2) and read(2) say.
pub fn transmit(tpm: &mut File, command: &[u8]) -> Result<Vec<u8>, String> {
    let mut response = vec![0; MAX_RESPONSE];
    let length = tpm
        .write_all(command)
        .and_then(|()| tpm.read(&mut response))
        .map_err(|error| error.to_string())?;
    response.truncate(length);
    Ok(response)
}
