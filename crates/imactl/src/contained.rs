//! Calls into libraries that are written for sound input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Returns what `call` returns, or nothing if it panics, as a library may over a number out of range in a damaged image. What
/// the library says of that is of no use to the person who reads it, and is not printed.
pub fn contained<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    // One hook for the life of the process: to exchange it around each call would be a race between threads.
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_result() {
        assert_eq!(contained(|| 5), Some(5));
        assert_eq!(contained(|| -> u32 { panic!("not printed") }), None);
        assert_eq!(
            contained(|| contained(|| -> u32 { panic!("not printed") })),
            Some(None)
        );
        assert!(!QUIET.get());
    }
}
