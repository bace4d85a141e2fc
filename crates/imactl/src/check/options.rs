//! The options that the kernel must have been built with, beyond those that a stage of the init names by a code of its own.

use ima::certificate::Certificate;
use ima::config::{Config, Lockdown, ScriptControl};
use ima::fault::{Code, Fault};
use ima::policy::Policy;
use ima::release::Release;

use super::{Findings, Inputs, mount};
use crate::kernel::check::{Finding, KernelConfig, Wanted};
use crate::kernel::command_line::FixedBy;
use crate::kernel::hardening;

impl Findings {
    /// Options beyond those that a stage of the init names by a code of its own.
    pub(super) fn kernel(
        &mut self,
        kernel: &KernelConfig,
        policy: &Policy,
        policy_signed: bool,
        config: &Config,
        certificates: &[Certificate],
        inputs: &Inputs<'_>,
    ) {
        let wanted = Wanted {
            policies: vec![policy],
            policies_signed: policy_signed,
            config: config.clone(),
            certificates: certificates.iter().collect(),
            filesystem: inputs.root.map(|root| root.filesystem.name.as_str()),
            secure_boot: inputs.boot_image.is_some_and(|image| image.is_verified()),
            line_in_image: self.command_line == Some(FixedBy::Image),
        };
        for finding in crate::kernel::check::check(kernel, &wanted) {
            if let Some(code) = code_of(&finding).filter(|_| finding.required) {
                let detail = format!("{}={} is wanted", finding.option, finding.wanted);
                self.faults
                    .push(Fault::new(code, detail).with_cause(finding.reason));
            }
        }
        let open: Vec<String> = hardening::check(kernel, &wanted)
            .into_iter()
            .map(|finding| format!("{}={}", finding.option, finding.found))
            .collect();
        if !open.is_empty() {
            self.faults
                .push(Fault::new(Code::KernelOpen, open.join(", ")));
        }
    }

    /// Whether lockdown will be in force, where the configuration demands it.
    pub(super) fn lockdown(
        &mut self,
        config: &Config,
        kernel: Option<&KernelConfig>,
        line: Option<&str>,
    ) {
        let Some(kernel) = kernel.filter(|_| config.lockdown > Lockdown::No) else {
            return;
        };
        if !kernel.is_builtin("SECURITY_LOCKDOWN_LSM") {
            let detail = "CONFIG_SECURITY_LOCKDOWN_LSM is not set";
            self.faults.push(Fault::new(Code::NoLockdown, detail));
            return;
        }
        let lsm = ima::cmdline::parameters(line.unwrap_or_default())
            .filter(|parameter| parameter.is("lsm"))
            .filter_map(|parameter| parameter.value)
            .last();
        if !hardening::names_lockdown(kernel, lsm.as_deref()) {
            let detail = match lsm {
                Some(modules) => format!("lsm={modules} is on the command line"),
                None => "CONFIG_LSM does not name lockdown".to_owned(),
            };
            self.faults
                .push(Fault::new(Code::LockdownNotInForce, detail));
        }
    }
}

impl Findings {
    /// Whether the kernel has script control, where the configuration demands it.
    pub(super) fn script_control(&mut self, config: &Config, release: Option<Release>) {
        let Some(release) = release.filter(|_| config.script_control.secure_bits() != 0) else {
            return;
        };
        if release < ScriptControl::SINCE {
            let detail = format!("the kernel is Linux {release}");
            self.faults.push(Fault::new(Code::NoScriptControl, detail));
        }
    }
}

/// With which code a missing option ends the boot; nothing where another stage names it already, or where the kernel takes
/// the rule and merely never applies it.
fn code_of(finding: &Finding) -> Option<Code> {
    Some(match finding.option.trim_start_matches("CONFIG_") {
        "SECURITYFS" | "IMA" | "INTEGRITY_TRUSTED_KEYRING" => return None,
        "FS_VERITY" | "AUDIT" => return None,
        // What the policy must cover is asked of the policy.
        "KEXEC" | "KEXEC_FILE" => return None,
        option if mount::is_driver(option) => return None,
        "IMA_APPRAISE" => Code::PolicyNotInForce,
        "IMA_APPRAISE_REQUIRE_POLICY_SIGS" | "IMA_ARCH_POLICY" => Code::PolicySignature,
        "CRYPTO_RSA" | "CRYPTO_ECDSA" => Code::CertificateRefused,
        _ if finding.reason.starts_with("policy line") => Code::PolicyRefused,
        _ => Code::KernelConfiguration,
    })
}
