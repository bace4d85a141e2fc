//! The static switch_root that is installed in the real root and signed.

fn main() -> std::process::ExitCode {
    ima_init::switch::start()
}
