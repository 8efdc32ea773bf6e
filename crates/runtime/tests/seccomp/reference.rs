//! A container made by runc, to see what it makes of a `linux.seccomp`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernel::seccomp::Instruction;
use serde_json::{Value, json};

/// Why the comparison cannot be made here, if so.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("runc is run as root".to_owned());
    }
    let absent = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    let absent = ["runc", "gcc"].iter().find(absent)?;
    Some(format!("{absent} is not installed"))
}

/// A bundle whose root holds the probe and nothing else; containers of it end with it.
pub(crate) struct Bundle {
    directory: PathBuf,
    id: String,
}

impl Bundle {
    /// Makes a bundle; `name` is unique in the test binary.
    pub(crate) fn new(name: &str) -> Self {
        let id = format!("coracle-test-seccomp-{name}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&id);
        fs_err::create_dir_all(directory.join("root/proc")).unwrap();
        let bundle = Self { directory, id };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/probe.c");
        // The i386 entry is used from 64-bit code with a push, which must not hit what lies below the stack pointer.
        let gcc = ["-O1", "-static", "-mno-red-zone", "-Wall", "-Werror", "-o"];
        run(Command::new("gcc").args(gcc).arg(bundle.probe()).arg(source));
        bundle
    }

    /// The filter that runc loads for `seccomp`.
    pub(crate) fn filter(&self, seccomp: &Value) -> Vec<Instruction> {
        self.configure(&["/probe", "wait"], &[], Some(seccomp));
        let pid_file = self.directory.join("pid");
        run(self.runc("run").arg("--detach").arg("--pid-file").arg(&pid_file).arg(&self.id));
        let pid = fs_err::read_to_string(pid_file).unwrap();
        let bytes = run(Command::new(self.probe()).args(["filter", &pid]));
        self.delete();
        let instruction = |bytes: &[u8]| Instruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes(bytes[4..8].try_into().unwrap()),
        };
        bytes.chunks_exact(8).map(instruction).collect()
    }

    /// What each call comes to in a container with these capabilities under the filter that runc loads.
    pub(crate) fn calls_under_runc(&self, capabilities: &[&str], seccomp: &Value) -> String {
        self.configure(&["/probe", "calls"], capabilities, Some(seccomp));
        self.run()
    }

    /// The same under `filter`, in a container that is otherwise equal.
    pub(crate) fn calls_under(&self, capabilities: &[&str], filter: &[Instruction]) -> String {
        let mut bytes = Vec::with_capacity(filter.len() * 8);
        for Instruction { code, jt, jf, k } in filter {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*jt, *jf]);
            bytes.extend(k.to_ne_bytes());
        }
        fs_err::write(self.directory.join("root/filter"), bytes).unwrap();
        self.configure(&["/probe", "calls", "/filter"], capabilities, None);
        self.run()
    }

    fn probe(&self) -> PathBuf {
        self.directory.join("root/probe")
    }

    fn run(&self) -> String {
        let output = run(self.runc("run").arg(&self.id));
        String::from_utf8(output).unwrap()
    }

    fn runc(&self, verb: &str) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.directory.join("state")).arg(verb);
        if verb == "run" {
            runc.arg("--bundle").arg(&self.directory);
        }
        runc
    }

    fn delete(&self) {
        let _ = self.runc("delete").arg("--force").arg(&self.id).stderr(Stdio::null()).status();
    }

    fn configure(&self, args: &[&str], capabilities: &[&str], seccomp: Option<&Value>) {
        let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"];
        let mut configuration = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "root", "readonly": true },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "process": {
                "args": args,
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            },
        });
        if let Some(seccomp) = seccomp {
            configuration["linux"]["seccomp"] = seccomp.clone();
        }
        fs_err::write(self.directory.join("config.json"), configuration.to_string()).unwrap();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.delete();
        let _ = fs_err::remove_dir_all(&self.directory);
    }
}

/// The output of a command that must succeed.
fn run(command: &mut Command) -> Vec<u8> {
    // A detached container keeps its standard streams, so none may be a pipe that is read to its end here.
    let errors = tempfile();
    let output = tempfile();
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(errors.try_clone().unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&contents(errors)));
    contents(output)
}

fn tempfile() -> std::os::fd::OwnedFd {
    rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

fn contents(file: std::os::fd::OwnedFd) -> Vec<u8> {
    let size = rustix::fs::fstat(&file).unwrap().st_size as usize;
    let mut bytes = vec![0; size];
    let read = rustix::io::pread(&file, &mut bytes, 0).unwrap();
    assert_eq!(read, size);
    bytes
}
