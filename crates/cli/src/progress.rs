//! How far a pull or a push is, on standard error: a line for each layer that is on its way, or, where that is no terminal, a line for each that
//! is done.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use image::{LayerProgress, Progress, Stage};

use crate::table::size;

const BETWEEN: Duration = Duration::from_millis(100);
const BAR: u64 = 30;
/// The rate is that of so many looks: two seconds.
const LOOKS: usize = 20;

/// Does `work` while `progress` is shown.
pub fn shown<T>(progress: &Arc<Progress>, quiet: bool, work: impl FnOnce() -> T) -> T {
    if quiet {
        return work();
    }
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut screen = Screen::new(std::io::stderr().is_terminal());
            while is_done.recv_timeout(BETWEEN) == Err(RecvTimeoutError::Timeout) {
                screen.show(&progress.layers());
            }
            screen.finish(&progress.layers());
        });
        let result = work();
        drop(done);
        result
    })
}

struct Screen {
    is_terminal: bool,
    /// The columns of each line of ours that can be written over.
    lines: Vec<usize>,
    /// Which layers have been told of, where that is done once.
    told: Vec<bool>,
    /// When how many bytes had come.
    looks: Vec<(Instant, u64)>,
}

impl Screen {
    fn new(is_terminal: bool) -> Self {
        Self { is_terminal, lines: Vec::new(), told: Vec::new(), looks: Vec::new() }
    }

    fn show(&mut self, layers: &[LayerProgress]) {
        let (columns, rows) = terminal();
        let mut out = self.newly_done(layers, columns);
        if self.is_terminal && layers.iter().any(is_moving) {
            let bars = fitting(&self.bars(layers), columns, rows);
            self.lines = bars.lines().map(|line| line.chars().count()).collect();
            out.push_str(&bars);
        }
        // Nobody has to listen.
        let _ = std::io::stderr().write_all(out.as_bytes());
    }

    fn finish(&mut self, layers: &[LayerProgress]) {
        let out = self.newly_done(layers, terminal().0);
        let _ = std::io::stderr().write_all(out.as_bytes());
    }

    /// A line for each layer that was not done before, over the bars, which go.
    fn newly_done(&mut self, layers: &[LayerProgress], columns: usize) -> String {
        let mut out = String::new();
        if !self.lines.is_empty() {
            // A terminal that was made narrower since has broken long lines.
            let rows: usize = self.lines.drain(..).map(|width| width.div_ceil(columns).max(1)).sum();
            let _ = write!(out, "\x1b[{rows}A\r\x1b[J");
        }
        self.told.resize(layers.len(), false);
        for (layer, told) in layers.iter().zip(&mut self.told).filter(|(_, told)| !**told) {
            let text = match layer.stage {
                Stage::Done => size(layer.size),
                Stage::Here => "already here".to_owned(),
                Stage::There => "already there".to_owned(),
                Stage::Mounted => "mounted from another repository".to_owned(),
                Stage::Waiting | Stage::Reading(_) | Stage::Compressing => continue,
            };
            *told = true;
            let _ = writeln!(out, "{}  {text}", &layer.digest.hex()[..12]);
        }
        out
    }

    fn bars(&mut self, layers: &[LayerProgress]) -> String {
        let mut out = String::new();
        for layer in layers.iter().filter(|layer| is_moving(layer)) {
            let filled = (layer.read * BAR).checked_div(layer.size).unwrap_or(BAR).min(BAR) as usize;
            let bar = format!("{}{}", "=".repeat(filled), " ".repeat(BAR as usize - filled));
            let _ = writeln!(
                out,
                "{}  [{bar}]  {} of {}",
                &layer.digest.hex()[..12],
                size(layer.read),
                size(layer.size)
            );
        }
        let whole = |layer: &LayerProgress| !is_moving(layer) && layer.stage != Stage::Waiting;
        let count = layers.iter().filter(|layer| whole(layer)).count();
        let read = layers.iter().map(|layer| if whole(layer) { layer.size } else { layer.read }).sum();
        let all: u64 = layers.iter().map(|layer| layer.size).sum();
        let _ = write!(out, "{count} of {} layers, {} of {}", layers.len(), size(read), size(all));
        if let Some(rate) = self.rate(read) {
            let _ = write!(out, ", {}/s, {} s left", size(rate), all.saturating_sub(read).div_ceil(rate));
        }
        out.push('\n');
        out
    }

    /// Bytes a second of late; None where nothing comes.
    fn rate(&mut self, read: u64) -> Option<u64> {
        self.looks.push((Instant::now(), read));
        if self.looks.len() > LOOKS {
            self.looks.remove(0);
        }
        let (begin, before) = *self.looks.first()?;
        let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        (read.checked_sub(before)? * 1000).checked_div(milliseconds).filter(|rate| *rate > 0)
    }
}

fn is_moving(layer: &LayerProgress) -> bool {
    matches!(layer.stage, Stage::Reading(_) | Stage::Compressing)
}

/// Columns and rows of the terminal; plenty where it has none.
fn terminal() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (usize::MAX, usize::MAX),
    }
}

/// The lines cut to a terminal's width, and the first ones left out where it has too few rows: what scrolled away cannot be written over.
/// Every letter of them is one column wide.
fn fitting(lines: &str, columns: usize, rows: usize) -> String {
    let lines: Vec<&str> = lines.lines().collect();
    let shown = &lines[lines.len().saturating_sub(rows.saturating_sub(1).max(1))..];
    let cut = |line: &&str| line.chars().take(columns).chain(['\n']).collect::<String>();
    shown.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(read: u64, stage: Stage) -> LayerProgress {
        LayerProgress {
            digest: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            size: 1000,
            read,
            stage,
        }
    }

    #[test]
    fn a_layer_is_told_of_once_when_it_is_done() {
        let mut screen = Screen::new(false);
        assert_eq!(screen.newly_done(&[layer(0, Stage::Waiting), layer(1, Stage::Reading(0))], 80), "");
        let done = [layer(0, Stage::Here), layer(1000, Stage::Done)];
        assert_eq!(screen.newly_done(&done, 80), "aaaaaaaaaaaa  already here\naaaaaaaaaaaa  1kB\n");
        assert_eq!(screen.newly_done(&done, 80), "");
    }

    #[test]
    fn bars_say_how_far_each_and_all_are() {
        let mut screen = Screen::new(true);
        let text =
            screen.bars(&[layer(500, Stage::Reading(0)), layer(0, Stage::Here), layer(0, Stage::Waiting)]);
        let bar = format!("aaaaaaaaaaaa  [{}{}]  500B of 1kB\n", "=".repeat(15), " ".repeat(15));
        assert_eq!(text, format!("{bar}1 of 3 layers, 1.5kB of 3kB\n"));
    }

    #[test]
    fn bars_fit_a_terminal_that_is_narrow_or_becomes_so() {
        let lines = "1234567890\n12345\nlast\n";
        assert_eq!(fitting(lines, 4, 80), "1234\n1234\nlast\n");
        assert_eq!(fitting(lines, 80, 3), "12345\nlast\n");
        assert_eq!(fitting(lines, 80, 1), "last\n");
        let mut screen = Screen::new(true);
        screen.lines = vec![10, 0, 4];
        assert_eq!(screen.newly_done(&[], 80), "\x1b[3A\r\x1b[J");
        screen.lines = vec![10, 0, 4];
        assert_eq!(screen.newly_done(&[], 4), "\x1b[5A\r\x1b[J");
        assert_eq!(screen.newly_done(&[], 4), "");
    }
}
