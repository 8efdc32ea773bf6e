//! Registries for tests: Debian's docker-registry on a port of the loopback interface, and one of our own that can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::coracle::fixture;
use crate::tokens::{self, Tokens};

pub const USER: &str = "anna";
pub const PASSWORD: &str = "se:cret";

/// docker-registry, which ends with this.
pub struct Registry {
    child: Child,
    pub host: String,
    /// The token server, if it wants tokens.
    pub tokens: Option<Tokens>,
    directory: PathBuf,
}

/// What it asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Nothing.
    Open,
    /// TLS with a certificate that nobody trusts, and a login.
    Locked,
    /// A token of a server of the tests, which knows that login.
    Tokens,
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
        let tokens = (door == Door::Tokens).then(|| {
            let bundle = tokens::make_key(&directory);
            let server = Tokens::start(&directory);
            let (realm, bundle) = (&server.realm, bundle.display());
            let (service, issuer) = (tokens::SERVICE, tokens::ISSUER);
            text += &format!(
                "auth: {{token: {{realm: '{realm}', service: {service}, issuer: {issuer}, rootcertbundle: {bundle}}}}}\n"
            );
            server
        });
        std::fs::write(directory.join("config.yml"), text).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { child, host, tokens, directory };
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
        if door != Door::Open {
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
    pub method: String,
    pub path: String,
    pub range: Option<u64>,
    pub authorization: Option<String>,
    /// The bytes of a chunk as its header has them: the first one's number and the last one's.
    pub chunk: Option<(u64, u64)>,
    /// The content's length and kind.
    pub length: usize,
    pub kind: String,
    /// How often this was asked before.
    pub before: usize,
}

/// What it answers.
pub enum Answer {
    /// What it has.
    Honest,
    /// That, but so many bytes of it only, though it promised all; of what is sent, it takes so many.
    Cut(usize),
    /// So many bytes of it, and then nothing while the client stays.
    Stall(usize),
    /// A status, headers, a body.
    Other(u16, Vec<(&'static str, String)>, Vec<u8>),
}

/// A registry with the busybox image, whatever repository it is asked for; and with what is pushed.
pub struct Fake {
    pub host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    pushed: Arc<Mutex<Pushed>>,
}

/// What was sent.
#[derive(Default)]
struct Pushed {
    /// Blobs by their digests, manifests by their digests and tags.
    things: HashMap<String, Vec<u8>>,
    /// By their addresses.
    uploads: HashMap<String, Vec<u8>>,
    begun: usize,
    kinds: HashMap<String, String>,
}

impl Fake {
    /// One that answers as `answer` says.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let pushed = Arc::new(Mutex::new(Pushed::default()));
        let (known, has, answer) = (Arc::clone(&asked), Arc::clone(&pushed), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, has, answer) = (Arc::clone(&known), Arc::clone(&has), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &known, &has, &*answer));
            }
        });
        Self { host, asked, pushed }
    }

    /// What it was asked for of which the path ends so.
    pub fn asked(&self, end: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.ends_with(end)).cloned().collect()
    }

    /// What it was sent under a digest or tag.
    pub fn pushed(&self, name: &str) -> Option<Vec<u8>> {
        self.pushed.lock().unwrap().things.get(name).cloned()
    }

    /// How many uploads are neither ended nor given up.
    pub fn open_uploads(&self) -> usize {
        self.pushed.lock().unwrap().uploads.len()
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

fn serve(
    stream: TcpStream,
    known: &Mutex<Vec<Asked>>,
    pushed: &Mutex<Pushed>,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let mut next = || {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).ok()?;
        // A client that begins to speak TLS has no such line.
        Some(String::from_utf8(line).ok()?.trim_end().to_owned())
    };
    let Some(first) = next() else { return };
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        range: None,
        authorization: None,
        chunk: None,
        length: 0,
        kind: String::new(),
        before: 0,
    };
    while let Some(line) = next().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            "content-length" => asked.length = value.parse().unwrap(),
            "content-type" => asked.kind = value.to_owned(),
            "content-range" => {
                let (begin, end) = value.split_once('-').unwrap();
                asked.chunk = Some((begin.parse().unwrap(), end.parse().unwrap()));
            }
            _ => {}
        }
    }
    {
        let mut known = known.lock().unwrap();
        let same = |other: &&Asked| other.path == asked.path && other.method == asked.method;
        asked.before = known.iter().filter(same).count();
        known.push(asked.clone());
    }
    let answer = answer(&asked);
    // Of content that is cut short, so much is kept as came.
    let taken = if let Answer::Cut(count) = answer { count.min(asked.length) } else { asked.length };
    let mut content = Vec::new();
    let came =
        (&mut input).take(taken as u64).read_to_end(&mut content).is_ok() && content.len() == asked.length;
    // A client that leaves early is what some tests are about.
    let _ = match answer {
        Answer::Honest if is_upload(&asked) => take(stream, &asked, &content, pushed),
        Answer::Cut(_) if is_upload(&asked) => {
            if let (Some(upload), false) = (pushed.lock().unwrap().uploads.get_mut(address(&asked)), came) {
                upload.extend(content);
            }
            Ok(())
        }
        answer => respond(stream, &asked, answer, pushed),
    };
}

fn is_upload(asked: &Asked) -> bool {
    asked.method != "GET" || asked.path.contains("/uploads/")
}

/// Where an upload stands, without the digest that ends it.
fn address(asked: &Asked) -> &str {
    asked.path.split('?').next().unwrap()
}

/// What the specification says of pushing.
fn take(mut stream: TcpStream, asked: &Asked, content: &[u8], pushed: &Mutex<Pushed>) -> std::io::Result<()> {
    let mut pushed = pushed.lock().unwrap();
    let address = address(asked).to_owned();
    let last = address.rsplit('/').next().unwrap().to_owned();
    let so_far = |length: usize| format!("Location: {address}\r\nRange: 0-{}\r\n", length.saturating_sub(1));
    let (status, headers) = match (asked.method.as_str(), pushed.uploads.get_mut(&address)) {
        ("HEAD", _) => (if pushed.things.contains_key(&last) { 200 } else { 404 }, String::new()),
        ("POST", _) => {
            let new = format!("{address}{}", pushed.begun);
            pushed.begun += 1;
            pushed.uploads.insert(new.clone(), Vec::new());
            (202, format!("Location: {new}\r\n"))
        }
        ("PUT", None) if asked.path.contains("/manifests/") => {
            let digest = image::Digest::of(content).to_string();
            for name in [digest, last] {
                pushed.things.insert(name.clone(), content.to_vec());
                pushed.kinds.insert(name, asked.kind.clone());
            }
            (201, String::new())
        }
        (_, None) => (404, String::new()),
        ("GET", Some(upload)) => (204, so_far(upload.len())),
        ("DELETE", Some(_)) => {
            pushed.uploads.remove(&address);
            (204, String::new())
        }
        ("PATCH", Some(upload)) if asked.chunk.is_some_and(|(begin, _)| begin != upload.len() as u64) => {
            (416, so_far(upload.len()))
        }
        ("PATCH", Some(upload)) => {
            upload.extend(content);
            (202, so_far(upload.len()))
        }
        (_, Some(upload)) => {
            upload.extend(content);
            let bytes = pushed.uploads.remove(&address).unwrap();
            let digest = image::Digest::of(&bytes).to_string();
            if asked.path.ends_with(&digest) {
                pushed.things.insert(digest.clone(), bytes);
                (201, format!("Docker-Content-Digest: {digest}\r\n"))
            } else {
                (400, String::new())
            }
        }
    };
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n")
}

fn respond(
    mut stream: TcpStream,
    asked: &Asked,
    answer: Answer,
    pushed: &Mutex<Pushed>,
) -> std::io::Result<()> {
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
    let (sent, kind) = {
        let pushed = pushed.lock().unwrap();
        (pushed.things.get(last).cloned(), pushed.kinds.get(last).cloned())
    };
    let body = match (last, sent) {
        (_, Some(bytes)) => bytes,
        ("", None) => b"{}".to_vec(),
        ("latest", None) => manifest(),
        (digest, None) => blob(digest),
    };
    if body.is_empty() {
        return write!(stream, "HTTP/1.1 404 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
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
    let kind = kind.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
    write!(stream, "Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len())?;
    stream.write_all(&part[..cut.min(part.len())])?;
    stream.flush()?;
    if stalls {
        // Until the client is gone.
        let _ = BufReader::new(stream).lines().next();
    }
    Ok(())
}
