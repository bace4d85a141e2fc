//! The blocks of an image's files: which hold data, and how they get into the image.

use crate::Result;
use crate::tree::InodeIndex;

/// Bytes in a block of an image.
pub const BLOCK: u64 = 4096;

/// The blocks of a file that are not all zeros: first block and number, sorted, not touching one another.
pub type DataRuns = Vec<(u64, u64)>;

/// Takes blocks of a file by their number in the file.
pub type WriteBlocks<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

/// Hands the content of a regular file to [`WriteBlocks`].
pub type ReadContent<'a> = dyn FnMut(InodeIndex, &mut WriteBlocks<'_>) -> Result<()> + 'a;

/// Collects the blocks that are not all zeros.
#[derive(Default)]
pub(super) struct RunCollector {
    pub(super) runs: DataRuns,
    block: u64,
}

impl RunCollector {
    pub(super) fn data(&mut self, data: &[u8]) {
        for chunk in data.chunks(BLOCK as usize) {
            if chunk.iter().any(|&byte| byte != 0) {
                match self.runs.last_mut() {
                    Some((start, len)) if *start + *len == self.block => *len += 1,
                    _ => self.runs.push((self.block, 1)),
                }
            }
            self.block += 1;
        }
    }

    pub(super) fn hole(&mut self, len: u64) {
        self.block += len / BLOCK;
    }
}
