//! Ollama's store: manifests by name (`manifests/REGISTRY/NAMESPACE/MODEL/TAG`), and the files that they point at by
//! digest (`blobs/sha256-…`).

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::{Source, Walk};

/// Longest manifest, bytes; real ones have about a thousand.
const MAX_MANIFEST: u64 = 64 * 1024;
const MODEL: &str = "application/vnd.ollama.image.model";
/// What changes or completes a model: a server that does not load it too would be another model.
const BESIDE: [&str; 2] = ["application/vnd.ollama.image.adapter", "application/vnd.ollama.image.tensor"];

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    kind: String,
    digest: String,
}

/// Adds the models of the store at `root`.
pub(super) fn list(root: &Path, walk: &mut Walk) {
    let manifests = root.join("manifests");
    into(&manifests, &mut Vec::new(), root, walk);
}

/// What Ollama calls the file at `blob`, if it is one of a store.
pub(super) fn name(blob: &Path) -> Option<String> {
    let is_blob = blob.file_name()?.to_str()?.starts_with("sha256-");
    let root = blob.parent().filter(|it| is_blob && it.ends_with("blobs"))?.parent()?;
    let mut walk = Walk::new();
    list(root, &mut walk);
    walk.found.into_iter().find(|it| it.real == blob).map(|it| it.name)
}

/// Registry, namespace, model, tag: four deep, no more.
fn into(folder: &Path, names: &mut Vec<String>, root: &Path, walk: &mut Walk) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if walk.is_over() {
            return;
        }
        walk.entries += 1;
        names.push(entry.file_name().to_string_lossy().into_owned());
        match names.as_slice() {
            [_, _, model, tag] => {
                if let Some(blob) = blob(&entry.path()) {
                    walk.add(root.join("blobs").join(blob), Source::Ollama, format!("{model}:{tag}"));
                }
            }
            _ if entry.file_type().is_ok_and(|it| it.is_dir()) => into(&entry.path(), names, root, walk),
            _ => {}
        }
        names.pop();
    }
}

/// The file of the only model that a manifest points at.
fn blob(manifest: &Path) -> Option<String> {
    std::fs::symlink_metadata(manifest).ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    std::fs::File::open(manifest).ok()?.take(MAX_MANIFEST).read_to_string(&mut text).ok()?;
    let Manifest { layers } = serde_json::from_str(&text).ok()?;
    if layers.iter().any(|it| BESIDE.contains(&it.kind.as_str())) {
        return None;
    }
    let mut models = layers.iter().filter(|it| it.kind == MODEL);
    let hex = models.next()?.digest.strip_prefix("sha256:")?;
    let is_hex = hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_hexdigit());
    (is_hex && models.next().is_none()).then(|| format!("sha256-{hex}"))
}
