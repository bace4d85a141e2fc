//! The formats of Linux's integrity subsystem.
