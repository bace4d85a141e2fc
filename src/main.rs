//! The init.

fn main() {}
