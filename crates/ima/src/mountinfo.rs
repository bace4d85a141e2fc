//! The list of mounts, `/proc/PID/mountinfo` (Documentation/filesystems/proc.rst, section 3.5).

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, a path of any bytes.
    pub point: Vec<u8>,
    /// Its own options, separated by commas.
    pub options: String,
    /// The type of the file system.
    pub fstype: String,
    /// What is mounted: a device's path, or any text.
    pub source: String,
    /// The options of the super block, separated by commas.
    pub super_options: String,
}

/// The mounts in the order in which the kernel lists them; a mount on top of another one comes behind it. Lines that are none
/// are passed over; in fields other than the mount point, what is not UTF-8 is replaced.
pub fn mounts(list: &[u8]) -> impl DoubleEndedIterator<Item = Mount> {
    list.split(|byte| *byte == b'\n').filter_map(mount)
}

/// A number of fields, of which the fifth is the mount point and the sixth its options; then `-`, type, source and the options of
/// the super block.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(4);
    let point = decode(fields.next()?);
    let options = text(fields.next()?);
    fields.find(|field| *field == b"-")?;
    Some(Mount {
        point,
        options,
        fstype: text(fields.next()?),
        source: text(fields.next()?),
        super_options: text(fields.next()?),
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&decode(field)).into_owned()
}

/// Undoes the kernel's escapes: a backslash and three octal digits for a blank, tab, newline, backslash or `#`
/// (fs/proc_namespace.c, `mangle` and `seq_path`; lib/string_helpers.c, `escape_octal`).
fn decode(field: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let (byte, left) = match escape(rest) {
            Some(escaped) => escaped,
            None => (*first, after),
        };
        decoded.push(byte);
        rest = left;
    }
    decoded
}

/// The byte of an escape at the beginning, and what comes behind it.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.strip_prefix(b"\\")?.split_first_chunk::<3>()?;
    let digits = std::str::from_utf8(digits).ok()?;
    // A sign would be taken for a digit.
    let octal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let byte = octal.then(|| u8::from_str_radix(digits, 8).ok())??;
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: &[u8] = b"\
1 1 0:2 / / rw - rootfs rootfs rw
31 1 253:1 / /root ro,noatime shared:1 master:2 - ext4 /dev/vda1 ro,errors=remount-ro
32 31 0:40 / /my\\040root\\134\\011\\012\xff\\ rw - fuse.x a\\040b\\043c rw,name=\\054
33 1 0:41 / /cut rw - tmpfs
";

    #[test]
    fn mounts_are_read_in_order() {
        let found: Vec<Mount> = mounts(LIST).collect();
        assert_eq!(found.len(), 3);
        let root = &found[1];
        assert_eq!(root.point, b"/root");
        assert_eq!(
            [
                &root.options,
                &root.fstype,
                &root.source,
                &root.super_options
            ],
            ["ro,noatime", "ext4", "/dev/vda1", "ro,errors=remount-ro"]
        );
    }

    #[test]
    fn escapes_are_decoded() {
        let found = mounts(LIST).last().unwrap();
        assert_eq!(found.point, b"/my root\\\t\n\xff\\");
        assert_eq!(found.source, "a b#c");
        assert_eq!(found.super_options, "rw,name=,");
        for (field, expected) in [
            ("", ""),
            ("\\", "\\"),
            ("\\04", "\\04"),
            ("\\0400", " 0"),
            ("\\400", "\\400"),
            ("\\+40", "\\+40"),
            ("\\134040", "\\040"),
        ] {
            assert_eq!(decode(field.as_bytes()), expected.as_bytes(), "{field}");
        }
    }

    proptest! {
        /// What the kernel escapes comes back, whatever a mount point is called.
        #[test]
        fn escaped_fields_round_trip(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut field = Vec::new();
            for byte in &name {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => field.extend(format!("\\{byte:03o}").bytes()),
                    other => field.push(*other),
                }
            }
            let line = [b"1 1 0:2 / ", field.as_slice(), b" rw - ext4 /dev/vda rw"].concat();
            let found: Vec<Mount> = mounts(&line).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].point, &name);
        }

        #[test]
        fn a_decoded_field_is_never_longer(field in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(decode(&field).len() <= field.len());
        }
    }
}
