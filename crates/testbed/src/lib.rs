//! QEMU and swtpm machines as values.
