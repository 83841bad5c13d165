//! An OCI image without a daemon: the same files give the same digest on every machine.
//!
//! Layers, most stable first, so that a push uploads only what changed: base files, web, binary.
//! There is no shell and no package in it. Formats: OCI Image Specification 1.1.

use std::{collections::BTreeSet, fmt::Write as _, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// zstd, a quarter smaller than gzip and faster to unpack, hence a task that starts sooner (AWS's
/// containers blog, "Reducing AWS Fargate Startup Times with zstd Compressed Container Images").
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Of zstd's 22: seven more levels save a tenth of the size and take ten times as long.
const LEVEL: i32 = 12;

/// An unprivileged user; the number that distroless images use.
const USER: u32 = 65532;
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";
/// Certificate authorities of RDS instances, which are not among the public ones.
const RDS_ROOTS: &str = "etc/ssl/certs/rds-ca.pem";

/// A file of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path without a leading slash.
    pub path: String,
    /// What it holds.
    pub content: Bytes,
}

impl File {
    /// The file `path`.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

/// A blob of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its media type.
    pub media_type: &'static str,
    /// `sha256:…`.
    pub digest: String,
    /// What it holds.
    pub content: Bytes,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The layers, lowest first, and the configuration.
    pub blobs: Vec<Blob>,
    /// The manifest, whose digest is the image's.
    pub manifest: Blob,
}

impl Image {
    /// The image of the service: `binary` as `/bme-service`, `web` under `/web`.
    ///
    /// # Errors
    /// A path is too long for a tar archive.
    pub fn new(binary: Bytes, web: &[File]) -> io::Result<Self> {
        let web =
            web.iter().map(|file| (format!("web/{}", file.path), 0o644, file.content.clone()));
        let layers = [
            Layer::new(base())?,
            Layer::new(web.collect())?,
            Layer::new(vec![("bme-service".into(), 0o755, binary)])?,
        ];
        let config = Blob::new(CONFIG, config(&layers).to_string());
        let mut blobs: Vec<Blob> = layers.into_iter().map(|layer| layer.blob).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": blobs.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        blobs.push(config);
        Ok(Self { blobs, manifest: Blob::new(MANIFEST, manifest.to_string()) })
    }

    /// Size of all blobs and the manifest, bytes.
    pub fn size(&self) -> usize {
        self.blobs.iter().chain([&self.manifest]).map(|blob| blob.content.len()).sum()
    }
}

impl Blob {
    fn new(media_type: &'static str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self { media_type, digest: digest(&content), content }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.content.len()})
    }
}

/// `sha256:…` of `content`.
pub(super) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn config(layers: &[Layer]) -> Value {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": {"8080/tcp": {}},
            "Env": [
                "PATH=/",
                format!("SSL_CERT_FILE=/{ROOTS}"),
                // A task definition that sets it wins, as the sandbox's does with its own CA.
                format!("DATABASE_SSL_CA=/{RDS_ROOTS}"),
            ],
            "Entrypoint": ["/bme-service"],
            "Cmd": ["api"],
            "WorkingDir": "/",
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
        },
    })
}

/// Certificate authorities come from pinned crates and files, never from this machine.
fn base() -> Vec<(String, u32, Bytes)> {
    let nologin =
        format!("root:x:0:0:root:/:/sbin/nologin\nbme:x:{USER}:{USER}:bme:/:/sbin/nologin\n");
    vec![
        ("etc/group".into(), 0o644, format!("root:x:0:\nbme:x:{USER}:\n").into()),
        // Names in /etc/hosts win over DNS, whatever the C library's default.
        ("etc/nsswitch.conf".into(), 0o644, Bytes::from_static(b"hosts: files dns\n")),
        ("etc/passwd".into(), 0o644, nologin.into()),
        (ROOTS.into(), 0o644, public_roots().into()),
        (RDS_ROOTS.into(), 0o644, Bytes::from_static(include_bytes!("image/rds-ca.pem"))),
        // A name that ends in a slash is a directory.
        ("tmp/".into(), 0o1777, Bytes::new()),
    ]
}

/// Mozilla's roots as PEM.
fn public_roots() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for (at, character) in STANDARD.encode(certificate).chars().enumerate() {
            // RFC 7468: lines of 64 characters.
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        // Writing to a string can't fail.
        let _ = writeln!(pem, "\n-----END CERTIFICATE-----");
    }
    pem
}

struct Layer {
    blob: Blob,
    /// Digest of the archive before compression.
    diff_id: String,
}

impl Layer {
    fn new(mut entries: Vec<(String, u32, Bytes)>) -> io::Result<Self> {
        let parents: BTreeSet<String> = entries
            .iter()
            .flat_map(|(path, ..)| {
                path.trim_end_matches('/').match_indices('/').map(|(at, _)| path[..=at].to_owned())
            })
            .collect();
        entries.extend(parents.into_iter().map(|path| (path, 0o755, Bytes::new())));
        entries.sort_by(|(one, ..), (two, ..)| one.cmp(two));
        let mut archive = tar::Builder::new(Vec::new());
        for (path, mode, content) in entries {
            let mut header = Header::new_gnu();
            let kind = if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, &*content)?;
        }
        let archive = archive.into_inner()?;
        let compressed = zstd::encode_all(&*archive, LEVEL)?;
        Ok(Self { blob: Blob::new(LAYER, compressed), diff_id: digest(&archive) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use zstd::Decoder;

    use super::*;

    fn image() -> Image {
        let web = [File::new("assets/app.js", "js"), File::new("index.html", "html")];
        Image::new(Bytes::from_static(b"binary"), &web).unwrap()
    }

    fn config(image: &Image) -> Value {
        serde_json::from_slice(&image.blobs.last().unwrap().content).unwrap()
    }

    #[test]
    fn built_twice_the_digest_is_the_same() {
        assert_eq!(image(), image());
    }

    /// The digest of fixed files, so that a dependency that changes the bytes is noticed here and
    /// not as an upload of everything.
    #[test]
    fn the_web_layer_has_the_digest_it_always_had() {
        assert_eq!(
            image().blobs[1].digest,
            "sha256:41f37180c0a8b8eff689c612312d03e6510c516e0635b75cfc7277908e68eff6"
        );
    }

    #[test]
    fn another_binary_changes_only_its_layer() {
        let web = [File::new("assets/app.js", "js"), File::new("index.html", "html")];
        let other = Image::new(Bytes::from_static(b"other"), &web).unwrap();
        let image = image();
        assert_eq!(image.blobs[..2], other.blobs[..2]);
        assert_ne!(image.blobs[2], other.blobs[2]);
        assert_ne!(image.manifest, other.manifest);
    }

    #[test]
    fn it_holds_exactly_the_expected_files() {
        let mut files = Vec::new();
        for layer in &image().blobs[..3] {
            let mut archive = tar::Archive::new(Decoder::new(&*layer.content).unwrap());
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
                    (0, 0, 0)
                );
                let mode = header.mode().unwrap();
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                files.push(format!("{mode:o} {path}"));
            }
        }
        assert_eq!(
            files,
            [
                "755 etc/",
                "644 etc/group",
                "644 etc/nsswitch.conf",
                "644 etc/passwd",
                "755 etc/ssl/",
                "755 etc/ssl/certs/",
                "644 etc/ssl/certs/ca-certificates.crt",
                "644 etc/ssl/certs/rds-ca.pem",
                "1777 tmp/",
                "755 web/",
                "755 web/assets/",
                "644 web/assets/app.js",
                "644 web/index.html",
                "755 bme-service",
            ]
        );
    }

    #[test]
    fn it_runs_the_service_as_nobody() {
        let config = config(&image());
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"], json!(["/bme-service"]));
        assert_eq!(config["config"]["Cmd"], json!(["api"]));
    }

    #[test]
    fn the_configuration_names_the_layers_before_compression() {
        let image = image();
        let config = config(&image);
        for (layer, diff_id) in
            image.blobs.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
        {
            assert_eq!(*diff_id, digest(&zstd::decode_all(&*layer.content).unwrap()));
        }
    }

    #[test]
    fn the_roots_are_certificates_in_pem() {
        let pem = public_roots();
        let count = pem.matches("-----BEGIN CERTIFICATE-----").count();
        assert!(count > 100, "{count}");
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert!(include_str!("image/rds-ca.pem").matches("BEGIN CERTIFICATE").count() > 50);
    }
}
