//! Whose initramfs the init is in: its own, or that of initramfs-tools or dracut, in front of which it stands.

use ima::layout;

/// The name by which initramfs-tools' initramfs is left (initramfs/initramfs-tools/hooks/ima-init).
const RUN_INIT: &str = "usr/lib/ima-init/run-init";
/// The unit by which dracut's with systemd is left (initramfs/dracut/99ima-init/module-setup.sh).
pub(super) const UNIT: &str = "usr/lib/systemd/system/initrd-switch-root.service.d/ima-init.conf";

/// What the hook of initramfs-tools and the module of dracut leave in an initramfs.
pub(super) const MADE_BY_HOOKS: [&str; 2] = [RUN_INIT, UNIT];

/// Whose initramfs the init is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its own: it finds and mounts the root itself.
    Alone,
    /// Another one, whose init it starts, and which executes it again when the root is mounted.
    Front,
    /// The same with systemd, which does not become the root's switch_root but goes on itself.
    FrontOfSystemd,
}

impl Place {
    /// The place of the init in an initramfs, by whether it has the files that the hook of initramfs-tools or the module of
    /// dracut leaves.
    pub(super) fn of(has: impl Fn(&str) -> bool) -> Self {
        if !has(layout::FRONTED_INIT) {
            Self::Alone
        } else if has(UNIT) {
            Self::FrontOfSystemd
        } else {
            Self::Front
        }
    }
}
