//! Kernel command lines made by somebody who can edit them: each is refused, or changes nothing of what is enforced.

use crate::accepted::{assert_all_attempts_passed, assert_warned, init_report};
use crate::built::Kernel;
use crate::initramfs::{RULES, TMPFS_FREE, hmac};
use crate::keys::{P256, RSA};
use crate::matrix::{Check, faults};
use crate::partitions::Table;
use crate::setup::{DEFAULT_POLICY, EVM_CERTIFICATE, Setup, assert_booted};
use crate::tree::{INIT, Tree};

/// The root named in the line alone, where the row says.
fn line(setup: &mut Setup, line: &str) {
    setup.root_name = None;
    setup.append(line);
}

/// The policy that frees the canary: then only the command line shows what it turned off.
fn free_canary(setup: &mut Setup) {
    setup.put(
        DEFAULT_POLICY,
        TMPFS_FREE.to_owned() + &RULES.join("\n") + "\n",
    );
}

/// A root on a device that no driver makes by itself.
fn programs_make(setup: &mut Setup, name: &str) {
    setup.root_name = Some(name.to_owned());
    setup.append("rootwait=1");
    setup.says = "none of them runs in this initramfs";
}

faults! {
    appraise_off: "IMA-204", Halt, Check::Same, |setup| setup.append("ima_appraise=off");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_log: "IMA-204", Panic, Check::Same, |setup| setup.append("ima_appraise=log");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_fix: "IMA-204", Poweroff, Check::Same, |setup| setup.append("ima_appraise=fix");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_in_quotes: "IMA-204", Reboot, Check::Same, |setup| setup.append("\"ima_appraise=off\"");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_with_a_dash: "IMA-204", Halt, Check::Same, |setup| setup.append("ima-appraise=off");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_behind_enforce: "IMA-204", Panic, Check::Same, |setup| setup.append("ima_appraise=enforce ima_appraise=off");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_before_a_value_that_is_none: "IMA-204", Poweroff, Check::Same, |setup| {
        free_canary(setup);
        setup.append("ima_appraise=off ima_appraise=on");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_behind_a_vertical_tab: "IMA-204", Reboot, Check::Same, |setup| {
        free_canary(setup);
        setup.append("quiet\u{b}ima_appraise=off");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_off_behind_half_a_letter: "IMA-204", Halt, Check::Same, |setup| {
        // The second byte of “à” is a blank to the kernel.
        free_canary(setup);
        setup.append("xàima_appraise=off");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_enforce_behind_a_double_dash_in_quotes: "IMA-204", Panic, Check::Same, |setup| {
        free_canary(setup);
        setup.append("ima_appraise=off \"--\" ima_appraise=enforce");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    appraise_enforce_with_quotes_in_the_value: "IMA-204", Poweroff, Check::Same, |setup| {
        free_canary(setup);
        setup.append("ima_appraise=off ima_appraise=en\"force\"");
    };
    resume_from_the_root_s_disk: "IMA-207", Reboot, Check::Same, |setup| setup.append("resume=/dev/vda");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    resume_in_quotes_with_an_offset: "IMA-207", Halt, Check::Same, |setup| setup.append("\"resume-offset=8\"");
    core_dumps_piped_to_a_program: "IMA-209", Panic, Check::Same, |setup| {
        setup.append("\"sysctl.kernel.core_pattern=|/bin/sh -c reboot\"");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    modules_loaded_by_a_program_of_the_root: "IMA-209", Reboot, Check::Same, |setup| {
        setup.append("sysctl.kernel..modprobe=/rootfs/evil");
    };
    no_mount_left_for_the_filtered_line: "IMA-208", Reboot, Check::Silent("how many mounts the init makes is not counted"), |setup| setup.append("sysctl.fs.mount-max=6");
    mounted_disk_opened_for_writing: "IMA-210", Poweroff, Check::Same, |setup| setup.append("bdev_allow_write_mounted=1");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    memory_of_programs_opened_for_writing: "IMA-210", Reboot, Check::Same, |setup| {
        setup.append("proc_mem.force_override=always");
    };
    root_in_memory_in_the_disk_s_place: "IMA-701", Reboot, Check::Same, |setup| setup.append("rootfstype=tmpfs");
    root_of_the_initramfs_under_an_overlay: "IMA-404", Halt, Check::Same, |setup| {
        setup.append("rootfstype=overlay rootflags=lowerdir=/");
    };
    lockdown_on_a_kernel_without_it: "IMA-110", Halt, Check::Same, |setup| setup.configure("lockdown=integrity");
    lockdown_left_out_of_the_security_modules: "IMA-111", Panic, Check::Same, |setup| {
        setup.kernel = Kernel::Lockdown;
        setup.configure("lockdown=integrity");
        setup.append("lsm=yama,bpf");
    };
    builtin_policy_secure_boot: "IMA-609", Panic, Check::Same, |setup| setup.append("ima_policy=secure_boot");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    builtin_policy_appraise_tcb: "IMA-609", Poweroff, Check::Same, |setup| setup.append("ima_policy=appraise_tcb");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    builtin_policies_in_a_list: "IMA-609", Reboot, Check::Same, |setup| setup.append("\"ima_policy=tcb|secure_boot\"");
    evm_switched_off: "IMA-507", Poweroff, Check::Same, |setup| {
        setup.put(EVM_CERTIFICATE, P256.der());
        setup.root.sign_evm(&P256);
        setup.append("initcall_blacklist=init_evm");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_switched_off_and_its_hmac_key: "IMA-506", Reboot, Check::Sooner("IMA-704"), |setup| {
        hmac(setup);
        setup.append("initcall_blacklist=init_evm");
    };
    evm_fix_with_the_hmac_key: "IMA-508", Reboot, Check::Same, |setup| {
        hmac(setup);
        setup.append("\"evm=fix\"");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_fix_and_files_without_its_signature: "IMA-508", Halt, Check::Same, |setup| {
        setup.put(EVM_CERTIFICATE, P256.der());
        setup.append("evm=fix");
    };
    another_ca_for_keyrings: "IMA-504", Panic, Check::Silent("which CAs the kernel then uses depends on the machine"), |setup| setup.append("ca_keys=id:0000000000000000");
    no_root_named: "IMA-205", Panic, Check::Same, |setup| setup.root_name = None;
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_in_open_quotes: "IMA-205", Poweroff, Check::Same, |setup| line(setup, "x=\"open root=/dev/vda");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_behind_the_double_dash: "IMA-205", Reboot, Check::Same, |setup| line(setup, "-- root=/dev/vda");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_behind_four_kilobytes_of_noise: "IMA-205", Halt, Check::NotAsked("the boot loader cuts the line"), |setup| {
        // With a dot in their names, or the kernel would panic over init variables beyond the thirty-second.
        line(setup, &format!("{}root=/dev/vda", "no.ise=\\x' ".repeat(400)));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_of_no_form: "IMA-401", Poweroff, Check::Same, |setup| setup.root_name = Some("vda".into());
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_with_a_way_up: "IMA-401", Panic, Check::Same, |setup| setup.root_name = Some("/dev/../dev/vda".into());
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_a_number_in_hexadecimal: "IMA-401", Halt, Check::Same, |setup| setup.root_name = Some("b302".into());
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_that_systemd_would_find: "IMA-401", Panic, Check::Same, |setup| setup.root_name = Some("gpt-auto".into());
    root_by_its_place_on_the_bus: "IMA-402", Poweroff, Check::Same, |setup| programs_make(setup, "/dev/disk/by-path/pci-0000:00:04.0");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_its_serial_number: "IMA-402", Reboot, Check::Same, |setup| programs_make(setup, "/dev/disk/by-id/virtio-root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_the_name_of_the_mounted_one: "IMA-402", Halt, Check::Same, |setup| programs_make(setup, "/dev/root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_the_device_mapper: "IMA-402", Panic, Check::Same, |setup| programs_make(setup, "/dev/mapper/root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_a_logical_volume: "IMA-402", Poweroff, Check::Same, |setup| programs_make(setup, "/dev/group/root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_a_logical_volume_and_a_table: "IMA-402", Reboot, Check::Same, |setup| {
        setup.table = Table::Gpt;
        programs_make(setup, "/dev/group/root");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_without_value: "IMA-401", Poweroff, Check::Same, |setup| line(setup, "root");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_twice_and_the_last_is_wrong: "IMA-401", Reboot, Check::Same, |setup| line(setup, "root=/dev/vda root=nfs");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_by_half_a_uuid: "IMA-401", Halt, Check::Same, |setup| setup.root_name = Some("PARTUUID=1111".into());
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootwait_that_is_no_number: "IMA-203", Panic, Check::Same, |setup| setup.append("rootwait=soon");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootdelay_that_is_no_number: "IMA-203", Poweroff, Check::Same, |setup| setup.append("rootdelay=-1");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootfstype_with_a_way_up: "IMA-203", Reboot, Check::Same, |setup| setup.append("rootfstype=../../ext4");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_without_value: "IMA-203", Halt, Check::Same, |setup| setup.append("rootflags");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    init_with_a_relative_path: "IMA-203", Panic, Check::Same, |setup| {
        setup.configure("cmdline=root init");
        setup.append("init=bin/sh");
    };
    init_of_the_line_unsigned: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.configure("cmdline=root init");
        let init = setup.root.file(INIT).content.clone();
        setup.root.add("bin/sh", 0o755, &init);
        setup.append("init=/bin/sh");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootfstype_of_another: "IMA-404", Reboot, Check::Same, |setup| setup.append("rootfstype=squashfs");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootfstype_that_no_kernel_knows: "IMA-404", Halt, Check::Same, |setup| setup.append("rootfstype=nosuchfs");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootfstype_of_an_empty_one: "IMA-701", Panic, Check::Same, |setup| setup.append("rootfstype=tmpfs");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootfstype_of_the_processes: "IMA-701", Poweroff, Check::Same, |setup| setup.append("rootfstype=proc");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_that_no_file_system_knows: "IMA-404", Reboot, Check::Same, |setup| setup.append("rootflags=no_such_flag");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_with_another_source: "IMA-404", Halt, Check::Same, |setup| setup.append("rootflags=source=/dev/vdb");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_of_another_file_system: "IMA-404", Poweroff, Check::Same, |setup| setup.append("rootflags=subvol=@");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_with_a_value_that_is_none: "IMA-404", Reboot, Check::Same, |setup| setup.append("rootflags=noatime,commit=soon");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    rootflags_noexec: "IMA-704", Panic, Check::Same, |setup| setup.append("rootflags=noexec");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    root_on_a_device_that_is_none: "IMA-402", Poweroff, Check::Silent("a driver might make a disk of that name"), |setup| {
        setup.root_name = Some("/dev/null".into());
        setup.append("rootwait=1");
    };
    initcall_of_ima_left_out: "IMA-104", Reboot, Check::Same, |setup| setup.append("initcall_blacklist=init_ima");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    initcall_of_the_certificates_left_out: "IMA-504", Halt, Check::Same, |setup| {
        setup.append("initcall_blacklist=load_system_certificate_list");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    initcall_of_the_disk_left_out: "IMA-402", Panic, Check::Same, |setup| {
        setup.append("initcall_blacklist=virtio_blk_init rootwait=1");
    };
    initcall_of_securityfs_left_out: "IMA-103", Poweroff, Check::Same, |setup| {
        setup.append("initcall_blacklist=securityfs_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    initcall_of_the_list_of_keys_left_out: "IMA-501", Halt, Check::Same, |setup| {
        setup.append("initcall_blacklist=key_proc_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    initcall_of_asymmetric_keys_left_out: "IMA-504", Poweroff, Check::Same, |setup| {
        setup.append("initcall_blacklist=asymmetric_key_init");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    refusal_on_a_silent_console: "IMA-713", Poweroff, Check::Same, |setup| {
        setup.root.unsign(INIT);
        setup.append("quiet loglevel=0 printk.devkmsg=off");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    refusal_while_the_kernel_s_log_is_shut: "IMA-713", Halt, Check::Same, |setup| {
        setup.root.unsign(INIT);
        setup.append("printk.devkmsg=off sysctl.kernel.printk_devkmsg=off sysctl.kernel.dmesg_restrict=1");
    };
}

/// Lines that have no effect on enforcement: what is unsigned is denied, what is signed runs, with each.
fn enforced(prepare: impl FnOnce(&mut Setup)) -> ima_testbed::Outcome {
    let mut setup = Setup::new();
    setup.root = Tree::with_attempts(Some(&Kernel::Full.module("dummy")));
    prepare(&mut setup);
    let outcome = setup.boot();
    assert_all_attempts_passed(assert_booted(&outcome));
    outcome
}

macro_rules! enforced {
    ($($(#[$attribute:meta])* $name:ident: $line:expr;)+) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                enforced(|setup| setup.append(&$line));
            }
        )+
    };
}

enforced! {
    #[ignore = "another form of what is tested always; tests/run --all"]
    builtin_policy_tcb: "ima_policy=tcb";
    #[ignore = "another form of what is tested always; tests/run --all"]
    builtin_policy_that_fails_securely: "ima_policy=fail_securely";
    #[ignore = "another form of what is tested always; tests/run --all"]
    builtin_policies_that_are_none: "ima_policy=none ima_policy=tcb|nonsense";
    #[ignore = "another form of what is tested always; tests/run --all"]
    old_names_of_builtin_policies: "ima_tcb ima_appraise=enforce";
    #[ignore = "another form of what is tested always; tests/run --all"]
    appraise_with_a_value_that_is_none: "ima_appraise=no ima_appraise ima_appraise=";
    appraise_off_as_an_argument_of_init: "-- ima_appraise=off";
    appraise_off_within_quotes: "x=\"a ima_appraise=off\"";
    #[ignore = "another form of what is tested always; tests/run --all"]
    another_hash: "ima_hash=sha1";
    #[ignore = "another form of what is tested always; tests/run --all"]
    a_hash_that_is_none: "ima_hash=nonsense";
    #[ignore = "another form of what is tested always; tests/run --all"]
    the_oldest_template: "ima_template=ima";
    #[ignore = "another form of what is tested always; tests/run --all"]
    a_template_of_its_own: "ima_template_fmt=d-ng|n-ng|sig|nonsense";
    #[ignore = "another form of what is tested always; tests/run --all"]
    evm_fix_without_evm: "evm=fix";
    #[ignore = "another form of what is tested always; tests/run --all"]
    no_audit_of_integrity: "integrity_audit=0 audit=0";
    #[ignore = "another form of what is tested always; tests/run --all"]
    all_audit_of_integrity: "integrity_audit=1 audit=1";
    ca_of_the_kernel_alone: "ca_keys=builtin";
    #[ignore = "another form of what is tested always; tests/run --all"]
    security_modules_without_integrity: "lsm=capability";
    #[ignore = "another form of what is tested always; tests/run --all"]
    no_security_module: "lsm= security=none";
    the_init_s_own_name: "rdinit=/init";
    #[ignore = "another form of what is tested always; tests/run --all"]
    two_kilobytes_of_noise: "noise=\\x' ".repeat(170);
    parameters_by_the_hundred: "ro rw rootwait=9 root=/dev/vda ".repeat(40) + "ro";
    #[ignore = "another form of what is tested always; tests/run --all"]
    open_quotes_at_the_end: "x=\"open -- init=/bin/sh";
    initcall_of_ima_s_blacklist_left_out: "initcall_blacklist=ima_mok_init";
    initcall_of_the_audit_left_out: "initcall_blacklist=audit_init";
    hardened: "lockdown=integrity init_on_alloc=1 slab_nomerge";
}

/// By these systemd runs a command and starts other services, dracut and initramfs-tools open a shell or source a file of the
/// line's choice. Behind `--` stand arguments of init.
const POWERFUL: &str = "systemd.run=/bin/sh \"systemd.unit=rescue.target\" rd.break break=top boot=../proc/cmdline single 3 -- emergency -b";

#[test]
fn words_that_run_programs_do_not_reach_userspace() {
    let outcome = enforced(|setup| {
        setup.append("testbed.x=\"1 systemd.debug_shell\" quiet testbed.y=2");
        setup.append(POWERFUL);
    });
    assert_warned(&outcome, "IMA-254");
    let report = assert_booted(&outcome);
    assert_eq!(
        report.command_line,
        "console=ttyS0 root=/dev/vda quiet testbed.y=2"
    );
    assert_eq!(report.arguments, ["/sbin/init"]);
    let line = &init_report(report)["command_line"];
    assert_eq!(line["forwarded"], report.command_line);
    let withheld = line["withheld"].as_array().expect("words");
    assert!(withheld.contains(&"systemd.run=/bin/sh".into()), "{line}");
}

#[test]
fn words_that_run_programs_reach_userspace_where_they_are_listed() {
    let outcome = enforced(|setup| {
        setup.configure("forward=systemd.* rd.break break boot single emergency");
        setup.append(POWERFUL);
    });
    let report = assert_booted(&outcome);
    assert_eq!(
        report.command_line,
        "console=ttyS0 root=/dev/vda systemd.run=/bin/sh systemd.unit=rescue.target rd.break break=top \
         boot=../proc/cmdline single -- emergency"
    );
    assert_eq!(report.arguments, ["/sbin/init", "single", "emergency"]);
}

/// Nobody can write to the filtered line, and it went along to the real root as a mount on its own.
#[test]
fn filtered_line_is_read_only() {
    let outcome = enforced(|_| ());
    let report = assert_booted(&outcome);
    let mount = report
        .mounts
        .iter()
        .find(|mount| mount.point == "/proc/cmdline");
    let mount = mount.expect("a mount on /proc/cmdline");
    assert_eq!(mount.fstype, "tmpfs");
    for options in [&mount.options, &mount.super_options] {
        assert!(options.contains(&"ro".to_owned()), "{options:?}");
    }
}

#[test]
fn init_of_the_line_is_ignored() {
    let outcome = enforced(|setup| {
        setup.root.add("bin/sh", 0o755, b"#!/sbin/init\n");
        setup.append("init=/bin/sh init=/bin/bash");
    });
    assert_warned(&outcome, "IMA-251");
}

/// What the built-in policy asks for, a signed policy has.
#[test]
fn builtin_policy_secure_boot_and_a_signed_policy() {
    enforced(|setup| {
        let policy = setup.initramfs[DEFAULT_POLICY].clone();
        setup.put(&format!("{DEFAULT_POLICY}.sig"), RSA.sign(&policy));
        setup.append("ima_policy=secure_boot");
    });
}
