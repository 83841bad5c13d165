use super::*;
use crate::{aws, engine::Timings, state::State};
use std::time::Duration;
#[tokio::test]
async fn ministack() {
    let url = format!("http://127.0.0.1:{}", std::env::var("E_PORT").unwrap());
    let creds = aws_sdk_sts::config::Credentials::new("000000000000", "x", None, None, "x");
    let config = aws::config(
        "us-east-1",
        Some(&url),
        Some(aws_sdk_sts::config::SharedCredentialsProvider::new(creds)),
    )
    .await;
    let aws = aws::Aws::connect(&config, &["000000000000".into()])
        .await
        .unwrap();
    let s = Duration::from_millis(200);
    let timings = Timings {
        concurrency: 4,
        poll: s,
        first_look: 0.0,
        backoff: s,
        retry: s * 10,
        patience: 2,
        lease: s,
        beat: s,
        lag: s,
        rollout: s * 50,
    };
    let created = aws
        .ecr
        .client
        .create_repository()
        .repository_name("bme-e")
        .image_tag_mutability(aws_sdk_ecr::types::ImageTagMutability::Immutable)
        .send()
        .await
        .unwrap();
    let uri = created
        .repository()
        .unwrap()
        .repository_uri()
        .unwrap()
        .to_owned();
    println!("{uri}");
    let registry = Registry::connect(&aws, &uri, Some(&url), &timings)
        .await
        .unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap();
    let web = build::web(root).unwrap();
    println!("schema {}", build::schema(root).unwrap());
    let image = Image::new(bytes::Bytes::from(vec![7; 9_000_000]), &web).unwrap();
    println!("size {} digest {}", image.size(), image.manifest.digest);
    for blob in &image.blobs {
        println!("{} {} {}", blob.media_type, blob.content.len(), blob.digest);
    }
    registry
        .push(&image, "v1", &|p| println!("{p:?}"))
        .await
        .unwrap();
    registry
        .push(&image, "v1", &|p| println!("again {p:?}"))
        .await
        .unwrap();
    let other = Image::new(bytes::Bytes::from_static(b"x"), &web).unwrap();
    let error = registry.push(&other, "v1", &|_| ()).await.unwrap_err();
    println!("{error} / {:?}", error.hint());
    registry.tag(&image.manifest.digest, "v1b").await.unwrap();
    println!("{:?}", registry.digest("v1b").await.unwrap());
    println!(
        "{:?}",
        registry
            .tag(
                "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "v9"
            )
            .await
    );
    let gone = Registry::connect(&aws, &uri.replace("bme-e", "none"), Some(&url), &timings)
        .await
        .unwrap();
    println!("{:?}", gone.digest("v1").await);
    // web
    aws.s3
        .client
        .create_bucket()
        .bucket("web")
        .send()
        .await
        .unwrap();
    println!(
        "uploaded {}",
        super::web::upload(&aws, &timings, "web", "releases/v1/", &web)
            .await
            .unwrap()
    );
    println!(
        "uploaded again {}",
        super::web::upload(&aws, &timings, "web", "releases/v1/", &web)
            .await
            .unwrap()
    );
    super::web::publish(&aws, &timings, "web", "releases/v1/")
        .await
        .unwrap();
    let head = aws
        .s3
        .client
        .head_object()
        .bucket("web")
        .key("index.html")
        .send()
        .await
        .unwrap();
    println!(
        "{:?} {:?} {:?}",
        head.content_type(),
        head.cache_control(),
        head.content_length()
    );
    // records
    let state = State::new(&aws, "local");
    println!(
        "{:?} {:?}",
        records::current(&state).await,
        records::list(&state).await
    );
    state.ensure().await.unwrap();
    for (n, tag) in ["v1", "v2", "v1"].iter().enumerate() {
        let release = Release {
            tag: (*tag).into(),
            digest: "d".into(),
            image: "i".into(),
            deployed_at: format!("2026-11-23T20:00:0{n}.000Z"),
            configuration: Default::default(),
            secret_versions: Default::default(),
            web: String::new(),
            schema: 3,
        };
        records::write(&state, &release).await.unwrap();
    }
    let listed = records::list(&state).await.unwrap();
    println!(
        "{:?}",
        listed
            .iter()
            .map(|r| (&r.tag, &r.deployed_at))
            .collect::<Vec<_>>()
    );
    println!(
        "{:?} {:?}",
        records::current(&state).await.unwrap().unwrap().tag,
        records::get(&state, "nope").await
    );
}
