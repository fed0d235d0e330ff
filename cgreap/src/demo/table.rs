//! The table that the demo prints.

use std::fmt::Write as _;

pub const COLUMNS: usize = 8;

const HEADINGS: [&str; COLUMNS] =
    ["WHAT", "HIERARCHY", "PROCESSES", "OUTCOME", "METHOD", "SIGNALLED", "ATTEMPTS", "MS"];

/// Aligns words to the left, numbers to the right.
pub fn table(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in [HEADINGS.map(str::to_owned)].iter().chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                2 | 5 | 6 | 7 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let row = ["a b", "v2", "8", "removed", "cgroup.kill", "-", "1", "0.4"].map(str::to_owned);
        let text = table(&[row]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "WHAT  HIERARCHY  PROCESSES  OUTCOME  METHOD       SIGNALLED  ATTEMPTS   MS");
        assert_eq!(lines[1], "a b   v2                 8  removed  cgroup.kill          -         1  0.4");
    }
}
