//! The OCI image specification's documents, as far as they are read here.
//!
//! Source: <https://github.com/opencontainers/image-spec>. Field names are the specification's; what is not read is
//! kept in the blob, which is stored verbatim.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Media types by which a manifest is written.
pub(crate) mod media {
    pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub(crate) const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's names for the same things.
    pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub(crate) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Annotation of an index entry: a tag, or a whole name where podman or skopeo wrote it.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of an index entry that docker and containerd write: the whole name.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";

/// Go programs write an empty list or map as null.
pub(crate) fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A reference to a blob by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// For which platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Notes, for example the name of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of a document that is at hand.
    pub(crate) fn of(bytes: &[u8], media_type: &str) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether registries keep it among their manifests, not their blobs.
    pub(crate) fn is_manifest(&self) -> bool {
        [media::INDEX, media::MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST]
            .contains(&self.media_type.as_str())
    }
}

/// An operating system and a processor: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// The version of the processor, for example `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image for `other` runs where this is wanted. `arm64` and `arm64/v8` are the same; a platform without a
    /// variant takes any.
    pub fn accepts(&self, other: &Platform) -> bool {
        let variant =
            |platform: &Platform| match (platform.architecture.as_str(), platform.variant.as_deref()) {
                ("arm64", None) => Some("v8".to_owned()),
                (_, variant) => variant.filter(|variant| !variant.is_empty()).map(str::to_owned),
            };
        self.os == other.os
            && self.architecture == other.architecture
            && match (variant(self), variant(other)) {
                (Some(wanted), Some(given)) => wanted == given,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch[/variant]`, an architecture alone, which means Linux, or `linux` alone, which means this
    /// machine's architecture.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::BadPlatform { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            ["linux"] => return Ok(Self { variant: None, ..Self::host() }),
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(bad()),
        };
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" | "x86" => "386",
            other => other,
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

/// An image manifest, or an index of manifests: whichever list is there. A document with both is refused, since two readers
/// would see two images in it (CVE-2021-41190).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestOrIndex {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

/// What a blob that should describe an image turned out to be.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
    Index(Vec<Descriptor>),
}

impl ManifestOrIndex {
    /// Which of both it is.
    pub(crate) fn document(self, digest: Digest) -> Result<Document> {
        let bad = |reason| Error::BadManifest { digest, reason };
        if self.schema_version != 2 {
            return Err(bad("its schemaVersion is not 2"));
        }
        let is_index = matches!(self.media_type.as_str(), media::INDEX | media::DOCKER_LIST);
        let is_manifest = matches!(self.media_type.as_str(), media::MANIFEST | media::DOCKER_MANIFEST);
        match (self.config, self.layers, self.manifests) {
            (Some(config), Some(layers), None) if !is_index => Ok(Document::Manifest { config, layers }),
            (None, None, Some(manifests)) if !is_manifest => Ok(Document::Index(manifests)),
            (None, None, None) => Err(bad("it has neither config and layers nor manifests")),
            _ => Err(bad("it mixes the fields of a manifest and of an index")),
        }
    }
}

/// The configuration blob of an image. Its digest is the image's id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The processor, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// The version of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How a container of this image runs.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub config: Config,
    /// The layers' digests.
    pub rootfs: RootFs,
}

impl ImageConfig {
    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }
}

/// The list of layers in a configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub diff_ids: Vec<Digest>,
}

/// How a container of an image runs: the `config` of the specification, with docker's additions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `user[:group]`, names or numbers.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Published ports (`80/tcp`); the values are empty objects.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments; None and empty mean the same.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entry point.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories that want a volume; the values are empty objects.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the program starts.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Notes.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<u64>,
    /// The shell that a builder uses.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// How to see whether the program is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for builds on top of this image.
    #[serde(deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// The `{}` that stands for "present" in Go's sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How to see whether a container is well. Times are nanoseconds; 0 means docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "null_as_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: u64,
    /// How long one may take.
    pub timeout: u64,
    /// How long failures do not count after the start.
    pub start_period: u64,
    /// Between two checks in that time.
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    pub retries: u64,
}

/// One image of a docker archive's `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerManifest {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) layers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_manifest_or_an_index() {
        let digest = Digest::of(b"");
        let config = format!(r#""config":{{"digest":"{digest}","size":0}}"#);
        let read = |text: &str| serde_json::from_str::<ManifestOrIndex>(text).unwrap().document(digest);
        assert!(matches!(
            read(&format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#)),
            Ok(Document::Manifest { .. })
        ));
        assert!(matches!(read(r#"{"schemaVersion":2,"manifests":[]}"#), Ok(Document::Index(_))));
        for both in [
            format!(r#"{{"schemaVersion":2,{config},"layers":[],"manifests":[]}}"#),
            format!(r#"{{"schemaVersion":2,"mediaType":"{}",{config},"layers":[]}}"#, media::INDEX),
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media::MANIFEST),
            r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(),
            r#"{"schemaVersion":2}"#.to_owned(),
        ] {
            assert!(read(&both).is_err(), "{both}");
        }
    }

    #[test]
    fn null_is_empty() {
        let config: Config =
            serde_json::from_str(r#"{"Env":null,"Volumes":{"/a":{}},"User":null,"Labels":null}"#).unwrap();
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a"]);
    }

    #[test]
    fn platforms_match_as_people_mean_them() {
        let read = |text: &str| text.parse::<Platform>().unwrap();
        assert!(read("arm64").accepts(&read("linux/arm64/v8")));
        assert!(read("linux/arm64/v8").accepts(&read("linux/arm64")));
        assert!(!read("linux/arm/v6").accepts(&read("linux/arm/v7")));
        assert!(!read("linux/amd64").accepts(&read("linux/386")));
        assert_eq!(read("x86_64"), read("linux/amd64"));
        for bad in ["", "/", "a/b/c/d", "linux/", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
