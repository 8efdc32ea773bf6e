//! Tables as docker prints them: columns as wide as their widest cell, three spaces between.

use std::io::ErrorKind;

use crate::error::Error;

/// Prints rows under a header line to standard output.
pub fn print(header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
    let mut out = String::new();
    let widths: Vec<usize> = (0..header.len()).map(|column| width(header, rows, column)).collect();
    for row in
        std::iter::once(header.iter().map(|cell| (*cell).to_owned()).collect()).chain(rows.iter().cloned())
    {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            if column == last {
                out.push_str(cell);
            } else {
                let width = widths[column];
                out.push_str(&format!("{cell:<width$}   "));
            }
        }
        out.push('\n');
    }
    write_out(&out)
}

fn width(header: &[&str], rows: &[Vec<String>], column: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
    cells.chain([header[column].len()]).max().unwrap_or(0)
}

/// Writes to standard output; a reader that left early (`| head`) is no error, but a full disk is.
pub fn write_out(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::lost_output("cannot write to standard output", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// `3 minutes ago`, from seconds.
pub fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `7.82MB`, from bytes: three digits, and units of a thousand.
pub fn size(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB", "PB"] {
        if number < 999.5 {
            break;
        }
        (number, unit) = (number / 1000.0, larger);
    }
    let decimals = match number {
        _ if unit == "B" => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{number:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_read_like_docker() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_429_000, "4.43MB"),
            (77_900_000, "77.9MB"),
            (124_400_000, "124MB"),
            (999_600, "1MB"),
            (5_000_000_000, "5GB"),
        ] {
            assert_eq!(super::size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn ages_read_like_docker() {
        assert_eq!(super::ago(1), "1 second ago");
        assert_eq!(super::ago(7_200), "2 hours ago");
        assert_eq!(super::ago(1_300_000), "2 weeks ago");
    }
}
