//! Kernels: a CA certificate into the room an image reserved for it, and whether a configuration has what is needed.

pub mod add_ca;
pub mod check;
