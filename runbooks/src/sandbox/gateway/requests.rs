//! The AWS requests as they came, from the host and from the containers, one JSON line each at the end
//! of `DIR/requests.jsonl`, to be checked against AWS's models: written when `BME_RECORD_REQUESTS` is
//! set where the gateway is started.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::Request;
use serde::Serialize;

use super::Side;
use super::identify::{self, Call, Protocol};
use super::upstream::Payload;
use crate::sandbox::Paths;
use crate::sandbox::error::Error;

/// Headers that are left out.
const CREDENTIALS: [&str; 2] = ["authorization", "x-amz-security-token"];

/// One request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
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
pub(super) struct Requests(Option<Mutex<File>>);

impl Requests {
    /// Goes on where the gateway before this one has ended.
    pub(super) fn open(paths: &Paths) -> Result<Self, Error> {
        if std::env::var_os("BME_RECORD_REQUESTS").is_none() {
            return Ok(Self(None));
        }
        let path = paths.directory.join("requests.jsonl");
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        Ok(Self(Some(Mutex::new(file.map_err(|e| Error::io("write", &path, e))?))))
    }

    pub(super) fn wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn write(&self, from: Side, call: &Call, request: &Request<Payload>) {
        let Some(file) = &self.0 else { return };
        if call.protocol == Protocol::Registry {
            return;
        }
        let headers = request.headers().iter();
        let line = Line {
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
        let written = serde_json::to_string(&line).map_err(std::io::Error::from).and_then(|text| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(format!("{text}\n").as_bytes())
        });
        if let Err(error) = written {
            // The call itself goes on.
            tracing::error!(%error, "a request was not written down");
        }
    }
}
