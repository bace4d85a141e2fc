//! docs/reference/errors.md is the fault catalogue, and nothing else.

use std::path::Path;

/// The committed page is what the catalogue gives. `UPDATE_DOCS=1` writes the page instead of comparing it.
#[test]
fn the_committed_page_is_the_catalogue() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let generated = ima::fault::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &generated).expect("docs/reference/errors.md");
    }
    let committed = std::fs::read_to_string(&page).expect("docs/reference/errors.md");
    let line = |number: usize, text: &str| text.lines().nth(number).unwrap_or("(end)").to_owned();
    let differs = committed
        .lines()
        .zip(generated.lines())
        .position(|(committed, generated)| committed != generated)
        .unwrap_or_else(|| committed.lines().count().min(generated.lines().count()));
    assert!(
        committed == generated,
        "docs/reference/errors.md is not what crates/ima/src/fault.rs says. Line {}:\n  page:      {}\n  catalogue: {}\n\
         Write it anew with: UPDATE_DOCS=1 cargo test -p ima --test errors_page",
        differs + 1,
        line(differs, &committed),
        line(differs, &generated),
    );
}
