use std::path::Path;

use aws_sdk_route53::types::{ResourceRecord, ResourceRecordSet, RrType};

use super::{
    record_set::{owned_names, owner, sets_of},
    *,
};
use crate::{
    aws::Aws,
    environment::{self, Target as Calls},
    steps,
};

const MINIMAL: &str =
    "name = \"demo\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";
const DOMAIN: &str = "[edge]\ndomain = \"app.example.org\"\nhosted_zone_id = \"Z0123\"\n";

fn stack(more: &str) -> Stack {
    let text = format!("{MINIMAL}{more}");
    Stack {
        environment: environment::parse(Path::new("demo.toml"), &text, Calls::Aws).unwrap(),
        aws: Aws::unconnected("123456789012", "eu-west-1"),
        release: None,
        sandbox_ca: None,
        every_way_out: false,
    }
}

fn ids(stack: &Stack) -> Vec<String> {
    steps::graph(stack).nodes().iter().map(|node| node.id.to_string()).collect()
}

fn record(name: &str, kind: RrType, value: &str) -> ResourceRecordSet {
    ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .ttl(60)
        .resource_records(ResourceRecord::builder().value(value).build().unwrap())
        .build()
        .unwrap()
}

#[test]
fn a_domain_in_a_zone_has_two_certificates_and_four_names_and_nothing_else() {
    let (without, with) = (ids(&stack("")), ids(&stack(DOMAIN)));
    let mut more: Vec<&str> =
        with.iter().filter(|id| !without.contains(id)).map(String::as_str).collect();
    more.sort_unstable();
    assert_eq!(
        more,
        [
            "compute/certificate",
            "compute/certificate-record",
            "compute/record",
            "edge/certificate",
            "edge/certificate-record",
            "edge/record",
        ]
    );
    assert_eq!(with.len(), without.len() + more.len());
}

#[test]
fn a_certificate_of_the_team_adds_nothing() {
    let own = "[edge]\ndomain = \"app.example.org\"\n\
               certificate_arn = \"arn:aws:acm:us-east-1:123456789012:certificate/x\"\n";
    assert_eq!(ids(&stack(own)), ids(&stack("")));
    let graph = steps::graph(&stack(own));
    let distribution = graph.desired(&ResourceId::new("edge", "distribution"));
    assert_eq!(distribution["aliases"], serde_json::json!(["app.example.org"]));
    let arn = "arn:aws:acm:us-east-1:123456789012:certificate/x";
    assert_eq!(distribution["viewerCertificate"], arn);
}

#[test]
fn cloudfront_speaks_https_to_the_load_balancer_by_its_own_name() {
    let graph = steps::graph(&stack(DOMAIN));
    let desired = |step, name| graph.desired(&ResourceId::new(step, name));
    let distribution = desired("edge", "distribution");
    let origin = &distribution["origins"]["load-balancer"];
    assert_eq!(origin["domainName"], "origin.app.example.org");
    assert_eq!(origin["customOriginConfig"]["originProtocolPolicy"], "https-only");
    let listener = desired("compute", "listener");
    assert_eq!(listener["port"], 443);
    assert_eq!(listener["protocol"], "HTTPS");
    assert_eq!(listener["certificateArn"], "(known after compute/certificate)");
    assert_eq!(desired("compute", "certificate")["domainName"], "origin.app.example.org");
    let records = desired("edge", "record");
    assert_eq!(records["records"]["A"], records["records"]["AAAA"]);
    assert_eq!(records["owner"], "\"bme:env=demo,bme:resource=edge/record\"");
}

#[test]
fn what_serves_a_certificate_waits_until_it_is_issued() {
    let graph = steps::graph(&stack(DOMAIN));
    for (step, name) in [("edge", "distribution"), ("compute", "listener")] {
        let id = ResourceId::new(step, name);
        let node = graph.nodes().iter().find(|node| node.id == id).unwrap();
        let needs: Vec<_> =
            node.needs.iter().map(|need| graph.nodes()[*need].id.to_string()).collect();
        assert!(needs.contains(&format!("{step}/certificate-record")), "{needs:?}");
    }
}

#[test]
fn former_domains_are_looked_for_by_the_widest_file_only() {
    let former = |id: &String| id.ends_with("/former-domain");
    for more in ["", DOMAIN] {
        assert!(!ids(&stack(more)).iter().any(former));
        assert_eq!(ids(&stack(more).widest()).iter().filter(|id| former(id)).count(), 2);
    }
}

#[test]
fn one_list_of_records_is_enough_unless_the_load_balancer_is_elsewhere() {
    let stack = stack(DOMAIN);
    assert_eq!(listed_below(&stack, "origin.app.example.org"), "app.example.org");
    assert_eq!(listed_below(&stack, "origin.example.net"), "origin.example.net");
}

#[test]
fn an_owner_is_of_one_name_of_one_environment() {
    let label = stack("").label("edge", "record", 255);
    let own = owner(&label);
    let all = [
        record("app.example.org.", RrType::Cname, "elsewhere.example.net."),
        record("app.example.org.", RrType::Mx, "10 mail.example.org."),
        record("bme-owner.app.example.org.", RrType::Txt, &own),
        record("bme-owner.www.example.org.", RrType::Txt, "\"bme:env=other\""),
        record("www.example.org.", RrType::A, "192.0.2.1"),
    ];
    assert_eq!(owned_names(&all, &own), ["app.example.org"]);
    let kinds: Vec<_> =
        sets_of(&all, "app.example.org").iter().map(|set| set.r#type().clone()).collect();
    assert_eq!(kinds, [RrType::Cname, RrType::Txt]);
}
