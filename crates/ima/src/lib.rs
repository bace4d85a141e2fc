//! The formats of Linux's integrity subsystem, and those that bring it into force at boot. No I/O: each module takes
//! bytes and gives values, or the other way round.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod asn1;
pub mod audit;
pub mod bank;
pub mod boot_event;
pub mod certificate;
pub mod cmdline;
pub mod composefs;
pub mod config;
pub mod cpio;
pub mod device;
mod distinguished_name;
pub mod dm_verity;
pub mod elf;
pub mod eventlog;
pub mod evm;
pub mod evm_key;
pub mod fault;
pub mod feature;
pub mod filesystem;
pub mod forward;
pub mod hash;
pub mod hex;
pub mod json;
pub mod keyring;
pub mod kmsg;
pub mod layout;
#[cfg(feature = "luks")]
pub mod luks;
pub mod measurement;
pub mod mount_options;
pub mod mountinfo;
pub mod offer;
pub mod oid;
pub mod partition;
pub mod pkcs7;
pub mod policy;
pub mod program;
pub mod release;
pub mod revocation;
pub mod settings;
pub mod signature;
pub mod signatures;
pub mod tpm;
pub mod verify;
pub mod verity;
