//! Offers rules to the kernel's own parser: whether it takes each line of a file as a rule of a policy.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use ima_testbed::report::encode_hex;
use rustix::mount::{MountFlags, mount};

use crate::system;

/// The rules, one a line, in the initramfs.
pub const RULES: &str = "/rules";

const SECURITYFS: &str = "/sys/kernel/security";
const POLICY: &str = "/sys/kernel/security/ima/policy";

/// How many answers a line of the console has.
const ANSWERS: usize = 512;

/// Prints a bit for each line of the file, the first in the highest bit of the first byte.
pub fn offer() -> io::Result<()> {
    if !Path::new(POLICY).exists() {
        mount(
            "securityfs",
            SECURITYFS,
            "securityfs",
            MountFlags::empty(),
            None,
        )?;
    }
    let text = fs::read(RULES)?;
    let rules: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    for rules in rules.chunks(ANSWERS) {
        let mut answers = vec![0_u8; rules.len().div_ceil(8)];
        for (number, rule) in rules.iter().enumerate() {
            if takes(rule)? {
                answers[number / 8] |= 0x80 >> (number % 8);
            }
        }
        system::log(&format!("rules: {}", encode_hex(&answers)));
    }
    system::log("rules: all");
    Ok(())
}

/// Writes a rule, and then what is none: the kernel forgets all that was written to a file of which one rule was refused
/// (security/integrity/ima/ima_fs.c, `ima_release_policy`).
fn takes(rule: &[u8]) -> io::Result<bool> {
    let mut policy = OpenOptions::new().write(true).open(POLICY)?;
    let taken = policy.write(rule).is_ok();
    if taken {
        let refused = policy.write(b"none\n").is_err();
        if !refused {
            return Err(io::Error::other("the kernel takes what is not a rule"));
        }
    }
    Ok(taken)
}
