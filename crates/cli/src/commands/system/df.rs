use std::collections::BTreeSet;
use std::process::ExitCode;

use engine::Roots;
use engine::container::{Container, short};
use engine::usage::is_over;
use image::{Digest, ImageUsage, Share, Survey};
use serde_json::{Value, json};

use crate::commands::archive;
use crate::error::Error;
use crate::list::List;
use crate::table::{self, write_out};
use crate::time;

/// Show what images and containers take of the disk
#[derive(Debug, clap::Args)]
#[command(after_help = "Sizes are blocks of the disk, each file counted once.")]
pub struct Arguments {
    /// Each image and each container
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// json, table, or a text with {{.Type}}, {{.TotalCount}}, {{.Active}}, {{.Size}}, {{.Reclaimable}}, {{json .}}; behind "table ", for a
    /// table with these columns, divided by \t
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const LIST: List<'static> = List {
    fields: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    shown: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let failed = |error: Error| error.doing("cannot measure what is kept", archive::DIRECTORIES);
    let containers = engine::usage::of_containers(roots).map_err(|error| failed(error.into()))?;
    let of = |(container, _): &(Container, u64)| container.record.image_id.as_ref()?.parse().ok();
    let in_use: BTreeSet<Digest> = containers.iter().filter_map(of).collect();
    let survey = archive::store(roots)?.survey(&in_use).map_err(|error| failed(error.into()))?;
    if arguments.verbose {
        print_images(&survey.images, &containers)?;
        write_out("\n")?;
        print_containers(&containers)?;
        write_out("\n")?;
    }
    LIST.print(arguments.format.as_deref(), &lines(&survey, &containers, &in_use))?;
    Ok(ExitCode::SUCCESS)
}

fn lines(survey: &Survey, containers: &[(Container, u64)], in_use: &BTreeSet<Digest>) -> Vec<Value> {
    let used = survey.images.iter().filter(|image| in_use.contains(&image.id)).count();
    let ended: Vec<u64> =
        containers.iter().filter(|(container, _)| is_over(container)).map(|(_, bytes)| *bytes).collect();
    let all = Share { count: containers.len(), bytes: containers.iter().map(|(_, bytes)| bytes).sum() };
    let images = Share { count: survey.images.len(), bytes: survey.layers.bytes };
    let nobody = Share::default();
    vec![
        // What images take are their layers, which are counted once.
        line("Images", images, Some(used), survey.unused_layers.bytes),
        line("Containers", all, Some(all.count - ended.len()), ended.iter().sum()),
        line(
            "Layers",
            survey.layers,
            Some(survey.layers.count - survey.unused_layers.count),
            survey.unused_layers.bytes,
        ),
        line("Blobs", survey.blobs, None, survey.unused_blobs.bytes),
        line("Partial Blobs", survey.partial, None, survey.partial.bytes),
        line("Staging", survey.staging, Some(survey.staging.count), nobody.bytes),
    ]
}

fn line(kind: &str, share: Share, active: Option<usize>, reclaimable: u64) -> Value {
    let percent = match share.bytes {
        0 => String::new(),
        total => format!(" ({}%)", reclaimable * 100 / total),
    };
    json!({
        "Type": kind,
        "TotalCount": share.count.to_string(),
        "Active": active.map_or("-".to_owned(), |count| count.to_string()),
        "Size": table::size(share.bytes),
        "Reclaimable": format!("{}{percent}", table::size(reclaimable)),
    })
}

fn print_images(images: &[ImageUsage], containers: &[(Container, u64)]) -> Result<(), Error> {
    write_out("Images space usage:\n\n")?;
    let now = runtime::state::now();
    let mut rows = Vec::new();
    for image in images {
        let created = image.created.as_deref().and_then(time::seconds);
        let id = image.id.to_string();
        let users = containers.iter().filter(|(one, _)| one.record.image_id.as_deref() == Some(&id)).count();
        let (name, tag) = match image.names.first() {
            Some(name) => (name.repository().to_owned(), name.tag().unwrap_or("<none>").to_owned()),
            None => ("<none>".to_owned(), "<none>".to_owned()),
        };
        rows.push(vec![
            name,
            tag,
            image.id.hex()[..12].to_owned(),
            created.map_or("N/A".to_owned(), |created| table::ago(now.saturating_sub(created))),
            table::size(image.shared + image.unique),
            table::size(image.shared),
            table::size(image.unique),
            table::size(image.blobs),
            users.to_string(),
        ]);
    }
    let header = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "BLOBS",
        "CONTAINERS",
    ];
    table::print(&header, &rows)
}

fn print_containers(containers: &[(Container, u64)]) -> Result<(), Error> {
    write_out("Containers space usage:\n\n")?;
    let row = |(container, bytes): &(Container, u64)| {
        let state = if is_over(container) { "ended" } else { "running" };
        vec![
            short(&container.record.id).to_owned(),
            container.record.image.clone(),
            table::size(*bytes),
            state.to_owned(),
            container.record.name.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = containers.iter().map(row).collect();
    table::print(&["CONTAINER ID", "IMAGE", "SIZE", "STATUS", "NAMES"], &rows)
}
