//! What images cost: to be fetched, shared, listed, removed, shifted.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fixtures::bench_archive::{end, header};
use crate::process::{capture, command, line, outcome, quiet, script};
use crate::random::Random;

use super::bed::{Bed, Store};
use super::dockerd::Dockerd;
use super::layouts;
use super::registry::Registry;
use super::verdict::{Bound, Verdict};

/// The reference image (5 layers, 60,000 files, 230 MB) and one that shares 4 of its layers, in a registry.
const IMAGE: &str = "bench:1";
const SIBLING: &str = "bench:2";

/// Images for the list.
const MANY: usize = 1000;

/// A layer with one file of this size, and one with this many files.
const LARGE: u64 = 4 << 30;
const ENTRIES: u64 = 1_000_000;

/// The least that an entry of a very large layer may cost in memory: bytes.
const ENTRY_BYTES: f64 = 32.0;

/// A registry with both images.
struct Shelf {
    registry: Registry,
}

impl Shelf {
    fn fill(bed: &Bed) -> Result<Self> {
        let layout = bed.scratch.join("bench-layout");
        if !layout.exists() {
            fs_err::create_dir_all(&layout)?;
            quiet(&mut script(
                "tar -C \"$2\" -xf \"$1\"",
                [bed.fixtures.join("bench.oci.tar"), layout.clone()],
            ))?;
            layouts::add_sibling(&layout, "sibling")?;
        }
        let directory = bed.scratch.join("registry");
        let registry = Registry::start(&directory)?;
        registry.put(&format!("oci:{}:latest", layout.display()), IMAGE)?;
        registry.put(&format!("oci:{}:sibling", layout.display()), SIBLING)?;
        Ok(Self { registry })
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.host)
    }
}

/// Against every peer, and against the least that has to be done, in memory and on a disk.
pub(super) fn pull(bed: &Bed) -> Result<Vec<Verdict>> {
    let shelf = Shelf::fill(bed)?;
    let least = bed.example("read_layers")?;
    let places = [("in memory", bed.scratch.join("pull")), ("on the disk", bed.disk.join("pull"))];
    let mut verdicts = Vec::new();
    for (place, directory) in places {
        verdicts.extend(pull_to(bed, &shelf, &least, place, &directory)?);
    }
    Ok(verdicts)
}

fn pull_to(bed: &Bed, shelf: &Shelf, least: &Path, place: &str, directory: &Path) -> Result<Vec<Verdict>> {
    let store = |name: &str| Store::at(directory.join(name), bed.scratch.join("pull-state").join(name));
    let (coracle, podman, unpacked) = (store("coracle"), store("podman"), directory.join("umoci"));
    let docker = Dockerd::start(&bed.scratch.join("dockerd"), &directory.join("docker"))?;
    let name = shelf.name(IMAGE);
    let umoci = format!(
        "mkdir -p {0} && skopeo copy --quiet --src-tls-verify=false docker://{name} oci:{0}/layout:1 && \
         umoci --log=error unpack --image {0}/layout:1 {0}/bundle",
        unpacked.display()
    );
    let mut floor = command(&least.to_string_lossy(), [""; 0]);
    floor.args(layouts::layer_urls(&shelf.registry.host, "bench", "1")?);
    let commands = [
        line(&bed.coracle(&coracle, &["pull", "--quiet", &name])),
        line(&bed.podman(&podman, &["pull", "--quiet", "--tls-verify=false", &name])),
        line(&command("bash", ["-c", &umoci])),
        line(&docker.client(&["pull", "--quiet", &name])),
        line(&floor),
    ];
    let clean = format!(
        "{}; {}; rm -rf {}; {} > /dev/null 2>&1; true",
        bed.removal(&coracle),
        bed.removal(&podman),
        unpacked.display(),
        line(&docker.client(&["rmi", "--force", &name])),
    );
    let medians = bed.medians(3, Some(&clean), &commands)?;
    quiet(&mut script(&format!("set +e; {clean}"), [""; 0]))?;
    let [ours, podman, umoci, docker, _least] = medians[..] else { return Ok(Vec::new()) };
    let fastest = podman.min(umoci).min(docker);
    Ok(vec![Verdict {
        what: format!(
            "{place}: pull {ours:.2} s, podman {podman:.2} s, skopeo and umoci {umoci:.2} s, docker {docker:.2} s"
        ),
        value: fastest / ours,
        unit: "×",
        bound: Bound::AtLeast(3.0),
    }])
}

/// What is here is not fetched again.
pub(super) fn share(bed: &Bed) -> Result<Vec<Verdict>> {
    let shelf = Shelf::fill(bed)?;
    let store = bed.scratch("share");
    quiet(&mut bed.coracle(&store, &["pull", "--quiet", &shelf.name(IMAGE)]))?;
    let before = shelf.registry.requests("GET", "/blobs/")?;
    quiet(&mut bed.coracle(&store, &["pull", "--quiet", &shelf.name(SIBLING)]))?;
    // One of them is the configuration.
    let layers = shelf.registry.requests("GET", "/blobs/")?.saturating_sub(before + 1);
    quiet(&mut script(&format!("set +e; {}", bed.removal(&store)), [""; 0]))?;
    let what = "layers fetched for an image that shares 4 of 5".to_owned();
    Ok(vec![Verdict { what, value: layers as f64, unit: "layers", bound: Bound::AtMost(1.0) }])
}

/// Against podman.
pub(super) fn remove(bed: &Bed) -> Result<Vec<Verdict>> {
    let shelf = Shelf::fill(bed)?;
    let (coracle, podman) = (bed.scratch("rmi-coracle"), bed.scratch("rmi-podman"));
    let name = shelf.name(IMAGE);
    let fill = format!(
        "{} && {}",
        line(&bed.coracle(&coracle, &["pull", "--quiet", &name])),
        line(&bed.podman(&podman, &["pull", "--quiet", "--tls-verify=false", &name])),
    );
    let commands =
        [line(&bed.coracle(&coracle, &["rmi", &name])), line(&bed.podman(&podman, &["rmi", &name]))];
    let medians = bed.medians(3, Some(&format!("{{ {fill}; }} > /dev/null 2>&1")), &commands)?;
    let clean = [&coracle, &podman].map(|store| bed.removal(store)).join("; ");
    quiet(&mut script(&format!("set +e; {clean}"), [""; 0]))?;
    let [ours, podman] = [medians[0], medians[1]];
    Ok(vec![Verdict {
        what: format!("rmi {:.0} ms, podman {:.0} ms", ours * 1e3, podman * 1e3),
        value: podman / ours,
        unit: "×",
        bound: Bound::AtLeast(3.0),
    }])
}

/// A list of very many images.
pub(super) fn list(bed: &Bed) -> Result<Vec<Verdict>> {
    let (layout, store) = (bed.scratch.join("many"), bed.scratch("list"));
    layouts::make_many(&layout, MANY)?;
    quiet(&mut bed.coracle(&store, &["load", "-q", "-i", &layout.display().to_string()]))?;
    let images = bed.coracle(&store, &["images"]);
    let lines = capture(&mut bed.coracle(&store, &["images", "--quiet"]))?.lines().count();
    if lines != MANY {
        let detail = format!("{lines} images of {MANY}");
        return Err(Error::Output { tool: "coracle images".into(), detail });
    }
    let medians = bed.medians(20, None, &[line(&images)])?;
    quiet(&mut script(&format!("set +e; {}", bed.removal(&store)), [""; 0]))?;
    let what = format!("images, {MANY} of them");
    Ok(vec![Verdict { what, value: medians[0] * 1e3, unit: "ms", bound: Bound::AtMost(20.0) }])
}

/// A user namespace costs neither time nor space, however many files an image has.
pub(super) fn userns(bed: &Bed) -> Result<Vec<Verdict>> {
    let store = bed.installed("userns");
    let archive = bed.fixtures.join("bench.oci.tar").display().to_string();
    quiet(&mut bed.coracle(&store, &["load", "-q", "-i", &archive]))?;
    // The image has no program.
    let program = format!("{}:/bin/true:ro", bed.fixtures.join("busybox/bin/busybox").display());
    let run = |options: &[&str]| {
        let rest = ["--rm", "--network", "none", "-v", &program, "bench:latest", "/bin/true"];
        line(&bed.coracle(&store, &[&["run"], options, &rest].concat()))
    };
    let blocks = || -> Result<f64> {
        let text = capture(&mut command("du", ["-s".as_ref(), store.persistent()]))?;
        Ok(text.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or(f64::NAN))
    };
    let before = blocks()?;
    let medians = bed.medians(20, None, &[run(&["--userns", "auto"]), run(&[])])?;
    let grown = blocks()? - before;
    quiet(&mut script(&format!("set +e; {}", bed.removal(&store)), [""; 0]))?;
    let added = (medians[0] - medians[1]) * 1e3;
    let what = format!(
        "run of 60,000 files with a user namespace {:.1} ms, without {:.1} ms",
        medians[0] * 1e3,
        medians[1] * 1e3
    );
    Ok(vec![
        Verdict { what, value: added, unit: "ms more", bound: Bound::AtMost(20.0) },
        Verdict {
            what: "what the store grew by then".into(),
            value: grown,
            unit: "KiB",
            bound: Bound::AtMost(0.0),
        },
    ])
}

/// The most memory that pulls take, as GNU time reports it.
pub(super) fn memory(bed: &Bed) -> Result<Vec<Verdict>> {
    let shelf = Shelf::fill(bed)?;
    let (large, entries) = (bed.scratch.join("large"), bed.scratch.join("entries"));
    layouts::make_one(&large, write_large)?;
    layouts::make_one(&entries, write_entries)?;
    let layout = |path: &Path| format!("oci:{}", path.display());
    let more = ENTRIES as f64 * ENTRY_BYTES / f64::from(1 << 20);
    let cases = [
        ("pull of 60,000 files", shelf.name(IMAGE), 64.0),
        ("pull of a layer of 4 GiB", layout(&large), 64.0),
        ("pull of 1,000,000 files", layout(&entries), (64.0 + more).floor()),
    ];
    let mut verdicts = Vec::new();
    for (what, source, most) in cases {
        let value = peak(bed, &["pull", "--quiet", &source])?;
        let what = format!("peak memory of {what}");
        verdicts.push(Verdict { what, value, unit: "MiB", bound: Bound::AtMost(most) });
    }
    Ok(verdicts)
}

/// The peak memory of a command on an empty store, in MiB.
fn peak(bed: &Bed, arguments: &[&str]) -> Result<f64> {
    let store = bed.scratch("peak");
    let coracle = bed.coracle(&store, arguments);
    let mut time = command("/usr/bin/time", ["--format=%M"]);
    let output = outcome(time.arg(coracle.get_program()).args(coracle.get_args()))?;
    quiet(&mut script(&format!("set +e; {}", bed.removal(&store)), [""; 0]))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(Error::Command { line: line(&time), status: output.status.to_string(), stderr });
    }
    let kib: Option<f64> = stderr.lines().last().and_then(|line| line.trim().parse().ok());
    kib.map(|kib| kib / 1024.0).ok_or(Error::Output { tool: "time".into(), detail: stderr })
}

/// One file that is pressed to a hundredth: more would be taken for a bomb.
fn write_large(tar: &mut dyn Write) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    tar.write_all(&header("large", b'0', LARGE as usize))?;
    let (mut block, mut random) = (vec![0; BLOCK], Random(0x5eed));
    for _ in 0..LARGE / BLOCK as u64 {
        block[..BLOCK / 100].fill_with(|| random.below(256) as u8);
        tar.write_all(&block)?;
    }
    Ok(tar.write_all(&end())?)
}

/// Empty files, a thousand in each directory.
fn write_entries(tar: &mut dyn Write) -> Result<()> {
    for directory in 0..ENTRIES / 1000 {
        tar.write_all(&header(&format!("directory-{directory}/"), b'5', 0))?;
        for file in 1..1000 {
            tar.write_all(&header(&format!("directory-{directory}/file-{file}"), b'0', 0))?;
        }
    }
    Ok(tar.write_all(&end())?)
}
