//! Images of several layers, made file by file, in an OCI layout that a registry of ours can serve.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::registry::{Answer, Asked, Fake};

/// A layout with images in it.
pub struct Layout {
    pub path: PathBuf,
}

/// What an image is made of.
#[derive(Default)]
pub struct Made<'a> {
    /// Of each layer its files, by name and content; a name that ends with a slash is a directory.
    pub layers: &'a [&'a [(&'a str, &'a str)]],
    /// The whole history, if there is one.
    pub history: Option<Value>,
    /// The configuration's `config`.
    pub config: Option<Value>,
    /// When it was made.
    pub created: &'a str,
}

impl Layout {
    pub fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        std::fs::write(path.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        std::fs::write(path.join("index.json"), "{\"schemaVersion\":2,\"manifests\":[]}").unwrap();
        Self { path }
    }

    /// Adds an image, and gives the digests of its layers' blobs.
    pub fn add(&self, tag: &str, made: &Made<'_>) -> Vec<String> {
        let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
        for files in made.layers {
            let plain = self.archive(files);
            diff_ids.push(digest(&plain));
            descriptors.push(self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &compressed(&plain)));
        }
        let mut config = json!({
            "created": made.created, "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": made.config.clone().unwrap_or_else(|| json!({})),
        });
        if let Some(history) = &made.history {
            config["history"] = history.clone();
        }
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors });
        let mut manifest = self.blob(kind, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let file = self.path.join("index.json");
        let mut index: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        index["manifests"].as_array_mut().unwrap().push(manifest);
        std::fs::write(file, index.to_string()).unwrap();
        let of = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
        descriptors.iter().map(of).collect()
    }

    /// Where `pull` finds one of them.
    pub fn source(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path.display())
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let path = self.path.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        std::fs::write(path, bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    fn archive(&self, files: &[(&str, &str)]) -> Vec<u8> {
        let tree = self.path.join("tree");
        std::fs::create_dir(&tree).unwrap();
        for (name, content) in files {
            let path = tree.join(name);
            if name.ends_with('/') {
                std::fs::create_dir_all(&path).unwrap();
            } else {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, content).unwrap();
            }
        }
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--mtime=@1000000000", "-C"]).arg(&tree);
        let out = tar.args(["-c", "."]).output().unwrap().stdout;
        std::fs::remove_dir_all(&tree).unwrap();
        out
    }

    /// A registry that has the layout's images, each by its tag in every repository.
    pub fn serve(&self) -> Fake {
        let path = self.path.clone();
        Fake::start(move |asked| answer(&path, asked))
    }
}

fn answer(layout: &Path, asked: &Asked) -> Answer {
    let last = asked.path.rsplit('/').next().unwrap_or_default();
    if last.is_empty() {
        return Answer::Other(200, Vec::new(), b"{}".to_vec());
    }
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let is_it = |manifest: &&Value| manifest["annotations"]["org.opencontainers.image.ref.name"] == last;
    let named = index["manifests"].as_array().unwrap().iter().find(is_it);
    let digest = named.map_or(last, |manifest| manifest["digest"].as_str().unwrap());
    match std::fs::read(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))) {
        Ok(bytes) => {
            let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
            Answer::Other(200, vec![("Content-Type", kind)], bytes)
        }
        Err(_) => Answer::Other(404, Vec::new(), Vec::new()),
    }
}

fn through(program: &str, args: &[&str], bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new(program);
    let mut child = child.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let out = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    out
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    through("gzip", &["-n"], bytes)
}

pub fn digest(bytes: &[u8]) -> String {
    let out = String::from_utf8(through("sha256sum", &[], bytes)).unwrap();
    format!("sha256:{}", out.split(' ').next().unwrap())
}
