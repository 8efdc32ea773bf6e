//! Images that are made for one measurement: OCI layouts, as directories.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::Result;
use crate::fixtures::bench_archive::{digest, end, header, take_blob};
use crate::process::{capture, command, quiet, script};
use crate::workspace::parse;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Begins a layout.
fn begin(layout: &Path) -> Result<()> {
    fs_err::create_dir_all(layout.join("blobs/sha256"))?;
    Ok(fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

/// Puts a document among the blobs; what describes it.
fn document(layout: &Path, media_type: &str, document: &Value) -> Result<Value> {
    let file = layout.join("blob");
    fs_err::write(&file, document.to_string())?;
    let (digest, size) = take_blob(layout, &file)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size}))
}

/// Puts an image's configuration and manifest there; its entry in an index.
fn image(layout: &Path, name: &str, layers: &[Value], diff_ids: &[Value]) -> Result<Value> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Labels": {"name": name}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = document(layout, CONFIG, &config)?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut entry = document(layout, MANIFEST, &manifest)?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    Ok(entry)
}

fn end_index(layout: &Path, manifests: &[Value]) -> Result<()> {
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    Ok(fs_err::write(layout.join("index.json"), index.to_string())?)
}

/// A layer with one small file; what describes it, and its plain digest.
fn small_layer(layout: &Path) -> Result<(Value, Value)> {
    let tar = layout.join("layer.tar");
    let mut file = fs_err::File::create(&tar)?;
    file.write_all(&header("opt/other", b'0', 0))?;
    file.write_all(&end())?;
    let diff_id = json!(format!("sha256:{}", digest(&tar)?));
    quiet(&mut script("gzip --no-name \"$1\"", [&tar]))?;
    let (digest, size) = take_blob(layout, &layout.join("layer.tar.gz"))?;
    let media_type = format!("{LAYER}+gzip");
    Ok((json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size}), diff_id))
}

/// Adds to the layout at `layout`, which has one image, another one of the name `name`: with its layers but the topmost, and one small layer
/// of its own.
pub(super) fn add_sibling(layout: &Path, name: &str) -> Result<()> {
    let index = parse("index.json", &fs_err::read_to_string(layout.join("index.json"))?)?;
    let read = |descriptor: &Value| -> Result<Value> {
        let hex = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let path = layout.join("blobs/sha256").join(hex.unwrap_or_default());
        parse("a blob", &fs_err::read_to_string(path)?)
    };
    let manifest = read(&index["manifests"][0])?;
    let config = read(&manifest["config"])?;
    let but_last = |list: &Value| match list.as_array().map(Vec::as_slice) {
        Some([most @ .., _]) => most.to_vec(),
        _ => Vec::new(),
    };
    let (mut layers, mut diff_ids) = (but_last(&manifest["layers"]), but_last(&config["rootfs"]["diff_ids"]));
    let (layer, diff_id) = small_layer(layout)?;
    layers.push(layer);
    diff_ids.push(diff_id);
    let entry = image(layout, name, &layers, &diff_ids)?;
    end_index(layout, &[index["manifests"][0].clone(), entry])
}

/// Makes a layout of `count` images that have one small layer in common.
pub(super) fn make_many(layout: &Path, count: usize) -> Result<()> {
    begin(layout)?;
    let (layer, diff_id) = small_layer(layout)?;
    let entries: Vec<Value> = (0..count)
        .map(|number| {
            let name = format!("example.test/many/image-{number}:latest");
            image(layout, &name, std::slice::from_ref(&layer), std::slice::from_ref(&diff_id))
        })
        .collect::<Result<_>>()?;
    end_index(layout, &entries)
}

/// Makes a layout of one image whose only layer is what `write` writes, a tar archive, compressed by zstd.
pub(super) fn make_one(
    layout: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<()>,
) -> Result<()> {
    begin(layout)?;
    let (compressed, sum) = (layout.join("layer.tar.zst"), layout.join("sum"));
    // The plain archive is not kept: it may be larger than the memory.
    let line =
        "tee >(sha256sum > \"$2\") | zstd -q -1 -T2 -o \"$1\"; while [ ! -s \"$2\" ]; do sleep 0.02; done";
    let mut pipe = command("bash", ["-c", line, "script"]);
    pipe.arg(&compressed).arg(&sum).stdin(std::process::Stdio::piped());
    let spawn_error = |source| crate::error::Error::Spawn { program: "bash".into(), source };
    let mut child = pipe.spawn().map_err(spawn_error)?;
    if let Some(stdin) = child.stdin.take() {
        let mut stdin = std::io::BufWriter::with_capacity(1 << 20, stdin);
        write(&mut stdin)?;
        stdin.flush()?;
    }
    child.wait()?;
    let text = fs_err::read_to_string(&sum)?;
    fs_err::remove_file(&sum)?;
    let diff_id = json!(format!("sha256:{}", text.split(' ').next().unwrap_or_default()));
    let (digest, size) = take_blob(layout, &compressed)?;
    let layer =
        json!({"mediaType": format!("{LAYER}+zstd"), "digest": format!("sha256:{digest}"), "size": size});
    let entry = image(layout, "example.test/one:latest", &[layer], &[diff_id])?;
    end_index(layout, &[entry])
}

/// The URL of each layer of an image in a registry on this machine.
pub(super) fn layer_urls(host: &str, repository: &str, tag: &str) -> Result<Vec<String>> {
    let name = format!("docker://{host}/{repository}:{tag}");
    let text = capture(&mut command("skopeo", ["inspect", "--tls-verify=false", "--raw", &name]))?;
    let manifest = parse("skopeo", &text)?;
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let digests = layers.filter_map(|layer| layer["digest"].as_str());
    Ok(digests.map(|digest| format!("http://{host}/v2/{repository}/blobs/{digest}")).collect())
}
