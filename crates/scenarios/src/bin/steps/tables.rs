//! The tables that the boots write, in columns.

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
    fn failed_calls_keep_their_order() {
        let table = failed_calls("2\topenat\tEIO\trefused\t1.0\n1\tread\tEIO\trefused\t0.5\n");
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("    2  openat "), "{table}");
        assert!(lines[1].starts_with("    1  read "), "{table}");
    }
}
