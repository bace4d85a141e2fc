//! The allocator of switch_root.

use std::alloc::{GlobalAlloc, Layout};
use std::mem::take;
use std::ptr::{null_mut, with_exposed_provenance_mut};
use std::sync::Mutex;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// How much is mapped at once. Memory that is never written to takes none of the machine's.
const CHUNK: usize = 1 << 18;

/// What of each mapping is for the refusal that a lack of memory ends in.
const RESERVE: usize = 1 << 14;

/// An allocator that takes one block after the other from a mapping and gives none back to the kernel. Only the block that was
/// taken last can grow in its place, and its memory is used again when it is freed. musl's allocator has 9 kB more code, and
/// switch_root runs for a moment: its memory is given back when it executes the real init.
#[derive(Debug)]
pub struct Arena(Mutex<Rest>);

/// The addresses of what is left of the mapping.
#[derive(Debug)]
struct Rest {
    start: usize,
    end: usize,
    /// How many bytes are kept behind the end, until the kernel has refused more memory once.
    reserve: usize,
}

impl Arena {
    /// One without any memory yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Rest {
            start: 0,
            end: 0,
            reserve: 0,
        }))
    }

    /// Does not wait for the lock: there is no other thread that could release it, and the handler of a crash in the function that
    /// has it takes memory too.
    fn with<T>(&self, function: impl FnOnce(&mut Rest) -> Option<T>) -> Option<T> {
        function(&mut *self.0.try_lock().ok()?)
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl Rest {
    fn take(&mut self, layout: Layout) -> Option<*mut u8> {
        let block = self.fit(layout);
        if block.is_some() {
            return block;
        }
        let room = layout.size().checked_add(layout.align())?.max(CHUNK);
        let length = room.checked_add(RESERVE)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping at an address of the kernel's choice touches no memory of this program.
        let chunk = unsafe { mmap_anonymous(null_mut(), length, access, MapFlags::PRIVATE) };
        let Ok(chunk) = chunk else {
            self.end = self.end.checked_add(take(&mut self.reserve))?;
            return None;
        };
        self.start = chunk.expose_provenance();
        self.end = self.start.checked_add(room)?;
        self.reserve = RESERVE;
        self.fit(layout)
    }

    fn fit(&mut self, layout: Layout) -> Option<*mut u8> {
        // An alignment is a power of two.
        let below = layout.align().wrapping_sub(1);
        let block = self.start.checked_add(below)? & !below;
        let after = block.checked_add(layout.size())?;
        (after <= self.end).then(|| {
            self.start = after;
            with_exposed_provenance_mut(block)
        })
    }

    /// Changes the size of a block where it is, if it was taken last.
    fn resize(&mut self, block: *mut u8, layout: Layout, size: usize) -> Option<*mut u8> {
        let last = block.addr().checked_add(layout.size())? == self.start;
        let after = block.addr().checked_add(size)?;
        (last && after <= self.end).then(|| {
            self.start = after;
            block
        })
    }
}

// SAFETY: each block is a part of a mapping that no other block has: `start` is behind all blocks that are in use, and only moves
// back over the last one of them, when that is freed or made smaller.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|rest| rest.take(layout)).unwrap_or_default()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.with(|rest| rest.resize(block, layout, 0));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(block) = self.with(|rest| rest.resize(block, layout, size)) {
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller's size is neither zero nor, rounded up to the alignment, more than isize::MAX.
        let larger = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let new = unsafe { self.alloc(larger) };
        if !new.is_null() {
            // SAFETY: the new block is longer than the old one, which the caller has, and not a part of it.
            unsafe { new.copy_from_nonoverlapping(block, layout.size()) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// A block with each byte set, which must not be seen in another one.
    fn block(arena: &Arena, layout: Layout) -> *mut u8 {
        // SAFETY: no size in these tests is zero, and the block is as long as is written.
        unsafe {
            let block = arena.alloc(layout);
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            block.write_bytes(0xff, layout.size());
            block
        }
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let arena = Arena::new();
        let mut ends = Vec::new();
        for (size, align) in [
            (1, 1),
            (3, 64),
            (CHUNK, 8),
            (CHUNK - 8, 1),
            (16, 16),
            (5 * CHUNK, 4096),
        ] {
            let start = block(&arena, layout(size, align)).addr();
            let end = start + size;
            assert!(
                ends.iter()
                    .all(|(other, after)| end <= *other || *after <= start)
            );
            ends.push((start, end));
        }
    }

    #[test]
    fn the_last_block_changes_in_place_and_its_memory_is_used_again() {
        let arena = Arena::new();
        let first = block(&arena, layout(8, 8));
        let last = block(&arena, layout(8, 8));
        // SAFETY: each block is used with the layout that it has then.
        unsafe {
            assert_eq!(arena.realloc(last, layout(8, 8), 4096), last);
            assert_eq!(arena.realloc(last, layout(4096, 8), 16), last);
            let moved = arena.realloc(first, layout(8, 8), 64);
            assert_eq!(moved.addr(), last.addr() + 16);
            assert_eq!(std::slice::from_raw_parts(moved, 8), [0xff; 8]);
            assert_eq!(arena.realloc(last, layout(16, 8), 8), last);
            arena.dealloc(last, layout(8, 8));
            arena.dealloc(moved, layout(64, 8));
            assert_eq!(block(&arena, layout(1, 1)), moved);
        }
    }

    #[test]
    fn what_does_not_fit_the_chunk_gets_another_one() {
        let arena = Arena::new();
        let old = block(&arena, layout(CHUNK - 8, 1));
        // SAFETY: as above.
        unsafe {
            let new = arena.realloc(old, layout(CHUNK - 8, 1), 2 * CHUNK);
            assert!(!new.is_null() && new != old);
            assert_eq!(new.add(CHUNK - 9).read(), 0xff);
        }
    }

    #[test]
    fn a_lack_of_memory_leaves_the_reserve_once() {
        let arena = Arena::new();
        let all = block(&arena, layout(CHUNK, 1));
        // SAFETY: the size is not zero.
        let lack = || unsafe { arena.alloc(layout(isize::MAX as usize - CHUNK, 1)) };
        assert!(lack().is_null());
        assert_eq!(block(&arena, layout(RESERVE, 1)).addr(), all.addr() + CHUNK);
        assert!(lack().is_null());
        let other = block(&arena, layout(1, 1)).addr();
        assert!(!(all.addr()..all.addr() + CHUNK + RESERVE).contains(&other));
    }
}
