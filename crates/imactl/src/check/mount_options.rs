//! Whether a file system has the mount options that `rootflags` gives it.
//!
//! The tables name what any kernel from Linux 6.1 takes (`fs_parameter_spec` in fs/ext4/super.c, fs/xfs/xfs_super.c, fs/btrfs/super.c,
//! fs/squashfs/super.c and fs/erofs/super.c; `f2fs_tokens` in fs/f2fs/super.c). What a file system makes of the values beyond
//! their form, and whether options go together, only the mount shows.

use ima::mount_options::{MountOption, mount_options};

/// What stands behind the name of an option (include/linux/fs_parser.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing.
    Flag,
    /// Nothing; and with `no` before the name as well.
    FlagOrNo,
    /// A number of 32 bits without a sign: decimal, `0x` and hexadecimal, or `0` and octal.
    Unsigned,
    /// A number of 32 bits.
    Signed,
    /// A number of 64 bits without a sign.
    Long,
    /// One of these words, which stand here with blanks between them.
    Word(&'static str),
    /// Any text but none.
    Text,
    /// Any text, or none after `=`.
    TextOrEmpty,
}

use Form::{Flag, FlagOrNo, Long, Signed, Text, TextOrEmpty, Unsigned, Word};

/// A form, and the names of the options that have it, separated by blanks.
type Options = (Form, &'static str);

const EXT4: &[Options] = &[
    (
        Flag,
        "bsddf minixdf grpid bsdgroups nogrpid sysvgroups nouid32 debug oldalloc orlov user_xattr \
         nouser_xattr acl noacl norecovery noload bh nobh journal_checksum nojournal_checksum \
         journal_async_commit abort grpquota quota noquota usrquota prjquota barrier nobarrier i_version dax \
         delalloc nodelalloc warn_on_error nowarn_on_error mblk_io_submit nomblk_io_submit block_validity \
         noblock_validity auto_da_alloc noauto_da_alloc dioread_nolock nodioread_nolock dioread_lock discard \
         nodiscard init_itable noinit_itable fc_debug_force test_dummy_encryption inlinecrypt nombcache \
         no_mbcache prefetch_block_bitmaps no_prefetch_block_bitmaps nocheck reservation noreservation",
    ),
    (
        Unsigned,
        "resgid resuid sb commit min_batch_time max_batch_time journal_dev barrier stripe \
         debug_want_extra_isize inode_readahead_blks journal_ioprio auto_da_alloc init_itable \
         fc_debug_max_replay max_dir_size_kb journal",
    ),
    (Signed, "mb_optimize_scan"),
    (Word("continue panic remount-ro"), "errors"),
    (Word("journal ordered writeback"), "data"),
    (Word("abort ignore"), "data_err"),
    (Word("vfsold vfsv0 vfsv1"), "jqfmt"),
    (Word("always inode never"), "dax"),
    (Text, "journal_path test_dummy_encryption check"),
    (TextOrEmpty, "usrjquota grpjquota"),
];

const XFS: &[Options] = &[
    (
        Flag,
        "wsync noalign swalloc nouuid grpid nogrpid bsdgroups sysvgroups norecovery inode64 inode32 ikeep \
         noikeep largeio nolargeio attr2 noattr2 filestreams quota noquota usrquota grpquota prjquota uquota \
         gquota pquota uqnoenforce gqnoenforce pqnoenforce qnoenforce discard nodiscard dax lifetime \
         nolifetime errortag",
    ),
    (Unsigned, "logbufs sunit swidth max_open_zones"),
    (Word("inode always never"), "dax"),
    (
        Text,
        "logbsize logdev rtdev allocsize max_atomic_write errortag",
    ),
];

const BTRFS: &[Options] = &[
    (
        Flag,
        "clear_cache compress compress-force degraded rescan_uuid_tree skip_balance user_subvol_rm_allowed \
         nologreplay usebackuproot norecovery ref_verify check_int check_int_data recovery",
    ),
    (
        FlagOrNo,
        "acl autodefrag barrier datacow datasum discard flushoncommit space_cache ssd ssd_spread treelog \
         enospc_debug inode_cache",
    ),
    (
        Unsigned,
        "commit metadata_ratio thread_pool check_int_print_mask",
    ),
    (Long, "subvolid"),
    (Word("panic bug"), "fatal_errors"),
    (Word("sync async"), "discard"),
    (Word("v1 v2"), "space_cache"),
    (Word("data metadata all"), "fragment"),
    (
        Text,
        "compress compress-force device max_inline subvol rescue subvolrootid alloc_start",
    ),
];

const SQUASHFS: &[Options] = &[(Word("continue panic"), "errors"), (Text, "threads")];

const EROFS: &[Options] = &[
    (FlagOrNo, "user_xattr acl directio"),
    (Flag, "dax inode_share"),
    (Word("disabled readahead readaround"), "cache_strategy"),
    (Word("always never"), "dax"),
    (Text, "device fsid domain_id"),
    (Long, "fsoffset"),
];

const F2FS: &[Options] = &[
    (
        Flag,
        "disable_roll_forward norecovery discard nodiscard no_heap heap user_xattr nouser_xattr acl noacl \
         disable_ext_identify inline_xattr noinline_xattr inline_data noinline_data inline_dentry \
         noinline_dentry flush_merge noflush_merge barrier nobarrier fastboot extent_cache noextent_cache \
         data_flush quota noquota usrquota grpquota prjquota test_dummy_encryption inlinecrypt \
         checkpoint_merge nocheckpoint_merge compress_chksum compress_cache atgc gc_merge nogc_merge \
         age_extent_cache nat_bits",
    ),
    (
        Unsigned,
        "active_logs inline_xattr_size reserve_root reserve_node resgid resuid fault_injection fault_type \
         compress_log_size",
    ),
    (Word("vfsold vfsv0 vfsv1"), "jqfmt"),
    (
        Text,
        "background_gc mode alloc_mode fsync_mode test_dummy_encryption checkpoint compress_algorithm \
         compress_extension nocompress_extension compress_mode discard_unit memory errors lookup_mode",
    ),
    (TextOrEmpty, "usrjquota grpjquota prjjquota"),
];

/// The options of a file system; nothing if they are not known here.
const fn options(fstype: &str) -> Option<&'static [Options]> {
    Some(match fstype.as_bytes() {
        b"ext4" => EXT4,
        b"xfs" => XFS,
        b"btrfs" => BTRFS,
        b"squashfs" => SQUASHFS,
        b"erofs" => EROFS,
        b"f2fs" => F2FS,
        _ => return None,
    })
}

/// The names of the options that are known of any file system, some of them twice.
pub fn names() -> impl Iterator<Item = &'static str> {
    let all = [EXT4, XFS, BTRFS, SQUASHFS, EROFS, F2FS];
    let own = all.into_iter().flatten();
    own.flat_map(|(_, names)| names.split(' '))
        .chain(COMMON)
        .chain(OF_SECURITY_MODULES)
}

/// What every file system takes (fs/fs_context.c, `vfs_parse_sb_flag`), whatever stands behind `=`.
const COMMON: [&str; 9] = [
    "dirsync",
    "lazytime",
    "mand",
    "ro",
    "sync",
    "async",
    "nolazytime",
    "nomand",
    "rw",
];

/// What security modules take (security/selinux/hooks.c, `selinux_fs_parameters`; security/smack/smack_lsm.c, `smack_fs_parameters`):
/// whether one of them is in force is not known here.
const OF_SECURITY_MODULES: [&str; 11] = [
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
    "seclabel",
    "smackfsdef",
    "smackfsdefault",
    "smackfsfloor",
    "smackfshat",
    "smackfsroot",
    "smackfstransmute",
];

/// Why the kernel refuses one of the options, with the option; nothing if it takes them, or if the file system's are not known.
#[must_use]
pub fn refused(fstype: &str, flags: &str) -> Option<(String, String)> {
    let known = options(fstype)?;
    mount_options(flags).find_map(|(text, option)| match option {
        MountOption::Mount(_) => None,
        MountOption::Filesystem { key, value } => {
            Some((text.to_owned(), problem(fstype, known, key, value)?))
        }
    })
}

/// What is wrong with an option (fs/fs_parser.c, `__fs_parse`).
fn problem(fstype: &str, known: &[Options], key: &str, value: Option<&str>) -> Option<String> {
    if COMMON.contains(&key) || OF_SECURITY_MODULES.contains(&key) {
        return None;
    }
    if key == "source" {
        return Some("the device is given by root=".to_owned());
    }
    let forms = known.iter().filter_map(|(form, names)| {
        let has = |wanted: &str| names.split(' ').any(|name| name == wanted);
        let negated = *form == FlagOrNo && key.strip_prefix("no").is_some_and(has);
        (has(key) || negated).then_some(*form)
    });
    let forms: Vec<Form> = forms.collect();
    if forms.is_empty() {
        return Some(format!("{fstype} has no option {key}"));
    }
    let fits = forms.iter().any(|form| match (form, value) {
        (Flag | FlagOrNo, None) => true,
        (Unsigned, Some(value)) => {
            unsigned(value).is_some_and(|number| u32::try_from(number).is_ok())
        }
        (Signed, Some(value)) => number(value).is_some_and(|number| i32::try_from(number).is_ok()),
        (Long, Some(value)) => unsigned(value).is_some(),
        (Word(words), Some(value)) => words.split(' ').any(|word| word == value),
        (Text, Some(value)) => !value.is_empty(),
        (TextOrEmpty, Some(_)) => true,
        _ => false,
    });
    (!fits).then(|| {
        let expected: Vec<String> = forms.iter().map(|form| expected(key, *form)).collect();
        format!("{fstype} takes {}", expected.join(" or "))
    })
}

/// An option as it is to be written.
fn expected(key: &str, form: Form) -> String {
    match form {
        Flag | FlagOrNo => format!("{key} without a value"),
        Unsigned | Long => format!("{key}=NUMBER"),
        Signed => format!("{key}=NUMBER, which may be negative"),
        Word(words) => format!("{key}={}", words.replace(' ', "|")),
        Text | TextOrEmpty => format!("{key}=VALUE"),
    }
}

/// A number as the kernel reads it (lib/kstrtox.c, `kstrtoll` with base 0).
fn number(text: &str) -> Option<i128> {
    match text.strip_prefix('-') {
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => Some(-i128::from(unsigned(digits)?)),
        None => unsigned(text).map(i128::from),
    }
}

/// A number without a sign, but for a plus (`kstrtoull` with base 0).
fn unsigned(text: &str) -> Option<u64> {
    let lower = text.strip_prefix('+').unwrap_or(text).to_ascii_lowercase();
    let (radix, digits) = match lower.strip_prefix("0x") {
        Some(hex) if hex.starts_with(|digit: char| digit.is_ascii_hexdigit()) => (16, hex),
        _ if lower.starts_with('0') => (8, lower.as_str()),
        _ => (10, lower.as_str()),
    };
    // The standard library takes another plus.
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u64::from_str_radix(digits, radix).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_a_file_system_does_not_have_are_refused() {
        for (fstype, flags, wanted) in [
            (
                "ext4",
                "noatime,errors=remount-ro,commit=0x10,data=ordered",
                None,
            ),
            (
                "ext4",
                "barrier=0,barrier,usrjquota=,mb_optimize_scan=-1,ro,sync",
                None,
            ),
            ("ext4", "context=system_u:object_r:etc_t", None),
            ("ext4", "subvol=@", Some("subvol=@")),
            ("ext4", "errors=explode", Some("errors=explode")),
            ("ext4", "commit", Some("commit")),
            ("ext4", "discard=1", Some("discard=1")),
            ("ext4", "noatime,commit=-1", Some("commit=-1")),
            ("ext4", "commit=4294967296", Some("commit=4294967296")),
            ("ext4", "source=/dev/vdb", Some("source=/dev/vdb")),
            ("btrfs", "subvol=@,compress=zstd:3,nodatacow,compress", None),
            ("btrfs", "nocompress", Some("nocompress")),
            ("btrfs", "subvol", Some("subvol")),
            ("squashfs", "errors=panic", None),
            ("squashfs", "discard", Some("discard")),
            ("erofs", "nouser_xattr", None),
            ("erofs", "noatime,nodax", Some("nodax")),
            ("f2fs", "compress_algorithm=lz4,atgc", None),
            ("f2fs", "subvol=x", Some("subvol=x")),
            ("reiserfs", "anything", None),
        ] {
            let found = refused(fstype, flags).map(|(option, _)| option);
            assert_eq!(found.as_deref(), wanted, "{fstype} {flags}");
        }
    }

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        for (text, wanted) in [
            ("10", Some(10)),
            ("+10", Some(10)),
            ("-1", Some(-1)),
            ("-+1", None),
            ("0x1F", Some(31)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("08", None),
            ("0x", None),
            ("", None),
            ("++1", None),
            ("1k", None),
        ] {
            assert_eq!(number(text), wanted, "{text}");
        }
    }
}
