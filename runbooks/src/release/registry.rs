//! Push to ECR over the OCI distribution API: only what is missing, then the manifest under its tag.
//!
//! OCI Distribution Specification 1.1; the chunk-then-commit upload is the one that Docker uses and
//! that ECR documents as supported.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION},
};

use super::{
    Blob, Error, Image, Progress, Tell,
    image::{MANIFEST, digest},
};
use crate::{
    aws::{Aws, NO_ANSWER, failed},
    engine::{self, Class, Fault, Timings},
};

pub(super) const NO_REPOSITORY: Fault = Fault {
    code: "NAME_UNKNOWN",
    cause: "the registry has no repository of this name yet",
    mend: "run `bme provision --step compute`",
};

/// Whose answers are read; ECR converts nothing, so others are told as they are.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository of a registry.
pub struct Registry<'a> {
    http: Client,
    /// Ends in `/v2/{repository}/`.
    base: Url,
    repository: String,
    authorization: HeaderValue,
    timings: &'a Timings,
}

impl<'a> Registry<'a> {
    /// The repository `uri` (`{host}/{name}`), with a token of ECR. With an `endpoint_url`, as for
    /// every other service, the registry is asked there.
    ///
    /// # Errors
    /// ECR gave no token, or `uri` is none.
    pub async fn connect(
        aws: &Aws,
        uri: &str,
        endpoint_url: Option<&str>,
        timings: &'a Timings,
    ) -> Result<Self, engine::Error> {
        let token = timings
            .repeat(|| async {
                let answer = aws.ecr.client.get_authorization_token().send().await;
                answer.map_err(failed("ecr:GetAuthorizationToken"))
            })
            .await?;
        let token = token.authorization_data().first().and_then(|data| data.authorization_token());
        let invalid = |what: String| {
            engine::Error::fatal("ecr:GetAuthorizationToken", "invalid-answer", what)
        };
        let mut authorization =
            HeaderValue::from_str(&format!("Basic {}", token.unwrap_or_default()))
                .map_err(|error| invalid(error.to_string()))?;
        authorization.set_sensitive(true);
        let (host, repository) =
            uri.split_once('/').ok_or_else(|| invalid(format!("`{uri}` is no repository")))?;
        let registry = endpoint_url.map_or_else(|| format!("https://{host}"), ToOwned::to_owned);
        let base = Url::parse(&format!("{}/v2/{repository}/", registry.trim_end_matches('/')))
            .map_err(|error| invalid(format!("`{registry}`: {error}")))?;
        let http = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            // A layer of 10 MB at 1 Mbit/s takes 80 s.
            .timeout(Duration::from_mins(5))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { http, base, repository: repository.to_owned(), authorization, timings })
    }

    /// Digest of the image under `reference`, a tag or a digest.
    ///
    /// # Errors
    /// The registry did not answer.
    pub async fn digest(&self, reference: &str) -> Result<Option<String>, engine::Error> {
        self.timings.repeat(|| self.look(reference)).await
    }

    /// Pushes `image` as `tag`. A tag that names this very image is success.
    ///
    /// # Errors
    /// The tag names another image, or the registry refuses or does not answer.
    pub async fn push(&self, image: &Image, tag: &str, tell: Tell<'_>) -> Result<(), Error> {
        let built = &image.manifest.digest;
        if self.is_taken(tag, built).await? {
            return Ok(());
        }
        for blob in &image.blobs {
            let existed = self.timings.repeat(|| self.upload(blob)).await?;
            tell(Progress::Pushed {
                digest: blob.digest.clone(),
                bytes: blob.content.len(),
                existed,
            });
        }
        self.put(tag, MANIFEST, &image.manifest.content).await?;
        self.verify(tag, built).await
    }

    /// Gives the image `digest`, which is in the repository, the name `tag`.
    ///
    /// # Errors
    /// There is no such image, the tag names another, or the registry does not answer.
    pub async fn tag(&self, digest: &str, tag: &str) -> Result<(), Error> {
        if self.is_taken(tag, digest).await? {
            return Ok(());
        }
        let manifest = self.timings.repeat(|| self.manifest(digest)).await?;
        let (media_type, manifest) =
            manifest.ok_or_else(|| Error::ImageGone { digest: digest.to_owned() })?;
        self.put(tag, &media_type, &manifest).await?;
        self.verify(tag, digest).await
    }

    /// Whether `tag` names the image `built`.
    async fn is_taken(&self, tag: &str, built: &str) -> Result<bool, Error> {
        match self.digest(tag).await? {
            None => Ok(false),
            Some(existing) if existing == built => Ok(true),
            Some(existing) => {
                Err(Error::TagTaken { tag: tag.to_owned(), existing, built: built.to_owned() })
            }
        }
    }

    async fn put(&self, tag: &str, media_type: &str, manifest: &Bytes) -> Result<(), Error> {
        let put = self
            .timings
            .repeat(|| async {
                let request = self
                    .request(Method::PUT, &format!("manifests/{tag}"))?
                    .header(CONTENT_TYPE, media_type)
                    .body(manifest.clone());
                expect("ecr:PutImage", answer("ecr:PutImage", request).await?, StatusCode::CREATED)
                    .await
            })
            .await;
        match put {
            Ok(_) => Ok(()),
            // Somebody was faster: it is still success when they pushed the same image.
            Err(error) if error.class == Class::Fatal => {
                if self.is_taken(tag, &digest(manifest)).await? {
                    Ok(())
                } else {
                    Err(error.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn verify(&self, tag: &str, wanted: &str) -> Result<(), Error> {
        match self.digest(tag).await? {
            Some(found) if found == wanted => Ok(()),
            found => Err(engine::Error::fatal(
                "ecr:PutImage",
                "digest-mismatch",
                format!(
                    "{}:{tag} was pushed as {wanted}, but the registry has {found:?}",
                    self.repository
                ),
            )
            .into()),
        }
    }

    /// Uploads a blob unless it is there; whether it was. A repeated call begins a new upload, since
    /// what a broken one has left can't be known.
    async fn upload(&self, blob: &Blob) -> Result<bool, engine::Error> {
        const CHECK: &str = "ecr:BatchCheckLayerAvailability";
        const BEGIN: &str = "ecr:InitiateLayerUpload";
        const PART: &str = "ecr:UploadLayerPart";
        const COMMIT: &str = "ecr:CompleteLayerUpload";
        let check = self.request(Method::HEAD, &format!("blobs/{}", blob.digest))?;
        let there = answer(CHECK, check).await?;
        if there.status() != StatusCode::NOT_FOUND {
            expect(CHECK, there, StatusCode::OK).await?;
            return Ok(true);
        }
        let begun = answer(BEGIN, self.request(Method::POST, "blobs/uploads/")?).await?;
        let begun = expect(BEGIN, begun, StatusCode::ACCEPTED).await?;
        let request = self
            .http
            .patch(self.location(&begun)?)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(blob.content.clone());
        let sent = expect(PART, answer(PART, request).await?, StatusCode::ACCEPTED).await?;
        let mut commit = self.location(&sent)?;
        commit.query_pairs_mut().append_pair("digest", &blob.digest);
        let request = self
            .http
            .put(commit)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_LENGTH, 0);
        let committed = answer(COMMIT, request).await?;
        expect(COMMIT, committed, StatusCode::CREATED).await?;
        Ok(false)
    }

    async fn look(&self, reference: &str) -> Result<Option<String>, engine::Error> {
        Ok(self.manifest(reference).await?.map(|(_, manifest)| digest(&manifest)))
    }

    /// Media type and bytes of a manifest; its digest is counted here, not believed.
    async fn manifest(&self, reference: &str) -> Result<Option<(String, Bytes)>, engine::Error> {
        const OPERATION: &str = "ecr:BatchGetImage";
        let request =
            self.request(Method::GET, &format!("manifests/{reference}"))?.header(ACCEPT, MANIFESTS);
        let answer = answer(OPERATION, request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            let text = answer.text().await.unwrap_or_default();
            // An image that is missing is an answer, a repository that is missing is a mistake.
            return if text.contains("NAME_UNKNOWN") {
                let what = format!("there is no repository `{}`", self.repository);
                Err(NO_REPOSITORY.error(OPERATION, what))
            } else {
                Ok(None)
            };
        }
        let answer = expect(OPERATION, answer, StatusCode::OK).await?;
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or(MANIFEST).to_owned();
        let manifest = answer.bytes().await.map_err(|error| unanswered(OPERATION, &error))?;
        Ok(Some((media_type, manifest)))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, engine::Error> {
        // `./`, since a path with the colon of a digest would be read as an absolute URL.
        let url = self.base.join(&format!("./{path}")).map_err(|error| {
            engine::Error::fatal("ecr", "invalid-input", format!("`{path}`: {error}"))
        })?;
        Ok(self.http.request(method, url).header(AUTHORIZATION, &self.authorization))
    }

    /// Where an upload goes on. The token goes to the registry only, so another host is refused.
    fn location(&self, answer: &Response) -> Result<Url, engine::Error> {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = location.and_then(|location| answer.url().join(location).ok());
        url.filter(|url| url.origin() == self.base.origin()).ok_or_else(|| {
            engine::Error::fatal(
                "ecr:InitiateLayerUpload",
                "invalid-answer",
                format!("the upload goes on at {location:?}, which is not the registry"),
            )
        })
    }
}

async fn answer(
    operation: &'static str,
    request: RequestBuilder,
) -> Result<Response, engine::Error> {
    request.send().await.map_err(|error| unanswered(operation, &error))
}

fn unanswered(operation: &'static str, error: &reqwest::Error) -> engine::Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let class = if error.is_connect() { Class::Unreachable } else { Class::Unknown };
    engine::Error { class, ..NO_ANSWER.error(operation, text) }
}

/// The answer if it has the wanted status, otherwise the registry's own words.
async fn expect(
    operation: &'static str,
    answer: Response,
    wanted: StatusCode,
) -> Result<Response, engine::Error> {
    let status = answer.status();
    if status == wanted {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let class = match status.as_u16() {
        429 => Class::Throttled,
        // An upload that the registry has forgotten begins anew.
        404 | 408 | 416 | 500.. => Class::Unknown,
        _ => Class::Fatal,
    };
    let code = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|body| body["errors"][0]["code"].as_str().map(ToOwned::to_owned))
        .unwrap_or_else(|| format!("http-{}", status.as_u16()));
    let error = engine::Error { class, ..engine::Error::fatal(operation, code, text) };
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error.with_hint("the identity may not push: `bme policy` prints what it needs")
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests;
