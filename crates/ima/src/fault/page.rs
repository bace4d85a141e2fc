//! The page of the codes.

use super::{Cause, Code};

/// The catalogue as the Markdown page `docs/reference/errors.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every refusal and warning, by code. This page is generated from the catalogue (`imactl explain --markdown`).\n\
         `imactl explain CODE` shows one row. A *refusal* ends the boot with the action that `on_failure` chose, or the\n\
         command with exit status 2; a *warning* is printed and kept in the report.\n\n\
         Where the cause was found out, the message has that cause in place of the general one; the causes that can be found\n\
         out are listed under each code, with their remedies where those differ. Words in {braces} stand for the values met.\n",
    );
    let mut stage = None;
    for code in Code::ALL {
        let entry = code.entry();
        if stage != Some(entry.stage) {
            stage = Some(entry.stage);
            page.push_str(&format!("\n## {}\n", entry.stage));
        }
        page.push_str(&format!(
            "\n### {} ({}): {}\n\n- cause: {}\n- remedy: {}\n",
            entry.id,
            entry.severity.name(),
            entry.what,
            entry.cause,
            entry.remedy
        ));
        let mut causes = Cause::of(*code).peekable();
        if causes.peek().is_some() {
            page.push_str("\nCauses that are found out:\n\n");
        }
        for cause in causes {
            page.push_str(&format!("- {}\n", cause.text()));
            if let Some(remedy) = cause.remedy() {
                page.push_str(&format!("  - remedy: {remedy}\n"));
            }
        }
    }
    page.push_str("\n## Retired codes\n\nThese numbers are not used again.\n\n");
    for (id, successor) in Code::RETIRED {
        page.push_str(&format!("- {id}: now {successor}\n"));
    }
    page
}
