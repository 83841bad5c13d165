//! Operations of the services whose protocol does not name them: by method and path.

use hyper::Method;
use hyper::http::request::Parts;

use super::identify::{Call, Protocol, Scope};

/// Sub-resources of buckets and what their operations are called.
const BUCKET_PARTS: [(&str, &str); 15] = [
    ("versioning", "BucketVersioning"),
    ("publicAccessBlock", "PublicAccessBlock"),
    ("encryption", "BucketEncryption"),
    ("tagging", "BucketTagging"),
    ("lifecycle", "BucketLifecycleConfiguration"),
    ("cors", "BucketCors"),
    ("policy", "BucketPolicy"),
    ("policyStatus", "BucketPolicyStatus"),
    ("ownershipControls", "BucketOwnershipControls"),
    ("location", "BucketLocation"),
    ("logging", "BucketLogging"),
    ("acl", "BucketAcl"),
    ("notification", "BucketNotificationConfiguration"),
    ("website", "BucketWebsite"),
    ("object-lock", "ObjectLockConfiguration"),
];

/// S3 by method, path style and sub-resource (Amazon S3 API reference).
pub(super) fn s3(parts: &Parts, scope: Scope) -> Call {
    let (bucket, key) = parts
        .uri
        .path()
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((parts.uri.path().trim_start_matches('/'), ""));
    let query: Vec<(String, String)> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let has = |name: &str| query.iter().any(|(key, _)| key == name);
    let verb = match parts.method {
        Method::PUT => "Put",
        Method::DELETE => "Delete",
        _ => "Get",
    };
    let operation = if bucket.is_empty() {
        "ListBuckets".into()
    } else if key.is_empty() {
        if let Some((_, name)) = BUCKET_PARTS.iter().find(|(name, _)| has(name)) {
            format!("{verb}{name}")
        } else {
            match parts.method {
                Method::PUT => "CreateBucket",
                Method::DELETE => "DeleteBucket",
                Method::HEAD => "HeadBucket",
                Method::POST if has("delete") => "DeleteObjects",
                _ if has("versions") => "ListObjectVersions",
                _ if has("uploads") => "ListMultipartUploads",
                _ => "ListObjectsV2",
            }
            .into()
        }
    } else {
        match parts.method {
            Method::PUT if has("partNumber") => "UploadPart",
            Method::PUT if has("tagging") => "PutObjectTagging",
            Method::PUT if parts.headers.contains_key("x-amz-copy-source") => "CopyObject",
            Method::PUT => "PutObject",
            Method::POST if has("uploads") => "CreateMultipartUpload",
            Method::POST => "CompleteMultipartUpload",
            Method::DELETE if has("uploadId") => "AbortMultipartUpload",
            Method::DELETE if has("tagging") => "DeleteObjectTagging",
            Method::DELETE => "DeleteObject",
            Method::HEAD => "HeadObject",
            _ if has("tagging") => "GetObjectTagging",
            _ if has("attributes") => "GetObjectAttributes",
            _ => "GetObject",
        }
        .into()
    };
    Call {
        service: "s3".into(),
        operation,
        protocol: Protocol::S3,
        scope,
        bucket: (!bucket.is_empty()).then(|| bucket.to_owned()),
        key: (!key.is_empty()).then(|| key.to_owned()),
    }
}

/// CloudFront by method and path after the version (Amazon CloudFront API reference).
pub(super) fn cloudfront(method: &Method, path: &str, query: Option<&str>) -> String {
    let query = query.unwrap_or_default();
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).skip(1).collect();
    let noun = |collection: &str| match collection {
        "distribution" => "Distribution",
        "origin-access-control" => "OriginAccessControl",
        "cache-policy" => "CachePolicy",
        "origin-request-policy" => "OriginRequestPolicy",
        "response-headers-policy" => "ResponseHeadersPolicy",
        "function" => "Function",
        "invalidation" => "Invalidation",
        _ => "Unknown",
    };
    let plural = |noun: &str| match noun.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{noun}s"),
    };
    match words.as_slice() {
        ["tagging"] if method == Method::GET => "ListTagsForResource".into(),
        ["tagging"] if query.contains("Untag") => "UntagResource".into(),
        ["tagging"] => "TagResource".into(),
        [collection] if method == Method::GET => format!("List{}", plural(noun(collection))),
        ["distribution"] if query.contains("WithTags") => "CreateDistributionWithTags".into(),
        [collection] => format!("Create{}", noun(collection)),
        [_, _, "invalidation", ..] if method == Method::POST => "CreateInvalidation".into(),
        [_, _, "invalidation"] => "ListInvalidations".into(),
        [_, _, "invalidation", _] => "GetInvalidation".into(),
        [collection, _, "config"] if method == Method::PUT => format!("Update{}", noun(collection)),
        [collection, _, "config"] => format!("Get{}Config", noun(collection)),
        ["function", _, "publish"] => "PublishFunction".into(),
        ["function", _, "describe"] => "DescribeFunction".into(),
        [collection, _] if method == Method::GET => format!("Get{}", noun(collection)),
        [collection, _] if method == Method::DELETE => format!("Delete{}", noun(collection)),
        [collection, _] if method == Method::PUT => format!("Update{}", noun(collection)),
        _ => rest_name(method, path),
    }
}

/// Route 53 by method and path after the version (Amazon Route 53 API reference).
pub(super) fn route53(method: &Method, path: &str) -> String {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).skip(1).collect();
    let reads = method == Method::GET;
    match words.as_slice() {
        ["hostedzone"] if reads => "ListHostedZones",
        ["hostedzone"] => "CreateHostedZone",
        ["hostedzonesbyname"] => "ListHostedZonesByName",
        ["hostedzone", _] if reads => "GetHostedZone",
        ["hostedzone", _] if method == Method::DELETE => "DeleteHostedZone",
        ["hostedzone", _] => "UpdateHostedZoneComment",
        ["hostedzone", _, "rrset"] if reads => "ListResourceRecordSets",
        ["hostedzone", _, "rrset"] => "ChangeResourceRecordSets",
        ["change", _] => "GetChange",
        ["tags", ..] if reads => "ListTagsForResource",
        ["tags", ..] => "ChangeTagsForResource",
        _ => return rest_name(method, path),
    }
    .into()
}

/// X-Ray's paths are the operations' names, but for these (AWS X-Ray API reference).
pub(super) fn xray(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "Groups" => "GetGroups",
        "GetGroup" => "GetGroup",
        "TraceSegments" => "PutTraceSegments",
        "TraceSummaries" => "GetTraceSummaries",
        "Traces" => "BatchGetTraces",
        "EncryptionConfig" => "GetEncryptionConfig",
        "SamplingTargets" => "GetSamplingTargets",
        other => other,
    }
}

/// What is left: a verb as AWS would choose it, so that reads count as reads.
pub(super) fn rest_name(method: &Method, path: &str) -> String {
    let verb = if method == Method::GET || method == Method::HEAD { "Get " } else { "" };
    format!("{verb}{method} {path}")
}
