//! The requests to the device mapper (include/uapi/linux/dm-ioctl.h).

// dm-crypt needs fewer of the requests than dm-verity.
use std::fs::File;

use crate::errno::{Errno, from_io};
use crate::syscalls::{self, DM_HEADER};

/// Its device.
pub const CONTROL: &str = "/dev/mapper/control";

/// The name of the mapped device; `/dev/mapper/root` is made of it by udev, in the real root.
pub const NAME: &str = "root";

/// The requests' numbers.
const VERSION: u8 = 0;
const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;
const GET_TARGET_VERSION: u8 = 17;

/// Their flags.
const READ_ONLY: u32 = 1 << 0;
/// A file system need not be frozen for a table to be replaced: nobody writes to it.
const SKIP_LOCKFS: u32 = 1 << 10;

/// Where the fields of `struct dm_ioctl` and `struct dm_target_spec` are, and how long they are.
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME_FIELD: usize = 48;
const UUID_FIELD: usize = 176;
const DATA_START: usize = 16;
const SPEC: usize = 40;
const TYPE_LENGTH: usize = 16;

/// A table of one target.
#[derive(Debug)]
pub struct Table {
    /// The name of the target.
    pub target: &'static str,
    /// The length of the mapped device, in units of 512 bytes.
    pub sectors: u64,
    /// The target's arguments.
    pub arguments: String,
    /// Whether the mapped device is read-only.
    pub is_read_only: bool,
}

impl Table {
    const fn flags(&self) -> u32 {
        if self.is_read_only { READ_ONLY } else { 0 }
    }
}

/// The device mapper.
#[derive(Debug)]
pub struct DeviceMapper(File);

impl DeviceMapper {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// The kernel has none, or one of another version.
    pub fn open() -> Result<Self, Errno> {
        let mut options = File::options();
        let control = options.read(true).write(true).open(CONTROL);
        let control = control.map_err(|error| from_io(&error))?;
        Request::new(0).send(&control, VERSION)?;
        Ok(Self(control))
    }

    /// Makes the mapped device, and returns its directory in sysfs. The device has its size only when the table is in force.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn create(&self, uuid: &str) -> Result<String, Errno> {
        let mut request = Request::named(0);
        request.put(UUID_FIELD, uuid.as_bytes());
        request.send(&self.0, DEV_CREATE)?;
        let (major, minor) = decode(request.wide(DEVICE));
        Ok(format!("/sys/dev/block/{major}:{minor}"))
    }

    /// Loads a table.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn load(&self, table: &Table) -> Result<(), Errno> {
        let mut request = Request::named(table.flags());
        request.target(table);
        request.send(&self.0, TABLE_LOAD)
    }

    /// Has the mapped device work by the table that was loaded last.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn resume(&self) -> Result<(), Errno> {
        // Without DM_SUSPEND_FLAG this resumes (`dev_suspend`).
        Request::named(SKIP_LOCKFS).send(&self.0, DEV_SUSPEND)
    }

    /// Whether the kernel has a target of that name; a kernel that cannot be asked so may have it (before 5.5).
    pub fn has_target(&self, name: &str) -> bool {
        let mut request = Request::new(0);
        request.put(NAME_FIELD, name.as_bytes());
        request.room(512);
        !matches!(request.send(&self.0, GET_TARGET_VERSION), Err(Errno::INVAL))
    }

    /// The first byte of what the target says of its state.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn status(&self) -> Result<Option<u8>, Errno> {
        let mut request = Request::named(0);
        request.room(512);
        request.send(&self.0, TABLE_STATUS)?;
        let start = usize::try_from(request.number(DATA_START)).unwrap_or(usize::MAX);
        let status = request.0.get(start.saturating_add(SPEC)..);
        Ok(status.and_then(<[u8]>::first).copied())
    }
}

/// Removes the mapped device, if there is one.
///
/// # Errors
///
/// EBUSY while somebody uses it.
pub fn remove() -> Result<(), Errno> {
    let Ok(mapper) = DeviceMapper::open() else {
        return Ok(());
    };
    match Request::named(0).send(&mapper.0, DEV_REMOVE) {
        Err(Errno::NXIO) => Ok(()),
        result => result,
    }
}

/// A device's number as `new_encode_dev` writes it (include/linux/kdev_t.h).
const fn decode(number: u64) -> (u64, u64) {
    (
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xf_ff00),
    )
}

/// A request to the device mapper, and its answer.
struct Request(Vec<u8>);

impl Request {
    /// A request about no device.
    fn new(flags: u32) -> Self {
        let mut request = Self(vec![0; DM_HEADER]);
        // DM_VERSION_MAJOR; a kernel takes every older minor number (`check_version`).
        request.put(0, &4_u32.to_ne_bytes());
        let length = u32::try_from(DM_HEADER).unwrap_or_default();
        request.put(DATA_START, &length.to_ne_bytes());
        request.put(FLAGS, &flags.to_ne_bytes());
        request
    }

    /// A request about the root's device.
    fn named(flags: u32) -> Self {
        let mut request = Self::new(flags);
        request.put(NAME_FIELD, NAME.as_bytes());
        request
    }

    /// Writes a field; what follows a string is NUL.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// Makes room for an answer.
    fn room(&mut self, length: usize) {
        self.0.resize(self.0.len().saturating_add(length), 0);
    }

    /// Adds the one target of a table: `struct dm_target_spec` and its arguments, with a NUL and in eights.
    fn target(&mut self, table: &Table) {
        self.put(TARGET_COUNT, &1_u32.to_ne_bytes());
        let length = SPEC.saturating_add(table.arguments.len()).saturating_add(1);
        let length = length.next_multiple_of(8);
        let start = self.0.len();
        self.room(length);
        let next = u32::try_from(length).unwrap_or_default();
        let at = |offset: usize| start.saturating_add(offset);
        self.put(at(8), &table.sectors.to_ne_bytes());
        self.put(at(20), &next.to_ne_bytes());
        self.put(
            at(SPEC.saturating_sub(TYPE_LENGTH)),
            table.target.as_bytes(),
        );
        self.put(at(SPEC), table.arguments.as_bytes());
    }

    fn send(&mut self, control: &File, number: u8) -> Result<(), Errno> {
        syscalls::device_mapper(control, number, &mut self.0)
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        u32::from_ne_bytes(bytes.copied().unwrap_or_default())
    }

    fn wide(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        u64::from_ne_bytes(bytes.copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices() {
        assert_eq!(decode(0xfe03), (254, 3));
        assert_eq!(decode(0x10_fd05), (253, 261));
    }

    #[test]
    fn a_table_s_target_is_where_the_kernel_looks_for_it() {
        let mut request = Request::named(READ_ONLY);
        request.target(&Table {
            target: "verity",
            sectors: 16,
            arguments: "1 a b".into(),
            is_read_only: true,
        });
        assert_eq!(request.number(0), 4);
        assert_eq!(request.number(DATA_START), 312);
        assert_eq!(request.number(TARGET_COUNT), 1);
        assert_eq!(request.number(FLAGS), 1);
        assert_eq!(&request.0[NAME_FIELD..][..5], b"root\0");
        let spec = &request.0[312..];
        assert_eq!(spec.len(), 48);
        assert_eq!(request.wide(312 + 8), 16);
        assert_eq!(request.number(312 + 20), 48);
        assert_eq!(&spec[24..40], b"verity\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&spec[40..], b"1 a b\0\0\0");
    }
}
