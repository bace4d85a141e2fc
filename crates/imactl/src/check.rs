//! Whether a kernel, an initramfs and a root will boot together: what the init would refuse, found on the desk, with the
//! init's codes.

mod boot_parameters;
mod composefs;
mod disk;
mod findings;
mod initramfs;
mod inputs;
mod keys;
mod libraries;
mod modules;
mod mount;
pub mod mount_options;
mod options;
mod program;
mod root;
mod root_choice;
mod simulate;
mod systemd;
mod uki;
mod verity;

use std::collections::HashMap;

use ima::config::{Config, Enforce};
use ima::fault::{Cause, Code, Fault};
use ima::feature::Feature;
use ima::layout::Purpose;
use ima::policy::cover::{self, On};
use ima::policy::{Hook, Policy, Query};
use ima::program::{INIT, INTERPRETER};
use ima::settings::{EvmFiles, Settings};
use ima::verify::SIGV3_FILES;

use crate::Result;
use crate::initramfs::{InitramfsBuilder, Place};
use crate::kernel::check::KernelConfig;
use crate::kernel::command_line::FixedBy;
use crate::select::{Appraisal, FileSystem};
pub use findings::Findings;
pub use inputs::Inputs;
use libraries::Libraries;
use program::Examiner;
pub use root::Root;
pub use root_choice::RootChoice;
pub use simulate::{Refused, Simulation, simulate};
pub use systemd::Denied;
use systemd::Further;
pub use uki::BootImage;

/// Goes through the boot, stage by stage, as the init would.
#[must_use]
pub fn check(inputs: &Inputs<'_>) -> Findings {
    let vouching = inputs.vouching();
    let inputs = &Inputs {
        authorities: vouching.as_deref(),
        ..*inputs
    };
    let mut found = Findings::default();
    if let Some(image) = inputs.boot_image {
        let (fixed, faults) = uki::check(image, inputs.kernel);
        found.command_line = Some(fixed);
        found.faults.extend(faults);
    } else {
        let fixed = |kernel| FixedBy::of(Some(kernel), false);
        found.command_line = inputs.kernel.map(fixed);
    }
    let boot = inputs.initramfs.map(|initramfs| {
        if let Some(kernel) = inputs.kernel {
            found.faults.extend(packing(initramfs, kernel));
        }
        found.add(initramfs.check_init());
        found.add(initramfs.check_place());
        let config = found.add(initramfs.configuration()).unwrap_or_default();
        if let Some(kernel) = inputs.kernel {
            found.faults.extend(kernel_basics(kernel));
        }
        found.initcalls(inputs.command_line, &[Code::NoSecurityfs, Code::NoIma]);
        let place = initramfs.place();
        let merged = found.settings(&config, inputs.command_line, initramfs);
        let policy = found.add(initramfs.chosen_policy());
        if let (Some(policy), Some(line)) = (&policy, inputs.command_line) {
            found.weakened(&config, policy, line, place);
        }
        found.faults.extend(initramfs.missing_modules(&config));
        if place == Place::Alone {
            let modules = initramfs.modules(&config);
            let refused = modules::refused(modules, inputs.kernel, inputs.release);
            found.faults.extend(refused);
        }
        let required = config.enforce == Enforce::Required;
        if let (Some(policy), Place::Front | Place::FrontOfSystemd) = (&policy, place) {
            found
                .faults
                .extend(cover::fault(policy, On::Any, config.cover, required));
        }
        let scripts = found.add(initramfs.script_faults());
        found.faults.extend(scripts.unwrap_or_default());
        (initramfs, config, merged, policy)
    });
    let Some((initramfs, config, merged, policy)) = boot else {
        found.mount(inputs, None);
        return found;
    };
    let init = merged.init;
    let appraises = policy.as_ref().is_some_and(Policy::appraises);
    if appraises {
        let keys = [Code::NoImaKeyring, Code::CertificateRefused];
        found.initcalls(inputs.command_line, &keys);
    }
    let certificates = found.keys(initramfs, inputs, &config, appraises);
    let mut offers = initramfs.certificate_files(Purpose::Evm);
    let named = merged.evm.certificate.iter();
    offers.extend(named.map(|path| initramfs.certificate_file(path)));
    let wants_certificates = !offers.is_empty();
    let evm = found.required(offers, inputs, inputs.authorities, true, &config.revoked);
    let evm_key = found.add(initramfs.evm_key(&merged.evm)).flatten();
    let required = config.enforce == Enforce::Required;
    if let (Some(parameter), true) = (merged.evm_fix, required)
        && (wants_certificates || evm_key.is_some())
    {
        found.faults.push(Fault::new(Code::EvmFix, parameter));
    }
    let no_evm = if inputs
        .kernel
        .is_some_and(|kernel| !kernel.is_builtin("EVM"))
    {
        Some("this kernel was built without CONFIG_EVM")
    } else {
        boot_parameters::is_left_out(boot_parameters::EVM, inputs.command_line)
            .then_some("initcall_blacklist=init_evm")
    };
    if let Some(detail) = no_evm.filter(|_| wants_certificates) {
        let code = match required {
            true => Code::EvmOff,
            false => Code::NoEvmKeyring,
        };
        found.faults.push(Fault::new(code, detail));
    }
    if config.evm_sigv3
        && (wants_certificates || evm_key.is_some())
        && let Some(kernel) = inputs.number().filter(|kernel| *kernel < SIGV3_FILES)
    {
        let fault = Fault::new(Code::EvmOff, format!("this is for Linux {kernel}"));
        found.faults.push(fault.because(Cause::EVM_SIGV3_UNKNOWN));
    }
    if let (Some(_), Some(kernel)) = (&evm_key, inputs.kernel) {
        for option in ["EVM", "ENCRYPTED_KEYS"] {
            if !kernel.is_builtin(option) {
                let detail = format!("this kernel was built without CONFIG_{option}");
                found.faults.push(Fault::new(Code::EvmKeyRefused, detail));
            }
        }
    }
    found.verity_keys(initramfs, inputs, &config.revoked);
    found.lockdown(&config, inputs.kernel, inputs.command_line);
    found.script_control(&config, inputs.number());
    let Some(policy) = policy else { return found };
    if policy.appraises_programs() && !policy.appraises_tmpfs() {
        found
            .faults
            .push(Fault::new(Code::TmpfsFree, initramfs.policy_path()));
    }
    let signed = initramfs.check_policy_signature();
    if let (Some(line), Ok(false) | Err(_)) = (inputs.command_line, &signed) {
        found.builtin_policy(line, inputs.kernel);
    }
    if let Some(kernel) = inputs.kernel {
        let signed = found.add(signed).unwrap_or(false);
        found.kernel(kernel, &policy, signed, &config, &certificates, inputs);
    }
    if initramfs.is_moved() {
        let result = found.initramfs(initramfs, &policy, evm_key.is_some(), &config, inputs);
        found.add(result);
    }
    found.mount(inputs, Some(&config));
    if let Some(root) = inputs.root.filter(|root| root.unmountable.is_none()) {
        // What the policy sees is the overlay, not the file system below it.
        let overlay = config.overlay.as_ref();
        let overlay = overlay.and_then(|_| FileSystem::by_name("overlay"));
        let filesystem = overlay.as_ref().unwrap_or(&root.filesystem);
        let on = On::This {
            name: &filesystem.name,
            magic: filesystem.magic,
        };
        found
            .faults
            .extend(cover::fault(&policy, on, config.cover, required));
        let guard = Query::by_root(Hook::PolicyCheck, filesystem.magic, &filesystem.name);
        let further = match inputs.kernel {
            Some(kernel) if !kernel.is_builtin("IMA_WRITE_POLICY") => Further::None,
            _ if policy.appraisal(&guard).is_some() => Further::Signed,
            _ => Further::Any,
        };
        // The kernel looks at the parameter only with this option (ima_appraise.c, `ima_appraise_parse_cmdline`).
        let denies_nothing = merged.is_weakened
            && inputs
                .kernel
                .is_none_or(|kernel| kernel.is_builtin("IMA_APPRAISE_BOOTPARAM"));
        let policy = if denies_nothing {
            Policy::default()
        } else {
            policy
        };
        let mut appraisal = Appraisal::new(policy, filesystem.clone());
        if !config.kexec {
            appraisal = appraisal.without(&[Hook::KexecKernelCheck, Hook::KexecInitramfsCheck]);
        }
        let examiner = Examiner {
            tree: &root.tree,
            appraisal: &appraisal,
            certificates: &certificates,
            evm: &evm,
            hmac: evm_key.is_some(),
            evm_sigv3: config.evm_sigv3,
            kernel: appraisal.oldest(inputs.number()),
            evm_layout: inputs.kernel.and_then(KernelConfig::evm_layout),
            machine: initramfs.machine(),
            noexec: root.noexec,
            denied: HashMap::new(),
        };
        let switch_root =
            (initramfs.place() != Place::FrontOfSystemd).then_some(config.switch_root.as_str());
        found.programs(examiner, switch_root, &init, further);
    }
    found
}

/// What configuration and command line say together, as far as it matters here.
#[derive(Default)]
struct Merged {
    /// The init that will be executed.
    init: String,
    evm: EvmFiles,
    evm_fix: Option<String>,
    /// Whether the command line has the kernel deny nothing.
    is_weakened: bool,
}

/// What the init would make of configuration and command line where it stands.
fn merge(
    config: &Config,
    line: &str,
    place: Place,
    warn: &mut dyn FnMut(Fault),
) -> Result<Settings> {
    match place {
        Place::Alone => Settings::merge(config.clone(), line, Vec::new(), warn),
        Place::Front | Place::FrontOfSystemd => Settings::in_front(config.clone(), line, warn),
    }
}

/// What the kernel would not unpack the initramfs for.
fn packing(initramfs: &InitramfsBuilder, kernel: &KernelConfig) -> Vec<Fault> {
    let lacking = initramfs
        .packings()
        .filter(|packing| !kernel.is_builtin(packing.initramfs_option()));
    lacking
        .map(|packing| {
            let (name, option) = (packing.name(), packing.initramfs_option());
            let detail = format!("it is compressed with {name}, and CONFIG_{option} is not set");
            Fault::new(Code::InitramfsPacking, detail)
        })
        .collect()
}

/// What the environment stage would miss.
fn kernel_basics(kernel: &KernelConfig) -> Vec<Fault> {
    [("SECURITYFS", Code::NoSecurityfs), ("IMA", Code::NoIma)]
        .into_iter()
        .filter(|(option, _)| !kernel.is_builtin(option))
        .map(|(option, code)| Fault::new(code, format!("CONFIG_{option} is not set")))
        .collect()
}

impl Findings {
    /// The init that will be executed.
    fn settings(
        &mut self,
        config: &Config,
        command_line: Option<&str>,
        initramfs: &InitramfsBuilder,
    ) -> Merged {
        let place = initramfs.place();
        let mut warnings = Vec::new();
        let merged = merge(
            config,
            command_line.unwrap_or_default(),
            place,
            &mut |fault| {
                warnings.push(fault);
            },
        );
        self.faults.append(&mut warnings);
        match merged {
            Ok(settings) => {
                let missing = settings
                    .features()
                    .filter(|feature| initramfs.init_lacks(*feature));
                self.faults.extend(
                    missing.map(|feature| Fault::new(Code::FeatureMissing, feature.name())),
                );
                if initramfs.is_moved() && initramfs.init_lacks(Feature::InitramfsSignatures) {
                    self.faults.push(Fault::new(
                        Code::FeatureMissing,
                        Feature::InitramfsSignatures.name(),
                    ));
                }
                Merged {
                    init: settings.init,
                    evm: settings.evm,
                    evm_fix: settings.evm_fix,
                    is_weakened: settings.weakened.is_some(),
                }
            }
            Err(fault) => {
                // Without a command line nothing is known of the root's name.
                if command_line.is_some() || fault.code() != Code::NoRootNamed {
                    self.faults.push(fault);
                }
                Merged {
                    init: config.init.clone(),
                    ..Merged::default()
                }
            }
        }
    }

    fn weakened(&mut self, config: &Config, policy: &Policy, line: &str, place: Place) {
        if let Ok(settings) = merge(config, line, place, &mut |_| {}) {
            self.add(settings.refuse_weakened(policy));
        }
    }

    /// switch_root if it will be executed, init, its interpreter and libraries, what systemd starts, then everything that the
    /// policy appraises.
    fn programs(
        &mut self,
        mut examiner: Examiner<'_>,
        switch_root: Option<&str>,
        init: &str,
        further: Further,
    ) {
        examiner.appraise();
        if let Some(path) = switch_root {
            self.add(ima::program::switch_root(&examiner, path).map(drop));
        }
        let mut libraries = Libraries::new(&examiner);
        let runs = ima::program::runs(&examiner, init.as_bytes(), &INIT, &INTERPRETER);
        if let Some(program) = self.add(runs) {
            self.faults.extend(libraries.check(&program));
            let policy = systemd::policy(&examiner, init.as_bytes(), further);
            self.faults.extend(policy);
            self.services = systemd::check(&examiner, &mut libraries);
        }
        self.denied = examiner.denied.into_iter().collect();
        self.denied.sort_by(|one, other| one.0.cmp(&other.0));
    }
}

#[cfg(test)]
mod tests;
