//! `state`: what a container is and does, as JSON.

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

/// The fields that runc shows, in its order.
pub fn describe(container: &Container) -> Result<serde_json::Value, Failed> {
    let (record, status) = (&container.record, container.status()?);
    let request = &record.request;
    let rootfs = match &request.root {
        RootFileSystem::Directory(path) => path.clone(),
        RootFileSystem::Overlays(_) => Default::default(),
    };
    let mut state = serde_json::json!({
        "ociVersion": request.spec.oci_version,
        "id": request.id,
        "pid": if status == Status::Stopped { 0 } else { container.pid() },
        "status": status.name(),
        "bundle": request.directory,
        "rootfs": rootfs,
        "created": record.created,
        "owner": "",
    });
    if !request.spec.annotations.is_empty() {
        state["annotations"] = serde_json::json!(request.spec.annotations);
    }
    Ok(state)
}
