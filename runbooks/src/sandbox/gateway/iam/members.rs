//! What a request says, whatever protocol it is written in: its members by path, and the tags that
//! it gives.

use std::collections::BTreeMap;

use aws_smithy_cbor::{Decoder, data::Type, decode::DeserializeError};
use hyper::Request;
use serde_json::{Map, Value};

use super::super::identify::{Call, Form, Protocol};
use super::super::upstream::Payload;

/// The members of a request.
pub(super) struct Members {
    /// By path, lists without their numbers and in their order: `Tags.Key`, `SubnetIds`.
    values: Vec<(String, String)>,
    /// The tags that the request gives.
    pub(super) tags: BTreeMap<String, String>,
}

impl Members {
    /// Reads a request whose body is at hand; of one that is streamed, what is outside of the body.
    pub(super) fn of(call: &Call, request: &Request<Payload>, form: Option<&Form>) -> Self {
        let mut values = Vec::new();
        let mut tags = BTreeMap::new();
        match call.protocol {
            Protocol::Json | Protocol::RestJson => {
                read(&request.body().json(), &mut values, &mut tags);
            }
            Protocol::Cbor => read(&cbor(request.body()), &mut values, &mut tags),
            Protocol::Query | Protocol::Ec2 => {
                let pairs = form.map(|form| form.0.as_slice()).unwrap_or_default();
                values.extend(pairs.iter().map(|(name, value)| (unnumbered(name), value.clone())));
            }
            Protocol::S3 => values = of_s3(call, request),
            Protocol::RestXml => values = of_rest(request),
            Protocol::Registry => {
                let path = request.uri().path().strip_prefix("/v2/").unwrap_or_default();
                let ends = ["/blobs/", "/manifests/", "/tags/"];
                let end = ends.iter().find_map(|word| path.rfind(*word)).unwrap_or(path.len());
                values.push(("Repository".into(), path[..end].to_owned()));
            }
        }
        tags.extend(listed_tags(&values));
        Self { values, tags }
    }

    /// All values at a path.
    pub(super) fn all<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(at, _)| at == path).map(|(_, value)| value.as_str())
    }

    /// The first value at a path.
    pub(super) fn first(&self, path: &str) -> Option<&str> {
        self.values.iter().find(|(at, _)| at == path).map(|(_, value)| value.as_str())
    }
}

/// `Subnets.member.1` as `Subnets`, `TagSpecification.1.Tag.2.Key` as `TagSpecification.Tag.Key`.
fn unnumbered(name: &str) -> String {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let words = name.split('.').filter(|word| *word != "member" && !is_number(word));
    words.collect::<Vec<_>>().join(".")
}

/// The members of a document, and the tags of services that write them as a map.
fn read(body: &Value, values: &mut Vec<(String, String)>, tags: &mut BTreeMap<String, String>) {
    flatten("", body, values);
    let maps = ["Tags", "tags", "UserPoolTags"].iter().filter_map(|name| body[*name].as_object());
    for (key, value) in maps.flatten() {
        tags.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
    }
}

fn flatten(path: &str, value: &Value, values: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Array(all) => {
            for one in all {
                flatten(path, one, values);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, values);
            }
        }
        Value::String(text) => values.push((path.to_owned(), text.clone())),
        other => values.push((path.to_owned(), other.to_string())),
    }
}

/// Tags that are written as a list: a key, then its value.
fn listed_tags(values: &[(String, String)]) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let mut key = None;
    for (path, value) in values {
        let Some((list, member)) = path.rsplit_once('.') else { continue };
        let is_tags = list.rsplit('.').next().is_some_and(|name| {
            name.eq_ignore_ascii_case("tag") || name.eq_ignore_ascii_case("tags")
        });
        if is_tags && member.eq_ignore_ascii_case("key") {
            key = Some(value.clone());
        } else if is_tags
            && member.eq_ignore_ascii_case("value")
            && let Some(key) = key.take()
        {
            tags.insert(key, value.clone());
        }
    }
    tags
}

/// Bucket, key, query, source of a copy, the objects of a deletion, tags.
fn of_s3(call: &Call, request: &Request<Payload>) -> Vec<(String, String)> {
    let mut values = query(request);
    values.extend(call.bucket.clone().map(|bucket| ("Bucket".into(), bucket)));
    values.extend(call.key.as_ref().map(|key| ("Key".into(), decoded(key))));
    let source = request.headers().get("x-amz-copy-source").and_then(|text| text.to_str().ok());
    let source = source.and_then(|text| text.split('?').next());
    values.extend(source.map(|text| ("CopySource".into(), decoded(text.trim_start_matches('/')))));
    let body = text(request);
    for object in elements(&body, "Object") {
        let keys = elements(object, "Key").into_iter();
        values.extend(keys.map(|key| ("Object.Key".into(), unescaped(key))));
    }
    values.extend(tag_elements(&body));
    values
}

/// What follows the collection in the path, the query, tags, names and a change of records.
fn of_rest(request: &Request<Payload>) -> Vec<(String, String)> {
    let mut values = query(request);
    // The version, the collection, the id.
    let id = request.uri().path().split('/').filter(|word| !word.is_empty()).nth(2);
    values.extend(id.map(|id| ("Id".into(), decoded(id))));
    let body = text(request);
    for name in ["Name", "Action", "Type"] {
        let texts = elements(&body, name).into_iter();
        values.extend(texts.map(|text| (name.to_owned(), unescaped(text))));
    }
    values.extend(tag_elements(&body));
    values
}

fn tag_elements(xml: &str) -> Vec<(String, String)> {
    let mut values = Vec::new();
    for tag in elements(xml, "Tag") {
        for name in ["Key", "Value"] {
            let texts = elements(tag, name).into_iter();
            values.extend(texts.map(|text| (format!("Tags.{name}"), unescaped(text))));
        }
    }
    values
}

fn query(request: &Request<Payload>) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn text(request: &Request<Payload>) -> String {
    let bytes = request.body().whole().map_or(b"".as_slice(), |bytes| &bytes[..]);
    String::from_utf8_lossy(bytes).into_owned()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The texts of all elements of that name.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let after = xml.split(start.as_str()).skip(1);
    after.filter_map(|rest| rest.split_once(end.as_str()).map(|(text, _)| text)).collect()
}

pub(super) fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

/// The texts, maps and lists of a CBOR document; everything else is `null`.
fn cbor(body: &Payload) -> Value {
    body.whole().and_then(|bytes| item(&mut Decoder::new(bytes)).ok()).unwrap_or_default()
}

fn item(decoder: &mut Decoder<'_>) -> Result<Value, DeserializeError> {
    match decoder.datatype()? {
        Type::Map | Type::MapIndef => {
            let mut members = Map::new();
            let mut left = decoder.map()?;
            while has_more(decoder, &mut left)? {
                let name = decoder.string()?;
                members.insert(name, item(decoder)?);
            }
            Ok(Value::Object(members))
        }
        Type::Array | Type::ArrayIndef => {
            let mut items = Vec::new();
            let mut left = decoder.list()?;
            while has_more(decoder, &mut left)? {
                items.push(item(decoder)?);
            }
            Ok(Value::Array(items))
        }
        Type::String | Type::StringIndef => Ok(Value::String(decoder.string()?)),
        _ => {
            decoder.skip()?;
            Ok(Value::Null)
        }
    }
}

/// Whether a map or list of known or unknown length goes on; takes the end of an unknown one.
fn has_more(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, DeserializeError> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count -= 1;
            Ok(true)
        }
        None if matches!(decoder.datatype()?, Type::Break) => {
            decoder.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}
