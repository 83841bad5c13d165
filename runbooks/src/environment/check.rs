//! What only the typed values show: relations between fields, and limits that no schema can say.

mod database;

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::{Auth, Environment, Network, PLACEHOLDER_ACCOUNT, Target, Tasks, parse::Finding};

/// Ranges that are no ranges. They are looked at before anything is typed, since a schema can't
/// tell `10.0.0.0/8` from `10.0.0.300/8`.
pub(super) fn range_findings(value: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(Value::String(text)) = value.pointer("/network/cidr") {
        findings.extend(range(&["network", "cidr"], text));
    }
    for list in ["public_cidrs", "private_cidrs"] {
        let ranges = value.pointer(&format!("/network/{list}")).and_then(Value::as_array);
        for (index, text) in ranges.into_iter().flatten().enumerate() {
            if let Some(text) = text.as_str() {
                findings.extend(range(&["network", list, &index.to_string()], text));
            }
        }
    }
    findings
}

fn range(path: &[&str], text: &str) -> Option<Finding> {
    let Ok(net) = text.parse::<Ipv4Net>() else {
        let message = format!("{text:?} is not an IPv4 range");
        return Some(Finding::at(path, message).label("write it as `10.20.0.0/16`"));
    };
    let network = net.trunc();
    (network != net).then(|| {
        Finding::at(path, format!("{net} has bits set after its first {}", net.prefix_len()))
            .label(format!("did you mean \"{network}\"?"))
    })
}

/// Everything that is wrong with a typed environment, whose file is called `STEM.toml`.
pub(super) fn findings(environment: &Environment, stem: &str, target: Target) -> Vec<Finding> {
    let mut findings = Vec::new();
    name(environment, stem, &mut findings);
    tags(environment, &mut findings);
    region(environment, &mut findings);
    account(environment, target, &mut findings);
    sandbox(environment, &mut findings);
    engine(environment, &mut findings);
    network(&environment.network, &mut findings);
    database::findings(environment, &mut findings);
    tasks("api", &environment.compute.api, &mut findings);
    tasks("worker", &environment.compute.worker, &mut findings);
    certificates(environment, &mut findings);
    hosted_zone(environment, &mut findings);
    origin_domain(environment, &mut findings);
    addresses(environment, &mut findings);
    mcp(environment, &mut findings);
    pipeline(environment, &mut findings);
    findings
}

fn name(environment: &Environment, stem: &str, findings: &mut Vec<Finding>) {
    if environment.name != stem {
        let message =
            format!("`name` is {:?}, but the file is called {stem}.toml", environment.name);
        findings.push(
            Finding::at(&["name"], message)
                .label(format!("expected {stem:?}"))
                .help("the name of the file and the name in it must be the same"),
        );
    }
    // Amazon Cognito developer guide, "Using the Amazon Cognito prefix domain".
    let refused = ["aws", "amazon", "cognito"].into_iter();
    for word in refused.filter(|word| environment.name.contains(word)) {
        let message = format!("no environment may have `{word}` in its name");
        let help = "the name is part of the sign-in domain, where Cognito refuses it";
        findings.push(Finding::at(&["name"], message).label("refused by Cognito").help(help));
    }
}

/// AWS, "Tag naming limits and requirements": 50 tags, keys of 128 and values of 256 characters,
/// no key that starts with `aws:`. Four of the 50 are ours: three of
/// every label and the release's. The characters are those that all services take (IAM API reference,
/// `Tag`), and IAM tells no two keys apart by upper and lower case (IAM user guide, "Rules for
/// tagging").
fn tags(environment: &Environment, findings: &mut Vec<Finding>) {
    if environment.tags.len() > 46 {
        let message =
            format!("at most 46 tags fit besides our own, these are {}", environment.tags.len());
        findings.push(Finding::at(&["tags"], message).key().label("too many"));
    }
    let mut seen = BTreeSet::from(["name".to_owned()]);
    for (key, value) in &environment.tags {
        let lower = key.to_lowercase();
        if !seen.insert(lower.clone()) {
            let message = format!("the tag `{key}` is there already, in upper or lower case");
            let help = "IAM takes both for the same; `Name` is the resource's own";
            findings.push(Finding::at(&["tags", key], message).key().label("twice").help(help));
        }
        if key.is_empty() || !key.chars().chain(value.chars()).all(in_tags) {
            let message = format!("AWS does not take the tag `{key}`");
            let help = "letters, digits, spaces and _ . : / = + - @, and at least one in the key";
            findings.push(Finding::at(&["tags", key], message).key().label("not a tag").help(help));
        }
        if lower.starts_with("aws:") || lower.starts_with("bme:") {
            findings.push(
                Finding::at(&["tags", key], format!("the tag `{key}` has a reserved prefix"))
                    .key()
                    .label("`aws:` and `bme:` are reserved"),
            );
        }
        if key.chars().count() > 128 || value.chars().count() > 256 {
            let message = format!("the tag `{key}` is too long");
            let help = "a tag's key has at most 128 characters, its value at most 256";
            findings.push(Finding::at(&["tags", key], message).key().label("too long").help(help));
        }
    }
}

fn in_tags(c: char) -> bool {
    c.is_alphanumeric() || " _.:/=+-@".contains(c)
}

/// Regions by how their names begin whose partition is not `aws` (AWS General Reference, "Amazon
/// Resource Names"), each with the partition.
const OTHER_PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("eu-isoe-", "aws-iso-e"),
];

/// ARNs, endpoints and prices here are those of the partition `aws`; in another one policies would
/// allow nothing and some of the services are missing.
fn region(environment: &Environment, findings: &mut Vec<Finding>) {
    let region = &environment.aws.region;
    let other = OTHER_PARTITIONS.into_iter().find(|(prefix, _)| region.starts_with(prefix));
    if let Some((_, partition)) = other {
        let message =
            format!("bme works in the partition `aws` only, but {region} is in `{partition}`");
        findings.push(
            Finding::at(&["aws", "region"], message)
                .label("in another partition")
                .help("choose a region of the partition `aws`, for instance \"eu-central-1\""),
        );
    }
}

fn account(environment: &Environment, target: Target, findings: &mut Vec<Finding>) {
    let aws = &environment.aws;
    if let Some(url) = &aws.endpoint_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        findings.push(
            Finding::at(&["aws", "endpoint_url"], format!("{url:?} is not a URL"))
                .label("must start with http:// or https://"),
        );
    }
    let on_aws =
        target == Target::Aws && aws.endpoint_url.is_none() && environment.sandbox.is_none();
    let placeholder = aws.accounts.iter().position(|account| account == PLACEHOLDER_ACCOUNT);
    if on_aws && let Some(index) = placeholder {
        let message = format!("`aws.accounts` still holds the placeholder {PLACEHOLDER_ACCOUNT}");
        findings.push(
            Finding::at(&["aws", "accounts", &index.to_string()], message)
                .label("put your own account id here")
                .help("`aws sts get-caller-identity --query Account` prints it"),
        );
    }
}

fn sandbox(environment: &Environment, findings: &mut Vec<Finding>) {
    if let Some(sandbox) = &environment.sandbox
        && sandbox.port == sandbox.gateway_port
    {
        let message = format!("both ports of the sandbox are {}", sandbox.port);
        findings.push(
            Finding::at(&["sandbox", "port"], message)
                .reads("sandbox.gateway_port")
                .label("the same as `gateway_port`"),
        );
    }
}

fn engine(environment: &Environment, findings: &mut Vec<Finding>) {
    let (lease, beat) =
        (environment.engine.lease_milliseconds, environment.engine.beat_milliseconds);
    if lease < 3 * beat {
        let message = format!("a lease of {lease} ms is shorter than three beats of {beat} ms");
        findings.push(
            Finding::at(&["engine", "lease_milliseconds"], message)
                .reads("engine.beat_milliseconds")
                .label(format!("at least {}", 3 * beat))
                .help("one late beat must not lose the lock"),
        );
    }
}

fn network(network: &Network, findings: &mut Vec<Finding>) {
    let vpc = network.cidr;
    if !(16..=24).contains(&vpc.prefix_len()) {
        let message =
            format!("the range of the VPC must be /16 to /24, but is /{}", vpc.prefix_len());
        findings.push(Finding::at(&["network", "cidr"], message).label("/16 to /24"));
    }
    let lists =
        [("public_cidrs", &network.public_cidrs), ("private_cidrs", &network.private_cidrs)];
    let given = lists.iter().filter(|(_, ranges)| ranges.is_some()).count();
    let mut seen: Vec<(Ipv4Net, String)> = Vec::new();
    for (list, ranges) in lists {
        let Some(ranges) = ranges else { continue };
        if given == 1 {
            findings.push(
                Finding::at(&["network", list], format!("`{list}` stands alone"))
                    .key()
                    .label("give both lists, or none")
                    .help("what is not given is cut out of `cidr` and could overlap these"),
            );
        }
        if ranges.len() != usize::from(network.zones) {
            let message =
                format!("`{list}` has {} ranges for {} zones", ranges.len(), network.zones);
            findings.push(
                Finding::at(&["network", list], message)
                    .reads("network.zones")
                    .label(format!("one range for each of {} zones", network.zones)),
            );
        }
        for (index, &range) in ranges.iter().enumerate() {
            let index = index.to_string();
            let path = ["network", list, index.as_str()];
            if !vpc.contains(&range) {
                let message = format!("{range} lies outside of the VPC's {vpc}");
                findings.push(
                    Finding::at(&path, message).reads("network.cidr").label("outside of the VPC"),
                );
            }
            if range.prefix_len() > 28 {
                let message = format!("{range} is smaller than AWS allows");
                findings.push(Finding::at(&path, message).label("at most /28"));
            }
            for (other, place) in &seen {
                if other.contains(&range) || range.contains(other) {
                    let message = format!("{range} overlaps {other} of `{place}`");
                    findings.push(Finding::at(&path, message).label(format!("overlaps {other}")));
                }
            }
            seen.push((range, format!("{list}[{index}]")));
        }
    }
}

/// Amazon ECS, "Task CPU and memory" for Fargate: CPU units, smallest and largest memory and the
/// step between, MiB. The smallest size has three values of its own.
const FARGATE: [(i32, i32, i32, i32); 7] = [
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122_880, 8192),
];

fn tasks(service: &str, tasks: &Tasks, findings: &mut Vec<Finding>) {
    let at = |field| ["compute", service, field];
    if tasks.maximum < tasks.minimum {
        let message = format!(
            "`compute.{service}` may scale to {} tasks but always runs {}",
            tasks.maximum, tasks.minimum
        );
        findings.push(
            Finding::at(&at("maximum"), message)
                .reads(&format!("compute.{service}.minimum"))
                .label(format!("at least {}", tasks.minimum)),
        );
    }
    match FARGATE.iter().find(|(cpu, ..)| *cpu == tasks.cpu) {
        None => {
            let sizes: Vec<String> = FARGATE.iter().map(|(cpu, ..)| cpu.to_string()).collect();
            findings.push(
                Finding::at(&at("cpu"), format!("Fargate has no size of {} CPU units", tasks.cpu))
                    .label("not a size")
                    .help(format!("possible are {}", sizes.join(", "))),
            );
        }
        Some(&(cpu, smallest, largest, step)) => {
            let in_steps = (tasks.memory - smallest) % step == 0;
            // 256 CPU units take 512, 1024 and 2048 MiB, but not 1536.
            let gap = cpu == 256 && tasks.memory == 1536;
            if !(smallest..=largest).contains(&tasks.memory) || !in_steps || gap {
                let help = if cpu == 256 {
                    "with 256 CPU units, 512, 1024 or 2048 MiB are possible".into()
                } else {
                    format!(
                        "with {cpu} CPU units, {smallest} to {largest} MiB are possible, in steps of {step}"
                    )
                };
                let message =
                    format!("Fargate has no task of {cpu} CPU units and {} MiB", tasks.memory);
                findings.push(
                    Finding::at(&at("memory"), message)
                        .reads(&format!("compute.{service}.cpu"))
                        .label("does not go with `cpu`")
                        .help(help),
                );
            }
        }
    }
}

fn certificates(environment: &Environment, findings: &mut Vec<Finding>) {
    let edge = &environment.edge;
    if let (Some(domain), None, None) = (&edge.domain, &edge.certificate_arn, &edge.hosted_zone_id)
    {
        findings.push(
            Finding::at(&["edge", "domain"], format!("the domain {domain:?} has no certificate"))
                .reads("edge.certificate_arn")
                .reads("edge.hosted_zone_id")
                .label("needs `hosted_zone_id` or `certificate_arn`")
                .help(
                    "with the id of its Route 53 zone in `edge.hosted_zone_id`, certificate and \
                     records are made; or request a certificate in ACM in us-east-1 and put its \
                     ARN into `edge.certificate_arn`",
                ),
        );
    }
    let region = &environment.aws.region;
    if let Some(arn) = &environment.compute.certificate_arn
        && arn.split(':').nth(3) != Some(region)
    {
        let message = format!("the load balancer's certificate is not in {region}");
        findings.push(
            Finding::at(&["compute", "certificate_arn"], message)
                .reads("aws.region")
                .label(format!("must be a certificate in {region}")),
        );
    }
}

/// A zone is for those who bring no certificates, and for a domain that ACM takes.
fn hosted_zone(environment: &Environment, findings: &mut Vec<Finding>) {
    if environment.edge.hosted_zone_id.is_none() {
        return;
    }
    let zone = "edge.hosted_zone_id";
    let (edge, compute) = (&environment.edge, &environment.compute);
    if edge.domain.is_none() {
        findings.push(
            Finding::at(&["edge", "hosted_zone_id"], "a zone without a domain is of no use")
                .key()
                .reads("edge.domain")
                .label("needs `domain`"),
        );
    }
    for (table, given) in [("edge", &edge.certificate_arn), ("compute", &compute.certificate_arn)] {
        if given.is_some() {
            let message = format!("`{table}.certificate_arn` and `{zone}` exclude each other");
            findings.push(
                Finding::at(&[table, "certificate_arn"], message)
                    .key()
                    .reads(zone)
                    .label("give the one or the other")
                    .help("with a zone the certificates of both load balancer and distribution are made"),
            );
        }
    }
    // ACM, RequestCertificate: the first name of a certificate has at most 64 octets.
    let names = [edge.domain.clone(), environment.origin_domain()];
    if let Some(name) = names.into_iter().flatten().find(|name| name.len() > 64) {
        findings.push(
            Finding::at(&["edge", "domain"], format!("{name} is too long for a certificate"))
                .reads("compute.domain")
                .label("at most 64 characters")
                .help("the load balancer is called `origin.` and the domain, or `compute.domain`"),
        );
    }
}

/// The load balancer's own name is for HTTPS, and not the one that users call.
fn origin_domain(environment: &Environment, findings: &mut Vec<Finding>) {
    let Some(domain) = &environment.compute.domain else { return };
    let at = ["compute", "domain"];
    if !environment.load_balancer_tls() {
        findings.push(
            Finding::at(&at, format!("the load balancer's domain {domain:?} has no certificate"))
                .reads("compute.certificate_arn")
                .reads("edge.hosted_zone_id")
                .label("needs `certificate_arn`, or `hosted_zone_id` in `[edge]`"),
        );
    }
    if environment.edge.domain.as_ref() == Some(domain) {
        findings.push(
            Finding::at(&at, format!("both load balancer and distribution are called {domain:?}"))
                .reads("edge.domain")
                .label("must be another name than `edge.domain`"),
        );
    }
}

fn addresses(environment: &Environment, findings: &mut Vec<Finding>) {
    for (index, address) in environment.queue.alert_emails.iter().enumerate() {
        let parts = address.split_once('@');
        if !parts.is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.')) {
            let message = format!("{address:?} is not an e-mail address");
            let path = ["queue", "alert_emails", &index.to_string()];
            findings.push(Finding::at(&path, message).label("not an address"));
        }
    }
    // Cognito takes HTTPS, and HTTP for localhost only.
    for (index, url) in environment.identity.callback_urls.iter().enumerate() {
        let local = ["http://localhost/", "http://localhost:"];
        if !url.starts_with("https://") && !local.iter().any(|prefix| url.starts_with(prefix)) {
            let message = format!("Cognito does not take the callback URL {url:?}");
            let path = ["identity", "callback_urls", &index.to_string()];
            findings
                .push(Finding::at(&path, message).label("https://, or http://localhost for tests"));
        }
    }
}

/// With Cognito the service refuses a secret that opens one user's data.
fn mcp(environment: &Environment, findings: &mut Vec<Finding>) {
    if environment.compute.mcp.user.is_some() && environment.auth() == Auth::Cognito {
        findings.push(
            Finding::at(&["compute", "mcp", "user"], "with Cognito no secret opens a user's data")
                .reads("identity.auth")
                .label("for `auth = \"local\"` only")
                .help("leave it out: a client of the MCP endpoint brings its user's token"),
        );
    }
}

/// What runs on this machine is out of AWS's reach, and the emulator has no pipelines.
fn pipeline(environment: &Environment, findings: &mut Vec<Finding>) {
    if environment.delivery.pipeline.is_some() && environment.sandbox.is_some() {
        findings.push(
            Finding::at(&["delivery", "pipeline"], "a sandbox has no CodePipeline")
                .key()
                .reads("sandbox")
                .label("for an environment on AWS only"),
        );
    }
}
