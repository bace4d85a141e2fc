//! The initramfs that must be refused: configuration, certificates, policy, modules, and what is in their places.

use ima::cpio::{self, Metadata};
use imactl::key::KeyKind;
use imactl::x509::{BasicConstraints, Template, Usage};

use crate::built::{Kernel, PROGRAMS, busybox, source};
use crate::keys::{CA, OTHER_CA, P256, Pair, RSA};
use crate::matrix::{Check, SCRIPT, faults};
use crate::setup::{
    CERTIFICATE, DEFAULT_POLICY, EVM_CERTIFICATE, EVM_KEY, MASTER_KEY, POLICY, Setup, UUID,
};
use crate::tree::{Format, INIT, SWITCH_ROOT};

/// Why `imactl check` is not asked: it reads what an initramfs packs, and this was unpacked over it.
const OVER: &str = "imactl makes no such initramfs";

const CONFIG: &str = "etc/ima/ima-init.conf";

/// The rule that frees tmpfs and memfd, as other set-ups have it.
pub const TMPFS_FREE: &str = "dont_appraise fsmagic=0x01021994\n";

pub const RULES: [&str; 7] = [
    "appraise func=MMAP_CHECK appraise_type=imasig",
    "appraise func=BPRM_CHECK appraise_type=imasig",
    "appraise func=MODULE_CHECK appraise_type=imasig",
    "appraise func=FIRMWARE_CHECK appraise_type=imasig",
    "appraise func=POLICY_CHECK appraise_type=imasig",
    "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig",
    "appraise func=KEXEC_INITRAMFS_CHECK appraise_type=imasig",
];

/// The policy of [`RULES`] with this condition in the rule for that hook.
fn condition(setup: &mut Setup, hook: &str, condition: &str) {
    let rule = format!("func={hook} ");
    let rules = RULES.map(|text| text.replace(&rule, &format!("{rule}{condition} ")));
    setup.put(DEFAULT_POLICY, rules.join("\n") + "\n");
}

/// The policy of [`RULES`] with an exemption before it.
fn exemption(setup: &mut Setup, rule: &str) {
    setup.put(DEFAULT_POLICY, format!("{rule}\n{}\n", RULES.join("\n")));
}

/// The policy of [`RULES`] without the rule for that hook.
fn without_rule(setup: &mut Setup, hook: &str) {
    let hook = format!("func={hook} ");
    let rules = RULES.iter().filter(|rule| !rule.contains(&hook)).copied();
    setup.put(DEFAULT_POLICY, rules.collect::<Vec<_>>().join("\n") + "\n");
}

fn bad_rule(setup: &mut Setup, number: usize) {
    let mut rules = RULES.to_vec();
    rules[number] = "appraise func=BPRM_CHECK appraise_type=imasig # with a comment";
    setup.put(DEFAULT_POLICY, rules.join("\n") + "\n");
}

/// An HMAC key for EVM, as `keyctl print` writes it.
const HMAC_KEY: &str = "default user:kmk-user 32 c6217ede466940bf144f326988db356c0027454ec7364b1850418994b7b9a0eeddc17388\
    349a2c27fb207683d668796fc59ee4befcb0302b8e6bfb0d9a335b0f2c5c00d0964be4d30311bf90c84d4b81f5\n";

/// EVM's HMAC key and the master key that it is sealed with.
pub fn hmac(setup: &mut Setup) {
    setup.put(EVM_KEY, HMAC_KEY);
    setup.put(MASTER_KEY, [b'0'; 32]);
}

/// The same key on the root's disk, named by the command line.
pub fn hmac_of_the_root(setup: &mut Setup) {
    setup.root.add("evm.blob", 0o644, HMAC_KEY.as_bytes());
    setup.root.add("kmk", 0o644, &[b'0'; 32]);
    setup.append("evmkey=/rootfs/evm.blob masterkey=/rootfs/kmk");
}

/// The same, and files that carry portable signatures, as EVM then wants of them.
pub fn sealed(setup: &mut Setup) {
    hmac(setup);
    setup.put(EVM_CERTIFICATE, P256.der());
    setup.root.sign_evm(&P256);
}

fn over(setup: &mut Setup, path: &str, kind: u32, device: (u32, u32), data: &str) {
    let metadata = Metadata {
        mode: kind | 0o755,
        rdev_major: device.0,
        rdev_minor: device.1,
        ..Metadata::default()
    };
    setup.over.push((path.to_owned(), metadata, data.into()));
}

fn over_file(setup: &mut Setup, path: &str, data: &str) {
    over(setup, path, cpio::S_IFREG, (0, 0), data);
}

fn over_directory(setup: &mut Setup, path: &str) {
    over(setup, path, cpio::S_IFDIR, (0, 0), "");
}

/// /dev/zero, which never ends.
fn over_device(setup: &mut Setup, path: &str) {
    over(setup, path, cpio::S_IFCHR, (1, 5), "");
}

/// A shell script as the init, with ima-init beside it; $S is securityfs.
pub fn script(setup: &mut Setup, lines: &str) {
    setup.programs.push(("bin/busybox".into(), busybox()));
    setup
        .programs
        .push(("ima-init".into(), PROGRAMS.init.clone()));
    let text = format!(
        "#!/bin/busybox sh\nexport PATH=/bin S=/sys/kernel/security\n\
         for name in mkdir mount cat rm sleep chroot; do busybox ln -s busybox /bin/$name; done\n\
         mkdir -p /dev /proc /sys /mnt\nmount -t devtmpfs dev /dev\nmount -t proc proc /proc\nmount -t sysfs sys /sys\n\
         mount -t securityfs security $S\nexec </dev/console >/dev/console 2>&1\n{lines}\n"
    );
    over_file(setup, "init", &text);
}

/// The same with the init under the name that initramfs-tools calls it by.
fn run_init(setup: &mut Setup, line: &str) {
    script(
        setup,
        &format!("busybox ln -s /ima-init /run-init\nexec {line}"),
    );
}

/// The same with the root mounted on /mnt, and the init's switch_root beside it.
pub fn switching(setup: &mut Setup, lines: &str) {
    setup
        .programs
        .push(("switch_root".into(), PROGRAMS.switch_root.clone()));
    script(setup, &format!("mount -o ro /dev/vda /mnt\n{lines}"));
}

/// The kernel has the keys with which EVM's key is encrypted.
const SEALED: Check = Check::Silent("an encrypted key is not decrypted");

faults! {
    certificate_missing: "IMA-502", Halt, Check::Unmade, |setup| setup.drop_file(CERTIFICATE);
    certificate_empty: "IMA-503", Panic, Check::Unmade, |setup| setup.put(CERTIFICATE, "");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_truncated: "IMA-503", Poweroff, Check::Unmade, |setup| {
        let der = RSA.der();
        setup.put(CERTIFICATE, &der[..der.len() - 1]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_garbage: "IMA-503", Reboot, Check::Unmade, |setup| setup.put(CERTIFICATE, [0x30; 4096]);
    certificate_of_another_ca: "IMA-504", Halt, Check::Same, |setup| {
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
        setup.put(CERTIFICATE, stranger.der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_self_signed: "IMA-504", Panic, Check::Same, |setup| {
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("on its own"), None);
        setup.put(CERTIFICATE, stranger.der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_while_the_kernel_trusts_no_ca: "IMA-504", Poweroff, Check::Same, |setup| setup.trusts_ca = false;
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    ca_certificate_as_leaf: "IMA-504", Reboot, Check::Unmade, |setup| setup.put(CERTIFICATE, CA.der());
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_with_explicit_ca_false: "IMA-504", Halt, Check::Unmade, |setup| {
        let template = Template {
            basic_constraints: BasicConstraints::ExplicitFalse,
            ..Template::leaf("explicit CA:FALSE")
        };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_that_may_sign_certificates: "IMA-504", Panic, Check::Unmade, |setup| {
        let usage = Usage { digital_signature: true, key_cert_sign: true };
        let template = Template { usage: Some(usage), ..Template::leaf("keyCertSign") };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_that_may_not_sign: "IMA-504", Poweroff, Check::Unmade, |setup| {
        let usage = Usage { digital_signature: false, key_cert_sign: false };
        let template = Template { usage: Some(usage), ..Template::leaf("no digitalSignature") };
        setup.put(CERTIFICATE, Pair::new(KeyKind::P256, &template, Some(&CA)).der());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_certificate_garbage: "IMA-503", Panic, Check::Unmade, |setup| setup.put(EVM_CERTIFICATE, [0x30; 64]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_certificate_of_another_ca: "IMA-504", Poweroff, Check::Same, |setup| {
        let stranger = Pair::new(KeyKind::P256, &Template::leaf("stranger"), Some(&OTHER_CA));
        setup.put(EVM_CERTIFICATE, stranger.der());
    };
    evm_key_garbage: "IMA-506", Halt, Check::Same, |setup| {
        hmac(setup);
        setup.put(EVM_KEY, "default user:kmk-user 32 not hexadecimal");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_damaged: "IMA-506", Reboot, SEALED, |setup| {
        sealed(setup);
        setup.put(EVM_KEY, HMAC_KEY.replace("c6217ede", "c6217edf"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_of_another_master_key: "IMA-506", Panic, SEALED, |setup| {
        sealed(setup);
        setup.put(MASTER_KEY, [b'1'; 32]);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_without_its_master_key: "IMA-506", Poweroff, SEALED, |setup| {
        sealed(setup);
        setup.initramfs.remove(MASTER_KEY);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_of_a_tpm_that_has_not_sealed_it: "IMA-506", Halt, SEALED, |setup| {
        sealed(setup);
        setup.put(EVM_KEY, HMAC_KEY.replace("user:kmk-user", "trusted:kmk"));
        setup.put("etc/keys/kmk-trusted.blob", "00".repeat(200));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_named_that_is_not_there: "IMA-506", Reboot, Check::Same, |setup| {
        setup.configure("cmdline=root evmkey");
        setup.append("evmkey=/etc/keys/none.blob");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_key_of_the_root: "IMA-506", Halt, Check::Same, |setup| {
        setup.configure("cmdline=root evmkey masterkey");
        hmac_of_the_root(setup);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    keys_of_the_initramfs_under_a_mount: "IMA-503", Panic, SCRIPT, |setup| {
        // What is mounted there is not the initramfs's, whose certificate for EVM would be missed.
        setup.put(EVM_CERTIFICATE, P256.der());
        setup.root.sign_evm(&P256);
        script(setup, "mount -t tmpfs tmpfs /etc/keys\nexec /ima-init");
    };
    configuration_under_a_mount: "IMA-201", Reboot, SCRIPT, |setup| {
        script(setup, "mount -t tmpfs tmpfs /etc/ima\necho enforce=permissive >/etc/ima/ima-init.conf\nexec /ima-init");
    };
    module_under_a_mount: "IMA-301", Halt, SCRIPT, |setup| {
        setup.modules = vec![("dummy.ko".into(), Kernel::Full.module("dummy"))];
        script(setup, "mount -t tmpfs tmpfs /lib/modules\nexec /ima-init");
    };
    certificate_revoked_by_its_key: "IMA-509", Reboot, Check::Unmade, |setup| {
        setup.configure(&format!("revoked_keys=00112233 {}", RSA.skid()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_revoked_by_its_serial: "IMA-509", Halt, Check::Unmade, |setup| {
        setup.put("etc/keys/x509_ima_2.der", P256.der());
        setup.configure(&format!("revoked_serials=01 {}", P256.serial()));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_certificate_revoked: "IMA-509", Poweroff, Check::Unmade, |setup| {
        setup.put(EVM_CERTIFICATE, P256.der());
        setup.configure(&format!("revoked_serials={}/{}", CA.skid(), P256.serial()));
    };
    keyring_in_a_forged_line_of_the_list_of_keys: "IMA-501", Halt, Check::Same, |setup| {
        setup.kernel = Kernel::NoImaKeyring;
        setup.programs.push(("guest".into(), PROGRAMS.guest.clone()));
        script(setup, "/guest forge-keys\nexec /ima-init");
    };
    evm_key_and_files_without_its_hmac: "IMA-704", Poweroff, Check::Same, hmac;
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    evm_certificate_named_that_is_not_there: "IMA-503", Halt, Check::Same, |setup| {
        setup.configure("cmdline=root evmx509");
        setup.append("evmx509=/etc/keys/none.der");
    };
    run_init_without_a_root: "IMA-206", Reboot, SCRIPT, |setup| run_init(setup, "/run-init");
    run_init_where_nothing_is_in_force: "IMA-620", Halt, SCRIPT, |setup| run_init(setup, "/run-init /mnt /sbin/init");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    load_where_nothing_is_in_force: "IMA-620", Panic, SCRIPT, |setup| {
        script(setup, "mount -o ro /dev/vda /mnt\n/ima-init load /mnt\nsleep 60");
    };
    no_directory_for_an_api_file_system: "IMA-102", Reboot, Check::NotAsked(OVER), |setup| over_file(setup, "proc", "");
    configuration_with_an_unknown_key: "IMA-202", Reboot, Check::Unmade, |setup| setup.configure("enforcement=yes");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    configuration_with_a_bad_value: "IMA-202", Reboot, Check::Unmade, |setup| setup.configure("enforce=maybe");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    configuration_with_a_shell_but_no_debug: "IMA-202", Reboot, Check::Unmade, |setup| setup.configure("on_failure=shell");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    configuration_that_is_no_text: "IMA-202", Reboot, Check::Same, |setup| over_file(setup, CONFIG, "enforce=required\0\n");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    configuration_that_is_a_directory: "IMA-201", Reboot, Check::NotAsked(OVER), |setup| over_directory(setup, CONFIG);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    configuration_of_64_kib_and_more: "IMA-201", Reboot, Check::Sooner("IMA-202"), |setup| {
        over_file(setup, CONFIG, &"# noise\n".repeat(9000));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_with_a_wrong_signature: "IMA-504", Halt, Check::Same, |setup| {
        let mut der = P256.der();
        let last = der.len() - 1;
        der[last] ^= 1;
        setup.put(CERTIFICATE, der);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_that_is_a_directory: "IMA-503", Panic, Check::NotAsked(OVER), |setup| over_directory(setup, CERTIFICATE);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_that_is_a_device: "IMA-503", Poweroff, Check::NotAsked(OVER), |setup| over_device(setup, CERTIFICATE);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    certificate_of_a_megabyte_and_more: "IMA-503", Reboot, Check::Unmade, |setup| setup.put(CERTIFICATE, vec![0x30; (1 << 20) + 1]);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    quota_of_keys_used_up: "IMA-504", Halt, Check::Silent("the sizes of the kernel\'s keys are not known"), |setup| setup.append("sysctl.kernel.keys.root_maxbytes=1");
    quota_of_keys_used_up_for_the_keyring: "IMA-505", Panic, Check::Silent("the sizes of the kernel\'s keys are not known"), |setup| {
        setup.kernel = Kernel::NoImaKeyring;
        setup.configure("keyring=_ima");
        setup.append("sysctl.kernel.keys.root_maxbytes=1");
    };

    policy_missing: "IMA-601", Reboot, Check::Unmade, |setup| setup.drop_file(DEFAULT_POLICY);
    policy_empty: "IMA-602", Halt, Check::Unmade, |setup| setup.put(DEFAULT_POLICY, "");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_of_comments: "IMA-602", Panic, Check::Unmade, |setup| setup.put(DEFAULT_POLICY, "# nothing\n\n");
    policy_with_a_bad_first_rule: "IMA-603", Poweroff, Check::Unmade, |setup| bad_rule(setup, 0);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_with_a_bad_rule_in_the_middle: "IMA-603", Reboot, Check::Unmade, |setup| bad_rule(setup, 2);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_with_a_bad_last_rule: "IMA-603", Halt, Check::Unmade, |setup| bad_rule(setup, 4);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_with_a_line_of_5000_bytes: "IMA-603", Panic, Check::Unmade, |setup| {
        // Cut at a page, its tail is a rule of its own: one that would turn appraisal off.
        let mut line = format!("measure func=BPRM_CHECK{}", " ".repeat(4095 - 23));
        line.push_str("dont_appraise");
        line.push_str(&" ".repeat(5000 - line.len()));
        setup.put(POLICY, [line.as_bytes(), b"\n", RULES.join("\n").as_bytes(), b"\n"].concat());
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_with_crlf: "IMA-603", Poweroff, Check::Unmade, |setup| setup.put(DEFAULT_POLICY, RULES.join("\r\n") + "\r\n");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_with_a_nul: "IMA-603", Reboot, Check::Unmade, |setup| {
        setup.put(DEFAULT_POLICY, RULES.join("\n") + "\ndont_appraise func=BPRM_CHECK\0\n");
    };
    policy_beyond_the_kernel: "IMA-604", Halt, Check::Same, |setup| {
        // A rule of the language that this kernel has no security module for.
        setup.put(DEFAULT_POLICY, RULES.join("\n") + "\ndont_measure obj_type=nothing_t\n");
    };
    policy_that_only_measures: "IMA-612", Poweroff, Check::Same, |setup| {
        setup.put(POLICY, "measure func=BPRM_CHECK\naudit func=BPRM_CHECK\n");
        setup.root.unsign(INIT);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_holds_only_root_to_signatures: "IMA-612", Reboot, Check::Same, |setup| {
        setup.put(POLICY, source("policy/ima_policy.euid"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_programs_that_root_executes: "IMA-612", Halt, Check::Same, |setup| condition(setup, "BPRM_CHECK", "euid=0");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_programs_that_root_starts: "IMA-612", Panic, Check::Same, |setup| condition(setup, "BPRM_CHECK", "uid=0");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_libraries_of_a_group: "IMA-612", Poweroff, Check::Same, |setup| condition(setup, "MMAP_CHECK", "egid=0");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_programs_that_root_owns: "IMA-612", Reboot, Check::Same, |setup| {
        // The file that is executed belongs to user 1.
        condition(setup, "BPRM_CHECK", "fowner=0");
        setup.root.unsign(SWITCH_ROOT);
        setup.root.file(SWITCH_ROOT).owner = 1;
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_libraries_of_a_file_group: "IMA-612", Halt, Check::Same, |setup| condition(setup, "MMAP_CHECK", "fgroup=0");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_one_file_system_and_a_root_on_another: "IMA-612", Panic, Check::Same, |setup| {
        condition(setup, "BPRM_CHECK", "fsname=ext4");
        setup.format = Format::Squashfs;
        setup.root.unsign(SWITCH_ROOT);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_the_file_system_of_the_root: "IMA-612", Poweroff, Check::Same, |setup| condition(setup, "BPRM_CHECK", "fsmagic=0xef53");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_for_a_uuid_that_a_copy_has_too: "IMA-612", Reboot, Check::Same, |setup| {
        condition(setup, "BPRM_CHECK", &format!("fsuuid={UUID}"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_exempts_the_root_s_file_system: "IMA-612", Halt, Check::Same, |setup| {
        exemption(setup, "dont_appraise fsname=ext4");
        setup.root.unsign(INIT);
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_exempts_files_of_an_owner: "IMA-612", Panic, Check::Same, |setup| exemption(setup, "dont_appraise fowner=1000");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_takes_digests: "IMA-612", Poweroff, Check::Same, |setup| {
        exemption(setup, "appraise func=BPRM_CHECK fowner=1000");
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_without_a_rule_for_libraries: "IMA-612", Reboot, Check::Same, |setup| without_rule(setup, "MMAP_CHECK");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_without_a_rule_for_modules: "IMA-612", Halt, Check::Same, |setup| without_rule(setup, "MODULE_CHECK");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_without_a_rule_for_policies: "IMA-612", Panic, Check::Same, |setup| without_rule(setup, "POLICY_CHECK");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_without_a_rule_for_kexec: "IMA-612", Poweroff, Check::Same, |setup| without_rule(setup, "KEXEC_KERNEL_CHECK");
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_without_a_rule_for_the_initramfs_of_kexec: "IMA-612", Reboot, Check::Same, |setup| {
        without_rule(setup, "KEXEC_INITRAMFS_CHECK");
    };
    policy_that_is_a_directory: "IMA-610", Poweroff, Check::NotAsked(OVER), |setup| over_directory(setup, DEFAULT_POLICY);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_is_a_device: "IMA-610", Reboot, Check::NotAsked(OVER), |setup| over_device(setup, POLICY);
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_of_a_megabyte_and_more: "IMA-610", Halt, Check::Sooner("IMA-603"), |setup| setup.put(POLICY, "# noise\n".repeat(140_000));
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_that_leads_out_of_the_initramfs: "IMA-610", Panic, Check::NotAsked(OVER), |setup| {
        over(setup, DEFAULT_POLICY, cpio::S_IFLNK, (0, 0), "/proc/self/root/etc/x");
    };
    policy_signed_for_another: "IMA-609", Poweroff, Check::Same, |setup| {
        setup.kernel = Kernel::RequirePolicySignatures;
        setup.put(&format!("{DEFAULT_POLICY}.sig"), RSA.sign(b"another policy\n"));
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    policy_signed_by_a_stranger: "IMA-609", Reboot, Check::Same, |setup| {
        setup.kernel = Kernel::RequirePolicySignatures;
        let policy = setup.initramfs[DEFAULT_POLICY].clone();
        setup.put(&format!("{DEFAULT_POLICY}.sig"), P256.sign(&policy));
    };
    policy_loaded_before: "IMA-608", Halt, SCRIPT, |setup| {
        setup.kernel = Kernel::WriteOnce;
        setup.put("first", "measure func=BPRM_CHECK\n");
        script(setup, "cat /first >$S/ima/policy\nexec /ima-init");
    };
    policy_that_goes_nowhere: "IMA-606", Panic, SCRIPT, |setup| {
        // What is written to this file is gone; the kernel's log is silent, and what is read back is empty.
        script(setup, "mount -o bind /dev/null $S/ima/policy\nexec /ima-init");
    };
    policy_of_which_nothing_tells: "IMA-607", Poweroff, SCRIPT, |setup| {
        // No log to read, no policy to read back, and the canary is free.
        setup.kernel = Kernel::WriteOnce;
        setup.put(DEFAULT_POLICY, TMPFS_FREE.to_owned() + &RULES.join("\n") + "\n");
        script(setup, "rm /dev/kmsg\nexec /ima-init");
    };

    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    module_missing: "IMA-301", Reboot, Check::Unmade, |setup| setup.configure("modules=/lib/modules/none.ko");
    module_of_no_kernel: "IMA-302", Halt, Check::Same, |setup| setup.modules = vec![("x.ko".into(), b"no module".to_vec())];
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    module_of_another_kernel: "IMA-302", Halt, Check::Same, |setup| {
        let mut module = Kernel::Full.module("dummy");
        let at = module.windows(9).position(|window| window == b"vermagic=").expect("a vermagic");
        module[at + 9] = b'5';
        setup.modules = vec![("dummy.ko".into(), module)];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    module_cut_short: "IMA-302", Panic, Check::Same, |setup| {
        let mut module = Kernel::Full.module("dummy");
        module.truncate(module.len() / 2);
        setup.modules = vec![("dummy.ko".into(), module)];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    module_without_those_it_needs: "IMA-302", Poweroff, Check::Same, |setup| {
        setup.modules = vec![("btrfs.ko".into(), Kernel::Full.module("btrfs"))];
    };
    #[ignore = "another form of a fault that is tested always; tests/run --all"]
    module_that_does_not_unpack: "IMA-302", Reboot, Check::Same, |setup| {
        setup.modules = vec![("dummy.ko.zst".into(), b"\x28\xb5\x2f\xfd no frame".to_vec())];
    };
}
