use std::process::ExitCode;

use engine::Roots;
use image::{Digest, LayerAnatomy};
use serde_json::{Value, json};

use crate::commands::archive;
use crate::commands::history::one_line;
use crate::error::Error;
use crate::picture::Letters;
use crate::table::{size, write_out};

/// Show what each layer of an image adds, shares and wastes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Wasted is what a layer above deletes or overwrites: it is fetched and kept, and nobody sees it."
)]
pub struct Arguments {
    /// json for an object with all of it
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// Whole commands and lists
    #[arg(long)]
    no_trunc: bool,
    /// A name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Letters of a line.
const WIDTH: usize = 80;
/// Letters of a bar.
const BAR: usize = 24;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed =
        |error: Error| error.doing(format!("cannot explain \"{}\"", arguments.image), archive::DIRECTORIES);
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let (id, layers) = store.anatomy(&arguments.image).map_err(|error| failed(error.into()))?;
    match arguments.format {
        Some(_) => write_out(&format!("{}\n", described(&id, &layers)))?,
        None => write_out(&drawn(arguments, &id, &layers))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn described(id: &Digest, layers: &[LayerAnatomy]) -> Value {
    let layer = |layer: &LayerAnatomy| {
        json!({
            "DiffId": layer.step.layer.as_ref().map(|layer| layer.diff_id),
            "CreatedBy": layer.step.created_by,
            "Comment": layer.step.comment,
            "Files": layer.files,
            "Bytes": layer.bytes,
            "Wasted": layer.wasted,
            "WastedFiles": layer.wasted_files.iter().map(|(path, bytes)| json!({ "Path": path.display().to_string(), "Bytes": bytes })).collect::<Vec<_>>(),
            "SharedWith": layer.shared_with,
        })
    };
    let sum = |of: fn(&LayerAnatomy) -> u64| layers.iter().map(of).sum::<u64>();
    json!({
        "Id": id,
        "Bytes": sum(|layer| layer.bytes),
        "Wasted": sum(|layer| layer.wasted),
        "Shared": sum(|layer| if layer.shared_with.is_empty() { 0 } else { layer.bytes }),
        "Layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// The picture: a line for each layer with its bar, the topmost first as in a history, and below it what it shares and wastes.
fn drawn(arguments: &Arguments, id: &Digest, layers: &[LayerAnatomy]) -> String {
    let letters = Letters::of_this_terminal();
    let total: u64 = layers.iter().map(|layer| layer.bytes).sum();
    let wasted: u64 = layers.iter().map(|layer| layer.wasted).sum();
    let shared = layers.iter().filter(|layer| !layer.shared_with.is_empty()).map(|layer| layer.bytes).sum();
    let count = if layers.len() == 1 { "1 layer".to_owned() } else { format!("{} layers", layers.len()) };
    let mut out = format!(
        "{} ({}): {} in {count}, {} shared, {} wasted\n\n",
        arguments.image,
        &id.hex()[..12],
        size(total),
        size(shared),
        size(wasted)
    );
    let largest = layers.iter().map(|layer| layer.bytes).max().unwrap_or(0);
    out.push_str(&format!(
        "{:>3}  {:>7}  {:>7}  {:>7}  {:<BAR$}  MADE BY\n",
        "", "SIZE", "FILES", "WASTED", ""
    ));
    for (number, layer) in layers.iter().enumerate().rev() {
        let bar = letters.bar(layer.bytes - layer.wasted.min(layer.bytes), layer.wasted, largest, BAR);
        let start = format!(
            "{:>3}  {:>7}  {:>7}  {:>7}  {bar}  ",
            number + 1,
            size(layer.bytes),
            layer.files,
            size(layer.wasted)
        );
        let room = if arguments.no_trunc { usize::MAX } else { WIDTH.saturating_sub(start.chars().count()) };
        out.push_str(format!("{start}{}", cut(&made_by(layer), room, letters)).trim_end());
        out.push('\n');
        for line in notes(arguments, layer) {
            let room = if arguments.no_trunc { usize::MAX } else { WIDTH - 5 };
            out.push_str(&format!("     {}\n", cut(&line, room, letters)));
        }
    }
    let (full, hatched, _) = match letters {
        Letters::Unicode => ("█", "▒", ""),
        Letters::Ascii => ("#", "x", ""),
    };
    out.push_str(&format!("\n{full} seen   {hatched} wasted: deleted or overwritten above\n"));
    out
}

fn notes(arguments: &Arguments, layer: &LayerAnatomy) -> Vec<String> {
    let mut notes = Vec::new();
    if !layer.shared_with.is_empty() {
        notes.push(format!("shared with {}", layer.shared_with.join(", ")));
    }
    let most = if arguments.no_trunc { 10 } else { 3 };
    for (path, bytes) in layer.wasted_files.iter().take(most) {
        notes.push(format!("wastes {} for {}", size(*bytes), path.display()));
    }
    notes
}

fn made_by(layer: &LayerAnatomy) -> String {
    match (layer.step.created_by.as_str(), layer.step.comment.as_str()) {
        ("", "") => "(nobody says)".to_owned(),
        ("", comment) => comment.to_owned(),
        (command, _) => {
            command.trim_start_matches("/bin/sh -c ").trim_start_matches("#(nop) ").trim().to_owned()
        }
    }
}

fn cut(text: &str, room: usize, letters: Letters) -> String {
    let line = one_line(text, room);
    if letters == Letters::Ascii { line.replace('…', ".") } else { line }
}
