use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::sandbox::Settings;

fn settings() -> Settings {
    Settings {
        directory: PathBuf::from("/x"),
        port: 1,
        gateway_port: 2,
        environment: "local".into(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
    }
}

/// A request as a client of the service sends it.
struct Sent {
    call: Call,
    members: Members,
}

fn sent(service: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Sent {
    let credential = format!("Credential=AKIA1/20260101/us-east-1/{service}/aws4_request");
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("AWS4-HMAC-SHA256 {credential}, Signature=0"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let form = headers.iter().any(|(_, value)| *value == FORM);
    let body = Bytes::copy_from_slice(body);
    let form = form.then(|| Form::parse(&body));
    let request = request.body(Payload::Whole(body)).unwrap();
    let call = identify::identify(&request, form.as_ref(), &settings()).unwrap();
    let members = Members::of(&call, &request, form.as_ref());
    Sent { call, members }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn query(service: &str, form: &str) -> Sent {
    sent(service, "POST", "/", &[("content-type", FORM)], form.as_bytes())
}

fn json_call(service: &str, operation: &str, body: &serde_json::Value) -> Sent {
    let target = format!("Target.{operation}");
    sent(service, "POST", "/", &[("x-amz-target", &target)], body.to_string().as_bytes())
}

impl Sent {
    /// `action ARN` for each, and the pattern where the emulator has to be asked.
    fn asked(&self) -> Vec<String> {
        let mut asked = Vec::new();
        for need in needed(&self.call.name(), &self.members) {
            for pattern in need.on {
                let plain = pattern.trim_start_matches('+');
                let arns = resources::arns(plain, &self.call.scope, &self.members);
                asked.extend(arns.into_iter().map(|arn| {
                    let arn = arn.replace("us-east-1:000000000000", "HERE");
                    format!("{} {}", need.action, arn.replace("000000000000", "ACCOUNT"))
                }));
            }
        }
        asked
    }

    fn context(&self, action: &str, tags: &[(&str, &str)], made: bool) -> Context {
        let needs = needed(&self.call.name(), &self.members);
        let need = needs.iter().find(|need| need.action == action).unwrap();
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let resource = Resource { arn: "arn".into(), tags: tags.collect() };
        context::of(&self.call, need, &resource, made, &self.members)
    }
}

fn one(value: &str) -> Values {
    Values::One(value.to_owned())
}

const TAGGED: &str = "TagSpecification.1.ResourceType=subnet&TagSpecification.1.Tag.1.Key=bme%3Aenv&TagSpecification.1.Tag.1.Value=local";

#[test]
fn what_is_made_and_what_it_is_made_in_are_both_asked_for() {
    let create = query("ec2", &format!("Action=CreateSubnet&VpcId=vpc-1&{TAGGED}"));
    assert_eq!(
        create.asked(),
        [
            "ec2:CreateSubnet arn:aws:ec2:HERE:subnet/*",
            "ec2:CreateSubnet arn:aws:ec2:HERE:vpc/vpc-1",
            "ec2:CreateTags arn:aws:ec2:HERE:subnet/*",
        ]
    );
    let made = create.context("ec2:CreateSubnet", &[], true);
    assert_eq!(made["aws:RequestTag/bme:env"], one("local"));
    assert_eq!(made.get("aws:TagKeys"), Some(&Values::Many(vec!["bme:env".into()])));
    let within = create.context("ec2:CreateSubnet", &[("bme:env", "local")], false);
    assert_eq!(within["aws:ResourceTag/bme:env"], one("local"));
    assert!(!within.contains_key("aws:RequestTag/bme:env"), "{within:?}");
    let tags = create.context("ec2:CreateTags", &[], true);
    assert_eq!(tags["ec2:CreateAction"], one("CreateSubnet"));
}

#[test]
fn tags_of_something_that_is_there_have_no_create_action() {
    let tags = query("ec2", "Action=CreateTags&ResourceId.1=vpc-1&Tag.1.Key=a&Tag.1.Value=b");
    let context = tags.context("ec2:CreateTags", &[("bme:env", "local")], false);
    assert_eq!(context["aws:RequestTag/a"], one("b"));
    assert_eq!(context["aws:ResourceTag/bme:env"], one("local"));
    assert!(!context.contains_key("ec2:CreateAction"), "{context:?}");
}

#[test]
fn an_endpoint_with_a_private_name_needs_its_hosted_zone() {
    let form = "Action=CreateVpcEndpoint&VpcId=vpc-1&SubnetId.1=subnet-1&SubnetId.2=subnet-2&SecurityGroupId.1=sg-1";
    let asked = query("ec2", &format!("{form}&PrivateDnsEnabled=true")).asked();
    let zone = "route53:AssociateVPCWithHostedZone arn:aws:route53:::hostedzone/*";
    assert!(asked.iter().any(|one| one == zone), "{asked:#?}");
    for id in ["subnet/subnet-1", "subnet/subnet-2", "security-group/sg-1", "vpc/vpc-1"] {
        let one = format!("ec2:CreateVpcEndpoint arn:aws:ec2:HERE:{id}");
        assert!(asked.contains(&one), "{one} in {asked:#?}");
    }
    let without = query("ec2", &format!("{form}&PrivateDnsEnabled=false")).asked();
    assert!(!without.iter().any(|one| one == zone), "{without:#?}");
}

#[test]
fn a_database_with_a_managed_password_needs_its_secret() {
    let form = "Action=CreateDBInstance&DBInstanceIdentifier=one&DBSubnetGroupName=two&DBParameterGroupName=three&ManageMasterUserPassword=true&Tags.Tag.1.Key=a&Tags.Tag.1.Value=b";
    assert_eq!(
        query("rds", form).asked(),
        [
            "rds:CreateDBInstance arn:aws:rds:HERE:db:one",
            "rds:CreateDBInstance arn:aws:rds:HERE:og:default:*",
            "rds:CreateDBInstance arn:aws:rds:HERE:pg:three",
            "rds:CreateDBInstance arn:aws:rds:HERE:subgrp:two",
            "iam:CreateServiceLinkedRole arn:aws:iam::ACCOUNT:role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS",
            "rds:AddTagsToResource arn:aws:rds:HERE:db:one",
            "kms:DescribeKey arn:aws:kms:HERE:key/*",
            "secretsmanager:CreateSecret arn:aws:secretsmanager:HERE:secret:rds!db-*",
            "secretsmanager:TagResource arn:aws:secretsmanager:HERE:secret:rds!db-*",
        ]
    );
}

#[test]
fn a_listener_is_tagged_below_its_load_balancer() {
    let balancer =
        "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/one/0123456789abcdef";
    let form = format!(
        "Action=CreateListener&LoadBalancerArn={balancer}&Tags.member.1.Key=a&Tags.member.1.Value=b"
    );
    assert_eq!(
        query("elasticloadbalancing", &form).asked(),
        [
            "elasticloadbalancing:CreateListener arn:aws:elasticloadbalancing:HERE:loadbalancer/app/one/0123456789abcdef",
            "elasticloadbalancing:AddTags arn:aws:elasticloadbalancing:HERE:listener/app/one/0123456789abcdef/*",
        ]
    );
}

#[test]
fn names_and_arns_of_a_service_come_to_the_same() {
    let arn = |rest: &str| format!("arn:aws:ecs:us-east-1:000000000000:{rest}");
    let by_name = json!({ "cluster": "one", "service": "api" });
    let by_arn = json!({ "cluster": arn("cluster/one"), "service": arn("service/one/api") });
    for body in [by_name, by_arn] {
        let update = json_call("ecs", "UpdateService", &body);
        assert_eq!(update.asked(), ["ecs:UpdateService arn:aws:ecs:HERE:service/one/api"]);
        let context = update.context("ecs:UpdateService", &[], false);
        assert_eq!(context["ecs:cluster"], one(&arn("cluster/one")));
    }
}

#[test]
fn roles_are_handed_to_the_tasks_of_ecs() {
    let role = |name: &str| format!("arn:aws:iam::000000000000:role/{name}");
    let body = json!({
        "family": "api", "taskRoleArn": role("api"), "executionRoleArn": role("execution"),
        "tags": [{ "key": "bme:env", "value": "local" }],
    });
    let register = json_call("ecs", "RegisterTaskDefinition", &body);
    assert_eq!(
        register.asked(),
        [
            "ecs:RegisterTaskDefinition arn:aws:ecs:HERE:task-definition/api:*",
            "ecs:TagResource arn:aws:ecs:HERE:task-definition/api:*",
            "iam:PassRole arn:aws:iam::ACCOUNT:role/execution",
            "iam:PassRole arn:aws:iam::ACCOUNT:role/api",
        ]
    );
    let context = register.context("iam:PassRole", &[], false);
    assert_eq!(context["iam:PassedToService"], one("ecs-tasks.amazonaws.com"));
}

#[test]
fn buckets_and_objects_have_no_region_and_no_account() {
    let put = sent("s3", "PUT", "/bucket/a%20b/c.json?x-id=PutObject", &[], b"{}");
    assert_eq!(put.asked(), ["s3:PutObject arn:aws:s3:::bucket/a b/c.json"]);
    let copy = [("x-amz-copy-source", "other/from.html?versionId=1")];
    assert_eq!(
        sent("s3", "PUT", "/bucket/to.html", &copy, b"").asked(),
        ["s3:GetObject arn:aws:s3:::other/from.html", "s3:PutObject arn:aws:s3:::bucket/to.html"]
    );
    let body = b"<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>";
    assert_eq!(
        sent("s3", "POST", "/bucket/?delete", &[], body).asked(),
        [
            "s3:DeleteObjectVersion arn:aws:s3:::bucket/a&b",
            "s3:DeleteObjectVersion arn:aws:s3:::bucket/c",
        ]
    );
    let body = b"<CreateBucketConfiguration><Tags><Tag><Key>bme:env</Key><Value>local</Value></Tag></Tags></CreateBucketConfiguration>";
    let create = sent("s3", "PUT", "/bucket/", &[], body);
    assert_eq!(
        create.asked(),
        ["s3:CreateBucket arn:aws:s3:::bucket", "s3:TagResource arn:aws:s3:::bucket"]
    );
    let context = create.context("s3:TagResource", &[], true);
    assert_eq!(context["aws:RequestTag/bme:env"], one("local"));
}

#[test]
fn a_distribution_is_named_by_its_path_and_tagged_by_its_body() {
    let get = sent("cloudfront", "GET", "/2020-05-31/distribution/E1/config", &[], b"");
    assert_eq!(
        get.asked(),
        ["cloudfront:GetDistributionConfig arn:aws:cloudfront::ACCOUNT:distribution/E1"]
    );
    let body = b"<DistributionConfigWithTags><Tags><Items><Tag><Key>bme:env</Key><Value>local</Value></Tag></Items></Tags></DistributionConfigWithTags>";
    let create = sent("cloudfront", "POST", "/2020-05-31/distribution?WithTags", &[], body);
    assert_eq!(
        create.asked(),
        [
            "cloudfront:CreateDistribution *",
            "cloudfront:TagResource arn:aws:cloudfront::ACCOUNT:distribution/*",
        ]
    );
    let context = create.context("cloudfront:CreateDistribution", &[], true);
    assert_eq!(context["aws:RequestTag/bme:env"], one("local"));
}

#[test]
fn an_alarm_is_named_in_cbor() {
    let body = b"\xbf\x69AlarmName\x63cpu\x69Threshold\xfb\x40\x55\x40\x00\x00\x00\x00\x00\x64Tags\x81\xa2\x63Key\x67bme:env\x65Value\x65local\xff";
    let path = "/service/GraniteServiceVersion20100801/operation/PutMetricAlarm";
    assert_eq!(
        sent("monitoring", "POST", path, &[], body).asked(),
        [
            "cloudwatch:PutMetricAlarm arn:aws:cloudwatch:HERE:alarm:cpu",
            "cloudwatch:TagResource arn:aws:cloudwatch:HERE:alarm:cpu",
        ]
    );
}

#[test]
fn a_queue_is_named_by_its_address_and_tagged_by_a_map() {
    let address = json!({ "QueueUrl": "http://127.0.0.1:4566/000000000000/voice" });
    assert_eq!(
        json_call("sqs", "GetQueueAttributes", &address).asked(),
        ["sqs:GetQueueAttributes arn:aws:sqs:HERE:voice"]
    );
    let create = json!({ "QueueName": "voice", "tags": { "bme:env": "local" } });
    assert_eq!(
        json_call("sqs", "CreateQueue", &create).asked(),
        ["sqs:CreateQueue arn:aws:sqs:HERE:voice", "sqs:TagQueue arn:aws:sqs:HERE:voice"]
    );
}

#[test]
fn a_secret_that_is_to_be_has_six_more_characters() {
    let create = json!({ "Name": "one", "Tags": [{ "Key": "bme:env", "Value": "local" }] });
    assert_eq!(
        json_call("secretsmanager", "CreateSecret", &create).asked(),
        [
            "secretsmanager:CreateSecret arn:aws:secretsmanager:HERE:secret:one-??????",
            "secretsmanager:TagResource arn:aws:secretsmanager:HERE:secret:one-??????",
        ]
    );
}

#[test]
fn the_firewall_tells_the_load_balancer_in_the_callers_name() {
    let body = json!({ "WebACLArn": "arn:acl", "ResourceArn": "arn:balancer" });
    assert_eq!(
        json_call("wafv2", "AssociateWebACL", &body).asked(),
        [
            "wafv2:AssociateWebACL arn:acl",
            "wafv2:AssociateWebACL arn:balancer",
            "elasticloadbalancing:SetWebACL arn:balancer",
        ]
    );
}

#[test]
fn the_registry_is_asked_for_its_repository() {
    let put = sent("ecr", "PUT", "/v2/team/one/manifests/v1", &[], b"{}");
    assert_eq!(put.asked(), ["ecr:PutImage arn:aws:ecr:HERE:repository/team/one"]);
    assert!(sent("ecr", "GET", "/v2/", &[], b"").asked().is_empty());
}

#[test]
fn a_change_of_records_tells_names_and_actions() {
    let body = b"<ChangeResourceRecordSetsRequest><Change><Action>DELETE</Action><ResourceRecordSet><Name>App.Example.com.</Name><Type>A</Type></ResourceRecordSet></Change></ChangeResourceRecordSetsRequest>";
    let change = sent("route53", "POST", "/2013-04-01/hostedzone/Z1/rrset/", &[], body);
    assert_eq!(
        change.asked(),
        ["route53:ChangeResourceRecordSets arn:aws:route53:::hostedzone/Z1"]
    );
    let context = change.context("route53:ChangeResourceRecordSets", &[], false);
    let many = |value: &str| Some(Values::Many(vec![value.to_owned()]));
    let names = "route53:ChangeResourceRecordSetsNormalizedRecordNames";
    assert_eq!(context.get(names).cloned(), many("app.example.com"));
    assert_eq!(context.get("route53:ChangeResourceRecordSetsActions").cloned(), many("DELETE"));
}

#[test]
fn what_is_not_known_is_asked_for_on_everything() {
    assert_eq!(query("ec2", "Action=DescribeVpcs").asked(), ["ec2:DescribeVpcs *"]);
    assert_eq!(json_call("kms", "CreateKey", &json!({})).asked(), ["kms:CreateKey *"]);
    assert!(query("sts", "Action=GetCallerIdentity").asked().is_empty());
}

#[test]
fn every_operation_is_there_once() {
    let mut seen = BTreeSet::new();
    let same = actions::SAME_NAME.iter().flat_map(|(names, _)| names.iter());
    for name in same.chain(renamed::OTHER_NAME.iter().map(|(name, _)| name)) {
        assert!(seen.insert(name), "{name} is there twice");
    }
}

#[test]
fn a_session_has_the_policies_of_its_role() {
    let source = |arn: &str| Principal::of(arn).map(|principal| principal.source);
    let user = "arn:aws:iam::000000000000:user/anna";
    assert_eq!(source(user).as_deref(), Some(user));
    assert_eq!(
        source("arn:aws:sts::000000000000:assumed-role/deploy/run").as_deref(),
        Some("arn:aws:iam::000000000000:role/deploy")
    );
    assert_eq!(source("arn:aws:iam::000000000000:root"), None);
}

#[test]
fn the_refusal_is_in_the_words_of_aws() {
    let create = query("ec2", "Action=DeleteVpc&VpcId=vpc-1");
    let arn = "arn:aws:iam::000000000000:user/anna";
    let question = Question {
        source: arn.into(),
        action: "ec2:DeleteVpc".into(),
        resource: "arn:aws:ec2:us-east-1:000000000000:vpc/vpc-1".into(),
        context: Context::from([(
            "aws:TagKeys".into(),
            Values::Many(vec!["a".into(), "b".into()]),
        )]),
    };
    let principal = Principal::of(arn).unwrap();
    let answer = refused(&create.call, &principal, &question, Decision::Missing);
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let text = answer.text();
    assert!(text.contains("<Code>UnauthorizedOperation</Code>"), "{text}");
    assert!(
        text.contains("User: arn:aws:iam::000000000000:user/anna is not authorized to perform: ec2:DeleteVpc on resource: arn:aws:ec2:us-east-1:000000000000:vpc/vpc-1 because no identity-based policy allows the ec2:DeleteVpc action"),
        "{text}"
    );
    let form = simulation(&question);
    let kind = "ContextEntries.member.1.ContextKeyType";
    assert!(form.contains(&(kind.into(), "stringList".into())), "{form:?}");
    let second = "ContextEntries.member.1.ContextKeyValues.member.2";
    assert!(form.contains(&(second.into(), "b".into())), "{form:?}");
}
