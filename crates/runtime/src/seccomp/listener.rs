//! Handing the descriptor of a filter's notifications to whoever decides: runtime-spec `config-linux.md`, "The Container Process State".

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::{InStep as _, Result};
use crate::hooks::state_text;
use crate::request::Request;

const STEP: &str = "cannot hand the listener of the system call filter to linux.seccomp.listenerPath";

/// Sends the listener of the process `pid` to the socket that the configuration names, with the container's state.
pub(crate) fn hand_on(request: &Request, pid: u32, listener: &OwnedFd) -> Result<()> {
    let seccomp = request.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let Some((seccomp, path)) = seccomp.and_then(|seccomp| Some((seccomp, seccomp.listener_path.as_ref()?)))
    else {
        return Err(super::Error::NotifyUnheard.into());
    };
    let failed = |call| move |errno| kernel::Error::new(call, path.clone(), errno);
    let bundle = request.oci.as_ref().map_or(request.directory.as_path(), |oci| oci.bundle.as_path());
    let state: serde_json::Value =
        serde_json::from_str(&state_text(&request.spec, &request.id, "creating", pid, bundle))
            .unwrap_or_default();
    let mut told = serde_json::json!({
        "ociVersion": request.spec.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    });
    if let Some(metadata) = &seccomp.listener_metadata {
        told["metadata"] = metadata.as_str().into();
    }
    let address = SocketAddrUnix::new(path.as_str()).map_err(failed("connect")).in_step(STEP)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket"))
        .in_step(STEP)?;
    connect(&socket, &address).map_err(failed("connect")).in_step(STEP)?;
    kernel::socket::send(&socket, told.to_string().as_bytes(), &[listener.as_fd()]).in_step(STEP)
}
