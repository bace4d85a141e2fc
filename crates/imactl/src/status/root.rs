//! The root, and what protects it beside IMA.

use ima::mountinfo;
use serde::Serialize;

use super::init_report::InitReport;
use super::item::{Check, Item, State};
use super::system::System;

/// What the device mapper makes of a device below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// The kernel verifies each block.
    DmVerity,
    /// The content is encrypted.
    Luks,
    /// fs-verity verifies the image and its objects.
    Composefs,
    /// A writable layer over a root that stays as it is.
    Overlay,
}

impl Protection {
    const fn name(self) -> &'static str {
        match self {
            Self::DmVerity => "dm-verity",
            Self::Luks => "LUKS",
            Self::Composefs => "composefs",
            Self::Overlay => "a writable layer over it",
        }
    }
}

/// The mounted root.
#[derive(Debug, Clone, Serialize)]
pub struct Root {
    /// Its file system.
    pub fstype: String,
    /// The device, or what stands in its place.
    pub source: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// What protects it beside IMA.
    pub protection: Vec<Protection>,
    /// The file system that the init mounted, where that is another one.
    pub init_mounted: Option<String>,
}

impl Root {
    pub(super) fn of(system: &System, report: Option<&InitReport>) -> Option<Self> {
        let list = system.read("/proc/self/mountinfo").ok()?;
        let mount = mountinfo::mounts(&list).rfind(|mount| mount.point == b"/")?;
        let mut protection = Vec::new();
        let mapped = mapper_uuid(system, &mount.source).unwrap_or_default();
        let said = report.map(|report| &report.root);
        if mapped.starts_with("CRYPT-VERITY-") || said.is_some_and(|root| root.verity.is_some()) {
            protection.push(Protection::DmVerity);
        }
        if mapped.starts_with("CRYPT-LUKS") {
            protection.push(Protection::Luks);
        }
        if said.is_some_and(|root| root.composefs.is_some()) {
            protection.push(Protection::Composefs);
        }
        if said.is_some_and(|root| root.overlay.is_some()) {
            protection.push(Protection::Overlay);
        }
        let has = |options: &str| options.split(',').any(|option| option == "ro");
        // Over a layer or a composefs lies overlayfs.
        let plain = said.is_some_and(|root| root.overlay.is_none() && root.composefs.is_none());
        Some(Self {
            init_mounted: said
                .filter(|root| plain && !root.fstype.is_empty() && root.fstype != mount.fstype)
                .map(|root| root.fstype.clone()),
            read_only: has(&mount.options) || has(&mount.super_options),
            fstype: mount.fstype,
            source: mount.source,
            protection,
        })
    }

    pub(super) fn check(root: Option<&Self>) -> Check {
        let Some(root) = root else {
            let text = "the list of mounts cannot be read";
            return Check::new(Item::Root, State::NotVisible, text);
        };
        let access = if root.read_only {
            "read-only"
        } else {
            "read-write"
        };
        let names: Vec<&str> = root.protection.iter().map(|it| it.name()).collect();
        let protection = match names.as_slice() {
            [] => "nothing below IMA protects it".to_owned(),
            names => format!("with {}", names.join(", ")),
        };
        let text = format!("{} on {}, {access}, {protection}", root.fstype, root.source);
        let check = Check::new(Item::Root, State::Good, text);
        match &root.init_mounted {
            Some(other) => check.attention().detail(format!(
                "the init mounted {other}: this is another root, or this runs in a container"
            )),
            None => check,
        }
    }
}

/// The UUID that the device mapper has for a device; cryptsetup writes what it is at its beginning.
fn mapper_uuid(system: &System, device: &str) -> Option<String> {
    let device = device.strip_prefix("/dev/")?;
    system
        .names("/sys/block")
        .into_iter()
        .filter(|name| name.starts_with("dm-"))
        .find_map(|name| {
            let mapped = system.text(&format!("/sys/block/{name}/dm/name"))?;
            let is_it = device == name || device.strip_prefix("mapper/") == Some(&mapped);
            is_it.then(|| system.text(&format!("/sys/block/{name}/dm/uuid")))?
        })
}
