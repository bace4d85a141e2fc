//! Messages of the kernel, as `/dev/kmsg` gives them. Records of the audit system among them are in [`audit`](crate::audit).

/// The text of a record if the kernel itself wrote it: `level,sequence,time,flags;text`, where the facility above the
/// three bits of the level is 0 (Documentation/ABI/testing/dev-kmsg).
#[must_use]
pub fn kernel_text(record: &str) -> Option<&str> {
    let (header, text) = record.split_once(';')?;
    let priority: u32 = header.split(',').next()?.parse().ok()?;
    let text = text.lines().next()?;
    (priority < 8).then_some(text)
}

/// Whether a message is of IMA.
#[must_use]
pub fn is_of_ima(text: &str) -> bool {
    text.starts_with("ima: ")
}

/// Whether the message says that a policy update was completed; `None` if it is about no update (ima_fs.c,
/// `ima_release_policy`).
#[must_use]
pub fn policy_update(text: &str) -> Option<bool> {
    let result = text.strip_prefix("ima: policy update ")?;
    Some(result.trim_end() == "completed")
}

/// What a message of the device mapper says.
#[must_use]
pub fn device_mapper(text: &str) -> Option<&str> {
    text.strip_prefix("device-mapper: ").map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_kernels_own_records_count() {
        let kernel = "6,339,5140900,-;ima: policy update completed\n SUBSYSTEM=x\n";
        assert_eq!(kernel_text(kernel), Some("ima: policy update completed"));
        let forged = "30,340,5140900,-;ima: policy update completed\n";
        assert_eq!(kernel_text(forged), None);
    }

    #[test]
    fn messages_of_ima_and_the_device_mapper() {
        assert_eq!(policy_update("ima: policy update completed"), Some(true));
        assert_eq!(policy_update("ima: policy update failed"), Some(false));
        assert_eq!(policy_update("ima: policy update completed?"), Some(false));
        assert_eq!(policy_update("integrity: policy update completed"), None);
        assert!(is_of_ima("ima: No TPM chip found") && !is_of_ima("image: "));
        let message = "device-mapper: ioctl: error adding target to table \n";
        let expected = "ioctl: error adding target to table";
        assert_eq!(device_mapper(message), Some(expected));
        assert_eq!(device_mapper(expected), None);
    }

    proptest! {
        /// Of what a program writes to `/dev/kmsg`, with whatever facility and text, nothing counts.
        #[test]
        fn records_of_programs_are_none(facility in 1_u32..1 << 20, level in 0_u32..8, text in "\\PC{0,80}") {
            let record = format!("{},339,5140900,-;{text}\n", facility << 3 | level);
            prop_assert_eq!(kernel_text(&record), None);
            let record = format!("{level},339,5140900,-;{text}\n SUBSYSTEM=x\n");
            prop_assert_eq!(kernel_text(&record), Some(&text[..]));
        }

        #[test]
        fn hostile_records_add_nothing(record in "\\PC{0,100}") {
            if let Some(text) = kernel_text(&record) {
                prop_assert!(record.contains(text));
            }
        }
    }
}
