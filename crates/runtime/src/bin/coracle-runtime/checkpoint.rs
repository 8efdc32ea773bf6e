//! `checkpoint`: a container's processes, written to files by criu.

use std::path::PathBuf;
use std::process::ExitCode;

use runtime::checkpoint::{self, Dump, GroupsMode, Options};
use runtime::container::Container;

use crate::arguments::{Flag, Given, option, switch};
use crate::{Failed, Global, Outcome, delete};

pub const FLAGS: &[Flag] = &[
    option("image-path", None, "DIR", "where the image files go [./checkpoint]"),
    option("work-path", None, "DIR", "where criu's log goes [the directory of the images]"),
    option("parent-path", None, "DIR", "the images of the last --pre-dump, relative to --image-path"),
    switch("leave-running", None, "let the container go on afterwards; without it, it is deleted"),
    switch("tcp-established", None, "allow open TCP connections"),
    switch("ext-unix-sk", None, "allow UNIX sockets that are connected to processes outside"),
    switch("shell-job", None, "allow a session that is led from outside"),
    switch("lazy-pages", None, "refused: memory is restored as a whole"),
    option("status-fd", None, "N", "refused, as it is for --lazy-pages [-1]"),
    option("page-server", None, "ADDRESS:PORT", "send memory to this page server of criu's"),
    switch("file-locks", None, "allow locked files"),
    switch("pre-dump", None, "write only memory, and let the container go on"),
    option(
        "manage-cgroups-mode",
        None,
        "MODE",
        "soft, full or strict: what criu does about control groups [soft]",
    ),
    option("empty-ns", None, "KIND", "keep nothing of this namespace; only network can be given"),
    switch("auto-dedup", None, "remove from the parent's images what is in these"),
];

pub fn run(global: &Global, given: &Given) -> Outcome {
    let container = Container::open(&global.root, &given.operands[0])?;
    let options = options(given)?;
    let dump = Dump {
        leave_running: given.is_on("leave-running"),
        pre_dump: given.is_on("pre-dump"),
        parent: value(given, "parent-path").map(PathBuf::from),
        page_server: value(given, "page-server").map(page_server).transpose()?,
    };
    checkpoint::dump(&container, &options, &dump)?;
    if !dump.leave_running && !dump.pre_dump {
        delete::destroy(global, &container.directory, Some(&container))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn value<'a>(given: &'a Given, name: &str) -> Option<&'a str> {
    given.value(name).filter(|value| !value.is_empty())
}

/// What both `checkpoint` and `restore` ask of criu.
pub fn options(given: &Given) -> Result<Options, Failed> {
    if given.is_on("lazy-pages") {
        return Err(Failed::new("--lazy-pages is not supported: memory is written and restored as a whole"));
    }
    if given.number::<i32>("status-fd")?.is_some_and(|number| number != -1) {
        return Err(Failed::new("--status-fd is not supported: criu writes to it only with --lazy-pages"));
    }
    let path = |name: &'static str, option: &str, default: &str| {
        crate::absolute(option, value(given, name).unwrap_or(default).into())
    };
    let images = path("image-path", "--image-path", "checkpoint")?;
    let work = match value(given, "work-path") {
        Some(_) => path("work-path", "--work-path", "")?,
        None => images.clone(),
    };
    let groups = value(given, "manage-cgroups-mode").unwrap_or("soft");
    let empty_network = match given.values("empty-ns").iter().find(|kind| *kind != "network") {
        Some(kind) => return Err(Failed::new(format!("namespace {kind} is not supported"))),
        None => !given.values("empty-ns").is_empty(),
    };
    Ok(Options {
        images,
        work,
        tcp_established: given.is_on("tcp-established"),
        external_sockets: given.is_on("ext-unix-sk"),
        shell_job: given.is_on("shell-job"),
        file_locks: given.is_on("file-locks"),
        auto_dedup: given.is_on("auto-dedup"),
        empty_network,
        groups: GroupsMode::of_name(groups).ok_or_else(|| {
            Failed::new(format!("invalid manage-cgroups-mode {groups:?} (use soft, full or strict)"))
        })?,
    })
}

/// `ADDRESS:PORT`, of which an IPv6 address may stand in brackets.
fn page_server(text: &str) -> Result<(String, u16), Failed> {
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        (!address.is_empty()).then_some((address.to_owned(), port.parse().ok()?))
    });
    parsed.ok_or_else(|| Failed::new(format!("invalid page-server {text:?}: use ADDRESS:PORT to specify it")))
}
