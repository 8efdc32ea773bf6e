use std::process::ExitCode;

use engine::Roots;
use image::{Reference, Summary};
use serde_json::json;

use crate::commands::archive;
use crate::error::Error;
use crate::format::Format;
use crate::table::{self, write_out};
use crate::time;

/// List images
#[derive(Debug, clap::Args)]
#[command(after_help = "The built-in image `host`, which is this machine's programs, is not listed.")]
pub struct Arguments {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Digests of manifests too
    #[arg(long)]
    digests: bool,
    /// json, or a text with {{.Repository}}, {{.Tag}}, {{.Digest}}, {{.ID}}, {{.CreatedAt}}, {{.CreatedSince}}, {{.Size}}, {{json .}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let format = arguments.format.as_deref().map(Format::parse).transpose()?;
    let failed = |error: Error| error.doing("cannot list the images", archive::DIRECTORIES);
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let mut images = store.images().map_err(|error| failed(error.into()))?;
    if let Some(name) = &arguments.name {
        let headline = || format!("cannot list the images named \"{}\"", name);
        if name.contains(['*', '?', '[']) {
            let cause = "this version of coracle reads no patterns".to_owned();
            let advice = "choose from the list: coracle images | grep WORD".to_owned();
            return Err(Error::new(headline(), Some(cause), Some(advice)));
        }
        let name: Reference = name
            .parse()
            .map_err(|error: image::Error| Error::from(error).doing(headline(), archive::DIRECTORIES))?;
        let is_tag = |image: &Summary| name.tag().is_none_or(|tag| image.tag.as_deref() == Some(tag));
        images.retain(|image| image.repository.as_deref() == Some(name.repository()) && is_tag(image));
    }
    let lines: Vec<Line> = images.iter().map(|image| Line::of(image, arguments.no_trunc)).collect();
    if let Some(format) = &format {
        for line in &lines {
            write_out(&format!("{}\n", format.of(&line.json())?))?;
        }
    } else if arguments.quiet {
        let mut before = std::collections::BTreeSet::new();
        for line in lines.iter().filter(|line| before.insert(&line.id)) {
            write_out(&format!("{}\n", line.id))?;
        }
    } else {
        print(&lines, arguments.digests)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of the list, in words.
struct Line {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created_at: String,
    created_since: String,
    size: String,
}

impl Line {
    fn of(image: &Summary, whole: bool) -> Self {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "<none>".to_owned());
        let created = image.created.as_deref().and_then(time::seconds);
        let age = |created: u64| table::ago(runtime::state::now().saturating_sub(created));
        let id = image.id.hex();
        Self {
            repository: or_none(&image.repository),
            tag: or_none(&image.tag),
            digest: image.digest.to_string(),
            id: if whole { image.id.to_string() } else { id[..12].to_owned() },
            created_at: image.created.clone().unwrap_or_default(),
            created_since: created.map_or("N/A".to_owned(), age),
            size: table::size(image.size),
        }
    }

    /// docker's names for the fields.
    fn json(&self) -> serde_json::Value {
        json!({
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "ID": self.id,
            "CreatedAt": self.created_at,
            "CreatedSince": self.created_since,
            "Size": self.size,
        })
    }
}

fn print(lines: &[Line], digests: bool) -> Result<(), Error> {
    let mut header = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
    let row = |line: &Line| {
        vec![
            line.repository.clone(),
            line.tag.clone(),
            line.digest.clone(),
            line.id.clone(),
            line.created_since.clone(),
            line.size.clone(),
        ]
    };
    let mut rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    if !digests {
        header.remove(2);
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    table::print(&header, &rows)
}
