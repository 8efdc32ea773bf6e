use std::process::ExitCode;

use clap::ValueEnum;
use engine::Roots;
use engine::container::{Container, Status};
use image::{Inspection, Store};
use serde_json::{Value, json};

use crate::error::Error;
use crate::format::Format;
use crate::table::write_out;
use crate::time;

/// Print all that is known of containers and images
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// json, or a text with {{.Id}}, {{.Config.User}} and the like, {{json .Config}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look only among these
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Print all that is known of images
#[derive(Debug, clap::Args)]
pub struct OfImages {
    /// json, or a text with {{.Id}}, {{.Config.User}} and the like, {{json .Config}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl From<OfImages> for Arguments {
    fn from(OfImages { format, names }: OfImages) -> Self {
        Self { format, kind: Some(Kind::Image), names }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
}

pub fn run(roots: &Roots, arguments: Arguments) -> Result<ExitCode, Error> {
    let format = arguments.format.as_deref().map(Format::parse).transpose()?;
    let store = engine::unshared::open_store(roots)?;
    let mut found = Vec::new();
    for name in &arguments.names {
        found.push(look(roots, &store, name, arguments.kind).map_err(|error| {
            let see = "see what is here: coracle images, coracle ps -a";
            error.doing(format!("cannot inspect \"{}\"", name), see)
        })?);
    }
    match format {
        Some(format) => {
            for value in &found {
                write_out(&format!("{}\n", format.of(value)?))?;
            }
        }
        None => write_out(&format!("{:#}\n", Value::Array(found)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A container of that name, else an image.
fn look(roots: &Roots, store: &Store, name: &str, kind: Option<Kind>) -> Result<Value, Error> {
    if kind != Some(Kind::Image) {
        match engine::container::find(roots, name) {
            Ok(container) => return Ok(describe_container(&container)),
            // A text that is no container's name may be an image's.
            Err(engine::Error::NoSuchContainer { .. }) if kind.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(describe_image(&store.inspect(name, None)?))
}

fn describe_image(image: &Inspection) -> Value {
    let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
    let digest = |name: &image::Reference| format!("{}@{}", name.repository(), image.manifest);
    let mut digests: Vec<String> = image.names.iter().map(digest).collect();
    digests.dedup();
    let of_config = |field: &str| image.config_json.get(field).cloned().unwrap_or_default();
    json!({
        "Id": image.id.to_string(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Created": image.config.created,
        "Author": of_config("author"),
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Size": image.size,
        "Config": of_config("config"),
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids },
        "GraphDriver": { "Name": "overlay", "Data": { "Layers": image.layers } },
    })
}

fn describe_container(container: &Container) -> Value {
    let record = &container.record;
    let labels: serde_json::Map<String, Value> =
        record.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "Id": record.id,
        "Name": format!("/{}", record.name),
        "Created": time::text(record.created),
        "Path": record.command.first(),
        "Args": record.command.get(1..).unwrap_or_default(),
        "Image": record.image_id,
        "State": describe_state(&container.status),
        "AppArmorProfile": record.apparmor_profile.as_deref().unwrap_or_default(),
        "HostConfig": { "AutoRemove": record.remove },
        "Config": { "Image": record.image, "Cmd": record.command, "Labels": labels },
    })
}

fn describe_state(status: &Status) -> Value {
    let word = match status {
        Status::Starting => "created",
        Status::Running(_) => "running",
        Status::Ended(_) => "exited",
        Status::Lost => "dead",
    };
    let (running, ended) = match status {
        Status::Running(state) => (Some(state), None),
        Status::Ended(exit) => (None, Some(exit)),
        Status::Starting | Status::Lost => (None, None),
    };
    json!({
        "Status": word,
        "Running": running.is_some(),
        "Pid": running.map_or(0, |state| state.pid),
        "StartedAt": running.map(|state| time::text(state.started)),
        "FinishedAt": ended.map(|exit| time::text(exit.ended)),
        "ExitCode": ended.map_or(0, |exit| exit.code),
        "OOMKilled": ended.is_some_and(|exit| exit.out_of_memory),
        "Dead": *status == Status::Lost,
    })
}
