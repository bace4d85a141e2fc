//! The names of system calls, whose numbers are other ones on each processor.

use nix::libc;

/// Numbers and names, by libc's constants.
macro_rules! calls {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// Those that the init makes and every processor has.
const CALLS: &[(libc::c_long, &str)] = calls! {
    SYS_add_key SYS_bind SYS_brk SYS_chdir SYS_chroot SYS_clock_gettime SYS_clock_nanosleep SYS_clone SYS_close SYS_dup SYS_dup3
    SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_fchdir SYS_fchmod SYS_fchown SYS_fchownat SYS_fcntl
    SYS_fgetxattr SYS_finit_module SYS_fsconfig SYS_fsetxattr SYS_fsmount SYS_fsopen SYS_fstat SYS_fstatfs SYS_futex SYS_getcwd
    SYS_getdents64 SYS_getpid SYS_getrandom SYS_gettid SYS_getuid SYS_ioctl SYS_keyctl SYS_linkat SYS_lseek SYS_madvise
    SYS_mkdirat SYS_mknodat SYS_mount SYS_move_mount SYS_mprotect SYS_munmap SYS_nanosleep SYS_open_tree SYS_openat SYS_openat2
    SYS_pipe2 SYS_pivot_root SYS_ppoll SYS_prctl SYS_pread64 SYS_prlimit64 SYS_read SYS_readlinkat SYS_readv SYS_recvfrom
    SYS_request_key SYS_rt_sigaction SYS_rt_sigprocmask SYS_sendfile SYS_set_tid_address SYS_sigaltstack SYS_socket SYS_statx
    SYS_symlinkat SYS_sysinfo SYS_umount2 SYS_uname SYS_unlinkat SYS_wait4 SYS_write SYS_writev
};

/// Those that only some have.
#[cfg(target_arch = "x86_64")]
const OF_THIS_PROCESSOR: &[(libc::c_long, &str)] = calls! {
    SYS_access SYS_arch_prctl SYS_dup2 SYS_fork SYS_lstat SYS_mkdir SYS_mmap SYS_newfstatat SYS_open SYS_poll SYS_readlink SYS_stat
    SYS_unlink
};
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
const OF_THIS_PROCESSOR: &[(libc::c_long, &str)] = calls! { SYS_mmap SYS_newfstatat };
#[cfg(target_arch = "arm")]
const OF_THIS_PROCESSOR: &[(libc::c_long, &str)] = &[
    (libc::SYS__llseek, "SYS__llseek"),
    (libc::SYS_fcntl64, "SYS_fcntl64"),
    (libc::SYS_fork, "SYS_fork"),
    (libc::SYS_fstat64, "SYS_fstat64"),
    (libc::SYS_fstatat64, "SYS_fstatat64"),
    (libc::SYS_fstatfs64, "SYS_fstatfs64"),
    (libc::SYS_lstat64, "SYS_lstat64"),
    (libc::SYS_mkdir, "SYS_mkdir"),
    (libc::SYS_mmap2, "SYS_mmap2"),
    (libc::SYS_open, "SYS_open"),
    (libc::SYS_poll, "SYS_poll"),
    (libc::SYS_readlink, "SYS_readlink"),
    (libc::SYS_sendfile64, "SYS_sendfile64"),
    (libc::SYS_unlink, "SYS_unlink"),
    // libc does not have these for musl (arch/arm/tools/syscall.tbl).
    (403, "SYS_clock_gettime64"),
    (407, "SYS_clock_nanosleep_time64"),
    (414, "SYS_ppoll_time64"),
    (422, "SYS_futex_time64"),
    (0x000f_0005, "SYS_set_tls"),
];

/// The name of a system call that the init makes, or its number.
pub fn name(number: usize) -> String {
    let mut named = CALLS.iter().chain(OF_THIS_PROCESSOR);
    match named.find(|(call, _)| usize::try_from(*call) == Ok(number)) {
        Some((_, name)) => name.trim_start_matches("SYS_").to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_and_one_that_is_not_known_is_a_number() {
        let number = usize::try_from(libc::SYS_openat2).unwrap();
        assert_eq!(name(number), "openat2");
        assert_eq!(name(99_999), "99999");
    }
}
