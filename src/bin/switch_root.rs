//! The static switch_root that is installed in the real root and signed.

#[global_allocator]
static ALLOCATOR: ima_init::syscalls::Allocator = ima_init::syscalls::Allocator;

fn main() -> std::process::ExitCode {
    ima_init::switch::start()
}
