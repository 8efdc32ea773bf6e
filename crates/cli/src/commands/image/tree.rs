use std::process::ExitCode;

use engine::Roots;
use image::Branch;

use crate::commands::archive;
use crate::error::Error;
use crate::picture::Letters;
use crate::table::{size, write_out};

/// Show all images as a tree of the layers that they share
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Whole digests
    #[arg(long)]
    no_trunc: bool,
}

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed = |error: Error| error.doing("cannot show the images", archive::DIRECTORIES);
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let branches = store.tree().map_err(|error| failed(error.into()))?;
    let mut out = String::new();
    let drawing = Drawing { letters: Letters::of_this_terminal(), whole: arguments.no_trunc };
    for branch in &branches {
        out.push_str(&drawing.line(branch));
        drawing.below(branch, "", &mut out);
    }
    write_out(&out)?;
    Ok(ExitCode::SUCCESS)
}

struct Drawing {
    letters: Letters,
    whole: bool,
}

impl Drawing {
    fn line(&self, branch: &Branch) -> String {
        let hex = branch.diff_id.hex();
        let id = if self.whole { &hex } else { &hex[..12] };
        let layers =
            if branch.layers == 1 { "1 layer".to_owned() } else { format!("{} layers", branch.layers) };
        let mut line = format!("{id}  {} in {layers}", size(branch.bytes));
        let names: Vec<String> = branch
            .images
            .iter()
            .flat_map(|(id, names)| match &names[..] {
                [] => vec![format!("<none> ({})", &id.hex()[..12])],
                names => names.iter().map(ToString::to_string).collect(),
            })
            .collect();
        if !names.is_empty() {
            line.push_str(&format!("  [{}]", names.join(", ")));
        }
        line.push('\n');
        line
    }

    fn below(&self, branch: &Branch, before: &str, out: &mut String) {
        for (at, child) in branch.branches.iter().enumerate() {
            let is_last = at + 1 == branch.branches.len();
            let (fork, rail) = self.letters.fork(is_last);
            out.push_str(&format!("{before}{fork}{}", self.line(child)));
            self.below(child, &format!("{before}{rail}"), out);
        }
    }
}
