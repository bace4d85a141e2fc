//! What this init was built with: `build/ship --features`.
//!
//! All of it is always compiled, and tested. What is not among the features of `Cargo.toml` that were chosen cannot be reached behind
//! [`require`] or [`is_built_in`], and the linker leaves it out.

use ima::fault::{Code, Fault};
pub use ima::feature::Feature;

macro_rules! line {
    ($name:literal) => {
        if cfg!(feature = $name) {
            concat!("feature ", $name, ": yes\n")
        } else {
            concat!("feature ", $name, ": no\n")
        }
    };
}

/// For `--version`: whether this init has each feature. [`Feature::is_missing_in`] looks for these lines in the program.
pub const LINES: [&str; Feature::ALL.len()] = [
    line!("composefs"),
    line!("diagnosis"),
    line!("initramfs-signatures"),
    line!("luks"),
    line!("measured-boot"),
    line!("network-roots"),
    line!("overlay"),
    line!("slots"),
    line!("ubi"),
    line!("verity"),
];

/// Whether this init has the feature.
#[inline(always)]
#[must_use]
pub const fn is_built_in(feature: Feature) -> bool {
    match feature {
        Feature::Composefs => cfg!(feature = "composefs"),
        Feature::Diagnosis => cfg!(feature = "diagnosis"),
        Feature::InitramfsSignatures => cfg!(feature = "initramfs-signatures"),
        Feature::Luks => cfg!(feature = "luks"),
        Feature::MeasuredBoot => cfg!(feature = "measured-boot"),
        Feature::NetworkRoots => cfg!(feature = "network-roots"),
        Feature::Overlay => cfg!(feature = "overlay"),
        Feature::Slots => cfg!(feature = "slots"),
        Feature::Ubi => cfg!(feature = "ubi"),
        Feature::Verity => cfg!(feature = "verity"),
    }
}

/// A feature that this init does not have.
///
/// It is a type of its own because the compiler sees of it that [`require`] fails. Of a [`Fault`] that a function returns it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing(Feature);

impl From<Missing> for Fault {
    fn from(Missing(feature): Missing) -> Self {
        Self::new(Code::FeatureMissing, feature.name())
    }
}

/// Requires that this init has the feature. It is inlined, so that the compiler drops what follows if it has not.
///
/// # Errors
///
/// The feature, if it is missing.
#[inline(always)]
pub const fn require(feature: Feature) -> Result<(), Missing> {
    if is_built_in(feature) {
        Ok(())
    } else {
        Err(Missing(feature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_each_feature() {
        for (feature, line) in Feature::ALL.into_iter().zip(LINES) {
            let text = if is_built_in(feature) { "yes" } else { "no" };
            assert_eq!(line, format!("feature {}: {text}\n", feature.name()));
            assert_eq!(
                feature.is_missing_in(line.as_bytes()),
                !is_built_in(feature)
            );
        }
    }
}
