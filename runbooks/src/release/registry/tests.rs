//! Against a registry in memory that speaks the distribution API and can be told to fail.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response as Answer};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::release::File;

#[derive(Default)]
struct Stored {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, Bytes>,
    parts: Vec<Bytes>,
    calls: Vec<String>,
    /// Calls that are answered with 503, by their number.
    failing: Vec<usize>,
    /// The registry keeps other bytes than it was given.
    lies: bool,
}

struct Fake {
    stored: Arc<Mutex<Stored>>,
    url: String,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    async fn start() -> Self {
        let stored = Arc::new(Mutex::new(Stored::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&stored);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stored = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&stored), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { stored, url, server }
    }

    fn registry<'a>(&self, timings: &'a Timings) -> Registry<'a> {
        Registry {
            http: Client::new(),
            base: Url::parse(&format!("{}/v2/bme-test/", self.url)).unwrap(),
            repository: "bme-test".into(),
            authorization: HeaderValue::from_static("Basic token"),
            timings,
        }
    }

    fn calls(&self) -> Vec<String> {
        self.stored.lock().unwrap().calls.clone()
    }
}

async fn answer(
    stored: Arc<Mutex<Stored>>,
    request: Request<Incoming>,
) -> Result<Answer<Full<Bytes>>, Infallible> {
    assert_eq!(request.headers()["authorization"], "Basic token");
    let (method, uri) = (request.method().to_string(), request.uri().clone());
    let path = uri.path().strip_prefix("/v2/bme-test/").unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut stored = stored.lock().unwrap();
    stored.calls.push(format!("{method} {}", path.split('/').next().unwrap()));
    let number = stored.calls.len();
    let plain =
        |status: u16, body: Bytes| Answer::builder().status(status).body(Full::new(body)).unwrap();
    let at = |status: u16, location: String| {
        Answer::builder().status(status).header("location", location).body(Full::default()).unwrap()
    };
    if stored.failing.contains(&number) {
        return Ok(plain(503, Bytes::new()));
    }
    let last = path.rsplit('/').next().unwrap().to_owned();
    Ok(match (method.as_str(), path.split('/').next().unwrap()) {
        ("HEAD", "blobs") if stored.blobs.contains_key(&last) => plain(200, Bytes::new()),
        ("HEAD", "blobs") => plain(404, Bytes::new()),
        ("POST", "blobs") => {
            stored.parts.push(Bytes::new());
            at(202, format!("/v2/bme-test/blobs/uploads/{}?state=x", stored.parts.len() - 1))
        }
        ("PATCH", "blobs") => {
            stored.parts[last.parse::<usize>().unwrap()] = body;
            at(202, uri.to_string())
        }
        ("PUT", "blobs") => {
            let wanted =
                uri.query().unwrap().strip_prefix("state=x&digest=").unwrap().replace("%3A", ":");
            let part = stored.parts[last.parse::<usize>().unwrap()].clone();
            assert_eq!(digest(&part), wanted);
            stored.blobs.insert(wanted, part);
            plain(201, Bytes::new())
        }
        ("PUT", "manifests") => {
            let kept = if stored.lies { Bytes::from_static(b"other") } else { body };
            stored.manifests.insert(digest(&kept), kept.clone());
            stored.manifests.insert(last, kept);
            plain(201, Bytes::new())
        }
        ("GET", "manifests") => match stored.manifests.get(&last) {
            Some(manifest) => plain(200, manifest.clone()),
            None => plain(404, Bytes::from_static(br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#)),
        },
        other => panic!("{other:?}"),
    })
}

fn timings() -> Timings {
    let short = Duration::from_millis(1);
    Timings {
        concurrency: 4,
        poll: short,
        first_look: 0.0,
        backoff: short,
        retry: Duration::from_millis(200),
        patience: 2,
        deletion: Duration::from_secs(5),
        lease: short,
        beat: short,
        lag: short,
        rollout: short,
    }
}

fn image(binary: &'static str) -> Image {
    Image::new(Bytes::from_static(binary.as_bytes()), &[File::new("index.html", "page")]).unwrap()
}

#[tokio::test]
async fn what_is_there_is_not_pushed_again() {
    let (fake, timings) = (Fake::start().await, timings());
    let registry = fake.registry(&timings);
    registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
    let existed = Mutex::new(Vec::new());
    let tell = |progress| {
        if let Progress::Pushed { existed: one, .. } = progress {
            existed.lock().unwrap().push(one);
        }
    };
    registry.push(&image("two"), "v2", &tell).await.unwrap();
    // Base and web are the same; binary and configuration are new.
    assert_eq!(*existed.lock().unwrap(), [true, true, false, false]);
    assert_eq!(registry.digest("v2").await.unwrap(), Some(image("two").manifest.digest));
}

#[tokio::test]
async fn the_same_image_under_its_tag_is_one_call() {
    let (fake, timings) = (Fake::start().await, timings());
    let registry = fake.registry(&timings);
    registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
    let before = fake.calls().len();
    registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
    assert_eq!(fake.calls()[before..], ["GET manifests"]);
}

#[tokio::test]
async fn a_tag_is_never_moved() {
    let (fake, timings) = (Fake::start().await, timings());
    let registry = fake.registry(&timings);
    registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
    let before = fake.calls().len();
    let error = registry.push(&image("two"), "v1", &|_| ()).await.unwrap_err();
    assert!(matches!(error, Error::TagTaken { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--image sha256:"));
    assert_eq!(fake.calls()[before..], ["GET manifests"]);
}

#[tokio::test]
async fn each_call_may_fail_once() {
    let timings = timings();
    let calls = {
        let fake = Fake::start().await;
        fake.registry(&timings).push(&image("one"), "v1", &|_| ()).await.unwrap();
        fake.calls().len()
    };
    for failing in 1..=calls {
        let fake = Fake::start().await;
        fake.stored.lock().unwrap().failing.push(failing);
        let registry = fake.registry(&timings);
        registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
        assert_eq!(registry.digest("v1").await.unwrap(), Some(image("one").manifest.digest));
    }
}

#[tokio::test]
async fn a_registry_that_stays_down_is_given_up() {
    let (fake, timings) = (Fake::start().await, timings());
    fake.stored.lock().unwrap().failing = (1..1000).collect();
    let error = fake.registry(&timings).push(&image("one"), "v1", &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("http-503"), "{error}");
}

#[tokio::test]
async fn what_the_registry_keeps_is_checked() {
    let (fake, timings) = (Fake::start().await, timings());
    fake.stored.lock().unwrap().lies = true;
    let error = fake.registry(&timings).push(&image("one"), "v1", &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("digest-mismatch"), "{error}");
}

#[tokio::test]
async fn an_image_gets_a_further_tag_only_if_it_is_there() {
    let (fake, timings) = (Fake::start().await, timings());
    let registry = fake.registry(&timings);
    registry.push(&image("one"), "v1", &|_| ()).await.unwrap();
    let one = image("one").manifest.digest;
    registry.tag(&one, "v1-again").await.unwrap();
    assert_eq!(registry.digest("v1-again").await.unwrap(), Some(one));
    let error = registry.tag(&image("two").manifest.digest, "v2").await.unwrap_err();
    assert!(matches!(error, Error::ImageGone { .. }), "{error}");
}
