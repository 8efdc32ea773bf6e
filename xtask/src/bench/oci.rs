//! `coracle-runtime` beside crun and runc, on the same bundle.
//!
//! crun refuses hybrid control groups. In a mount namespace of its own, with nothing but version 2 to be seen at /sys/fs/cgroup, all run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::process::{capture, command, line, quiet, script};

use super::bed::Bed;
use super::verdict::{Bound, Verdict};

const RUNS: u32 = 60;
/// The container's id, the same for each runtime, whose roots differ.
const ID: &str = "bench";
/// What one container starts with, at least.
const LEAST_MEMORY: u64 = 4 << 20;

/// A runtime, and where its containers are.
struct Runtime {
    name: &'static str,
    program: String,
    root: PathBuf,
}

impl Runtime {
    /// Ours, crun and runc.
    fn all(bed: &Bed) -> [Self; 3] {
        [
            ("coracle-runtime", bed.runtime.display().to_string()),
            ("crun", "crun".into()),
            ("runc", "runc".into()),
        ]
        .map(|(name, program)| Self {
            name,
            program,
            root: bed.scratch.join(format!("state-{name}")),
        })
    }

    fn line(&self, words: &[&str]) -> String {
        line(command(&self.program, ["--root"]).arg(&self.root).args(words))
    }
}

/// A bundle with the image's files that runs `arguments`.
fn bundle(bed: &Bed, name: &str, arguments: &[&str], change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let path = bed.scratch.join(format!("bundle-{name}"));
    let root = path.join("rootfs");
    if !root.exists() {
        fs_err::create_dir_all(&path)?;
        quiet(&mut script("cp -a \"$1\" \"$2\"", [bed.fixtures.join("busybox"), root]))?;
    }
    let text = capture(command("runc", ["spec", "--bundle"]).arg(&path)).and_then(|_| {
        let text = fs_err::read_to_string(path.join("config.json"))?;
        fs_err::remove_file(path.join("config.json"))?;
        Ok(text)
    })?;
    let mut spec = crate::workspace::parse("runc spec", &text)?;
    spec["process"]["args"] = json!(arguments);
    spec["process"]["terminal"] = json!(false);
    spec["linux"]["cgroupsPath"] = json!(format!("/coracle-bench-{name}"));
    // crun loads a program for device rules, for which it wants to lock more memory than root may here.
    spec["linux"]["resources"] = json!({});
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut()
        && !namespaces.iter().any(|namespace| namespace["type"] == "cgroup")
    {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    change(&mut spec);
    fs_err::write(path.join("config.json"), spec.to_string())?;
    Ok(path)
}

/// docker's default filter.
fn docker_filter(bed: &Bed) -> Result<Value> {
    let arguments =
        ["run", "--quiet", "--locked", "--release", "-p", "runtime", "--example", "seccomp_profile"];
    let text = capture(&mut bed.workspace.cargo(&arguments))?;
    crate::workspace::parse("seccomp_profile", &text)
}

fn verdict(what: String, value: f64, bound: Bound) -> Verdict {
    Verdict { what, value, unit: "×", bound }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// `run` of a program that does nothing, without a system call filter.
pub(super) fn run(bed: &Bed) -> Result<Vec<Verdict>> {
    let bundle = bundle(bed, "run", &["/bin/true"], |_| {})?;
    let mut unshare = command("unshare", ["-mpuinC", "--fork", "chroot"]);
    unshare.arg(bundle.join("rootfs")).arg("/bin/true");
    let path = bundle.display().to_string();
    let mut lines: Vec<String> =
        Runtime::all(bed).iter().map(|runtime| runtime.line(&["run", "--bundle", &path, ID])).collect();
    lines.push(line(&unshare));
    let medians = bed.medians_in_v2(RUNS, &[], &lines)?;
    let [ours, crun, runc, unshare] = [medians[0], medians[1], medians[2], medians[3]];
    let said = |peer: &str, theirs| format!("run {}, {peer} {}", milliseconds(ours), milliseconds(theirs));
    Ok(vec![
        verdict(said("crun", crun), crun / ours, Bound::AtLeast(1.5)),
        verdict(said("runc", runc), runc / ours, Bound::AtLeast(5.0)),
        verdict(said("unshare and chroot", unshare), ours / unshare, Bound::AtMost(1.2)),
    ])
}

/// The same with docker's filter: the first time, and later, when crun has one it made before.
pub(super) fn seccomp(bed: &Bed) -> Result<Vec<Verdict>> {
    let filter = docker_filter(bed)?;
    let bundle = bundle(bed, "seccomp", &["/bin/true"], |spec| spec["linux"]["seccomp"] = filter)?;
    let path = bundle.display().to_string();
    let runtimes = Runtime::all(bed);
    let lines: Vec<String> =
        runtimes.iter().map(|runtime| runtime.line(&["run", "--bundle", &path, ID])).collect();
    let removals: Vec<String> =
        runtimes.iter().map(|runtime| line(command("rm", ["-rf"]).arg(&runtime.root))).collect();
    let mut verdicts = Vec::new();
    for (when, prepare) in [("later", &[][..]), ("first", &removals[..])] {
        let medians = bed.medians_in_v2(RUNS, prepare, &lines)?;
        let said = |at: usize| {
            let (ours, theirs) = (milliseconds(medians[0]), milliseconds(medians[at]));
            format!("{when} run with docker's filter {ours}, {} {theirs}", runtimes[at].name)
        };
        verdicts.push(verdict(said(1), medians[1] / medians[0], Bound::AtLeast(1.0)));
        verdicts.push(verdict(said(2), medians[2] / medians[0], Bound::AtLeast(1.0)));
    }
    Ok(verdicts)
}

/// Each command by itself.
pub(super) fn steps(bed: &Bed) -> Result<Vec<Verdict>> {
    let bundle = bundle(bed, "steps", &["/bin/true"], |_| {})?;
    let bundle = bundle.display().to_string();
    let runtimes = Runtime::all(bed);
    let script = |runtime: &Runtime, step: &str, words: &[Vec<&str>]| -> Result<String> {
        let file = bed.scratch.join(format!("prepare-{}-{step}.sh", runtime.name));
        let lines: Vec<String> = words.iter().map(|words| runtime.line(words)).collect();
        // The last one has run to its end, or has never been there.
        fs_err::write(&file, format!("exec < /dev/null > /dev/null 2>&1\n{}\ntrue\n", lines.join("\n")))?;
        Ok(line(&command("sh", [Path::new(&file)])))
    };
    let remove = || vec!["delete", "--force", ID];
    let create = || vec!["create", "--bundle", bundle.as_str(), ID];
    let start = || vec!["start", ID];
    let mut verdicts = Vec::new();
    for step in ["create", "start", "delete"] {
        let (before, measured) = match step {
            "create" => (vec![remove()], create()),
            "start" => (vec![remove(), create()], start()),
            _ => (vec![remove(), create(), start(), vec!["kill", ID, "9"]], remove()),
        };
        let prepare =
            runtimes.iter().map(|runtime| script(runtime, step, &before)).collect::<Result<Vec<_>>>()?;
        let lines: Vec<String> = runtimes.iter().map(|runtime| runtime.line(&measured)).collect();
        let medians = bed.medians_in_v2(RUNS, &prepare, &lines)?;
        let [ours, crun, runc] = [medians[0], medians[1], medians[2]].map(milliseconds);
        let what = format!("{step} {ours}, crun {crun}, runc {runc}");
        verdicts.push(verdict(what, medians[1] / medians[0], Bound::AtLeast(1.0)));
        for runtime in &runtimes {
            quiet(&mut crate::process::script(&runtime.line(&["delete", "--force", ID]), [""; 0]))?;
        }
    }
    Ok(verdicts)
}

/// Another program in a container that runs.
pub(super) fn exec(bed: &Bed) -> Result<Vec<Verdict>> {
    let path = bundle(bed, "exec", &["/bin/sleep", "600"], |_| {})?.display().to_string();
    let runtimes = &Runtime::all(bed)[..2];
    let mut text = String::new();
    for runtime in runtimes {
        let pid = bed.scratch.join(format!("pid-{}", runtime.name)).display().to_string();
        let words = ["run", "--detach", "--pid-file", &pid, "--bundle", &path, ID];
        text += &format!("{} < /dev/null > /dev/null 2>&1\n", runtime.line(&words));
    }
    let mut measured: Vec<String> =
        runtimes.iter().map(|runtime| runtime.line(&["exec", ID, "/bin/true"])).collect();
    let pid = bed.scratch.join("pid-coracle-runtime").display().to_string();
    let export = bed.scratch.join("exec.json");
    measured.push(format!("nsenter -a -t $(cat {pid}) /bin/true"));
    let quoted: Vec<String> = measured.iter().map(|line| format!("\"{line}\"")).collect();
    text += &format!(
        "hyperfine --style none --shell=none --warmup 5 --runs {RUNS} --export-json {} {}\n",
        export.display(),
        quoted.join(" ")
    );
    // They end whether it could be measured or not.
    let ends: Vec<String> = runtimes.iter().map(|runtime| runtime.line(&["delete", "--force", ID])).collect();
    let file = bed.scratch.join("exec.sh");
    fs_err::write(&file, format!("end() {{\n{}\n}}\ntrap end EXIT\nset -e\n{text}", ends.join("\n")))?;
    quiet(&mut bed.in_v2(&line(&command("bash", [&file]))))?;
    let medians = Bed::read_medians(&export, 3)?;
    let [ours, crun, nsenter] = [medians[0], medians[1], medians[2]];
    let said = |peer: &str, theirs| format!("exec {}, {peer} {}", milliseconds(ours), milliseconds(theirs));
    Ok(vec![
        verdict(said("crun", crun), crun / ours, Bound::AtLeast(1.0)),
        verdict(said("nsenter -a", nsenter), ours / nsenter, Bound::AtMost(2.0)),
    ])
}

/// What `run` needs of memory at most, and how little a container can be given.
pub(super) fn memory(bed: &Bed) -> Result<Vec<Verdict>> {
    let path = bundle(bed, "memory", &["/bin/true"], |_| {})?.display().to_string();
    let peak = |runtime: &Runtime| -> Result<f64> {
        let file = bed.scratch.join("peak");
        let measured = runtime.line(&["run", "--bundle", &path, ID]);
        quiet(&mut bed.in_v2(&format!("/usr/bin/time -f %M -o {} {measured}", file.display())))?;
        let text = fs_err::read_to_string(&file)?;
        let kib: Option<f64> = text.trim().parse().ok();
        kib.map(|kib| kib / 1024.0).ok_or(Error::Output { tool: "time".into(), detail: text })
    };
    let runtimes = Runtime::all(bed);
    let (ours, crun) = (peak(&runtimes[0])?, peak(&runtimes[1])?);
    let what = format!("peak memory of run {ours:.1} MiB, crun {crun:.1} MiB");
    let little = bundle(bed, "little", &["/bin/echo", "here"], |spec| {
        spec["linux"]["resources"] = json!({ "memory": { "limit": LEAST_MEMORY } });
    })?;
    // With the machine's own control groups, where memory can be limited.
    let little = little.display().to_string();
    let printed = capture(&mut script(&runtimes[0].line(&["run", "--bundle", &little, ID]), [""; 0]))?;
    let started = f64::from(u8::from(printed.trim_end() == "here"));
    Ok(vec![
        verdict(what, ours / crun, Bound::AtMost(1.0)),
        Verdict {
            what: format!("containers that start with {} MiB of memory", LEAST_MEMORY >> 20),
            value: started,
            unit: "of 1",
            bound: Bound::AtLeast(1.0),
        },
    ])
}
