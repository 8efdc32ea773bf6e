use std::process::ExitCode;

use engine::Roots;
use image::{Reference, Store, Summary};
use serde_json::{Value, json};

use crate::commands::archive;
use crate::error::Error;
use crate::filter::{Filters, is_like};
use crate::list::List;
use crate::table::{self, write_out};
use crate::time;

/// List images
#[derive(Debug, clap::Args)]
#[command(after_help = "The built-in image `host`, which is this machine's programs, is not listed.")]
pub struct Arguments {
    /// Those between other images too, of which there are none here: all are listed anyway
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Digests of manifests too
    #[arg(long)]
    digests: bool,
    /// Only those that fit: dangling=BOOL, reference=PATTERN, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// json, table, or a text with {{.Repository}}, {{.Tag}}, {{.Digest}}, {{.ID}}, {{.CreatedAt}}, {{.CreatedSince}}, {{.Size}}, {{json .}};
    /// behind "table ", for a table with these columns, divided by \t
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// In which order [default: repository]
    #[arg(long, value_name = "BY")]
    sort: Option<Order>,
    /// Only images of this name, in which * and ? may stand for letters
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    Created,
    Id,
    Repository,
    Size,
    Tag,
}

const FILTERS: [&str; 8] = ["dangling", "reference", "label", "label!", "before", "since", "after", "until"];

const FIELDS: [(&str, &str); 7] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let filters = Filters::parse(&arguments.filters, &FILTERS)?;
    let failed = |error: Error| error.doing("cannot list the images", archive::DIRECTORIES);
    let store = engine::unshared::open_store(roots).map_err(|error| failed(error.into()))?;
    let mut images = store.images().map_err(|error| failed(error.into()))?;
    if let Some(name) = &arguments.name {
        keep_named(&mut images, name)?;
    }
    keep_filtered(&store, &mut images, &filters).map_err(failed)?;
    sort(&mut images, arguments.sort);
    // Those with several names are one image each.
    if arguments.quiet && arguments.format.is_none() {
        let mut before = std::collections::BTreeSet::new();
        for image in images.iter().filter(|image| before.insert(image.id)) {
            write_out(&format!("{}\n", id(image, arguments.no_trunc)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<Value> = images.iter().map(|image| line(image, arguments.no_trunc)).collect();
    let shown: &[&str] = match arguments.digests {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    List { fields: &FIELDS, shown }.print(arguments.format.as_deref(), &lines)?;
    Ok(ExitCode::SUCCESS)
}

fn keep_named(images: &mut Vec<Summary>, name: &str) -> Result<(), Error> {
    if name.contains(['*', '?', '[']) {
        images.retain(|image| is_named_like(image, name));
        return Ok(());
    }
    let headline = || format!("cannot list the images named \"{}\"", name);
    let name: Reference = name
        .parse()
        .map_err(|error: image::Error| Error::from(error).doing(headline(), archive::DIRECTORIES))?;
    let is_tag = |image: &Summary| name.tag().is_none_or(|tag| image.tag.as_deref() == Some(tag));
    let is_digest = |image: &Summary| name.digest().is_none_or(|digest| image.digest == digest);
    images.retain(|image| {
        image.repository.as_deref() == Some(name.repository()) && is_tag(image) && is_digest(image)
    });
    Ok(())
}

/// Whether an image's name, with or without its tag, is as a pattern says.
fn is_named_like(image: &Summary, pattern: &str) -> bool {
    let Some(repository) = &image.repository else { return false };
    let tag = image.tag.as_deref().unwrap_or_default();
    is_like(pattern, repository) || is_like(pattern, &format!("{repository}:{tag}"))
}

fn keep_filtered(store: &Store, images: &mut Vec<Summary>, filters: &Filters) -> Result<(), Error> {
    if let Some(dangling) = filters.switch("dangling")? {
        images.retain(|image| image.repository.is_none() == dangling);
    }
    if filters.has("reference") {
        images.retain(|image| filters.values("reference").any(|pattern| is_named_like(image, pattern)));
    }
    let created = |image: &Summary| image.created.as_deref().and_then(time::seconds).unwrap_or(0);
    let of = |name: &str| -> Result<u64, Error> {
        let found = store.inspect(name, None)?;
        Ok(found.config.created.as_deref().and_then(time::seconds).unwrap_or(0))
    };
    for name in filters.values("before") {
        let limit = of(name)?;
        images.retain(|image| created(image) < limit);
    }
    for name in filters.values("since").chain(filters.values("after")) {
        let limit = of(name)?;
        images.retain(|image| created(image) > limit);
    }
    let until = filters.until(runtime::state::now())?;
    images.retain(|image| Filters::accepts_created(until, image.created.as_deref()));
    if filters.has("label") || filters.has("label!") {
        let mut fitting = Vec::new();
        for image in std::mem::take(images) {
            if filters.accepts_labels(&store.labels(image.id)?) {
                fitting.push(image);
            }
        }
        *images = fitting;
    }
    Ok(())
}

fn sort(images: &mut [Summary], order: Option<Order>) {
    match order {
        None => {}
        // As podman does: the newest and the largest first.
        Some(Order::Created) => images.sort_by(|one, other| other.created.cmp(&one.created)),
        Some(Order::Size) => images.sort_by_key(|image| std::cmp::Reverse(image.size)),
        Some(Order::Id) => images.sort_by_key(|image| image.id),
        Some(Order::Repository) => images.sort_by(|one, other| one.repository.cmp(&other.repository)),
        Some(Order::Tag) => images.sort_by(|one, other| one.tag.cmp(&other.tag)),
    }
}

fn id(image: &Summary, whole: bool) -> String {
    if whole { image.id.to_string() } else { image.id.hex()[..12].to_owned() }
}

/// A line of the list by docker's names for the fields.
fn line(image: &Summary, whole: bool) -> Value {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "<none>".to_owned());
    let created = image.created.as_deref().and_then(time::seconds);
    let age = |created: u64| table::ago(runtime::state::now().saturating_sub(created));
    json!({
        "Repository": or_none(&image.repository),
        "Tag": or_none(&image.tag),
        "Digest": image.digest.to_string(),
        "ID": id(image, whole),
        "CreatedAt": image.created.clone().unwrap_or_default(),
        "CreatedSince": created.map_or("N/A".to_owned(), age),
        "Size": table::size(image.size),
    })
}
