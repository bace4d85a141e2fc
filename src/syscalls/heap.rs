//! The allocator of a program that runs long enough to use memory again.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt;
use std::ptr::null_mut;
use std::sync::Mutex;

use dlmalloc::Dlmalloc;

/// dlmalloc, which keeps what it has mapped: musl's allocator maps and unmaps memory again and again, with two system calls each
/// time.
///
/// Nothing waits for its lock, as it does for that of `dlmalloc::GlobalDlmalloc`: there is no other thread that could release it, and
/// a panic of the function that has it ends in this one again, by a signal.
pub struct Heap(Mutex<Dlmalloc>);

impl Heap {
    /// One without any memory yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new()))
    }

    fn with(&self, function: impl FnOnce(&mut Dlmalloc) -> *mut u8) -> *mut u8 {
        self.0
            .try_lock()
            .map_or(null_mut(), |mut heap| function(&mut heap))
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heap")
    }
}

// SAFETY: every call is passed to dlmalloc unchanged, one at a time. A block that cannot be freed, because another call has the
// lock, stays.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract of GlobalAlloc, which is dlmalloc's.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the same.
        self.with(|heap| unsafe { heap.realloc(memory, layout.size(), layout.align(), size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Ok(mut heap) = self.0.try_lock() {
            // SAFETY: the same.
            unsafe { heap.free(memory, layout.size(), layout.align()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_none_is_there_within_a_call() {
        let heap = Heap::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: no size is zero, and each block is used with its layout.
        unsafe {
            let first = heap.alloc(layout);
            first.write_bytes(0xff, 100);
            let first = heap.realloc(first, layout, 200);
            assert_eq!(std::slice::from_raw_parts(first, 100), [0xff; 100]);
            heap.dealloc(first, Layout::from_size_align(200, 8).unwrap());
            let second = heap.alloc_zeroed(layout);
            assert_eq!(std::slice::from_raw_parts(second, 100), [0; 100]);
            let inner = heap.with(|_| heap.alloc(layout));
            assert!(inner.is_null());
            heap.with(|_| {
                heap.dealloc(second, layout);
                null_mut()
            });
            assert_ne!(heap.alloc(layout), second);
        }
    }
}
