//! The AWS requests as they came, from the host and from the containers, one JSON line each in
//! `DIR/requests.jsonl`: written while somebody asks for it, to be checked against AWS's models.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::Request;
use serde::Serialize;

use super::Side;
use super::identify::{self, Call, Protocol};
use super::upstream::Payload;
use crate::sandbox::error::Error;
use crate::sandbox::{Paths, write_private};

/// Headers that are left out.
const CREDENTIALS: [&str; 2] = ["authorization", "x-amz-security-token"];

/// One request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    /// Counts from 1 since the start of the file.
    n: usize,
    /// When it arrived, RFC 3339.
    time: String,
    from: Side,
    /// The service's IAM prefix.
    service: &'a str,
    /// The service in the credential's scope; `null` when the request is not signed.
    signed_for: Option<String>,
    region: &'a str,
    operation: &'a str,
    protocol: Protocol,
    method: &'a str,
    /// As sent, percent-encoded.
    path: &'a str,
    query: &'a str,
    /// All but the credential's.
    headers: Vec<(&'a str, String)>,
    /// Base64; `null` for a body that was passed on unread, see [`identify::carries_data`].
    body: Option<String>,
}

/// The file, when there is to be one.
#[derive(Default)]
pub(super) struct Requests(Mutex<Option<Lines>>);

struct Lines {
    file: File,
    count: usize,
}

impl Requests {
    /// Starts with an empty file.
    pub(super) fn start(&self, paths: &Paths) -> Result<(), Error> {
        let path = paths.directory.join("requests.jsonl");
        write_private(&path, "")?;
        let file = File::options().append(true).open(&path);
        let file = file.map_err(|e| Error::io("write", &path, e))?;
        *self.lines() = Some(Lines { file, count: 0 });
        Ok(())
    }

    /// Stops; the file stays.
    pub(super) fn stop(&self) {
        *self.lines() = None;
    }

    pub(super) fn wanted(&self) -> bool {
        self.lines().is_some()
    }

    pub(super) fn write(&self, from: Side, call: &Call, request: &Request<Payload>) {
        let mut lines = self.lines();
        let Some(Lines { file, count }) = lines.as_mut() else { return };
        if call.protocol == Protocol::Registry {
            return;
        }
        *count += 1;
        let headers = request.headers().iter();
        let line = Line {
            n: *count,
            time: jiff::Timestamp::now().to_string(),
            from,
            service: &call.service,
            signed_for: identify::signed_for(request),
            region: &call.scope.region,
            operation: &call.operation,
            protocol: call.protocol,
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            headers: headers
                .filter(|(name, _)| !CREDENTIALS.contains(&name.as_str()))
                .map(|(name, value)| {
                    (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect(),
            body: request.body().whole().map(|body| STANDARD.encode(body)),
        };
        let written = serde_json::to_string(&line)
            .map_err(std::io::Error::from)
            .and_then(|text| file.write_all(format!("{text}\n").as_bytes()));
        if let Err(error) = written {
            // The call itself goes on; whoever reads the file misses a number.
            tracing::error!(%error, "a request was not written down");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Option<Lines>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
