//! The status in the text format of Prometheus, as node_exporter's textfile collector reads it.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, "Text-based format".

use std::collections::BTreeMap;

use super::boot::SecureBoot;
use super::item::{Item, State};
use super::{Status, exit_status};

/// The metrics in the making. A family's lines stand together, and no two have the same labels: the collector refuses a file otherwise.
#[derive(Debug, Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    /// Writes a family: its name, type and description, and the samples with their labels.
    fn family<'a, const N: usize>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        samples: impl IntoIterator<Item = ([(&'a str, &'a str); N], f64)>,
    ) {
        let lines: BTreeMap<String, f64> = samples
            .into_iter()
            .map(|(labels, value)| (labels_text(&labels), value))
            .collect();
        if lines.is_empty() {
            return;
        }
        self.text
            .push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in lines {
            self.text.push_str(&format!("{name}{labels} {value}\n"));
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Into<f64>) {
        self.family((name, "gauge", help), [([], value.into())]);
    }
}

/// The labels of a sample as they are written behind the name.
fn labels_text(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", labels.join(","))
}

/// A label's value: of all characters three are written otherwise.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
    text
}

impl Status {
    /// The status as metrics; `accepted` are the items that do not count for `ima_status`. docs/reference/status.md describes them.
    #[must_use]
    pub fn metrics(&self, accepted: &[Item]) -> String {
        let mut metrics = Metrics::default();
        let checks = self.checks();
        metrics.gauge(
            "ima_status",
            "Exit status of imactl status: 0 nothing to look at, 1 something, 2 not in force or unknown.",
            exit_status(&checks, accepted),
        );
        metrics.gauge(
            "ima_status_timestamp_seconds",
            "When the status was read, in seconds since 1970.",
            self.now as f64,
        );
        let states = [
            State::Good,
            State::NotVisible,
            State::Attention,
            State::Failed,
        ];
        let samples = checks.iter().flat_map(|check| {
            states.map(|state| {
                let labels = [("check", check.item.name()), ("state", state.name())];
                (labels, f64::from(check.state == state))
            })
        });
        let help = "1 for the state that each check is in.";
        metrics.family(("ima_check_state", "gauge", help), samples);
        let report = self.report.report();
        metrics.gauge(
            "ima_booted_by_ima_init",
            "Whether ima-init left a report of this boot.",
            report.is_some(),
        );
        metrics.gauge(
            "ima_policy_in_force",
            "Whether programs are appraised and denied, as far as is known.",
            self.policy.in_force,
        );
        if let Some(kernel) = &self.boot.kernel {
            let samples = [([("release", kernel.as_str())], 1.0)];
            metrics.family(("ima_kernel_info", "gauge", "The running kernel."), samples);
        }
        match self.boot.secure_boot {
            SecureBoot::Unknown | SecureBoot::NoUefi => {}
            known => metrics.gauge(
                "ima_secure_boot_enabled",
                "Whether the firmware enforces Secure Boot; absent without UEFI.",
                known == SecureBoot::Enabled,
            ),
        }
        metrics.gauge(
            "ima_command_line_fixed",
            "Whether something fixes the kernel command line, as far as can be seen.",
            self.boot.command_line_fixed_by.is_some(),
        );
        metrics.gauge(
            "ima_tpm_present",
            "Whether there is a TPM.",
            self.tpm.version.is_some(),
        );
        self.key_metrics(&mut metrics);
        self.measurement_metrics(&mut metrics);
        self.denial_metrics(&mut metrics);
        let mut codes: BTreeMap<&str, u32> = BTreeMap::new();
        for warning in report.into_iter().flat_map(|report| report.all_warnings()) {
            *codes.entry(&warning.code).or_default() += 1;
        }
        let samples = codes
            .iter()
            .map(|(code, count)| ([("code", *code)], f64::from(*count)));
        let help = "Warnings of ima-init at boot, by code.";
        metrics.family(("ima_init_warnings", "gauge", help), samples);
        if let Some(total) = report.and_then(|report| report.times_us.get("total")) {
            metrics.gauge(
                "ima_init_duration_seconds",
                "Time from the start of ima-init to the handover.",
                *total as f64 / 1e6,
            );
        }
        metrics.text
    }

    fn key_metrics(&self, metrics: &mut Metrics) {
        let samples = self
            .keyrings
            .iter()
            .map(|ring| ([("keyring", ring.name)], ring.keys as f64));
        let help = "Keys on each keyring.";
        metrics.family(("ima_keyring_keys", "gauge", help), samples);
        let report = self.report.report();
        let keys = report.into_iter().flat_map(|report| report.all_keys());
        let samples = keys.filter(|key| key.accepted).filter_map(|key| {
            let labels = [
                ("keyring", key.keyring.as_str()),
                ("key_id", key.key_id.as_deref().unwrap_or_default()),
                ("subject", key.subject.as_deref().unwrap_or_default()),
            ];
            Some((labels, key.not_after? as f64))
        });
        let help =
            "End of validity of the certificates that ima-init loaded, in seconds since 1970.";
        metrics.family(
            ("ima_certificate_expiry_timestamp_seconds", "gauge", help),
            samples,
        );
    }

    fn measurement_metrics(&self, metrics: &mut Metrics) {
        let found = &self.measurements;
        if found.error.is_some() {
            return;
        }
        let samples = found
            .templates
            .iter()
            .map(|(name, count)| ([("template", name.as_str())], *count as f64));
        let help = "Entries of the measurement list, by template.";
        metrics.family(("ima_measurements", "gauge", help), samples);
        metrics.gauge(
            "ima_measurement_violations",
            "Violations in the measurement list.",
            found.violations as f64,
        );
        let numbers: Vec<String> = found.pcrs.iter().map(|pcr| pcr.pcr.to_string()).collect();
        let samples = found.pcrs.iter().zip(&numbers).map(|(pcr, number)| {
            let labels = [("bank", pcr.bank), ("pcr", number.as_str())];
            (labels, f64::from(pcr.good))
        });
        let help = "Whether the PCR holds the replay of the measurement list.";
        metrics.family(("ima_pcr_matches", "gauge", help), samples);
    }

    fn denial_metrics(&self, metrics: &mut Metrics) {
        let denials = &self.denials;
        if !denials.readable {
            return;
        }
        let help = "Denials since boot that the logs have.";
        metrics.family(
            ("ima_denials_total", "counter", help),
            [([], denials.total as f64)],
        );
        let samples = denials
            .by_cause
            .iter()
            .map(|(cause, count)| ([("cause", cause.as_str())], *count as f64));
        let help = "Denials since boot that the logs have, by the kernel's cause.";
        metrics.family(("ima_denials_by_cause_total", "counter", help), samples);
        metrics.gauge(
            "ima_denials_incomplete",
            "Whether the kernel's log has lost records of this boot.",
            denials.incomplete,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a label's value is, it stays in its quotation marks and on its line, and is read as it was.
        #[test]
        fn label_values_round_trip(value in "\\PC{0,20}[\\\\\"\n\r{}]{0,6}\\PC{0,10}") {
            let text = labels_text(&[("name", value.as_str())]);
            let inner = text.strip_prefix("{name=\"").and_then(|text| text.strip_suffix("\"}")).unwrap();
            let mut read = String::new();
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                prop_assert!(character != '"' && character != '\n', "{text}");
                match character {
                    '\\' => read.push(match characters.next() {
                        Some('n') => '\n',
                        Some(escaped @ ('\\' | '"')) => escaped,
                        other => panic!("{other:?} in {text}"),
                    }),
                    character => read.push(character),
                }
            }
            prop_assert_eq!(read, value);
        }
    }
}
