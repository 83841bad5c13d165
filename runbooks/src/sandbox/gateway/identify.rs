//! Tells service and operation of a request from what the AWS protocols put into it.

use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Uri};
use serde::Serialize;

use super::operations::{cloudfront, rest_name, route53, s3, xray};
use super::upstream::Payload;
use crate::sandbox::Settings;

/// How a service writes requests and errors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    /// `X-Amz-Target`.
    Json,
    /// Paths and JSON.
    RestJson,
    /// `Action=`, XML answers.
    Query,
    /// As `Query`, with an error shape of its own.
    Ec2,
    /// Paths and XML.
    RestXml,
    /// As `RestXml`, with an error shape of its own.
    S3,
    /// Smithy RPC v2, CBOR.
    Cbor,
    /// The OCI distribution protocol.
    Registry,
}

/// Account and region of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    pub(super) account: String,
    pub(super) region: String,
}

/// A call of an AWS operation.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The prefix that IAM actions of the service have: `ec2`, `elasticloadbalancing`…
    pub(super) service: String,
    /// The operation's name: `CreateVpc`.
    pub(super) operation: String,
    pub(super) protocol: Protocol,
    pub(super) scope: Scope,
    /// Of S3 calls.
    pub(super) bucket: Option<String>,
    /// Of S3 calls on objects.
    pub(super) key: Option<String>,
}

impl Call {
    /// As IAM writes it: `ec2:CreateVpc`.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.service, self.operation)
    }

    /// True for operations that may change something.
    pub(super) fn mutating(&self) -> bool {
        const READS: [&str; 13] = [
            "Describe",
            "List",
            "Get",
            "Head",
            "BatchGet",
            "BatchCheck",
            "Check",
            "Filter",
            "Lookup",
            "Query",
            "Simulate",
            "Search",
            "Select",
        ];
        if self.service == "registry" {
            return !self.operation.starts_with("GET") && !self.operation.starts_with("HEAD");
        }
        // A login token is made, but nothing is changed by it.
        !READS.iter().any(|prefix| self.operation.starts_with(prefix))
            && !self.operation.starts_with("AssumeRole")
    }
}

/// The parameters of a query-protocol request.
#[derive(Clone)]
pub(super) struct Form(pub(super) Vec<(String, String)>);

impl Form {
    pub(super) fn parse(body: &bytes::Bytes) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Values of the list `name`: `name.member.1`, `name.1`, `name.Anything.1`.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        let numbered = |key: &str| {
            key.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'))
                .and_then(|rest| rest.rsplit('.').next())
                .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
        };
        self.0.iter().filter(|(key, _)| numbered(key)).map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    pub(super) fn encode(&self) -> bytes::Bytes {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish().into()
    }
}

/// True when the operation is in the body, or when the gateway may answer by itself: such bodies
/// are small. All others, image layers above all, are streamed.
pub(super) fn needs_body(parts: &Parts) -> bool {
    is_form(parts)
        || target(parts).is_some_and(|target| {
            [
                "AnyScaleFrontendService.",
                "AWSWAF_",
                "AmazonEC2ContainerServiceV20141113.",
                "secretsmanager.",
                "ServiceQuotasV20190624.",
                "CertificateManager.",
            ]
            .iter()
            .any(|prefix| target.starts_with(prefix))
        })
        || credential(&parts.headers, &parts.uri).is_some_and(|c| c.service == "xray")
}

/// True for bodies that are no parameters, and large: image layers and objects.
pub(super) fn carries_data(parts: &Parts) -> bool {
    let object = || parts.uri.path().trim_matches('/').contains('/');
    let put = parts.method == Method::PUT && object();
    is_registry(parts.uri.path())
        || (put && credential(&parts.headers, &parts.uri).is_some_and(|c| c.service == "s3"))
}

/// Whether an access key is the number of an account, whose root it stands for.
pub(super) fn is_account(key: &str) -> bool {
    key.len() == 12 && key.bytes().all(|b| b.is_ascii_digit())
}

/// The access key that a request is signed with.
pub(super) fn access_key<T>(request: &Request<T>) -> Option<String> {
    credential(request.headers(), request.uri()).map(|credential| credential.key)
}

/// The service that a request is signed for.
pub(super) fn signed_for<T>(request: &Request<T>) -> Option<String> {
    credential(request.headers(), request.uri()).map(|credential| credential.service)
}

pub(super) fn is_form(parts: &Parts) -> bool {
    parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// The call that a request makes; `None` when it is none of AWS's.
pub(super) fn identify(
    request: &Request<Payload>,
    form: Option<&Form>,
    settings: &Settings,
) -> Option<Call> {
    let mut parts_of_request = Request::new(());
    *parts_of_request.method_mut() = request.method().clone();
    *parts_of_request.uri_mut() = request.uri().clone();
    *parts_of_request.headers_mut() = request.headers().clone();
    identify_parts(&parts_of_request.into_parts().0, form, settings)
}

fn identify_parts(parts: &Parts, form: Option<&Form>, settings: &Settings) -> Option<Call> {
    let path = parts.uri.path();
    let credential = credential(&parts.headers, &parts.uri);
    let scope = Scope {
        account: credential
            .as_ref()
            .map(|c| c.key.clone())
            .filter(|key| is_account(key))
            .unwrap_or_else(|| settings.account.clone()),
        region: credential.as_ref().map_or_else(|| settings.region.clone(), |c| c.region.clone()),
    };
    let call = |service: &str, operation: &str, protocol| {
        Some(Call {
            service: action_prefix(service).to_owned(),
            operation: operation.to_owned(),
            protocol,
            scope: scope.clone(),
            bucket: None,
            key: None,
        })
    };
    let signed_for = credential.as_ref().map(|c| c.service.as_str());

    if let Some(target) = target(parts) {
        let (prefix, operation) = target.split_once('.').unwrap_or(("", target));
        return call(signed_for.unwrap_or(prefix), operation, Protocol::Json);
    }
    if let Some((service, operation)) = rpc_v2(path) {
        return call(signed_for.unwrap_or(service), operation, Protocol::Cbor);
    }
    if let Some(operation) = form.and_then(|form| form.get("Action")) {
        let service = signed_for.unwrap_or("sts");
        let protocol = if service == "ec2" { Protocol::Ec2 } else { Protocol::Query };
        return call(service, operation, protocol);
    }
    if is_registry(path) {
        let what = ["/blobs/", "/manifests/", "/tags/"].iter().find(|word| path.contains(**word));
        let operation =
            format!("{} {}", parts.method, what.map_or("base", |word| word.trim_matches('/')));
        return call("registry", &operation, Protocol::Registry);
    }
    match signed_for? {
        "s3" => Some(s3(parts, scope.clone())),
        "cloudfront" => call(
            "cloudfront",
            &cloudfront(&parts.method, path, parts.uri.query()),
            Protocol::RestXml,
        ),
        "xray" => call("xray", xray(path), Protocol::RestJson),
        "route53" => call("route53", &route53(&parts.method, path), Protocol::RestXml),
        service => call(service, &rest_name(&parts.method, path), Protocol::RestJson),
    }
}

/// The parts of a Signature Version 4 credential.
struct Credential {
    key: String,
    region: String,
    service: String,
}

/// From the Authorization header, or from the query of a presigned URL.
fn credential(headers: &HeaderMap, uri: &Uri) -> Option<Credential> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scope = match header {
        Some(text) => text.split_once("Credential=")?.1.split([',', ' ']).next()?.to_owned(),
        None => form_urlencoded::parse(uri.query()?.as_bytes())
            .find(|(name, _)| name == "X-Amz-Credential")?
            .1
            .into_owned(),
    };
    let mut words = scope.split('/');
    let (key, _date, region, service) =
        (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(Credential { key: key.into(), region: region.into(), service: service.into() })
}

fn target(parts: &Parts) -> Option<&str> {
    parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok())
}

/// `/service/NAME/operation/NAME` (Smithy RPC v2).
fn rpc_v2(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/service/")?.split_once("/operation/")
}

fn is_registry(path: &str) -> bool {
    path == "/v2"
        || path == "/v2/"
        || (path.starts_with("/v2/")
            && ["/blobs/", "/manifests/", "/tags/list"].iter().any(|word| path.contains(word)))
}

/// Signing names that differ from the prefix of the service's IAM actions.
fn action_prefix(service: &str) -> &str {
    match service {
        "monitoring" => "cloudwatch",
        "email" => "ses",
        "tagging" => "tag",
        other => other,
    }
}

#[cfg(test)]
mod tests;
