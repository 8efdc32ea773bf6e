//! containerd's CRI plugin, asked over its socket as a kubelet asks it: by gRPC, which curl speaks (HTTP/2 with trailers).
//!
//! The numbers in the messages are those of the fields in the CRI's `runtime.v1`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::containerd::{Containerd, IMAGE};
use crate::place::{Limit, busybox, runtime, until};
use crate::protobuf::{Message, Value, find};

/// `NamespaceMode`: whose namespace a container is in.
const POD: u64 = 0;
const CONTAINER: u64 = 1;
const NODE: u64 = 2;

/// `ContainerState`.
const CREATED: u64 = 0;
const RUNNING: u64 = 1;
const EXITED: u64 = 2;

/// The image that a pod's sandbox runs.
const PAUSE: &str = "localhost/pause:1";

/// A CNI plugin that is a shell's script: it gives each pod one device of its own. As `loopback` too, which containerd runs before.
const CNI_PLUGIN: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
inside="nsenter --net=$CNI_NETNS ip"
if [ "$CNI_IFNAME" = lo ]; then
    address=127.0.0.1/8
    $inside link set lo up
else
    address=10.9.8.7/24
    $inside link add "$CNI_IFNAME" type bridge && $inside address add $address dev "$CNI_IFNAME"
fi >&2
echo "{\"cniVersion\":\"0.4.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}],
    \"ips\":[{\"version\":\"4\",\"interface\":0,\"address\":\"$address\"}]}"
"#;

const CNI_NETWORK: &str = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"device"}]}"#;

/// A pod's sandbox that runs.
struct Pod {
    id: String,
    /// Whose network it is in: `POD` or `NODE`.
    network: u64,
    /// A `PodSandboxConfig`.
    config: Message,
}

/// A kubelet's view of containerd.
struct Kubelet {
    containerd: Containerd,
}

impl Kubelet {
    fn new(test: &str) -> Option<Self> {
        let containerd = Containerd::new(test, |place| {
            let plugins = place.directory().join("cni");
            std::fs::create_dir_all(plugins.join("conf")).unwrap();
            place.write("cni/conf/10-pods.conflist", CNI_NETWORK);
            for name in ["cni/loopback", "cni/device"] {
                let script = place.write(name, CNI_PLUGIN);
                std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            // A pod's sandbox would be protected from the machine's want of memory, which only CAP_SYS_RESOURCE can do.
            format!(
                "[plugins.'io.containerd.grpc.v1.cri']
                sandbox_image = '{PAUSE}'
                restrict_oom_score_adj = true
                [plugins.'io.containerd.grpc.v1.cri'.cni]
                bin_dir = '{0}'
                conf_dir = '{0}/conf'
                [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
                runtime_type = 'io.containerd.runc.v2'
                [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
                BinaryName = '{1}'
                ",
                plugins.display(),
                runtime().display()
            )
        })?;
        let kubelet = Self { containerd };
        kubelet.make_images();
        Some(kubelet)
    }

    /// Imports busybox, and an image made of it that sleeps, where the plugin looks for images.
    fn make_images(&self) {
        let layout = busybox().with_file_name("busybox.oci");
        let (copy, archive) = (
            self.containerd.place().directory().join("pause"),
            self.containerd.place().directory().join("pause.tar"),
        );
        let succeeds = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        succeeds(Command::new("cp").arg("-r").arg(layout).arg(&copy));
        let mut config = Command::new("umoci");
        config.args(["config", "--tag=1", "--config.cmd=sleep", "--config.cmd=1000000", "--image"]);
        succeeds(config.arg(format!("{}:latest", copy.display())));
        succeeds(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&copy).arg("."));
        let import = ["--namespace=k8s.io", "image", "import"];
        let archive = archive.to_str().unwrap();
        self.containerd.ok(&[&import[..], &[busybox().to_str().unwrap()]].concat());
        self.containerd.ok(&[&import[..], &["--base-name=localhost/pause", archive]].concat());
        until("the plugin to see the images", || {
            let images = self.containerd.ok(&["--namespace=k8s.io", "image", "ls"]);
            let seen = |name: &str| {
                images
                    .lines()
                    .any(|line| line.starts_with(name) && line.contains("io.cri-containerd.image=managed"))
            };
            (seen(PAUSE) && seen(IMAGE)).then_some(())
        });
    }

    /// Calls a method of the service. The error is gRPC's message.
    fn call(&self, method: &str, request: &Message) -> Result<Vec<u8>, String> {
        let place = self.containerd.place();
        let [asked, headers, answer] =
            ["asked", "headers", "answer"].map(|name| place.directory().join(name));
        let length = u32::try_from(request.encoded().len()).unwrap().to_be_bytes();
        std::fs::write(&asked, [&[0], &length[..], request.encoded()].concat()).unwrap();
        let _ = std::fs::remove_file(&answer);
        let mut curl = place.command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
            "--unix-socket",
            &self.containerd.socket(),
        ]);
        curl.args(["--header", "content-type: application/grpc", "--header", "te: trailers"]);
        curl.arg("--data-binary").arg(format!("@{}", asked.display()));
        curl.arg("--dump-header").arg(&headers).arg("--output").arg(&answer);
        let ran = curl.arg(format!("http://localhost/runtime.v1.RuntimeService/{method}")).output().unwrap();
        assert!(ran.status.success(), "{method}: {ran:?}");
        let headers = std::fs::read_to_string(&headers).unwrap();
        let header = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        match header("grpc-status:") {
            Some("0") => Ok(std::fs::read(&answer).unwrap().split_off(5)),
            _ => Err(header("grpc-message:").unwrap_or(&headers).to_owned()),
        }
    }

    #[track_caller]
    fn ok(&self, method: &str, request: &Message) -> Vec<u8> {
        self.call(method, request).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Starts a pod's sandbox in the network of `network`.
    #[track_caller]
    fn pod(&self, network: u64) -> Pod {
        let metadata = Message::new().text(1, "pod").text(2, "uid").text(3, "default");
        let namespaces = Message::new().number(1, network).number(2, CONTAINER);
        let security = Message::new().message(1, &namespaces);
        let parent = format!("/{}", self.containerd.place().group());
        let linux = Message::new().text(1, &parent).message(2, &security);
        let logs = self.containerd.place().directory().join("logs");
        // The node's name is the node's to set.
        let name = if network == POD { "podname" } else { "" };
        let config = Message::new().message(1, &metadata).text(2, name).text(3, logs.to_str().unwrap());
        let config = config.message(8, &linux);
        let answer = self.ok("RunPodSandbox", &Message::new().message(1, &config));
        Pod { id: text(&answer, &[1]), network, config }
    }

    /// Ends a pod and all that runs in it, and looks that nothing is left of it.
    #[track_caller]
    fn end(&self, pod: &Pod) {
        self.ok("StopPodSandbox", &id(&pod.id));
        self.ok("RemovePodSandbox", &id(&pod.id));
        assert_eq!(self.containerd.ok(&["--namespace=k8s.io", "container", "ls", "-q"]), "");
        self.containerd.place().until_no_groups();
    }

    /// Makes a container of a pod that runs a script in the process namespace `processes`, with limits
    /// (`LinuxContainerResources`), and gives its id.
    #[track_caller]
    fn create(&self, pod: &Pod, name: &str, processes: u64, script: &str, resources: &Message) -> String {
        let security = Message::new().message(3, &Message::new().number(1, pod.network).number(2, processes));
        let linux = Message::new().message(1, resources).message(2, &security);
        let environment = Message::new().text(1, "OWN").text(2, "set");
        let config = Message::new()
            .message(1, &Message::new().text(1, name))
            .message(2, &Message::new().text(1, IMAGE));
        let config = config.texts(3, &["sh", "-c", script]).text(5, "/tmp").message(6, &environment);
        let config = config.text(11, &format!("{name}.log")).message(15, &linux);
        let request = id(&pod.id).message(2, &config).message(3, &pod.config);
        text(&self.ok("CreateContainer", &request), &[1])
    }

    /// Runs a command in a container: its output, its errors, its exit code.
    #[track_caller]
    fn exec(&self, id: &str, command: &[&str]) -> (String, String, u64) {
        let answer = self.ok("ExecSync", &Message::new().text(1, id).texts(2, command).number(3, 20));
        (text(&answer, &[1]), text(&answer, &[2]), number(&answer, &[3]))
    }

    fn log(&self, name: &str) -> String {
        let log = self.containerd.place().directory().join(format!("logs/{name}.log"));
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// A container's state and exit code.
    #[track_caller]
    fn status(&self, id: &str) -> (u64, u64) {
        let answer = self.ok("ContainerStatus", &Message::new().text(1, id));
        (number(&answer, &[1, 3]), number(&answer, &[1, 7]))
    }

    /// The process that a container or a sandbox started with.
    #[track_caller]
    fn pid(&self, id: &str) -> String {
        let tasks = self.containerd.ok(&["--namespace=k8s.io", "task", "ls"]);
        let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id}: {tasks}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    }
}

fn text(answer: &[u8], path: &[u64]) -> String {
    match find(answer, path) {
        None => String::new(),
        Some(Value::Bytes(bytes)) => String::from_utf8(bytes.to_owned()).unwrap(),
        Some(number) => panic!("{path:?} is {number:?}"),
    }
}

fn number(answer: &[u8], path: &[u64]) -> u64 {
    match find(answer, path) {
        None => 0,
        Some(Value::Number(number)) => number,
        Some(bytes) => panic!("{path:?} is {bytes:?}"),
    }
}

fn id(of: &str) -> Message {
    Message::new().text(1, of)
}

#[test]
fn a_pods_container_lives_its_life() {
    let Some(kubelet) = Kubelet::new("cri::a_pods_container_lives_its_life") else { return };
    let pod = kubelet.pod(NODE);
    let script = "trap 'echo asked; exit 5' TERM; pwd; echo $OWN; echo oh >&2; while :; do sleep 0.1; done";
    let container = kubelet.create(&pod, "a", CONTAINER, script, &Message::new());
    assert_eq!(kubelet.status(&container), (CREATED, 0));
    kubelet.ok("StartContainer", &id(&container));
    assert_eq!(kubelet.status(&container), (RUNNING, 0));
    // The lines have a time, a stream, and whether they are whole.
    until("its log", || {
        let log = kubelet.log("a");
        ["stdout F /tmp\n", "stdout F set\n", "stderr F oh\n"]
            .iter()
            .all(|line| log.contains(line))
            .then_some(())
    });
    let ran = kubelet.exec(&container, &["sh", "-c", "cat /proc/1/comm; echo err >&2; exit 7"]);
    assert_eq!(ran, ("sh\n".into(), "err\n".into(), 7));
    let request = id(&container).text(2, "absent").number(3, 20);
    let absent = kubelet.call("ExecSync", &request).unwrap_err();
    assert!(absent.contains("executable file not found in $PATH"), "{absent}");
    let outside = kubelet.containerd.place().run("readlink", &["/proc/self/ns/net"]).ok();
    assert_eq!(kubelet.exec(&container, &["readlink", "/proc/self/ns/net"]).0, outside);
    let ipc = |pid: &str| kubelet.containerd.place().run("readlink", &[&format!("/proc/{pid}/ns/ipc")]).ok();
    assert_eq!(ipc(&kubelet.pid(&container)), ipc(&kubelet.pid(&pod.id)), "a pod's own");

    kubelet.ok("StopContainer", &id(&container).number(2, 20));
    assert_eq!(kubelet.status(&container), (EXITED, 5));
    assert!(kubelet.log("a").contains("stdout F asked\n"));
    kubelet.ok("StopContainer", &id(&container));
    kubelet.ok("RemoveContainer", &id(&container));
    kubelet.call("ContainerStatus", &id(&container)).unwrap_err();
    kubelet.end(&pod);
}

#[test]
fn containers_of_a_pod_share_its_network_and_name() {
    let Some(kubelet) = Kubelet::new("cri::containers_of_a_pod_share_its_network_and_name") else { return };
    let pod = kubelet.pod(POD);
    let serve = "mkdir /www; echo page > /www/index.html; httpd -f -p 80 -h /www";
    let server = kubelet.create(&pod, "server", CONTAINER, serve, &Message::new());
    let client = kubelet.create(&pod, "client", CONTAINER, "sleep 1000", &Message::new());
    for container in [&server, &client] {
        kubelet.ok("StartContainer", &id(container));
    }
    until("the server", || {
        (kubelet.exec(&client, &["wget", "-qO-", "http://127.0.0.1/"]).0 == "page\n").then_some(())
    });
    assert_eq!(kubelet.exec(&client, &["hostname"]).0, "podname\n");
    let address = kubelet.exec(&client, &["ip", "-o", "address", "show", "eth0"]).0;
    assert!(address.contains("10.9.8.7/24"), "{address}");
    kubelet.end(&pod);
}

#[test]
fn one_that_does_not_end_is_killed_and_one_that_cannot_start_says_why() {
    let test = "cri::one_that_does_not_end_is_killed_and_one_that_cannot_start_says_why";
    let Some(kubelet) = Kubelet::new(test) else { return };
    let pod = kubelet.pod(NODE);
    let script = "trap '' TERM; while :; do sleep 0.1; done";
    let stubborn = kubelet.create(&pod, "stubborn", CONTAINER, script, &Message::new());
    kubelet.ok("StartContainer", &id(&stubborn));
    kubelet.ok("StopContainer", &id(&stubborn).number(2, 1));
    assert_eq!(kubelet.status(&stubborn), (EXITED, 137));

    let config = Message::new().message(1, &id("absent")).message(2, &id(IMAGE)).text(3, "absent");
    let request = id(&pod.id).message(2, &config).message(3, &pod.config);
    let absent = text(&kubelet.ok("CreateContainer", &request), &[1]);
    let error = kubelet.call("StartContainer", &id(&absent)).unwrap_err();
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    // What still runs goes with the pod.
    let left = kubelet.create(&pod, "left", POD, "sleep 1000", &Message::new());
    kubelet.ok("StartContainer", &id(&left));
    assert_eq!(kubelet.exec(&left, &["cat", "/proc/1/cmdline"]).0, "sleep\x001000000\0", "the sandbox's");
    kubelet.ok("StopPodSandbox", &id(&pod.id));
    assert_eq!(kubelet.status(&left).0, EXITED);
    kubelet.end(&pod);
}

#[test]
fn limits_hold_are_updated_and_measured() {
    let Some(kubelet) = Kubelet::new("cri::limits_hold_are_updated_and_measured") else { return };
    let pod = kubelet.pod(NODE);
    // period, quota, shares, memory
    let resources = Message::new().number(1, 100_000).number(2, 50_000).number(3, 512).number(4, 64 << 20);
    let container = kubelet.create(&pod, "a", CONTAINER, "while :; do sleep 1; done", &resources);
    kubelet.ok("StartContainer", &id(&container));
    let pid = kubelet.pid(&container);
    let limit = |limit| kubelet.containerd.place().limit(&pid, limit);
    assert_eq!(limit(Limit::Memory), "67108864");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("50000"));
    let stats = kubelet.ok("ContainerStats", &id(&container));
    let (cpu, memory) = (number(&stats, &[1, 2, 2, 1]), number(&stats, &[1, 3, 2, 1]));
    assert!((1..60_000_000_000).contains(&cpu), "{cpu} ns");
    assert!((1..64 << 20).contains(&memory), "{memory} bytes");
    let more = Message::new().number(1, 100_000).number(2, 25_000).number(4, 128 << 20);
    kubelet.ok("UpdateContainerResources", &id(&container).message(2, &more));
    assert_eq!(limit(Limit::Memory), "134217728");
    assert_eq!(limit(Limit::Processor).split(' ').next(), Some("25000"));

    let little = Message::new().number(4, 16 << 20).number(10, 16 << 20);
    let script = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let hungry = kubelet.create(&pod, "hungry", CONTAINER, script, &little);
    kubelet.ok("StartContainer", &id(&hungry));
    until("its end", || (kubelet.status(&hungry) == (EXITED, 137)).then_some(()));
    let status = kubelet.ok("ContainerStatus", &id(&hungry));
    assert_eq!(text(&status, &[1, 10]), "OOMKilled");
    kubelet.end(&pod);
}
