//! `state`: what a container is and does, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use runtime::container::{Container, Status};
use runtime::request::RootFileSystem;

use crate::arguments::Given;
use crate::{Failed, Global, Outcome};

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    let described = describe(&container)?;
    println!("{}", serde_json::to_string_pretty(&described).map_err(|error| Failed::new(error.to_string()))?);
    Ok(ExitCode::SUCCESS)
}

/// A container as runc shows it.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    oci_version: String,
    pub id: String,
    /// The first process; 0 when it is gone.
    pub pid: u32,
    pub status: Status,
    pub bundle: PathBuf,
    rootfs: PathBuf,
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// The name of the user whose it is.
    pub owner: String,
}

pub fn describe(container: &Container) -> Result<Described, Failed> {
    let (record, status) = (&container.record, container.status()?);
    let request = &record.request;
    let rootfs = match &request.root {
        RootFileSystem::Directory(path) => path.clone(),
        RootFileSystem::Overlays(_) => Default::default(),
    };
    Ok(Described {
        oci_version: request.spec.oci_version.clone(),
        id: request.id.clone(),
        pid: if status == Status::Stopped { 0 } else { container.pid() },
        status,
        bundle: request.directory.clone(),
        rootfs,
        created: record.created.clone(),
        annotations: request.spec.annotations.clone(),
        owner: container.owner()?,
    })
}
