//! The init.
