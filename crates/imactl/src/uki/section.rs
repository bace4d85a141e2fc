//! The names of a unified kernel image's sections (systemd, src/fundamental/uki.c).

/// The kernel.
pub(super) const LINUX: &str = ".linux";
/// The initramfs.
pub(super) const INITRD: &str = ".initrd";
/// The kernel command line.
pub(super) const CMDLINE: &str = ".cmdline";
/// The operating system's `os-release`.
pub(super) const OSREL: &str = ".osrel";
/// The kernel's release.
pub(super) const UNAME: &str = ".uname";
/// The versions of the stub's parts, by which shim refuses those that were revoked.
pub(super) const SBAT: &str = ".sbat";
/// The text by which systemd's stub is known.
pub(super) const MAGIC: &str = ".sdmagic";

/// The sections that the stub looks for, and of which it uses one.
pub(super) const UNIQUE: [&str; 14] = [
    LINUX, INITRD, CMDLINE, OSREL, UNAME, SBAT, MAGIC, ".ucode", ".splash", ".dtb", ".pcrsig",
    ".pcrpkey", ".profile", ".hwids",
];

/// The section of [`UNIQUE`] that the stub of systemd 252 takes a section of this other name for: it compares only as many letters
/// as the name that it looks for has (src/boot/efi/pe.c, `locate_sections`).
pub(super) fn mistaken_for(name: &str) -> Option<&'static str> {
    // A device tree among several, which this stub does not know.
    let is_known = name == ".dtbauto" || UNIQUE.contains(&name);
    let mut unique = UNIQUE.into_iter();
    unique.find(|unique| !is_known && name.starts_with(unique))
}

/// The version of systemd's stub that a section [`MAGIC`] names; nothing if it is another text.
pub(super) fn stub_version(magic: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(magic);
    let (_, rest) = text.split_once("LoaderInfo: systemd-stub")?;
    let version = rest.split("####").next().unwrap_or_default();
    Some(version.trim().to_owned())
}
