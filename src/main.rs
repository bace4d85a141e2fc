//! `/init` of the initramfs.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

fn main() -> std::process::ExitCode {
    ima_init::boot::start()
}
