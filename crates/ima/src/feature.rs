//! What can be left out of the init when it is built.

use crate::cmdline::RootName;
use crate::settings::{Root, Settings};

/// A feature of the init's `Cargo.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Roots of an erofs image and objects with fs-verity.
    Composefs,
    /// Why the kernel refuses what it verifies itself: signatures and certificates. With it go the texts of causes and remedies.
    Diagnosis,
    /// Signatures of the files in the initramfs, and so a start in front of another initramfs.
    InitramfsSignatures,
    /// Encrypted roots (LUKS2) that a TPM unlocks.
    Luks,
    /// Events in the TPM: what the init concluded.
    MeasuredBoot,
    /// Roots that a server or the host of a virtual machine shares: NFS, 9p, virtiofs.
    NetworkRoots,
    /// A writable layer over the root.
    Overlay,
    /// Further roots, tried where the first one is refused.
    Slots,
    /// Roots on raw flash.
    Ubi,
    /// Roots that dm-verity verifies.
    Verity,
}

impl Feature {
    /// All features, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::Composefs,
        Self::Diagnosis,
        Self::InitramfsSignatures,
        Self::Luks,
        Self::MeasuredBoot,
        Self::NetworkRoots,
        Self::Overlay,
        Self::Slots,
        Self::Ubi,
        Self::Verity,
    ];

    /// The name in `Cargo.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Composefs => "composefs",
            Self::Diagnosis => "diagnosis",
            Self::InitramfsSignatures => "initramfs-signatures",
            Self::Luks => "luks",
            Self::MeasuredBoot => "measured-boot",
            Self::NetworkRoots => "network-roots",
            Self::Overlay => "overlay",
            Self::Slots => "slots",
            Self::Ubi => "ubi",
            Self::Verity => "verity",
        }
    }

    /// Whether an init was built without it, by the bytes of the program: its `--version` says so.
    #[must_use]
    pub fn is_missing_in(self, program: &[u8]) -> bool {
        let line = format!("feature {}: no", self.name());
        let line = line.as_bytes();
        program.windows(line.len()).any(|bytes| bytes == line)
    }
}

impl Settings {
    /// The features that the boot of the root, or of one of the roots, needs.
    pub fn features(&self) -> impl Iterator<Item = Feature> {
        let slots = std::iter::once(self).chain(&self.others);
        Feature::ALL
            .into_iter()
            .filter(move |feature| slots.clone().any(|settings| settings.needs(*feature)))
    }

    fn needs(&self, feature: Feature) -> bool {
        match feature {
            Feature::Composefs => self.composefs.is_some(),
            // No setting needs it.
            Feature::Diagnosis => false,
            // The files of the initramfs decide.
            Feature::InitramfsSignatures => false,
            Feature::Luks => self.config.luks,
            Feature::MeasuredBoot => self.config.measure_pcr.is_some(),
            Feature::NetworkRoots => matches!(
                self.root,
                Root::Named(RootName::Nfs { .. } | RootName::Shared { .. })
            ),
            Feature::Overlay => self.config.overlay.is_some(),
            Feature::Slots => self.slot.is_some(),
            Feature::Ubi => matches!(self.root, Root::Named(RootName::Ubi(_))),
            Feature::Verity => self.verity.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn settings_need_features() {
        let hash = "0".repeat(64);
        for (config, line, expected) in [
            ("", "root=/dev/vda", &[][..]),
            ("", "root=ubi0:rootfs", &[Feature::Ubi]),
            ("root=virtiofs:x", "", &[Feature::NetworkRoots]),
            ("root=nfs:10.0.2.2:/x", "", &[Feature::NetworkRoots]),
            ("luks=yes", "root=/dev/vda", &[Feature::Luks]),
            ("measure_pcr=13", "root=/dev/vda", &[Feature::MeasuredBoot]),
            ("overlay=tmpfs", "root=/dev/vda", &[Feature::Overlay]),
            (
                &format!("verity={hash}"),
                "root=/dev/vda",
                &[Feature::Verity],
            ),
            (
                "slots=a b\nroot=ubi0:{slot}",
                "",
                &[Feature::Slots, Feature::Ubi],
            ),
        ] {
            let config = Config::parse(config.as_bytes()).unwrap();
            let settings = Settings::merge(config, line, Vec::new(), &mut |_| {}).unwrap();
            let found: Vec<Feature> = settings.features().collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_program_is_searched_for_what_it_lacks() {
        let program = b"\0feature overlay: no\nfeature slots: yes\nfeature ubi: n";
        let missing = Feature::ALL
            .into_iter()
            .filter(|feature| feature.is_missing_in(program));
        assert_eq!(missing.collect::<Vec<_>>(), [Feature::Overlay]);
    }
}
