//! The status as a page of HTML: one file, without scripts, that loads nothing.

use super::Status;
use super::init_report::{InitReport, milliseconds};
use super::item::{Check, Item, State, count, date};
use crate::words;

/// The page has no script, and even if a name of a file became one, the browser would not run it, nor load anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1d2329;--dim:#5b6570;--back:#fff;--panel:#f5f6f8;--line:#d9dde2;--good:#19713c;--attention:#8a5a00;\
--failed:#b3261e;--bar:#3d6fb4}\
@media(prefers-color-scheme:dark){:root{--text:#e4e7ea;--dim:#9aa4ae;--back:#15181c;--panel:#1e2328;--line:#363d45;--good:#6cc48c;\
--attention:#e0b050;--failed:#f28b82;--bar:#7aa7e0}}\
body{margin:0 auto;max-width:62rem;padding:1.5rem;background:var(--back);color:var(--text);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}\
h3{font-size:1rem;margin:1rem 0 .25rem}p{margin:.25rem 0}.dim,.time{color:var(--dim)}\
.verdict{margin:1rem 0;padding:.75rem 1rem;border-left:.4rem solid;background:var(--panel);font-weight:600}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line);\
overflow-wrap:break-word}th{font-weight:600;white-space:nowrap}.span{width:100%}.short{white-space:nowrap}.sign{width:1.2rem;font-weight:700}.name{width:9rem;white-space:nowrap}\
.good{color:var(--good)}.not-visible{color:var(--dim)}.attention{color:var(--attention)}.failed{color:var(--failed)}\
code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}.track{background:var(--panel);height:1rem;position:relative}\
.bar{position:absolute;top:0;bottom:0;background:var(--bar);min-width:2px}.number{text-align:right;white-space:nowrap}\
ol{margin:.25rem 0;padding-left:1.5rem}.wide{overflow-x:auto}@media print{body{max-width:none}}";

/// HTML in the making. Text goes in through [`Html::text`] alone.
#[derive(Debug, Default)]
struct Html {
    html: String,
}

impl Html {
    /// Markup of this program's own.
    fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.html.push_str(markup);
        self
    }

    /// Text, whatever is in it: the characters with a meaning in HTML as entities; control characters, and those that change the
    /// direction of what stands around them, as escapes.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                '"' => self.html.push_str("&quot;"),
                '\'' => self.html.push_str("&#39;"),
                character if crate::text::is_unprintable(character) => {
                    self.html.extend(character.escape_default());
                }
                character => self.html.push(character),
            }
        }
        self
    }

    /// A cell of a table.
    fn cell(&mut self, text: &str) -> &mut Self {
        self.markup("<td>").text(text).markup("</td>")
    }

    /// The head of a table.
    fn head(&mut self, names: &[&str]) -> &mut Self {
        self.markup("<div class=\"wide\"><table><tr>");
        for name in names {
            self.markup("<th>").text(name).markup("</th>");
        }
        self.markup("</tr>\n")
    }

    fn end_of_table(&mut self) -> &mut Self {
        self.markup("</table></div>\n")
    }

    /// A percentage for the style of an element.
    fn percent(&mut self, part: u64, whole: u64) -> &mut Self {
        let thousandths = part.saturating_mul(1000) / whole.max(1);
        let text = format!("{}.{}%", thousandths / 10, thousandths % 10);
        self.text(&text)
    }
}

impl Status {
    /// The status and the boot as a page of HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let mut html = Html::default();
        let kernel = self.boot.kernel.as_deref().unwrap_or("unknown kernel");
        html.markup("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">")
            .markup("<meta http-equiv=\"Content-Security-Policy\" content=\"")
            .text(POLICY)
            .markup("\">\n<title>Integrity of this boot</title>\n<style>")
            .markup(STYLE)
            .markup("</style></head>\n<body>\n<h1>Integrity of this boot</h1>\n<p class=\"dim\">")
            .text(&format!("Linux {kernel}, as of {}", time(self.now)))
            .markup("</p>\n");
        let checks = self.checks();
        self.verdict(&mut html, &checks);
        self.check_table(&mut html, &checks);
        let report = self.report.report();
        if let Some(report) = report {
            timeline(&mut html, report);
        }
        self.key_section(&mut html);
        self.policy_section(&mut html);
        self.measurement_section(&mut html);
        self.denial_section(&mut html);
        if let Some(report) = report {
            warning_section(&mut html, report);
        }
        html.markup("</body></html>\n");
        html.html
    }

    fn verdict(&self, html: &mut Html, checks: &[Check]) {
        let worst = checks.iter().map(|check| check.state).max();
        let number = |state| {
            let number = checks.iter().filter(|check| check.state == state).count();
            count(number as u64, "check")
        };
        let text = match worst {
            Some(State::Failed) => format!("{} failed: see below", number(State::Failed)),
            Some(State::Attention) => format!(
                "The policy is in force; {} to look at",
                number(State::Attention)
            ),
            _ => "The policy is in force".to_owned(),
        };
        html.markup("<p class=\"verdict ")
            .text(worst.unwrap_or(State::Good).name())
            .markup("\">")
            .text(&text)
            .markup("</p>\n");
    }

    fn check_table(&self, html: &mut Html, checks: &[Check]) {
        html.markup("<table>\n");
        for check in checks {
            // The sections below have these at length.
            let details = !matches!(check.item, Item::Denials | Item::Warnings);
            html.markup("<tr><td class=\"sign ")
                .text(check.state.name())
                .markup("\">")
                .text(check.state.sign())
                .markup("</td><td class=\"name\">")
                .text(check.item.label())
                .markup("</td><td>")
                .text(&check.text);
            for detail in check.details.iter().filter(|_| details) {
                html.markup("<p class=\"dim\">").text(detail).markup("</p>");
            }
            html.markup("</td></tr>\n");
        }
        html.markup("</table>\n");
    }

    fn key_section(&self, html: &mut Html) {
        let Some(report) = self.report.report() else {
            return;
        };
        html.markup("<h2>Certificates that the init offered</h2>\n");
        html.head(&[
            "keyring",
            "subject",
            "key ID",
            "algorithm",
            "valid until",
            "kernel",
        ]);
        for key in report.all_keys() {
            let end = key.not_after.map(date).unwrap_or_default();
            html.markup("<tr>")
                .cell(&key.keyring)
                .cell(key.subject.as_deref().unwrap_or(&key.path))
                .cell(key.key_id.as_deref().unwrap_or_default())
                .cell(key.algorithm.as_deref().unwrap_or_default());
            if key.not_after.is_some_and(|end| end < self.now) {
                html.markup("<td class=\"attention\">")
                    .text(&end)
                    .markup("</td>");
            } else {
                html.cell(&end);
            }
            if key.accepted {
                html.markup("<td class=\"good\">taken</td>");
            } else {
                html.markup("<td class=\"attention\">refused ")
                    .text(key.code.as_deref().unwrap_or_default())
                    .markup("</td>");
            }
            html.markup("</tr>\n");
        }
        html.end_of_table();
    }

    fn policy_section(&self, html: &mut Html) {
        html.markup("<h2>Policy</h2>\n<p>")
            .text(&self.policy.check().text)
            .markup("</p>\n");
        if let Some(report) = self.report.report() {
            for policy in &report.policy.additional {
                html.markup("<p>")
                    .text(&format!("Policy of the root: {}, ", policy.path))
                    .text(if policy.accepted {
                        "taken"
                    } else {
                        "refused by the kernel"
                    })
                    .markup("</p>\n");
            }
        }
        let Some(shown) = &self.policy.shown else {
            html.markup("<p class=\"dim\">The kernel does not show its rules (CONFIG_IMA_READ_POLICY), or not to this user.</p>\n");
            return;
        };
        for section in words::sections(&shown.policy) {
            let about = if section.appraisal { "" } else { ", measuring" };
            html.markup("<h3>When ")
                .text(section.when)
                .markup(" <span class=\"dim\">")
                .text(&format!("{}{about}", section.hook.name()))
                .markup("</span></h3>\n<ol>");
            for step in &section.steps {
                html.markup("<li>").text(&step.text).markup("</li>");
            }
            if let Some(otherwise) = section.otherwise {
                html.markup("<li class=\"dim\">otherwise ")
                    .text(otherwise)
                    .markup("</li>");
            }
            html.markup("</ol>\n");
        }
        html.markup("<p class=\"dim\">")
            .text(words::EVERYTHING_ELSE)
            .markup("</p>\n");
    }

    fn measurement_section(&self, html: &mut Html) {
        let found = &self.measurements;
        html.markup("<h2>Measurements</h2>\n<p>")
            .text(&found.check(&self.tpm).text)
            .markup("</p>\n");
        if found.entries == 0 {
            return;
        }
        html.head(&["template", "entries"]);
        for (template, number) in &found.templates {
            html.markup("<tr>")
                .cell(template)
                .markup("<td class=\"number\">")
                .text(&number.to_string())
                .markup("</td></tr>\n");
        }
        html.end_of_table();
        let aggregate = match found.boot_aggregate {
            Some(true) => "boot_aggregate is that of PCRs 0 to 9.",
            Some(false) => "boot_aggregate is not that of PCRs 0 to 9.",
            None => "boot_aggregate could not be compared.",
        };
        html.markup("<p>").text(aggregate).markup("</p>\n");
        for pcr in &found.pcrs {
            html.markup("<p>")
                .text(&format!("PCR {} {} {}.", pcr.pcr, pcr.bank, pcr.verdict))
                .markup("</p>\n");
        }
    }

    fn denial_section(&self, html: &mut Html) {
        let denials = &self.denials;
        html.markup("<h2>Denials since boot</h2>\n<p>")
            .text(
                &denials
                    .check(self.policy.in_force, self.boot.audit_is_off)
                    .text,
            )
            .markup("</p>\n");
        if denials.files.is_empty() {
            return;
        }
        html.head(&["last", "times", "file", "for", "cause", "remedy"]);
        for denial in denials.files.iter().rev() {
            html.markup("<tr><td class=\"time\">")
                .text(&time(denial.last))
                .markup("</td><td class=\"number\">")
                .text(&denial.count.to_string())
                .markup("</td><td><code>")
                .text(&denial.file)
                .markup("</code></td><td class=\"short\"><code>")
                .text(&denial.command)
                .markup("</code></td><td>")
                .text(denial.meaning)
                .markup("<p class=\"dim\">")
                .text(&denial.cause)
                .markup("</p></td>")
                .cell(denial.remedy)
                .markup("</tr>\n");
        }
        html.end_of_table();
    }
}

/// The stages of the boot, one bar behind the other.
fn timeline(html: &mut Html, report: &InitReport) {
    let stages = report.stages();
    let whole = stages
        .iter()
        .fold(0_u64, |sum, (_, _, time)| sum.saturating_add(*time));
    html.markup("<h2>Timeline of the init</h2>\n<table>\n");
    let mut before: u64 = 0;
    for (first_half, name, time) in stages {
        html.markup("<tr><td class=\"name\">").text(&name);
        if first_half {
            html.markup(" <span class=\"dim\">(first half)</span>");
        }
        html.markup(
            "</td><td class=\"span\"><div class=\"track\"><div class=\"bar\" style=\"left:",
        )
        .percent(before, whole)
        .markup(";width:")
        .percent(time, whole)
        .markup("\"></div></div></td><td class=\"number\">")
        .text(&milliseconds(time))
        .markup("</td></tr>\n");
        before = before.saturating_add(time);
    }
    html.markup("</table>\n");
}

fn warning_section(html: &mut Html, report: &InitReport) {
    html.markup("<h2>Warnings of the init</h2>\n");
    if report.all_warnings().next().is_none() {
        html.markup("<p>none</p>\n");
        return;
    }
    html.head(&["code", "about", "cause", "remedy"]);
    for warning in report.all_warnings() {
        html.markup("<tr>")
            .cell(&warning.code)
            .cell(&warning.detail)
            .cell(&warning.cause)
            .cell(&warning.remedy)
            .markup("</tr>\n");
    }
    html.end_of_table();
}

/// A time, as ISO 8601 writes it.
fn time(seconds: u64) -> String {
    match der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)) {
        Ok(time) => format!(
            "{} {:02}:{:02}:{:02} UTC",
            date(seconds),
            time.hour(),
            time.minutes(),
            time.seconds()
        ),
        Err(_) => seconds.to_string(),
    }
}
