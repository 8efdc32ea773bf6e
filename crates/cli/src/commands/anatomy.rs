use std::fmt::Write as _;
use std::process::ExitCode;

use engine::Roots;
use engine::anatomy::{Anatomy, Membership, Mount, Privileges};
use engine::container;

use crate::error::Error;
use crate::explain::{capability, short, wrap};
use crate::table::{size, write_out};

/// Show what a running container is made of, as the kernel has it now
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Columns of the page, and of the first column's names.
const WIDTH: usize = 110;
const NAME: usize = 24;

pub fn run(roots: &Roots, arguments: &Arguments) -> Result<ExitCode, Error> {
    let anatomy = engine::anatomy::of(roots, &arguments.container).map_err(|error| {
        let headline = format!("cannot show what \"{}\" is made of", arguments.container);
        Error::from(error).doing(headline, "see which containers run: coracle ps")
    })?;
    write_out(&page(&anatomy))?;
    Ok(ExitCode::SUCCESS)
}

fn page(anatomy: &Anatomy) -> String {
    let record = &anatomy.record;
    let mut out = String::new();
    let (id, pid) = (container::short(&record.id), anatomy.pid);
    let _ = writeln!(out, "{} ({id}), from {}: process {pid} and all it started", record.name, record.image);

    heading(&mut out, "Namespaces", "what the process sees as its own");
    for namespace in &anatomy.namespaces {
        let whose = if namespace.is_shared { "shared with you" } else { "its own" };
        row(&mut out, namespace.kind, &format!("{:<12}{whose}", namespace.inode));
    }
    heading(&mut out, "Limits", "how much of the machine it may use");
    groups(&mut out, &anatomy.groups, &record.id);
    usage(&mut out, anatomy);

    heading(&mut out, "Root file system", "the files it finds");
    let mut mounts: Vec<&Mount> = anatomy.mounts.iter().collect();
    // Stable: what covers another mount at the same place stays behind it.
    mounts.sort_by_key(|mount| &mount.target);
    for mount in mounts {
        row(&mut out, &mount.target.display().to_string(), &describe(mount));
    }

    heading(&mut out, "Process", "who it is and what it may do");
    privileges(&mut out, &anatomy.privileges);
    if let Some(profile) = &anatomy.apparmor_profile {
        row(&mut out, "AppArmor profile", profile);
    }
    for process in &anatomy.processes {
        let name = format!("process {}", process.pid);
        row(&mut out, &name, &format!("{} inside: {}", process.pid_inside, process.command));
    }
    out
}

fn heading(out: &mut String, title: &str, subtitle: &str) {
    let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + subtitle.chars().count() + 8));
    let _ = writeln!(out, "\n── {title} ── {subtitle} {rule}");
}

fn row(out: &mut String, name: &str, text: &str) {
    let mut lines = wrap(text, WIDTH - 4 - NAME).into_iter();
    let mut name = name.to_owned();
    if name.chars().count() >= NAME {
        let _ = writeln!(out, "    {name}");
        name.clear();
    }
    let _ = writeln!(out, "    {name:<NAME$}{}", lines.next().unwrap_or_default());
    for line in lines {
        let _ = writeln!(out, "    {:NAME$}{line}", "");
    }
}

/// Its own groups; of the hierarchies where it has none only their names.
fn groups(out: &mut String, groups: &[Membership], id: &str) {
    let name = |group: &Membership| match group.controllers.as_str() {
        "" => "version 2".to_owned(),
        controllers => controllers.to_owned(),
    };
    let (own, others): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.path.contains(id));
    own.iter().for_each(|group| row(out, &name(group), &short(&group.path)));
    if !others.is_empty() {
        let names: Vec<String> = others.into_iter().map(name).collect();
        row(out, "no group for", &names.join(", "));
    }
}

fn usage(out: &mut String, anatomy: &Anatomy) {
    let Some(statistics) = &anatomy.statistics else { return };
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => format!("{used}, without a limit"),
    };
    if let Some(memory) = statistics.memory {
        row(out, "memory in use", &of(size(memory), statistics.memory_limit.map(size)));
    }
    if let Some(count) = statistics.pids {
        let limit = statistics.pids_limit.map(|limit| limit.to_string());
        row(out, "processes, threads", &of(count.to_string(), limit));
    }
    if let Some(used) = statistics.cpu_usec {
        let waited = match statistics.throttled_periods {
            Some(periods @ 1..) => format!(", stopped by its quota in {periods} periods"),
            _ => String::new(),
        };
        row(
            out,
            "processor time",
            &format!("{}.{:02} s{waited}", used / 1_000_000, used % 1_000_000 / 10_000),
        );
    }
}

fn describe(mount: &Mount) -> String {
    let mut options = mount.options.clone();
    // Said once: the file system's ro and rw are the mount's, as a rule.
    options
        .extend(mount.super_options.iter().filter(|option| !matches!(option.as_str(), "rw" | "ro")).cloned());
    let options: Vec<String> = options.iter().map(|option| with_short_path(option)).collect();
    let part = if mount.root == "/" { String::new() } else { format!(" {}", short(&mount.root)) };
    format!("{}{part} ({})", mount.kind, options.join(", "))
}

/// `upperdir=/long/…` with its path shortened; each layer of a list by itself.
fn with_short_path(option: &str) -> String {
    match option.split_once('=') {
        Some((key, value)) => format!("{key}={}", value.split(':').map(short).collect::<Vec<_>>().join(":")),
        None => option.to_owned(),
    }
}

fn privileges(out: &mut String, privileges: &Privileges) {
    let names = |set: u64| match set {
        0 => "nothing".to_owned(),
        set => (0..64).filter(|bit| set & (1 << bit) != 0).map(capability).collect::<Vec<_>>().join(", "),
    };
    row(out, "runs as", &format!("user {}, group {} (as numbered here)", privileges.user, privileges.group));
    row(out, "may do", &names(privileges.effective));
    row(out, "could ever do", &names(privileges.bounding));
    let calls = match (privileges.seccomp, privileges.filters) {
        (0, _) => "all".to_owned(),
        (1, _) => "read, write and exit only".to_owned(),
        (_, 1) => "those that a filter lets through".to_owned(),
        (_, count) => format!("those that {count} filters let through"),
    };
    row(out, "system calls", &calls);
    let raises =
        if privileges.no_new_privileges { "nothing, ever (no_new_privs)" } else { "what set-user-id says" };
    row(out, "execve raises", raises);
}
