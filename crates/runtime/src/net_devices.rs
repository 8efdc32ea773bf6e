//! `linux.netDevices`: devices of the machine that move into the container's network namespace.
//!
//! A device that is moved goes down and loses its addresses. Those that somebody gave it to stay, and that are valid everywhere, it gets
//! again. When the namespace ends the kernel gives a real device back to the machine, under the name it has then, and removes one that is
//! only software.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kernel::namespace::setns;
use kernel::netlink::Route;
use kernel::process::CloneFlags;
use kernel::record::{Chapter, because};

use crate::error::{Error, InStep as _, Result};
use crate::namespaces;
use crate::request::Request;

const STEP: &str = "cannot move a network device into the container";
const WHAT: &str = "linux.netDevices";
const OWN: &str = "/proc/self/ns/net";

/// Moves the devices that a request names into the network namespace of the process `pid`. The caller must be single-threaded.
pub(crate) fn move_into(request: &Request, pid: u32) -> Result<()> {
    let Some(linux) = &request.spec.linux else { return Ok(()) };
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let devices: Vec<(&str, &str)> = linux
        .net_devices
        .iter()
        .map(|(name, device)| (name.as_str(), device.name.as_deref().unwrap_or(name)))
        .collect();
    if fs_err::read_link(&path)? == fs_err::read_link(OWN)? {
        return Err(refuse(
            devices[0].0,
            "the container has no network namespace of its own to move it into",
        ));
    }
    let namespace = namespaces::open(Path::new(&path))?;
    let (outside, inside) = (Route::open().in_step(STEP)?, route_in(&namespace)?);
    // None is moved before all can be.
    let indices = devices.iter().map(|(name, new)| find(&outside, &inside, name, new));
    let indices = indices.collect::<Result<Vec<u32>>>()?;
    for ((_, new), index) in devices.iter().zip(indices) {
        move_one(&outside, &inside, index, new, &namespace)?;
    }
    Ok(())
}

/// What speaks for a namespace keeps doing so: this process is in it only while it asks for that.
fn route_in(namespace: &OwnedFd) -> Result<Route> {
    let own = namespaces::open(Path::new(OWN))?;
    because(Chapter::Namespaces, "the container's network is spoken to from inside, for a moment");
    setns(namespace.as_fd(), CloneFlags::NEWNET, "the container's network").in_step(STEP)?;
    let route = Route::open();
    setns(own.as_fd(), CloneFlags::NEWNET, "this process's network").in_step(STEP)?;
    route.in_step(STEP)
}

fn find(outside: &Route, inside: &Route, name: &str, new: &str) -> Result<u32> {
    if inside.index_of(new).in_step(STEP)?.is_some() {
        return Err(refuse(name, &format!("the container has a device of the name {new} already")));
    }
    outside.index_of(name).in_step(STEP)?.ok_or_else(|| refuse(name, "this machine has no such device"))
}

fn move_one(outside: &Route, inside: &Route, index: u32, new: &str, namespace: &OwnedFd) -> Result<()> {
    let addresses = outside.addresses(index).in_step(STEP)?;
    because(Chapter::Namespaces, "linux.netDevices: this device of the machine becomes the container's");
    outside.move_device(index, new, namespace.as_fd()).in_step(STEP)?;
    let index = inside.index_of(new).in_step(STEP)?;
    let index = index.ok_or_else(|| refuse(new, "it was moved and is not there"))?;
    for address in addresses.iter().filter(|address| address.is_permanent() && address.is_global()) {
        because(Chapter::Namespaces, "an address that it had before it was moved");
        inside.add_address(index, address).in_step(STEP)?;
    }
    because(Chapter::Namespaces, "moving took it down");
    inside.set_up(index).in_step(STEP)
}

fn refuse(name: &str, reason: &str) -> Error {
    Error::Configuration { what: WHAT, value: name.to_owned(), reason: reason.to_owned() }
}
