//! A program as an image (OCI image format specification 1.1, image layout).

use anyhow::Result;
use dualgate_core::model::Digest;
use serde_json::{Value, json};

use super::archive::Archive;

/// Where the program is in the image.
const PROGRAM: &str = "usr/bin/dualgate";
/// Nobody. The DaemonSet names another user for what a node needs.
const USER: &str = "65532:65532";

/// What the image says of itself.
pub struct Labels<'a> {
    /// What it is called: `localhost/dualgate:0.1.0`.
    pub name: &'a str,
    /// The program's version.
    pub version: &'a str,
    /// What it runs on: `amd64`.
    pub architecture: &'a str,
}

/// An image.
pub struct Image {
    /// The layout, as a tar archive.
    pub archive: Vec<u8>,
    /// The digest of its manifest, by which a registry knows it.
    pub digest: String,
}

/// Puts a program into an image.
pub fn image(program: &[u8], labels: &Labels<'_>) -> Result<Image> {
    let mut files = Archive::default();
    files.file(PROGRAM, 0o755, program);
    let layer = files.to_bytes()?;
    let config = json!({
        "architecture": labels.architecture,
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": [format!("/{PROGRAM}")],
            "Cmd": ["--help"],
            "StopSignal": "SIGTERM",
        },
        // Not compressed, so this is the layer's own digest.
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created_by": "cargo xtask image"}],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        "annotations": {
            "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
            "org.opencontainers.image.title": "dualgate",
            "org.opencontainers.image.version": labels.version,
        },
    });
    let manifest = manifest.to_string().into_bytes();
    let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    named["platform"] = json!({"architecture": labels.architecture, "os": "linux"});
    // The one for containerd, which K3s runs; the other for everybody else.
    named["annotations"] = json!({
        "io.containerd.image.name": labels.name,
        "org.opencontainers.image.ref.name": labels.name,
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named],
    });
    let index = index.to_string().into_bytes();
    let mut layout = Archive::default();
    for blob in [&layer, &config, &manifest] {
        layout.file(&format!("blobs/sha256/{}", Digest::of(blob)), 0o644, blob);
    }
    layout.file("index.json", 0o644, &index);
    layout.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    Ok(Image { archive: layout.to_bytes()?, digest: digest(&manifest) })
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", Digest::of(blob))
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::image::archive::entries;

    const PROGRAM: &[u8] = b"\x7fELF";

    fn made() -> Image {
        let labels = Labels { name: "localhost/dualgate:1.2.3", version: "1.2.3", architecture: "amd64" };
        image(PROGRAM, &labels).unwrap()
    }

    /// Reads what a descriptor names, and looks whether it is that.
    fn read<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let blob = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(
            (Digest::of(blob).to_string(), descriptor["size"].as_u64().unwrap()),
            (digest.to_owned(), blob.len() as u64)
        );
        blob
    }

    #[test]
    fn an_image_leads_from_its_index_to_its_program() {
        let image = made();
        let files: BTreeMap<_, _> =
            entries(&image.archive).into_iter().map(|(path, _, content)| (path, content)).collect();
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
        let json = |octets: &[u8]| serde_json::from_slice::<Value>(octets).unwrap();
        let index = json(&files["index.json"]);
        let named = &index["manifests"][0];
        assert_eq!((&named["digest"], index["manifests"].as_array().unwrap().len()), (&json!(image.digest), 1));
        assert_eq!(named["annotations"]["io.containerd.image.name"], "localhost/dualgate:1.2.3");
        let manifest = json(read(&files, named));
        let config = json(read(&files, &manifest["config"]));
        let layer = read(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([manifest["layers"][0]["digest"]]));
        assert_eq!((&config["architecture"], &config["config"]["User"]), (&json!("amd64"), &json!(USER)));
        let folder = |path: &str| (path.to_owned(), 0o755, vec![]);
        let program = ("usr/bin/dualgate".to_owned(), 0o755, PROGRAM.to_vec());
        assert_eq!(entries(layer), [folder("usr/"), folder("usr/bin/"), program]);
        assert_eq!(files.keys().filter(|path| path.starts_with("blobs/sha256/") && path.len() > 20).count(), 3);
    }

    #[test]
    fn the_same_program_makes_the_same_image() {
        assert_eq!(made().archive, made().archive);
        let labels = Labels { name: "a:1", version: "1", architecture: "amd64" };
        assert_ne!(image(b"a", &labels).unwrap().digest, image(b"b", &labels).unwrap().digest);
    }
}
