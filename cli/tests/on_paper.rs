//! What is told about an environment without asking AWS: through the built binary, without
//! credentials and with an endpoint where nobody listens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The environment files of this repository, with the placeholder of the account replaced.
fn project() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let environments = directory.path().join("environments");
    std::fs::create_dir(&environments).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
    for name in ["local.toml", "staging.toml", "production.toml"] {
        let text = std::fs::read_to_string(source.join(name)).unwrap();
        let text = text.replace("111122223333", "123456789012");
        std::fs::write(environments.join(name), text).unwrap();
    }
    directory
}

fn run(directory: &Path, environment: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bme"))
        .args(["--env", environment])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn told(environment: &str, arguments: &[&str]) -> String {
    let output = run(project().path(), environment, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

fn document(environment: &str, arguments: &[&str]) -> Value {
    let text = told(environment, &[&["--output", "json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_cost_of_production_is_more_than_that_of_staging_and_sums_up() {
    let of = |environment| document(environment, &["cost"]);
    let (staging, production) = (of("staging"), of("production"));
    for cost in [&staging, &production] {
        let steps = cost["steps"].as_array().unwrap();
        let resources = steps.iter().flat_map(|step| step["resources"].as_array().unwrap());
        let sum: f64 = resources.map(|resource| resource["monthlyCost"].as_f64().unwrap()).sum();
        assert!((sum - cost["monthlyCost"].as_f64().unwrap()).abs() < 0.01, "{cost:#}");
        // The database and the NAT gateway are never free.
        assert!(sum > 40.0, "{cost:#}");
    }
    assert!(production["monthlyCost"].as_f64() > staging["monthlyCost"].as_f64());
}

#[test]
fn the_cost_for_people_ends_with_the_total() {
    let text = told("staging", &["cost", "--step", "database"]);
    assert!(text.contains("instance"), "{text}");
    assert!(!text.contains("nat-gateway"), "{text}");
    assert!(text.lines().last().unwrap().trim_start().starts_with("total"), "{text}");
}

#[test]
fn every_resource_comes_after_its_needs() {
    for environment in ["local", "staging", "production"] {
        let mut before = BTreeSet::new();
        for resource in document(environment, &["graph"]).as_array().unwrap() {
            for need in resource["needs"].as_array().unwrap() {
                assert!(before.contains(need.as_str().unwrap()), "{need} of {resource}");
            }
            before.insert(resource["id"].as_str().unwrap().to_owned());
        }
        assert!(before.len() > 80, "{environment} has {} resources", before.len());
    }
}

#[test]
fn the_drawings_have_the_same_arrows() {
    let count = |text: &str, arrow: &str| text.matches(arrow).count();
    let mermaid = told("production", &["graph"]);
    let dot = told("production", &["graph", "--format", "dot"]);
    assert!(mermaid.starts_with("flowchart LR\n"), "{mermaid}");
    assert!(mermaid.contains("network__vpc --> network__internet-gateway"), "{mermaid}");
    assert!(dot.contains("\"network/vpc\" -> \"network/internet-gateway\""), "{dot}");
    assert_eq!(count(&mermaid, " --> "), count(&dot, " -> "));
}

#[test]
fn the_region_decides_whose_prices_are_taken() {
    assert_eq!(document("staging", &["cost"])["priceRegion"], "eu-west-1");
    let text = told("local", &["cost"]);
    assert!(text.starts_with("`local` in us-east-1, list prices of us-east-1\n"), "{text}");
    let directory = project();
    let file = directory.path().join("environments/staging.toml");
    let elsewhere = std::fs::read_to_string(&file).unwrap().replace("eu-west-1", "ap-south-1");
    std::fs::write(&file, elsewhere.replace("db.t4g.micro", "db.x9z.large")).unwrap();
    let output = run(directory.path(), "staging", &["--output", "json", "cost"]);
    let cost: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(cost["priceRegion"], "us-east-1");
    assert_eq!(cost["unpriced"], serde_json::json!(["database/instance"]));
    let output = run(directory.path(), "staging", &["cost"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("those of ap-south-1 are not known"), "{error}");
    assert!(
        error.contains("not counted, since the price is unknown: database/instance"),
        "{error}"
    );
}

#[test]
fn a_step_is_explained_with_its_resources_times_and_cost() {
    let step = document("staging", &["explain", "network"]);
    assert_eq!(step["kind"], "step");
    assert_eq!(step["number"], 1);
    assert!(step["monthlyCost"].as_f64().unwrap() > 30.0, "{step:#}");
    let resources = step["resources"].as_array().unwrap();
    assert!(resources.iter().any(|part| part["id"] == "network/vpc"), "{step:#}");
    for part in ["makes ", "why ", "order ", "time ", "cost ", "nat-gateway", "what can go wrong"] {
        let text = told("staging", &["explain", "network"]);
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_resource_is_explained_with_needs_price_and_what_replaces_it() {
    let resource = document("staging", &["explain", "cache/replication-group"]);
    assert_eq!(resource["kind"], "resource");
    assert_eq!(resource["priceRegion"], "eu-west-1");
    assert_eq!(resource["holdsData"], true);
    assert!(resource["typicalSeconds"].as_f64().unwrap() > 60.0, "{resource:#}");
    let needs = resource["needs"].as_array().unwrap();
    assert!(needs.contains(&"cache/auth-token".into()), "{resource:#}");
    let text = told("staging", &["explain", "replication-group"]);
    assert!(text.contains("transitEncryptionEnabled: TLS is decided at the creation"), "{text}");
}

#[test]
fn codes_are_explained_outside_any_project() {
    let nowhere = tempfile::tempdir().unwrap();
    for (word, part) in [
        ("not-ours", "tagging it bme:env"),
        ("not-visible", "AWS console"),
        ("locked", "--lock-wait"),
        ("DependencyViolation", "network interface"),
        ("ThrottlingException", "throttled: "),
        ("4", "exit code 4"),
    ] {
        let output = run(nowhere.path(), "local", &["explain", word]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{word}");
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn an_unknown_word_is_bad_usage_and_has_its_nearest() {
    let directory = project();
    for (word, nearest) in [
        ("netwrok", "`network`"),
        ("cache/replication-grup", "`cache/replication-group`"),
        ("DependencyViolatoin", "`DependencyViolation`"),
        ("xyzzy", "name a step (network, database"),
    ] {
        let output = run(directory.path(), "staging", &["explain", word]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(output.stdout.is_empty() && error.contains(nearest), "{nearest} not in:\n{error}");
    }
}

#[test]
fn the_prices_are_listed_with_source_and_date() {
    let prices = document("staging", &["explain", "prices"]);
    assert_eq!(prices["kind"], "prices");
    for group in prices["groups"].as_array().unwrap() {
        assert!(group["source"].is_string() && group["date"].is_string(), "{group:#}");
    }
    assert!(told("staging", &["explain", "prices"]).contains("db.m7g.large"));
}

#[test]
fn the_policy_is_the_same_document_for_people_and_programs() {
    let json = document("staging", &["policy", "--step", "queue"]);
    assert_eq!(json["Version"], "2012-10-17");
    assert!(json.to_string().contains("arn:aws:sqs:eu-west-1:123456789012:bme-staging-voice"));
    let human: Value =
        serde_json::from_str(&told("staging", &["policy", "--step", "queue"])).unwrap();
    assert_eq!(human, json);
    let whole = document("staging", &["policy"]);
    assert!(whole.to_string().len() > 3 * json.to_string().len());
    let pipeline = document("staging", &["policy", "--for", "ci"]).to_string();
    assert!(pipeline.contains("ecs:RunTask") && !pipeline.contains("ec2:CreateVpc"), "{pipeline}");
}
