//! ext4 file systems, written and read without mounting them (`Documentation/filesystems/ext4/` of the kernel).

mod format;
mod reader;
mod writer;

pub use reader::{read, read_numbered};
pub use writer::{Parameters, Writer};

#[cfg(test)]
mod tests;
