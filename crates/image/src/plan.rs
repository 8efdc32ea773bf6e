//! What a source says its images are: indexes, manifests, configurations, names.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::load::LoadOptions;
use crate::oci::{
    Descriptor, DockerManifest, Document, FULL_NAME, ImageConfig, ManifestOrIndex, Platform, REF_NAME,
};
use crate::reference::Reference;
use crate::source::{Bytes, Layout, Origin, Source};

/// Indexes in indexes: buildx makes two levels.
const INDEX_DEPTH_MAX: usize = 4;

/// One image of a source, before its layers are read.
pub(crate) struct Plan {
    pub(crate) names: Vec<Reference>,
    /// What the names mean; None until the layers' digests are known.
    pub(crate) target: Option<Descriptor>,
    /// The image's own manifest; None until the layers' digests are known.
    pub(crate) manifest: Option<Descriptor>,
    /// Indexes, manifest and configuration, to be stored as they are.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
    pub(crate) id: Digest,
    /// The repository that it is fetched from.
    pub(crate) repository: Option<String>,
    /// Where the image came from that it is made on top of.
    pub(crate) below: Option<crate::store::Origin>,
    pub(crate) config_size: u64,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<PlannedLayer>,
}

pub(crate) struct PlannedLayer {
    /// What the manifest says; None in docker archives.
    pub(crate) descriptor: Option<Descriptor>,
    pub(crate) bytes: Bytes,
}

impl PlannedLayer {
    /// Stored bytes.
    pub(crate) fn size(&self) -> u64 {
        match (&self.bytes, &self.descriptor) {
            (Bytes::Local(range), _) => range.length,
            (Bytes::Remote(_), descriptor) => descriptor.as_ref().map_or(0, |descriptor| descriptor.size),
        }
    }
}

/// What the images of a source are, all but their layers' content checked.
pub(crate) fn plans(origin: &Origin, source: &Source, options: &LoadOptions) -> Result<Vec<Plan>> {
    let mut plans = match origin.layout {
        Layout::Oci => oci_plans(origin, source, options)?,
        Layout::Docker => docker_plans(origin, source, options)?,
        Layout::Named => named_plans(origin, source, options)?,
    };
    if plans.is_empty() {
        return Err(origin.no_image("its list of images is empty"));
    }
    if let Some(name) = &options.name {
        let name = name.clone().or_latest();
        if let [plan] = &mut plans[..] {
            plan.names = vec![name];
        } else {
            return Err(origin.no_image("it has several images, so that one name cannot mean them"));
        }
    }
    Ok(plans)
}

/// The entries of a layout's index, or those with the source's tag.
pub(crate) fn layout_entries(origin: &Origin, source: &Source) -> Result<Vec<Descriptor>> {
    let bytes = origin.document("index.json")?;
    let index: ManifestOrIndex = read_json(&bytes, "index.json")?;
    let Document::Index(mut entries) = index.document(Digest::of(&bytes))? else {
        return Err(origin.no_image("its index.json is not an index"));
    };
    if let Some(tag) = source.tag() {
        let mut available: Vec<String> =
            entries.iter().flat_map(|entry| names_of(entry).map(str::to_owned)).collect();
        // Both annotations may say the same.
        available.dedup();
        entries.retain(|entry| names_of(entry).any(|name| name == tag));
        if entries.is_empty() {
            let (source_name, tag) = (origin.name.clone(), tag.to_owned());
            return Err(Error::TagMissing { source_name, tag, available });
        }
    }
    Ok(entries)
}

fn oci_plans(origin: &Origin, source: &Source, options: &LoadOptions) -> Result<Vec<Plan>> {
    let mut entries = layout_entries(origin, source)?;
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let has_choice = entries.len() > 1;
    let fits = |entry: &Descriptor| entry.platform.as_ref().is_none_or(|platform| wanted.accepts(platform));
    if has_choice && entries.iter().any(&fits) {
        entries.retain(fits);
    }
    entries
        .iter()
        .map(|entry| {
            let mut documents = Vec::new();
            let manifest = choose(origin, entry, &wanted, &mut documents, 0)?;
            let names = full_name_of(entry, source).into_iter().collect();
            let mut plan = oci_plan(origin, &manifest, documents, options)?;
            plan.names = names;
            plan.target = Some(entry.clone());
            Ok(plan)
        })
        .collect()
}

/// The one image that a source means.
fn named_plans(origin: &Origin, source: &Source, options: &LoadOptions) -> Result<Vec<Plan>> {
    let Some(entry) = origin.named() else { return Ok(Vec::new()) };
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let mut documents = Vec::new();
    let manifest = choose(origin, entry, &wanted, &mut documents, 0)?;
    let mut plan = oci_plan(origin, &manifest, documents, options)?;
    if let Source::Registry(name) = source {
        plan.names = vec![name.clone()];
        plan.repository = Some(name.name().to_owned());
    }
    plan.target = Some(entry.clone());
    Ok(vec![plan])
}

/// What an index entry is called: the whole name where there is one, and the tag.
fn names_of(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [FULL_NAME, REF_NAME].into_iter().filter_map(|key| entry.annotations.get(key)).map(String::as_str)
}

/// What an entry of a source's index is called.
pub(crate) fn full_name_of(entry: &Descriptor, source: &Source) -> Option<Reference> {
    let base = source.base_name();
    names_of(entry).find_map(|name| full_name(name, base.as_deref()))
}

/// A whole name from an annotation: it is one where it has a slash or a colon; a tag alone takes the file's name.
fn full_name(name: &str, base: Option<&str>) -> Option<Reference> {
    let text = if name.contains(['/', ':']) { name.to_owned() } else { format!("{}:{name}", base?) };
    text.parse().ok().map(Reference::or_latest)
}

/// The manifest for the platform that is wanted, through indexes, which are kept as they are.
pub(crate) fn choose(
    origin: &Origin,
    entry: &Descriptor,
    wanted: &Platform,
    documents: &mut Vec<(Digest, Vec<u8>)>,
    depth: usize,
) -> Result<Descriptor> {
    let bytes = origin.document_blob(entry)?;
    let name = format!("manifest {}", entry.digest);
    let document = read_json::<ManifestOrIndex>(&bytes, &name)?.document(entry.digest)?;
    documents.push((entry.digest, bytes));
    let Document::Index(manifests) = document else { return Ok(entry.clone()) };
    if depth >= INDEX_DEPTH_MAX {
        return Err(Error::BadManifest { digest: entry.digest, reason: "it is nested too deeply" });
    }
    let alone = manifests.len() == 1;
    let fits = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => wanted.accepts(platform),
        None => alone,
    };
    match manifests.iter().find(fits) {
        Some(entry) => choose(origin, entry, wanted, documents, depth + 1),
        None => {
            let platforms = manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let available =
                platforms.filter(|platform| platform.os != "unknown").map(Platform::to_string).collect();
            Err(Error::PlatformNotInSource {
                source_name: origin.name.clone(),
                wanted: wanted.to_string(),
                available,
            })
        }
    }
}

fn oci_plan(
    origin: &Origin,
    manifest: &Descriptor,
    mut documents: Vec<(Digest, Vec<u8>)>,
    options: &LoadOptions,
) -> Result<Plan> {
    let bytes = &documents.iter().find(|(digest, _)| *digest == manifest.digest).map(|(_, bytes)| bytes);
    let bytes = bytes.map_or(&[][..], Vec::as_slice);
    let document = read_json::<ManifestOrIndex>(bytes, "the manifest")?.document(manifest.digest)?;
    let Document::Manifest { config, layers } = document else {
        return Err(Error::BadManifest { digest: manifest.digest, reason: "it is an index" });
    };
    let config_bytes = origin.document_blob(&config)?;
    let layers = layers
        .into_iter()
        .map(|descriptor| {
            if descriptor.media_type.contains("encrypted") || !descriptor.media_type.contains("tar") {
                let reason = "a layer is no tar archive: this is not an image of a root file system";
                return Err(Error::BadManifest { digest: manifest.digest, reason });
            }
            let bytes = origin.layer(&descriptor)?;
            Ok(PlannedLayer { descriptor: Some(descriptor), bytes })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut plan = plan(config.digest, config_bytes, layers.len(), options, &origin.name)?;
    plan.layers = layers;
    documents.append(&mut plan.documents);
    plan.documents = documents;
    plan.manifest = Some(manifest.clone());
    Ok(plan)
}

fn docker_plans(origin: &Origin, source: &Source, options: &LoadOptions) -> Result<Vec<Plan>> {
    let mut images: Vec<DockerManifest> = read_json(&origin.document("manifest.json")?, "manifest.json")?;
    if let Some(tag) = source.tag() {
        let wanted = tag.parse::<Reference>()?.or_latest();
        let available = images.iter().flat_map(|image| image.repo_tags.clone()).collect();
        for image in &mut images {
            image.repo_tags.retain(|name| name.parse::<Reference>().is_ok_and(|name| name == wanted));
        }
        images.retain(|image| !image.repo_tags.is_empty());
        if images.is_empty() {
            let (source_name, tag) = (origin.name.clone(), tag.to_owned());
            return Err(Error::TagMissing { source_name, tag, available });
        }
    }
    images
        .iter()
        .map(|image| {
            let config = origin.document(&image.config)?;
            let digest = Digest::of(&config);
            let layers = image
                .layers
                .iter()
                .map(|name| Ok(PlannedLayer { descriptor: None, bytes: Bytes::Local(origin.file(name)?) }))
                .collect::<Result<Vec<_>>>()?;
            let mut plan = plan(digest, config, layers.len(), options, &origin.name)?;
            plan.layers = layers;
            plan.names = image
                .repo_tags
                .iter()
                .map(|name| name.parse().map(Reference::or_latest))
                .collect::<Result<_>>()?;
            Ok(plan)
        })
        .collect()
}

/// Checks that a configuration and the layers belong together.
pub(crate) fn plan(
    id: Digest,
    config_bytes: Vec<u8>,
    layer_count: usize,
    options: &LoadOptions,
    name: &str,
) -> Result<Plan> {
    let config: ImageConfig = read_json(&config_bytes, &format!("configuration {id}"))?;
    let bad = |reason| Error::BadConfig { digest: id, reason };
    if config.rootfs.kind != "layers" {
        return Err(bad("its rootfs is not made of layers"));
    }
    if config.rootfs.diff_ids.len() != layer_count {
        return Err(bad("it has another number of layers than the manifest"));
    }
    if let Some(wanted) = &options.platform
        && !wanted.accepts(&config.platform())
    {
        let available = vec![config.platform().to_string()];
        return Err(Error::PlatformNotInSource {
            source_name: name.to_owned(),
            wanted: wanted.to_string(),
            available,
        });
    }
    Ok(Plan {
        names: Vec::new(),
        target: None,
        manifest: None,
        repository: None,
        below: None,
        config_size: config_bytes.len() as u64,
        documents: vec![(id, config_bytes)],
        id,
        config,
        layers: Vec::new(),
    })
}

fn read_json<T: serde::de::DeserializeOwned>(bytes: &[u8], document: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::BadJson { document: document.to_owned(), source })
}
