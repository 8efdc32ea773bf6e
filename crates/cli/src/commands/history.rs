use std::process::ExitCode;

use engine::Roots;
use image::Step;
use serde_json::{Value, json};

use crate::commands::archive;
use crate::error::Error;
use crate::list::List;
use crate::table::{self, write_out};
use crate::time;

/// Show how an image was made, the last step first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only the image itself has an id: steps before the last have none, which is shown as <missing>."
)]
pub struct Arguments {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Sizes and times as people read them, not bytes and RFC 3339 [default: true]
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: Option<bool>,
    /// json, table, or a text with {{.ID}}, {{.CreatedAt}}, {{.CreatedSince}}, {{.CreatedBy}}, {{.Size}}, {{.Comment}}, {{json .}}; behind
    /// "table ", for a table with these columns, divided by \t
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// A name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

const LIST: List<'static> = List {
    fields: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    shown: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed = |error: Error| {
        error.doing(format!("cannot show the history of \"{}\"", arguments.image), archive::DIRECTORIES)
    };
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let (id, steps) = store.history(&arguments.image).map_err(|error| failed(error.into()))?;
    let id = if arguments.no_trunc { id.to_string() } else { id.hex()[..12].to_owned() };
    let ids = std::iter::once(id).chain(std::iter::repeat("<missing>".to_owned()));
    if arguments.quiet && arguments.format.is_none() {
        let ids: String = ids.take(steps.len()).map(|id| format!("{id}\n")).collect();
        write_out(&ids)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<Value> = steps.iter().rev().zip(ids).map(|(step, id)| line(step, id, arguments)).collect();
    LIST.print(arguments.format.as_deref(), &lines)?;
    Ok(ExitCode::SUCCESS)
}

/// A line by docker's names for the fields.
fn line(step: &Step, id: String, arguments: &Arguments) -> Value {
    let human = arguments.human.unwrap_or(true);
    let created = step.created.clone().unwrap_or_default();
    let age = |created: u64| table::ago(runtime::state::now().saturating_sub(created));
    let since = match time::seconds(&created) {
        Some(seconds) if human => age(seconds),
        Some(_) => created.clone(),
        None => "N/A".to_owned(),
    };
    let size = step.layer.as_ref().map_or(0, |layer| layer.size);
    json!({
        "ID": id,
        "CreatedSince": since,
        "CreatedAt": created,
        "CreatedBy": one_line(&step.created_by, if arguments.no_trunc { usize::MAX } else { 45 }),
        "Size": if human { table::size(size) } else { size.to_string() },
        "Comment": one_line(&step.comment, usize::MAX),
    })
}

/// A text without what would break a table's line or be obeyed by a terminal, at most so many letters of it.
pub fn one_line(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if plain.chars().count() <= most {
        return plain;
    }
    plain.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
