//! Archives made byte by byte, so that they can lie.

use std::io::Write;

use image::Digest;

/// A tar archive that is being written.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry with all fields.
    #[expect(clippy::too_many_arguments, reason = "a tar header has these fields")]
    pub fn raw(
        mut self,
        name: &[u8],
        kind: u8,
        mode: u32,
        owner: (u32, u32),
        mtime: u64,
        link: &[u8],
        device: (u32, u32),
        size: u64,
        data: &[u8],
    ) -> Self {
        let mut header = [0u8; 512];
        header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        let mut field =
            |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, format!("{mode:07o}\0"));
        field(108, format!("{:07o}\0", owner.0));
        field(116, format!("{:07o}\0", owner.1));
        field(124, format!("{size:011o}\0"));
        field(136, format!("{mtime:011o}\0"));
        field(257, "ustar\x0000".to_owned());
        field(329, format!("{:07o}\0", device.0));
        field(337, format!("{:07o}\0", device.1));
        header[156] = kind;
        header[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        seal(&mut header);
        self.0.extend_from_slice(&header);
        self.data(data)
    }

    /// Data and the zeros after them.
    pub fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(name.as_bytes(), b'0', 0o644, (0, 0), 1_000_000_000, b"", (0, 0), data.len() as u64, data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.dir_with(name, 0o755, (0, 0))
    }

    pub fn dir_with(self, name: &str, mode: u32, owner: (u32, u32)) -> Self {
        self.raw(name.as_bytes(), b'5', mode, owner, 1_100_000_000, b"", (0, 0), 0, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'2', 0o777, (0, 0), 1_200_000_000, target.as_bytes(), (0, 0), 0, b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.raw(name.as_bytes(), b'1', 0o644, (0, 0), 1_000_000_000, target.as_bytes(), (0, 0), 0, b"")
    }

    pub fn device(self, name: &str, kind: u8, device: (u32, u32)) -> Self {
        self.raw(name.as_bytes(), kind, 0o600, (0, 0), 1_000_000_000, b"", device, 0, b"")
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.pax_raw(&body)
    }

    pub fn pax_raw(self, body: &[u8]) -> Self {
        self.raw(b"PaxHeader", b'x', 0o644, (0, 0), 0, b"", (0, 0), body.len() as u64, body)
    }

    /// The archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Writes a header's checksum.
pub fn seal(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A layer as stored, and its uncompressed digest.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: Digest,
    pub media_type: &'static str,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Self {
        Self { diff_id: Digest::of(&tar), blob: tar, media_type: "application/vnd.oci.image.layer.v1.tar" }
    }

    pub fn gzip(tar: &[u8]) -> Self {
        Self {
            diff_id: Digest::of(tar),
            blob: gzip(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    pub fn zstd(tar: &[u8]) -> Self {
        Self {
            diff_id: Digest::of(tar),
            blob: zstd(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

pub fn config(layers: &[Layer], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "created": "2024-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["/bin/true"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Manifest and blobs of an image.
pub fn manifest(layers: &[Layer], config: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config),
        "layers": layers.iter().map(|layer| descriptor(layer.media_type, &layer.blob)).collect::<Vec<_>>(),
    }))
    .unwrap();
    let mut blobs: Vec<Vec<u8>> = layers.iter().map(|layer| layer.blob.clone()).collect();
    blobs.push(config.to_vec());
    blobs.push(manifest.clone());
    (manifest, blobs)
}

/// An oci-archive with the given index.json and blobs.
pub fn oci_archive(index: &serde_json::Value, blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = Tar::new()
        .file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")
        .file("index.json", &serde_json::to_vec(index).unwrap());
    let mut seen = Vec::new();
    for blob in blobs {
        let digest = Digest::of(blob);
        if !seen.contains(&digest) {
            seen.push(digest);
            tar = tar.file(&format!("blobs/sha256/{}", digest.hex()), blob);
        }
    }
    tar.end()
}

/// An archive of one image named `name`.
pub fn image(name: &str, layers: &[Layer]) -> Vec<u8> {
    let (manifest, blobs) = manifest(layers, &config(layers, "amd64"));
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    oci_archive(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]}), &blobs)
}
