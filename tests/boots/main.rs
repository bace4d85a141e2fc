//! Machines that boot under ima-init: what it must accept, what it must refuse and how.
//!
//! Each test is one boot (a few of them more), made from [`setup::Setup`], which boots as it is; a test changes what it is
//! about. Needed: `qemu/build-kernel`, `build/ship`, QEMU, swtpm, e2fsprogs; busybox-static, erofs-utils, squashfs-tools,
//! btrfs-progs, cryptsetup-bin, grub-pc-bin, nfs-ganesha-vfs, ovmf, shim-unsigned, systemd-boot-efi, mtools, u-boot-qemu and root
//! for the tests that name them.

mod accepted;
mod asked;
mod attacks;
mod attested;
mod boot_loader;
mod built;
mod closed_lines;
mod composefs;
mod compressions;
mod containers;
mod devices;
mod explained;
mod faults;
mod features;
mod flash;
mod formats;
mod front;
mod grammar;
mod hostile;
mod how_to;
mod initramfs;
mod kexec;
mod keylime;
mod keys;
mod killed;
mod lines;
mod luks;
mod matrix;
mod measured;
mod media;
mod mutable;
mod overlay;
mod partitions;
mod predicted;
mod processors;
mod refused;
mod roots;
mod rpm;
mod script_control;
mod scripted;
mod secure_boot;
mod setup;
mod shared;
mod signed_verity;
mod slots;
mod status;
mod tree;
mod u_boot;
mod updaters;
mod verity;
mod versions;
