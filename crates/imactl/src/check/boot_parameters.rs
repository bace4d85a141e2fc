//! Parameters of the command line that change what the kernel itself does, before the init and its configuration have a say.

use ima::cmdline::{self, RootName, Sharing};
use ima::fault::{Cause, Code, Fault};
use ima::settings;

use super::Findings;
use crate::kernel::check::KernelConfig;

/// Functions that `initcall_blacklist=` may keep the kernel from calling when it starts (init/main.c, `initcall_blacklisted`),
/// and the fault of a boot without them.
const INITCALLS: [(&str, Code); 12] = [
    // security/inode.c
    ("securityfs_init", Code::NoSecurityfs),
    // security/integrity/ima/ima_main.c
    ("init_ima", Code::NoIma),
    // security/keys/proc.c: /proc/keys
    ("key_proc_init", Code::NoImaKeyring),
    // crypto/asymmetric_keys/asymmetric_type.c
    ("asymmetric_key_init", Code::CertificateRefused),
    // certs/system_keyring.c
    ("load_system_certificate_list", Code::CertificateRefused),
    // drivers/block/virtio_blk.c
    ("virtio_blk_init", Code::RootMissing),
    // drivers/md/dm.c
    ("dm_init", Code::VerityTarget),
    ("dm_init", Code::LuksTarget),
    // drivers/md/dm-crypt.c, `module_dm`
    ("dm_crypt_init", Code::LuksTarget),
    // drivers/md/dm-verity-target.c
    ("dm_verity_init", Code::VerityTarget),
    // fs/erofs/super.c
    ("erofs_module_init", Code::ComposefsKernel),
    // fs/overlayfs/super.c
    ("ovl_init", Code::ComposefsKernel),
];

/// The initcall of EVM (security/integrity/evm/evm_main.c).
pub(super) const EVM: &str = "init_evm";

/// The initcall of UBI (drivers/mtd/ubi/build.c).
const UBI: &str = "ubi_init";

/// The initcall of virtiofs (fs/fuse/virtio_fs.c).
const VIRTIOFS: [&str; 1] = ["virtio_fs_init"];

/// The initcalls of 9p over virtio (fs/9p/v9fs.c, net/9p/trans_virtio.c).
const NINE_P: [&str; 2] = ["init_v9fs", "p9_virtio_init"];

/// Whether the command line keeps the kernel from calling that function.
pub(super) fn is_left_out(initcall: &str, line: Option<&str>) -> bool {
    cmdline::parameters(line.unwrap_or_default())
        .filter(|parameter| parameter.is("initcall_blacklist"))
        .filter_map(|parameter| parameter.value)
        .any(|functions| functions.split(',').any(|function| function == initcall))
}

impl Findings {
    /// The fault of an initcall that is left out, for those codes.
    pub(super) fn initcalls(&mut self, line: Option<&str>, codes: &[Code]) {
        let left_out = INITCALLS
            .iter()
            .filter(|(initcall, code)| codes.contains(code) && is_left_out(initcall, line));
        self.faults.extend(left_out.map(|(initcall, code)| {
            Fault::new(*code, format!("initcall_blacklist={initcall}"))
                .because(Cause::INITCALL_LEFT_OUT)
        }));
    }

    /// The faults of a root in a UBI volume or of one that a host shares, whose initcalls are left out.
    pub(super) fn root_initcalls(&mut self, line: &str, root: &settings::Root) {
        let settings::Root::Named(name) = root else {
            return;
        };
        let (code, initcalls): (Code, &[&str]) = match name {
            RootName::Ubi(_) => (Code::RootMissing, &[UBI]),
            RootName::Device(device) if device.starts_with("ubiblock") => {
                (Code::RootMissing, &[UBI])
            }
            RootName::Shared { by, .. } => (
                Code::RootMount,
                match by {
                    Sharing::Virtiofs => &VIRTIOFS,
                    Sharing::NineP => &NINE_P,
                },
            ),
            _ => return,
        };
        for initcall in initcalls {
            if is_left_out(initcall, Some(line)) {
                let detail = format!("initcall_blacklist={initcall}");
                let fault = Fault::new(code, detail);
                self.faults.push(fault.because(Cause::INITCALL_LEFT_OUT));
            }
        }
    }

    /// The network of a root of NFS, which the kernel sets up where the command line says so (net/ipv4/ipconfig.c,
    /// `ip_auto_config_setup`).
    pub(super) fn network(&mut self, line: &str, root: &settings::Root) {
        let by_network = matches!(root, settings::Root::Named(RootName::Nfs { .. }));
        let is_set_up = cmdline::parameters(line)
            .any(|parameter| parameter.is("ip") || parameter.is("nfsaddrs"));
        if by_network && !is_set_up {
            let fault = Fault::new(Code::RootMount, format!("root={root}"));
            self.faults.push(fault.because(Cause::NETWORK_NOT_SET_UP));
        }
    }

    /// The policies of the kernel's own that have it take only a signed one (ima_policy.c, `ima_init_policy`).
    pub(super) fn builtin_policy(&mut self, line: &str, kernel: Option<&KernelConfig>) {
        let writable = kernel.is_none_or(|kernel| kernel.is_builtin("IMA_WRITE_POLICY"));
        for parameter in cmdline::parameters(line) {
            let value = parameter.value.as_deref().unwrap_or_default();
            let mut names = value.split([' ', '|', '\n']);
            let demands = |name: &str| name == "secure_boot" || name == "appraise_tcb" && writable;
            if parameter.is("ima_policy") && names.any(demands) {
                let detail = format!("ima_policy={value} is on the command line");
                self.faults.push(Fault::new(Code::PolicySignature, detail));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_explains_each_initcall_s_code() {
        for (initcall, code) in INITCALLS {
            assert!(
                Cause::INITCALL_LEFT_OUT.codes().contains(&code),
                "{initcall}: {code}"
            );
        }
    }
}
