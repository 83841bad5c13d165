//! Answers in the shapes of AWS's protocols.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::identify::{Call, Protocol};

/// A response's body: streamed from the emulator, or our own.
pub(super) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Request id of answers that a test's fault made up.
pub(super) const FAULT_REQUEST_ID: &str = "00000000-0000-0000-0000-00000000fa17";

/// An answer that is wholly in memory.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn new(
        status: StatusCode,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, body: body.into() }
    }

    /// An AWS JSON answer, with a request id.
    pub(super) fn json(value: &Value) -> Self {
        let mut answer = Self::new(StatusCode::OK, "application/x-amz-json-1.1", value.to_string());
        answer.set("x-amzn-requestid", &uuid::Uuid::new_v4().to_string());
        answer
    }

    /// An AWS JSON error.
    pub(super) fn json_error(code: &str, message: &str) -> Self {
        let body = json!({ "__type": code, "message": message, "Message": message });
        let mut answer = Self { status: StatusCode::BAD_REQUEST, ..Self::json(&body) };
        answer.set("x-amzn-errortype", code);
        answer
    }

    /// A response taken whole; `None` when it broke off.
    pub(super) async fn of(response: Response<Body>) -> Option<Self> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Self { status: parts.status, headers: parts.headers, body })
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The same answer with another text.
    pub(super) fn with_text(mut self, text: String) -> Self {
        self.body = text.into();
        self
    }

    fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    pub(super) fn into_response(mut self) -> Response<Body> {
        self.headers.remove(TRANSFER_ENCODING);
        self.headers.insert(CONTENT_LENGTH, self.body.len().into());
        let mut response = Response::new(whole(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The request id of an answer, in whichever header its service puts it.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-amzn-requestid", "x-amz-request-id", "x-amzn-request-id"]
        .iter()
        .find_map(|name| headers.get(*name))
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// The error of a fault that a test asked for.
pub(super) fn fault(call: &Call, status: u16, code: &str, message: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    error(call, status, code, message)
}

/// An error in the shape that the call's protocol gives errors.
pub(super) fn error(call: &Call, status: StatusCode, code: &str, message: &str) -> Answer {
    let id = FAULT_REQUEST_ID;
    let escaped = message.replace('&', "&amp;").replace('<', "&lt;");
    let mut answer = match call.protocol {
        Protocol::Json | Protocol::RestJson => {
            Answer { status, ..Answer::json_error(code, message) }
        }
        Protocol::Ec2 => xml(
            status,
            &format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{escaped}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
            ),
        ),
        Protocol::Query | Protocol::RestXml => xml(
            status,
            &format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{escaped}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
            ),
        ),
        Protocol::S3 => xml(
            status,
            &format!(
                "<Error><Code>{code}</Code><Message>{escaped}</Message><RequestId>{id}</RequestId></Error>"
            ),
        ),
        Protocol::Cbor => {
            let mut answer = Answer::new(
                status,
                "application/cbor",
                cbor_map(&[("__type", code), ("message", message)]),
            );
            answer.set("smithy-protocol", "rpc-v2-cbor");
            answer
        }
        Protocol::Registry => Answer::new(
            status,
            "application/json",
            json!({ "errors": [{ "code": code, "message": message }] }).to_string(),
        ),
    };
    answer.set("x-amzn-requestid", id);
    answer
}

fn xml(status: StatusCode, body: &str) -> Answer {
    Answer::new(status, "text/xml", format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"))
}

/// A map of short texts (RFC 8949: major type 5 of pairs of major type 3).
fn cbor_map(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0xa0 | u8::try_from(pairs.len()).unwrap_or(23)];
    for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
        // Text with a 16-bit length: 0x79, then the length.
        bytes.push(0x79);
        bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}
