//! Web assets in the bucket: immutable under the release, and one `index.html` that is swapped last.
//!
//! The front end refers to its own files relative to its root (`./assets/…`); in the copy of
//! `index.html` these become absolute, so that one page always loads the files of one release.

use std::collections::HashMap;

use aws_sdk_s3::{operation::list_objects_v2::ListObjectsV2Output, types::MetadataDirective};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Error, File};
use crate::{
    aws::{Aws, failed},
    engine::{self, Timings},
};

/// Uploads in flight at once.
const UPLOADS: usize = 8;
/// A year, the longest that RFC 9111 caches take.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const INDEX: &str = "index.html";

/// Uploads what is missing of `files` under `prefix`; how many were uploaded.
///
/// # Errors
/// A call failed. Nothing that is served has changed.
pub(super) async fn upload(
    aws: &Aws,
    timings: &Timings,
    bucket: &str,
    prefix: &str,
    files: &[File],
) -> Result<usize, Error> {
    let present = timings.repeat(|| list(aws, bucket, prefix)).await?;
    let missing: Vec<(String, Bytes)> = files
        .iter()
        .map(|file| {
            let index = file.path == INDEX;
            let content =
                if index { absolute(&file.content, prefix) } else { file.content.clone() };
            (format!("{prefix}{}", file.path), content)
        })
        // A release's files never change, so one of the same name and size is the same file.
        .filter(|(key, content)| present.get(key) != i64::try_from(content.len()).ok().as_ref())
        .collect();
    stream::iter(&missing)
        .map(|(key, content)| timings.repeat(move || put(aws, bucket, key, content.clone())))
        .buffer_unordered(UPLOADS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(missing.len())
}

/// Makes the release under `prefix` the one that is served.
///
/// # Errors
/// A call failed; the release before is still served.
pub(super) async fn publish(
    aws: &Aws,
    timings: &Timings,
    bucket: &str,
    prefix: &str,
) -> Result<(), Error> {
    timings
        .repeat(|| async {
            aws.s3
                .client
                .copy_object()
                .bucket(bucket)
                .key(INDEX)
                .copy_source(format!("{bucket}/{prefix}{INDEX}"))
                .metadata_directive(MetadataDirective::Replace)
                .content_type("text/html; charset=utf-8")
                // Caches must ask each time, so that the swap needs no invalidation.
                .cache_control("no-cache")
                .send()
                .await
                .map_err(failed("s3:CopyObject"))
        })
        .await?;
    Ok(())
}

/// Keys under `prefix` with their sizes, bytes.
async fn list(
    aws: &Aws,
    bucket: &str,
    prefix: &str,
) -> Result<HashMap<String, i64>, engine::Error> {
    let pages =
        aws.s3.client.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
    let pages = pages.collect::<Result<Vec<_>, _>>().await.map_err(failed("s3:ListObjectsV2"))?;
    let objects = pages.iter().flat_map(ListObjectsV2Output::contents);
    Ok(objects.filter_map(|object| Some((object.key()?.to_owned(), object.size()?))).collect())
}

async fn put(aws: &Aws, bucket: &str, key: &str, content: Bytes) -> Result<(), engine::Error> {
    aws.s3
        .client
        .put_object()
        .bucket(bucket)
        .key(key)
        .content_type(media_type(key))
        .cache_control(FOR_EVER)
        .body(content.into())
        .send()
        .await
        .map_err(failed("s3:PutObject"))?;
    Ok(())
}

fn media_type(key: &str) -> String {
    let kind = mime_guess::from_path(key).first_or_octet_stream();
    if kind.type_() == mime_guess::mime::TEXT {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    }
}

fn absolute(page: &Bytes, prefix: &str) -> Bytes {
    match std::str::from_utf8(page) {
        Ok(text) => text.replace("=\"./", &format!("=\"/{prefix}")).into(),
        Err(_) => page.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_release_loads_the_files_of_that_release() {
        let page = Bytes::from_static(br#"<script src="./assets/a.js"></script><a href="/ready">"#);
        assert_eq!(
            absolute(&page, "releases/v1/"),
            r#"<script src="/releases/v1/assets/a.js"></script><a href="/ready">"#
        );
    }

    #[test]
    fn files_get_the_type_that_browsers_want() {
        for (key, kind) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.svg", "image/svg+xml"),
            ("a.woff2", "font/woff2"),
            ("a.wasm", "application/wasm"),
            ("noextension", "application/octet-stream"),
        ] {
            assert_eq!(media_type(key), kind);
        }
    }
}
