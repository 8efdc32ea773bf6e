//! Registries for tests: Debian's docker-registry on a port of the loopback interface, and one of our own that can be told to misbehave.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::coracle::fixture;

pub const USER: &str = "anna";
pub const PASSWORD: &str = "se:cret";

/// docker-registry, which ends with this.
pub struct Registry {
    child: Child,
    pub host: String,
    directory: PathBuf,
}

/// What it asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Nothing.
    Open,
    /// TLS with a certificate that nobody trusts, and a login.
    Locked,
}

impl Registry {
    /// With the busybox image as `team/busybox:latest`; none, and said, where docker-registry is not installed.
    pub fn start(test: &str, directory: &Path, door: Door) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            println!("SKIP: registry::{test}: docker-registry is not installed here");
            return None;
        }
        let directory = directory.join("registry");
        std::fs::create_dir(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let mut text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {host}\n",
            directory.join("data").display()
        );
        if door == Door::Locked {
            let at = |name: &str| directory.join(name);
            make_certificate(&at("tls.crt"), &at("tls.key"));
            let hashed = Command::new("htpasswd").args(["-nbB", USER, PASSWORD]).output().unwrap().stdout;
            std::fs::write(at("htpasswd"), hashed).unwrap();
            text += &format!(
                "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                at("tls.crt").display(),
                at("tls.key").display(),
                at("htpasswd").display()
            );
        }
        std::fs::write(directory.join("config.yml"), text).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { child, host, directory };
        registry.until_it_answers();
        registry.push(door);
        Some(registry)
    }

    /// The certificate that signs itself.
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("tls.crt")
    }

    fn until_it_answers(&self) {
        let start = Instant::now();
        while TcpStream::connect(&self.host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn push(&self, door: Door) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "-q", "--dest-tls-verify=false"]);
        if door == Door::Locked {
            skopeo.args(["--dest-creds", &format!("{USER}:{PASSWORD}")]);
        }
        let source = format!("oci-archive:{}", fixture("busybox.oci.tar").display());
        skopeo.args([&source, &format!("docker://{}/team/busybox:latest", self.host)]);
        assert!(skopeo.status().unwrap().success());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate that is its own authority.
fn make_certificate(certificate: &Path, key: &Path) {
    let configuration = certificate.with_extension("cnf");
    let text = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = more\n[name]\nCN = registry.test\n\
                [more]\nbasicConstraints = CA:FALSE\nsubjectAltName = IP:127.0.0.1\n";
    std::fs::write(&configuration, text).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .arg("-config")
        .arg(&configuration)
        .arg("-out")
        .arg(certificate)
        .arg("-keyout")
        .arg(key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A question that our own registry got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub range: Option<u64>,
    pub authorization: Option<String>,
    /// How often this path was asked for before.
    pub before: usize,
}

/// What it answers.
pub enum Answer {
    /// What it has.
    Honest,
    /// That, but so many bytes of it only, though it promised all.
    Cut(usize),
    /// So many bytes of it, and then nothing while the client stays.
    Stall(usize),
    /// A status, headers, a body.
    Other(u16, Vec<(&'static str, String)>, Vec<u8>),
}

/// A registry with the busybox image, whatever repository it is asked for.
pub struct Fake {
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// One that answers as `answer` says.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (known, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, answer) = (Arc::clone(&known), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &known, &*answer));
            }
        });
        Self { host, asked }
    }

    /// What it was asked for of which the path ends so.
    pub fn asked(&self, end: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.ends_with(end)).cloned().collect()
    }

    /// The name of its image.
    pub fn image(&self) -> String {
        format!("{}/app", self.host)
    }
}

/// The digest of the image's only layer, and its length.
pub fn layer() -> (String, usize) {
    let manifest: serde_json::Value = serde_json::from_slice(&manifest()).unwrap();
    let layer = &manifest["layers"][0];
    (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap() as usize)
}

/// The image's manifest.
pub fn manifest() -> Vec<u8> {
    let index: serde_json::Value = serde_json::from_slice(&file("index.json")).unwrap();
    blob(index["manifests"][0]["digest"].as_str().unwrap())
}

/// A blob of the image; empty, if it has none of that digest.
pub fn blob(digest: &str) -> Vec<u8> {
    file(&format!("blobs/sha256/{}", digest.trim_start_matches("sha256:")))
}

/// A file of the image's layout.
fn file(name: &str) -> Vec<u8> {
    Command::new("tar").arg("-xOf").arg(fixture("busybox.oci.tar")).arg(name).output().unwrap().stdout
}

fn serve(stream: TcpStream, known: &Mutex<Vec<Asked>>, answer: &(dyn Fn(&Asked) -> Answer + Send + Sync)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    // A client that begins to speak TLS has no such line.
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else { return };
    let mut asked = Asked { path, range: None, authorization: None, before: 0 };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    {
        let mut known = known.lock().unwrap();
        asked.before = known.iter().filter(|other| other.path == asked.path).count();
        known.push(asked.clone());
    }
    // A client that leaves early is what some tests are about.
    let _ = respond(stream, &asked, answer(&asked));
}

fn respond(mut stream: TcpStream, asked: &Asked, answer: Answer) -> std::io::Result<()> {
    let (cut, stalls) = match answer {
        Answer::Honest => (usize::MAX, false),
        Answer::Cut(count) => (count, false),
        Answer::Stall(count) => (count, true),
        Answer::Other(status, headers, body) => {
            write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
            for (name, value) in headers {
                write!(stream, "{name}: {value}\r\n")?;
            }
            write!(stream, "\r\n")?;
            return stream.write_all(&body);
        }
    };
    let last = asked.path.rsplit('/').next().unwrap_or_default();
    let body = match last {
        "" => b"{}".to_vec(),
        "latest" => manifest(),
        digest => blob(digest),
    };
    let begin = asked.range.map_or(0, |begin| begin as usize).min(body.len());
    let part = &body[begin..];
    match asked.range {
        Some(_) => write!(
            stream,
            "HTTP/1.1 206 x\r\nContent-Range: bytes {begin}-{}/{}\r\n",
            body.len().saturating_sub(1),
            body.len()
        )?,
        None => write!(stream, "HTTP/1.1 200 x\r\n")?,
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    write!(stream, "Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
    stream.write_all(&part[..cut.min(part.len())])?;
    stream.flush()?;
    if stalls {
        // Until the client is gone.
        let _ = BufReader::new(stream).lines().next();
    }
    Ok(())
}
