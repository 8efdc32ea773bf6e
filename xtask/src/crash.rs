//! Power cuts: `cargo xtask crash`.
//!
//! A virtual machine runs commands that change a store, while qemu keeps a log of all that its disk is asked. From the log are made the disks
//! that a power cut at some point may leave: what was flushed, and a part at random of what came after (`crash/log.rs`). A second machine looks
//! at each of them: its images must be those of the commands that had ended, each whole, with those of the command that was cut off whole
//! or absent. The same commands by a coracle that does not wait for the disk must be caught.

mod judge;
mod log;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::process::{quiet, run, script};
use crate::random::Random;
use crate::vm::{Scratch, machine, strip, write_initramfs, write_payload_disk};
use crate::workspace::Workspace;
use judge::{Judge, Summary};
use log::Log;

/// A disk's bytes; behind its file system is place for marks.
const DISK_BYTES: usize = 40 << 20;
const FILE_SYSTEM_BYTES: usize = 39 << 20;

/// What runs: images come, share layers, get names and lose them, in containers and not.
const COMMANDS: &str = "\
load -q -i /fixtures/busybox.docker.tar
pull -q docker-archive:/coracle/images/first.tar
tag first kept:1
run --rm busybox true
load -q -i /coracle/images/second.tar
rmi first
load -q -i /coracle/images/third.tar
rmi kept:1
tag second first
load -q -i /coracle/images/third-later.tar
rmi second
run --name stays busybox true
pull -q oci-archive:/fixtures/busybox-zstd.oci.tar
load -q -i /coracle/images/first.tar
rm stays
rmi -f third
";

/// How often the power is cut.
pub(crate) struct Points {
    count: usize,
    seed: u64,
}

impl Points {
    /// As many as `cargo xtask ci` has time for.
    pub(crate) const SOME: Self = Self { count: 24, seed: 1 };

    /// Reads `--points N` and `--seed S`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut points = Self { count: 200, seed: 1 };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let wrong = || Error::Usage { argument: word.clone() };
            let number: u64 = words.next().and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
            match word.as_str() {
                "--points" if number > 0 => points.count = number as usize,
                "--seed" if number > 0 => points.seed = number,
                _ => return Err(wrong()),
            }
        }
        Ok(points)
    }
}

/// Cuts the power, and fails where an image is wrong, or where a coracle that does not wait for the disk is not caught.
pub(crate) fn crash(workspace: &Workspace, points: Points) -> Result<()> {
    let scratch = Scratch::new(workspace, "crash")?;
    make_payload(workspace, &scratch)?;
    write_initramfs(workspace, &scratch)?;
    let disks = [Disk::new(&scratch, "sync")?, Disk::new(&scratch, "no-sync")?];
    let mut judge = Judge::default();
    record(workspace, &scratch, &disks, &mut judge)?;
    let mut random = Random(points.seed);
    // As the control has to be caught once only, it needs fewer.
    let counts = [points.count, points.count.div_ceil(4)];
    write_cuts(&scratch, &disks, counts, &mut random, &mut judge)?;
    check(workspace, &scratch, counts[0] + counts[1], &mut judge)?;
    let [honest, control] = judge.conclude();
    println!("seed {}\n{honest}\nwithout waiting for the disk (must be caught): {control}", points.seed);
    conclude(honest, &control)
}

fn conclude(honest: Summary, control: &Summary) -> Result<()> {
    let mut faults = honest.faults;
    if control.faults.is_empty() {
        faults.push(
            "a coracle that does not wait for the disk was not caught: what this run says is worth nothing"
                .into(),
        );
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Check { check: "crash", faults }) }
}

/// The programs, with one that does not wait for the disk; scripts and images.
fn make_payload(workspace: &Workspace, scratch: &Scratch) -> Result<()> {
    let payload = scratch.0.join("payload");
    let images = payload.join("images");
    for directory in ["bin", "no-sync", "crash", "images"] {
        fs_err::create_dir_all(payload.join(directory))?;
    }
    // This one first, so that the build directory keeps the other.
    for (place, features) in [("no-sync", &["--features", "image/no-sync"][..]), ("bin", &[])] {
        let mut build = workspace.cargo(&["build", "--locked", "--bins", "--example", "verify"]);
        run(build.args(features))?;
        for name in ["coracle", "coracle-runtime"] {
            strip(&workspace.binaries("debug").join(name), &payload.join(place).join(name))?;
        }
    }
    strip(&workspace.binaries("debug").join("examples/verify"), &payload.join("bin/verify"))?;
    quiet(&mut script(include_str!("crash/images.sh"), [images]))?;
    fs_err::write(payload.join("crash/commands"), COMMANDS)?;
    let disks = "/dev/vdc /coracle/bin/coracle\n/dev/vdd /coracle/no-sync/coracle\n";
    Ok(fs_err::write(payload.join("crash/disks"), disks)?)
}

/// A disk whose writes are recorded: how it was before, what the machine writes to, and the log.
struct Disk {
    before: PathBuf,
    file: PathBuf,
    log: PathBuf,
}

impl Disk {
    fn new(scratch: &Scratch, name: &str) -> Result<Self> {
        let place = |end: &str| scratch.0.join(format!("{name}.{end}"));
        let disk = Self { before: place("before"), file: place("disk"), log: place("log") };
        let make = format!(
            "truncate -s {DISK_BYTES} \"$1\"
            mke2fs -q -t ext4 -b 4096 -J size=4 -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 \"$1\" {}
            cp --sparse=always \"$1\" \"$2\"; : > \"$3\"",
            FILE_SYSTEM_BYTES / 4096
        );
        quiet(&mut script(&make, [&disk.before, &disk.file, &disk.log]))?;
        Ok(disk)
    }

    /// qemu's options for it: behind the machine's own disks. It offers neither discards nor zeros, which a log would have to tell from data.
    fn options(&self, number: usize) -> Vec<String> {
        let file = |name: &str, path: &Path| {
            format!("driver=file,node-name={name}{number},filename={}", path.display())
        };
        [
            "-blockdev".to_owned(),
            file("file", &self.file),
            "-blockdev".to_owned(),
            file("log", &self.log),
            "-blockdev".to_owned(),
            format!("driver=blklogwrites,node-name=logged{number},file=file{number},log=log{number}"),
            "-device".to_owned(),
            format!(
                "virtio-blk-pci,drive=logged{number},discard=off,write-zeroes=off,addr={:#x}",
                16 + number
            ),
        ]
        .into()
    }
}

/// Runs the commands on each of the disks.
fn record(workspace: &Workspace, scratch: &Scratch, disks: &[Disk], judge: &mut Judge) -> Result<()> {
    let layout = format!("MARK_SECTOR={}\n", FILE_SYSTEM_BYTES / 512);
    fs_err::write(scratch.0.join("payload/crash/layout"), layout)?;
    write_payload_disk(scratch, include_str!("crash/record.sh"))?;
    let options: Vec<String> =
        disks.iter().enumerate().flat_map(|(number, disk)| disk.options(number)).collect();
    boot(workspace, scratch, &options, |line| judge.recorded(line))?;
    judge.expect_steps(COMMANDS.lines().count())
}

/// Makes the disks that the power cuts leave, one after the other in a file.
fn write_cuts(
    scratch: &Scratch,
    disks: &[Disk; 2],
    counts: [usize; 2],
    random: &mut Random,
    judge: &mut Judge,
) -> Result<()> {
    let mut file = fs_err::File::create(scratch.0.join("cuts"))?;
    let mut number = 0;
    for (which, (disk, count)) in disks.iter().zip(counts).enumerate() {
        Log::read(&disk.log, &disk.before, FILE_SYSTEM_BYTES)?.cut(count, random, |cut| {
            cut.write(&mut file, number * DISK_BYTES)?;
            judge.add_cut(which, cut.ended, cut.place);
            number += 1;
            Ok(())
        })?;
    }
    Ok(file.set_len((number * DISK_BYTES) as u64)?)
}

/// Looks at each of the disks.
fn check(workspace: &Workspace, scratch: &Scratch, count: usize, judge: &mut Judge) -> Result<()> {
    let layout = format!("POINTS={count}\nDISK_BYTES={DISK_BYTES}\n");
    fs_err::write(scratch.0.join("payload/crash/layout"), layout)?;
    write_payload_disk(scratch, include_str!("crash/check.sh"))?;
    let cuts = format!("file={},format=raw,if=virtio,cache=unsafe", scratch.0.join("cuts").display());
    boot(workspace, scratch, &["-drive".to_owned(), cuts], |line| judge.checked(line))?;
    // They are large, and can be made again.
    Ok(fs_err::remove_file(scratch.0.join("cuts"))?)
}

fn boot(
    workspace: &Workspace,
    scratch: &Scratch,
    options: &[String],
    mut read: impl FnMut(&str),
) -> Result<()> {
    let end = machine::follow(workspace, &scratch.0, options, &mut |line| {
        let is_as_expected =
            ["@@ step", "@@ state", "@@ found", "@@ checked"].iter().any(|word| line.starts_with(word));
        if !is_as_expected {
            println!("{line}");
        }
        read(line);
    })?;
    end.map_err(|machine::Stopped { why, console }| Error::Check {
        check: "crash",
        faults: vec![format!("{why}\n{console}")],
    })
}
