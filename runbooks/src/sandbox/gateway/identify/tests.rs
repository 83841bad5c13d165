use super::*;

fn settings() -> Settings {
    Settings {
        directory: "/x".into(),
        port: 1,
        gateway_port: 2,
        environment: "local".into(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
    }
}

fn identified(method: &str, uri: &str, headers: &[(&str, &str)], form: Option<&str>) -> Call {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(()).expect("a request of the test is valid");
    let form = form.map(|text| Form::parse(&bytes::Bytes::copy_from_slice(text.as_bytes())));
    identify_parts(&request.into_parts().0, form.as_ref(), &settings())
        .expect("the request is one of AWS's")
}

fn signed(key: &str, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

#[test]
fn query_protocol_takes_the_operation_from_the_form() {
    let authorization = signed("123456789012", "ec2");
    let call = identified(
        "POST",
        "/",
        &[("authorization", &authorization)],
        Some("Action=CreateVpc&Version=1"),
    );
    assert_eq!((call.service.as_str(), call.operation.as_str()), ("ec2", "CreateVpc"));
    assert_eq!(call.protocol, Protocol::Ec2);
    assert_eq!(call.scope, Scope { account: "123456789012".into(), region: "eu-west-1".into() });
    assert!(call.mutating());
}

#[test]
fn targets_and_cbor_paths_name_the_operation() {
    let authorization = signed("test", "ecs");
    let call = identified(
        "POST",
        "/",
        &[
            ("authorization", &authorization),
            ("x-amz-target", "AmazonEC2ContainerServiceV20141113.DescribeServices"),
        ],
        None,
    );
    assert_eq!((call.service.as_str(), call.operation.as_str()), ("ecs", "DescribeServices"));
    assert_eq!(call.scope.account, "000000000000");
    assert!(!call.mutating());

    let authorization = signed("test", "servicequotas");
    let headers = [
        ("authorization", authorization.as_str()),
        ("x-amz-target", "ServiceQuotasV20190624.GetServiceQuota"),
    ];
    let call = identified("POST", "/", &headers, None);
    assert_eq!(
        (call.service.as_str(), call.operation.as_str()),
        ("servicequotas", "GetServiceQuota")
    );
    assert!(!call.mutating());

    let authorization = signed("test", "monitoring");
    let call = identified(
        "POST",
        "/service/GraniteServiceVersion20100801/operation/PutMetricAlarm",
        &[("authorization", &authorization)],
        None,
    );
    assert_eq!((call.service.as_str(), call.operation.as_str()), ("cloudwatch", "PutMetricAlarm"));
    assert_eq!(call.protocol, Protocol::Cbor);
}

#[test]
fn s3_operations_follow_method_path_and_sub_resource() {
    let authorization = signed("test", "s3");
    let cases = [
        ("PUT", "/b", "CreateBucket", true),
        ("HEAD", "/b", "HeadBucket", false),
        ("PUT", "/b/?versioning", "PutBucketVersioning", true),
        ("GET", "/b?policy", "GetBucketPolicy", false),
        ("PUT", "/b/local/lock.json?x-id=PutObject", "PutObject", true),
        ("GET", "/b/local/lock.json", "GetObject", false),
        ("DELETE", "/b/local/lock.json", "DeleteObject", true),
        ("GET", "/b?list-type=2&prefix=runs", "ListObjectsV2", false),
        ("POST", "/b?delete", "DeleteObjects", true),
    ];
    for (method, uri, operation, mutating) in cases {
        let call = identified(method, uri, &[("authorization", &authorization)], None);
        assert_eq!(call.operation, operation, "{method} {uri}");
        assert_eq!(call.mutating(), mutating, "{method} {uri}");
        assert_eq!(call.bucket.as_deref(), Some("b"));
    }
    let call = identified("PUT", "/b/local/lock.json", &[("authorization", &authorization)], None);
    assert_eq!(call.key.as_deref(), Some("local/lock.json"));
}

#[test]
fn rest_services_are_told_by_their_paths() {
    let authorization = signed("test", "cloudfront");
    let cases = [
        ("GET", "/2020-05-31/distribution", "ListDistributions"),
        ("POST", "/2020-05-31/distribution?WithTags", "CreateDistributionWithTags"),
        ("GET", "/2020-05-31/distribution/E1/config", "GetDistributionConfig"),
        ("PUT", "/2020-05-31/distribution/E1/config", "UpdateDistribution"),
        ("DELETE", "/2020-05-31/distribution/E1", "DeleteDistribution"),
        ("GET", "/2020-05-31/response-headers-policy", "ListResponseHeadersPolicies"),
        ("POST", "/2020-05-31/distribution/E1/invalidation", "CreateInvalidation"),
        ("GET", "/2020-05-31/tagging?Resource=arn", "ListTagsForResource"),
    ];
    for (method, uri, operation) in cases {
        let call = identified(method, uri, &[("authorization", &authorization)], None);
        assert_eq!(call.operation, operation, "{method} {uri}");
    }
    let authorization = signed("test", "route53");
    let cases = [
        ("GET", "/2013-04-01/hostedzone", "ListHostedZones", false),
        ("POST", "/2013-04-01/hostedzone", "CreateHostedZone", true),
        ("GET", "/2013-04-01/hostedzone/Z1/rrset?name=a.", "ListResourceRecordSets", false),
        ("POST", "/2013-04-01/hostedzone/Z1/rrset", "ChangeResourceRecordSets", true),
        ("DELETE", "/2013-04-01/hostedzone/Z1", "DeleteHostedZone", true),
        ("GET", "/2013-04-01/change/C1", "GetChange", false),
    ];
    for (method, uri, operation, mutating) in cases {
        let call = identified(method, uri, &[("authorization", &authorization)], None);
        assert_eq!((call.operation.as_str(), call.mutating()), (operation, mutating), "{uri}");
    }
    let authorization = signed("test", "xray");
    let call = identified("POST", "/Groups", &[("authorization", &authorization)], None);
    assert_eq!((call.service.as_str(), call.operation.as_str()), ("xray", "GetGroups"));
    assert!(!call.mutating());
}

#[test]
fn registry_traffic_is_apart() {
    let call = identified("PUT", "/v2/app/manifests/sha256:0", &[], None);
    assert_eq!((call.service.as_str(), call.operation.as_str()), ("registry", "PUT manifests"));
    assert!(call.mutating());
    assert!(!identified("HEAD", "/v2/app/blobs/sha256:0", &[], None).mutating());
}

#[test]
fn lists_of_the_query_protocols_are_read_in_every_spelling() {
    let form = Form::parse(&bytes::Bytes::from_static(
        b"EnableCloudwatchLogsExports.member.1=postgresql&EnableCloudwatchLogsExports.member.2=upgrade&Other.1=x",
    ));
    assert_eq!(form.list("EnableCloudwatchLogsExports"), ["postgresql", "upgrade"]);
    assert_eq!(form.list("Other"), ["x"]);
    assert!(form.list("Enable").is_empty());
}

#[test]
fn objects_and_layers_are_data_but_settings_of_buckets_are_not() {
    let data = |method: &str, uri: &str| {
        let authorization = signed("test", "s3");
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("authorization", authorization).body(());
        carries_data(&request.expect("a request of the test is valid").into_parts().0)
    };
    assert!(data("PUT", "/bucket/key?x-id=PutObject"));
    assert!(data("PATCH", "/v2/app/blobs/uploads/1"));
    assert!(!data("PUT", "/bucket/?tagging"));
    assert!(!data("GET", "/bucket/key"));
    assert!(!data("POST", "/bucket?delete"));
}
