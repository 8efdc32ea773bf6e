use std::path::Path;

use runtime::request::{Request, RootFileSystem, SeccompChoice, VERSION};
use runtime::spec::{Mount, Process, Spec};

use super::*;

/// A directory for one test, removed when it ends, also when it fails.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coracle-cdi-{}-{name}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn asked(&self, devices: &[&str], directories: &[&str]) -> Asked {
        Asked {
            devices: devices.iter().map(|text| DeviceName::parse(text).unwrap()).collect(),
            directories: directories.iter().map(|name| self.0.join(name)).collect(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

fn request() -> Request {
    let mount = |destination: &str| Mount { destination: destination.into(), ..Mount::default() };
    Request {
        version: VERSION,
        id: "id".to_owned(),
        spec: Spec {
            process: Some(Process { env: vec!["A=old".to_owned()], ..Process::default() }),
            mounts: vec![mount("/dev"), mount("/opt/x/y"), mount("/etc/hosts")],
            ..Spec::default()
        },
        root: RootFileSystem::Overlays(Vec::new()),
        user: Some("1000:100".to_owned()),
        groups: Vec::new(),
        shared_memory_of: None,
        seccomp: SeccompChoice::Default,
        init: false,
        interactive: false,
        map_with_helpers: false,
        cgroup_parent: None,
        oci: None,
        remove: true,
        name_file: None,
        directory: PathBuf::new(),
        state_directory: PathBuf::new(),
    }
}

fn applied(asked: &Asked) -> std::result::Result<Request, Error> {
    let mut request = request();
    apply(asked, &mut request).map(|()| request)
}

const WHOLE: &str = r#"{
  "cdiVersion": "0.7.0", "kind": "vendor.com/gpu", "annotations": { "a": "b" },
  "containerEdits": { "env": ["A=file", "ALL=1"], "additionalGids": [0, 44, 44], "mounts": null },
  "devices": [
    { "name": "0", "containerEdits": {
        "env": ["A=device"],
        "deviceNodes": [
          { "path": "/dev/x", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 384, "uid": 5 },
          { "path": "/dev/p", "type": "p" },
          { "path": "/dev/b", "type": "b", "major": 8, "minor": 1, "permissions": "none" }
        ],
        "mounts": [
          { "hostPath": "/usr/lib/x", "containerPath": "/opt/x", "options": ["ro", "nosuid"] },
          { "hostPath": "tmpfs", "containerPath": "/etc/hosts", "type": "tmpfs" }
        ],
        "hooks": [
          { "hookName": "createContainer", "path": "/bin/h", "args": ["h"], "env": ["B=c"], "timeout": 3 },
          { "hookName": "poststop", "path": "/bin/end" }
        ],
        "intelRdt": { "closID": "c", "l3CacheSchema": "L3:0=f", "enableCMT": true }
    } },
    { "name": "1", "containerEdits": { "env": ["ONE=1"] } }
  ]
}"#;

#[test]
fn a_file_and_its_devices_change_the_configuration() {
    let scratch = Scratch::new("whole");
    scratch.write("etc/v.json", WHOLE);
    let asked = scratch.asked(&["vendor.com/gpu=0", "vendor.com/gpu=1"], &["etc", "nowhere"]);
    let request = applied(&asked).unwrap();
    let spec = serde_json::to_value(&request.spec).unwrap();
    assert_eq!(spec["process"]["env"], serde_json::json!(["A=device", "ALL=1", "ONE=1"]));
    assert_eq!(request.groups, ["44"]);
    let linux = &spec["linux"];
    assert_eq!(
        linux["devices"],
        serde_json::json!([
            { "type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": 384, "uid": 5, "gid": 100 },
            { "type": "p", "path": "/dev/p", "major": 0, "minor": 0, "uid": 1000, "gid": 100 },
            { "type": "b", "path": "/dev/b", "major": 8, "minor": 1, "uid": 1000, "gid": 100 }
        ])
    );
    let rule = serde_json::json!([{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" }]);
    assert_eq!(linux["resources"]["devices"], rule);
    let rdt = serde_json::json!({ "closID": "c", "l3CacheSchema": "L3:0=f", "enableMonitoring": true });
    assert_eq!(linux["intelRdt"], rdt);
    let hook = serde_json::json!([{ "path": "/bin/h", "args": ["h"], "env": ["B=c"], "timeout": 3 }]);
    assert_eq!(spec["hooks"]["createContainer"], hook);
    assert_eq!(spec["hooks"]["poststop"], serde_json::json!([{ "path": "/bin/end" }]));
    let mounts: Vec<_> =
        request.spec.mounts.iter().map(|mount| mount.destination.to_str().unwrap()).collect();
    assert_eq!(mounts, ["/dev", "/opt/x", "/opt/x/y", "/etc/hosts"]);
    assert_eq!(request.spec.mounts[1].options, ["rbind", "ro", "nosuid"]);
    assert_eq!(request.spec.mounts[3].kind, "tmpfs");
}

#[test]
fn yaml_is_read_as_json_is() {
    let scratch = Scratch::new("yaml");
    let text = "cdiVersion: 0.5.0\nkind: vendor.com/net\ndevices:\n- name: \"eth0\"\n  containerEdits:\n    \
                deviceNodes:\n    - path: /dev/n\n      hostPath: /dev/null\n      fileMode: 0666\n";
    scratch.write("etc/v.yaml", text);
    let request = applied(&scratch.asked(&["vendor.com/net=eth0"], &["etc"])).unwrap();
    let node = &request.spec.linux.unwrap().devices[0];
    assert_eq!((node.major, node.minor, node.file_mode), (1, 3, Some(0o666)));
}

fn small(version: &str, value: &str) -> String {
    let edits = format!(r#"{{ "env": ["V={value}"] }}"#);
    format!(
        r#"{{ "cdiVersion": "{version}", "kind": "v.com/c", "devices": [{{ "name": "d", "containerEdits": {edits} }}] }}"#
    )
}

#[test]
fn a_later_directory_wins_and_two_files_of_one_conflict() {
    let scratch = Scratch::new("conflict");
    let first = scratch.write("etc/a.json", &small("1.0.0", "etc"));
    scratch.write("run/a.json", &small("0.3.0", "run"));
    scratch.write("run/a.txt", "not one of them");
    let env = |asked: &Asked| applied(asked).map(|request| request.spec.process.unwrap().env[1].clone());
    assert_eq!(env(&scratch.asked(&["v.com/c=d"], &["etc", "run"])).unwrap(), "V=run");
    assert_eq!(env(&scratch.asked(&["v.com/c=d"], &["run", "etc"])).unwrap(), "V=etc");
    let second = scratch.write("etc/b.yaml", &small("1.0.0", "other"));
    assert_eq!(env(&scratch.asked(&["v.com/c=d"], &["etc", "run"])).unwrap(), "V=run");
    let error = env(&scratch.asked(&["v.com/c=d"], &["run", "etc"])).unwrap_err();
    let text = format!("both {} and {} have it", first.display(), second.display());
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let scratch = Scratch::new("missing");
    let empty = applied(&scratch.asked(&["v.com/c=x"], &["etc"])).unwrap_err();
    assert!(empty.advice().contains("--cdi-spec-dir"), "{}", empty.advice());
    scratch.write("etc/a.json", &small("1.0.0", "1"));
    let error = applied(&scratch.asked(&["v.com/c=x"], &["etc"])).unwrap_err();
    assert_eq!(error.to_string(), format!("no file in {}/etc has it", scratch.0.display()));
    assert_eq!(error.headline(), "there is no one device \"v.com/c=x\" for --device");
    assert_eq!(error.advice(), "use one that there is: v.com/c=d");
    // A broken file is nobody's concern while the device is found.
    scratch.write("etc/z.json", "{");
    assert!(applied(&scratch.asked(&["v.com/c=d"], &["etc"])).is_ok());
    let error = applied(&scratch.asked(&["v.com/c=x"], &["etc"])).unwrap_err();
    assert!(error.to_string().contains("z.json: the text as a whole: EOF while parsing"), "{error}");
}

/// The error for [`WHOLE`] with one text in another's place.
fn broken(from: &str, to: &str) -> String {
    let scratch = Scratch::new("broken");
    assert!(WHOLE.contains(from), "{from}");
    let path = scratch.write("etc/v.json", &WHOLE.replacen(from, to, 1));
    let error = applied(&scratch.asked(&["vendor.com/gpu=0"], &["etc"])).unwrap_err().to_string();
    error.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&error).to_owned()
}

#[test]
fn errors_name_file_device_and_field() {
    let edits = "device \"0\": devices[0].containerEdits";
    for (from, to, told) in [
        ("0.7.0", "2.0.0", "cdiVersion: \"2.0.0\": versions from 0.3.0 to 1.0.0 are understood".to_owned()),
        (
            "0.7.0",
            "0.6.0",
            "containerEdits.additionalGids: it needs cdiVersion 0.7.0 or a later one".to_owned(),
        ),
        (
            "vendor.com/gpu",
            "gpu",
            "kind: \"gpu\": it is not a vendor and a class, as in vendor.com/class".to_owned(),
        ),
        (
            "\"name\": \"1\"",
            "\"name\": \"0\"",
            "device \"0\": devices[1].name: \"0\": it is there twice".to_owned(),
        ),
        ("A=device", "=device", format!("{edits}.env[0]: it is not NAME=value")),
        ("\"/dev/x\"", "\"x\"", format!("{edits}.deviceNodes[0].path: \"x\": it is not an absolute path")),
        (
            "\"rw\"",
            "\"rx\"",
            format!("{edits}.deviceNodes[0].permissions: \"rx\": not some of r, w and m, or none"),
        ),
        (
            "\"/dev/null\"",
            "\"/etc/passwd\"",
            format!("{edits}.deviceNodes[0].hostPath: /etc/passwd is not a device"),
        ),
        ("\"p\"", "\"q\"", format!("{edits}.deviceNodes[1].type: \"q\": not one of b, c, u and p")),
        (
            "\"major\": 8",
            "\"major\": -8",
            format!("{edits}.deviceNodes[2].major: -8: it is not from 0 to 4095"),
        ),
        (
            "\"/opt/x\"",
            "\"opt\"",
            format!("{edits}.mounts[0].containerPath: \"opt\": it is not an absolute path"),
        ),
        (
            "\"timeout\": 3",
            "\"timeout\": 0",
            format!("{edits}.hooks[0].timeout: it is not a number of seconds above 0"),
        ),
        (
            "\"closID\": \"c\"",
            "\"closID\": \"a/b\"",
            format!("{edits}.intelRdt.closID: \"a/b\": not a file's name"),
        ),
    ] {
        assert_eq!(broken(from, to), told);
    }
    let unknown = broken("\"uid\": 5", "\"owner\": 5");
    assert!(
        unknown.starts_with(&format!("{edits}.deviceNodes[0].owner: unknown field `owner`")),
        "{unknown}"
    );
    let typed = broken("\"uid\": 5", "\"uid\": \"x\"");
    assert!(typed.starts_with(&format!("{edits}.deviceNodes[0].uid: invalid type: string")), "{typed}");
    let missing = broken("\"hostPath\": \"tmpfs\", ", "");
    assert!(missing.starts_with(&format!("{edits}.mounts[1]: missing field `hostPath`")), "{missing}");
    let hook = broken("createContainer", "before");
    assert!(
        hook.starts_with(&format!("{edits}.hooks[0].hookName: \"before\": not one of prestart,")),
        "{hook}"
    );
}

#[test]
fn damaged_files_are_read_without_panic() {
    let yaml = "a: &x [1, *x]\n? {b: c}\n: |\n  d\n...\n---\n!!binary e";
    let scratch = Scratch::new("damaged");
    for text in [WHOLE, yaml] {
        for at in (0..text.len()).step_by(3) {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = b"{}[]\",:\0&*\n\xff"[at % 12];
            for name in ["d.json", "d.yaml"] {
                let path = scratch.0.join(name);
                fs_err::write(&path, &bytes).unwrap();
                let read = file::read(Path::new(&path)).and_then(|read| check::check(&path, &read));
                let names_it = |error: &Error| error.to_string().contains(name);
                assert!(read.as_ref().err().is_none_or(names_it), "{read:?}");
            }
        }
    }
}
