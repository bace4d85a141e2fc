//! The tables that the boots write, in columns.

use std::collections::BTreeMap;

/// Returns the table of refusals, sorted by code and then by name below its heading.
pub fn refusals(text: &str) -> String {
    let mut rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    if let Some(rows) = rows.get_mut(1..) {
        rows.sort_by_key(|row| (column(row, 1).to_owned(), column(row, 0).to_owned()));
    }
    let line = |row: &Vec<&str>| {
        format!(
            "{:<60} {:<8} {:<8} {:>13}  {}\n",
            column(row, 0),
            column(row, 1),
            column(row, 2),
            column(row, 3),
            column(row, 4)
        )
    };
    rows.iter().map(line).collect()
}

/// Returns the table of the system calls that failed.
pub fn failed_calls(text: &str) -> String {
    let line = |line: &str| {
        let row: Vec<&str> = line.split('\t').collect();
        format!(
            "{:>5}  {:<16} {:<11} {:<28} {:>7}\n",
            column(&row, 0),
            column(&row, 1),
            column(&row, 2),
            column(&row, 3),
            column(&row, 4)
        )
    };
    text.lines().map(line).collect()
}

/// Returns the tables of the page of what is supported, with the results in the place of the tests' names.
pub fn support(page: &str, results: &BTreeMap<String, bool>) -> String {
    let mut text = String::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') || cells.iter().all(|cell| cell.trim_matches('-').is_empty()) {
            continue;
        }
        for (number, cell) in cells.into_iter().enumerate() {
            let (width, shown) = match (number, result(cell, results)) {
                (0, _) => (60, cell),
                (_, Some(result)) => (24, result),
                (_, None) => (24, cell),
            };
            let shown: String = shown.chars().take(width).collect();
            text.push_str(&format!("{shown:width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Returns what came of the tests in a cell, which are written as *`NAME`*; none if there is no test in it.
fn result(cell: &str, results: &BTreeMap<String, bool>) -> Option<&'static str> {
    let names = cell.split("*`").skip(1);
    let found = names.filter_map(|rest| {
        let (name, _) = rest.split_once("`*")?;
        Some(results.iter().find(|(test, _)| {
            test.strip_suffix(name)
                .is_some_and(|path| path.is_empty() || path.ends_with("::"))
        }))
    });
    let passed: Vec<Option<bool>> = found.map(|test| test.map(|(_, passed)| *passed)).collect();
    if passed.is_empty() {
        None
    } else if passed.contains(&Some(false)) {
        Some("FAILED")
    } else if passed.contains(&None) {
        Some("not run")
    } else {
        Some("passed")
    }
}

fn column<'a>(row: &[&'a str], number: usize) -> &'a str {
    row.get(number).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted_by_code_below_the_heading() {
        let table = refusals(
            "name\tcode\taction\ttime\tcheck\nb\tIMA-2\tr\t1\tx\nc\tIMA-1\tr\t1\tx\na\tIMA-2\n",
        );
        let names: Vec<&str> = table.lines().map(|line| &line[..4]).collect();
        assert_eq!(names, ["name", "c   ", "a   ", "b   "]);
        assert_eq!(refusals(""), "");
    }

    #[test]
    fn the_supported_are_listed_with_the_results() {
        let page = "# Page\n\n| processor | boots | refused |\n|---|---|---|\n| one | *`a::b`*, *`c`* | none |\n\
                    | two | all: *`d`* | *`c`* and *`other`* |\n";
        let results = [
            ("x::a::b", true),
            ("y::c", true),
            ("z::d", false),
            ("another", true),
        ]
        .map(|(name, passed)| (name.to_owned(), passed));
        let table = support(page, &results.into());
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| {
                line.split("  ")
                    .filter(|cell| !cell.is_empty())
                    .map(str::trim)
                    .collect()
            })
            .collect();
        assert_eq!(
            rows,
            [
                ["processor", "boots", "refused"],
                ["one", "passed", "none"],
                ["two", "FAILED", "not run"]
            ]
        );
    }

    #[test]
    fn failed_calls_keep_their_order() {
        let table = failed_calls("2\topenat\tEIO\trefused\t1.0\n1\tread\tEIO\trefused\t0.5\n");
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("    2  openat "), "{table}");
        assert!(lines[1].starts_with("    1  read "), "{table}");
    }
}
