use std::path::Path;

use super::*;

const MINIMAL: &str =
    "name = \"demo\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";

fn problems(text: &str) -> Vec<Problem> {
    parse(Path::new("demo.toml"), text, Target::Aws).expect_err("the text has problems")
}

/// The problems of the minimal file with `more` below it, as `line:column message`.
fn with(more: &str) -> Vec<String> {
    problems(&format!("{MINIMAL}{more}"))
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.message))
        .collect()
}

#[test]
fn a_minimal_file_is_enough() {
    let environment = parse(Path::new("demo.toml"), MINIMAL, Target::Aws).unwrap();
    assert_eq!(environment.name, "demo");
    assert_eq!(environment.network.zones, 2);
}

#[test]
fn the_schema_in_the_repository_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments/schema.json");
    if std::env::var_os("BME_WRITE_SCHEMA").is_some() {
        fs::write(&path, schema_json()).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap();
    assert!(checked_in == schema_json(), "run this test with BME_WRITE_SCHEMA=1 and commit");
}

#[test]
fn the_files_in_the_repository_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
    let names = names(&directory);
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let file = directory.join(format!("{name}.toml"));
        let text = fs::read_to_string(&file).unwrap();
        let environment = parse(&file, &text, Target::Emulator).unwrap();
        assert_eq!(environment.name, name);
        let on_aws = parse(&file, &text, Target::Aws);
        if name == "local" {
            assert!(on_aws.is_ok());
        } else {
            let problems = on_aws.expect_err("the placeholder account is refused on AWS");
            assert_eq!(problems.len(), 1);
            assert!(problems[0].message.contains(PLACEHOLDER_ACCOUNT));
        }
    }
}

#[test]
fn a_syntax_error_has_its_place() {
    let problems = problems("name = \"demo\"\n[aws\n");
    assert_eq!((problems[0].line, problems[0].column), (2, 5));
    assert!(problems[0].message.starts_with("this is not TOML"), "{}", problems[0].message);
}

#[test]
fn an_unknown_field_has_a_suggestion() {
    let text = format!("{MINIMAL}[network]\nzone = 3\n");
    let problems = problems(&text);
    assert_eq!(problems.len(), 1);
    assert_eq!(&text[problems[0].span.clone()], "zone");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `zones`?"));
}

#[test]
fn a_field_in_the_wrong_table_is_told_its_table() {
    let problems = problems(&format!("{MINIMAL}[network]\nmulti_az = true\n"));
    assert_eq!(problems[0].help.as_deref(), Some("`multi_az` belongs into `[database]`"));
}

#[test]
fn every_problem_is_told_at_once_and_in_order() {
    let found = with(
        "[network]\ncidr = \"10.0.0.300/16\"\nzones = 9\nnat = \"singel\"\n\
         [database]\nmulti_az = \"yes\"\npostgres_version = \"9\"\n\
         [edge]\ndomain = \"example.org\"\n\
         [compute.api]\nminimum = 5\nmaximum = 2\n\
         [colour]\n",
    );
    assert_eq!(
        found,
        [
            "6:8 \"10.0.0.300/16\" is not an IPv4 range",
            "7:9 `network.zones` must be at most 3, but is 9",
            "8:7 \"singel\" is not a possible `network.nat`",
            "10:12 `database.multi_az` must be true or false, but is the string \"yes\"",
            "11:20 \"9\" is not a valid `database.postgres_version`",
            "13:10 the domain \"example.org\" has no certificate",
            "16:11 `compute.api` may scale to 2 tasks but always runs 5",
            "17:2 unknown field `colour` in an environment file",
        ]
    );
}

#[test]
fn what_aurora_has_not_is_told() {
    let aurora = "[database]\nengine = \"aurora-postgresql\"\n";
    // The default is too small, and not in the file.
    assert_eq!(with(aurora), ["5:2 Aurora PostgreSQL has no db.t4g.micro"]);
    let found =
        with(&format!("{aurora}instance_class = \"db.m7g.large\"\nbackup_retention_days = 0\n"));
    assert_eq!(
        found,
        [
            "7:18 Aurora PostgreSQL has no db.m7g.large",
            "8:25 Aurora always keeps backups, for a day at least",
        ]
    );
    let text = format!("{MINIMAL}{aurora}instance_class = \"db.t4g.medium\"\n");
    let environment = parse(Path::new("demo.toml"), &text, Target::Aws).unwrap();
    assert_eq!(environment.database.engine, DatabaseEngine::AuroraPostgresql);
}

#[test]
fn missing_fields_are_named() {
    let found: Vec<String> = problems("[aws]\nregion = \"eu-west-1\"\n")
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    assert_eq!(found, ["the file lacks the field `name`", "`[aws]` lacks the field `accounts`"]);
}

#[test]
fn a_region_of_another_partition_is_refused() {
    for (region, partition) in [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")] {
        let problems = problems(&MINIMAL.replace("eu-west-1", region));
        assert_eq!(problems.len(), 1, "{problems:?}");
        let message = &problems[0].message;
        assert!(
            message.contains(region) && message.contains(&format!("`{partition}`")),
            "{message}"
        );
        assert!(problems[0].help.as_deref().is_some_and(|help| help.contains("eu-central-1")));
    }
    for region in ["us-east-1", "eu-central-1", "ap-southeast-2", "us-west-2", "il-central-1"] {
        let text = MINIMAL.replace("eu-west-1", region);
        assert!(parse(Path::new("demo.toml"), &text, Target::Aws).is_ok(), "{region}");
    }
}

#[test]
fn a_name_that_cognito_refuses_is_told() {
    let problems = parse(Path::new("aws-eu.toml"), &MINIMAL.replace("demo", "aws-eu"), Target::Aws);
    let problems = problems.expect_err("the text has a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].message, "no environment may have `aws` in its name");
}

#[test]
fn tags_that_aws_refuses_are_told() {
    let found = with(
        "[tags]\nTeam = \"a\"\nteam = \"b\"\nname = \"c\"\nunit = \"R&D\"\nplace = \"Zürich 1\"\n",
    );
    assert_eq!(
        found,
        [
            "7:1 the tag `team` is there already, in upper or lower case",
            "8:1 the tag `name` is there already, in upper or lower case",
            "9:1 AWS does not take the tag `unit`",
        ]
    );
}

#[test]
fn a_name_has_its_limit_in_words() {
    let name = "a".repeat(60);
    let problems = problems(&MINIMAL.replace("demo", &name));
    assert_eq!(problems[0].message, "`name` may have at most 40 characters, this one has 60");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn the_name_of_the_file_is_the_name_of_the_environment() {
    let problems = problems(&MINIMAL.replace("demo", "other"));
    assert_eq!(problems[0].message, "`name` is \"other\", but the file is called demo.toml");
}

#[test]
fn subnets_lie_apart_and_inside_the_vpc() {
    let found = with(
        "[network]\ncidr = \"10.0.0.0/16\"\n\
         public_cidrs = [\"10.0.0.0/24\", \"10.1.0.0/24\"]\n\
         private_cidrs = [\"10.0.0.128/25\", \"10.0.2.0/24\", \"10.0.3.0/24\"]\n",
    );
    assert_eq!(
        found,
        [
            "7:32 10.1.0.0/24 lies outside of the VPC's 10.0.0.0/16",
            "8:17 `private_cidrs` has 3 ranges for 2 zones",
            "8:18 10.0.0.128/25 overlaps 10.0.0.0/24 of `public_cidrs[0]`",
        ]
    );
}

#[test]
fn the_vpc_has_a_size_that_aws_and_the_runbook_allow() {
    assert_eq!(
        with("[network]\ncidr = \"10.0.0.0/8\"\n"),
        ["6:8 the range of the VPC must be /16 to /24, but is /8"]
    );
    assert_eq!(
        with("[network]\ncidr = \"10.20.0.1/16\"\n"),
        ["6:8 10.20.0.1/16 has bits set after its first 16"]
    );
}

#[test]
fn fargate_has_its_own_sizes() {
    assert_eq!(
        with("[compute.worker]\ncpu = 256\nmemory = 1536\n"),
        ["7:10 Fargate has no task of 256 CPU units and 1536 MiB"]
    );
    assert_eq!(with("[compute.api]\ncpu = 300\n"), ["6:7 Fargate has no size of 300 CPU units"]);
    let text = format!("{MINIMAL}[compute.api]\ncpu = 8192\nmemory = 20480\n");
    assert!(parse(Path::new("demo.toml"), &text, Target::Aws).is_ok());
}

#[test]
fn retention_is_one_of_the_days_that_aws_knows() {
    let text = format!("{MINIMAL}[observability]\nlog_retention_days = 31\n");
    let problems = problems(&text);
    assert_eq!(problems[0].message, "31 is not a possible `observability.log_retention_days`");
    assert_eq!(problems[0].label.as_deref(), Some("did you mean 30?"));
}

#[test]
fn a_lease_outlives_three_beats() {
    assert_eq!(
        with("[engine]\nbeat_milliseconds = 30000\n"),
        ["5:2 a lease of 60000 ms is shorter than three beats of 30000 ms"]
    );
}

#[test]
fn problems_inside_an_optional_table_have_their_place() {
    assert_eq!(
        with("[sandbox]\nport = 80\nports = 1\n"),
        [
            "6:8 `sandbox.port` must be at least 1024, but is 80",
            "7:1 unknown field `ports` in `[sandbox]`",
        ]
    );
}

#[test]
fn certificates_are_in_their_regions() {
    assert_eq!(
        with("[edge]\ncertificate_arn = \"arn:aws:acm:eu-west-1:123456789012:certificate/x\"\n"),
        [concat!(
            "6:19 \"arn:aws:acm:eu-west-1:123456789012:certificate/x\" is not a valid ",
            "`edge.certificate_arn`"
        )]
    );
    assert_eq!(
        with("[compute]\ncertificate_arn = \"arn:aws:acm:us-east-1:123456789012:certificate/x\"\n"),
        ["6:19 the load balancer's certificate is not in eu-west-1"]
    );
}

#[test]
fn a_domain_has_a_zone_or_a_certificate_and_not_both() {
    let zone = "hosted_zone_id = \"Z0123\"\n";
    let domain = "domain = \"app.example.org\"\n";
    let arn = "certificate_arn = \"arn:aws:acm:us-east-1:123456789012:certificate/x\"\n";
    let valid = |more: &str| {
        parse(Path::new("demo.toml"), &format!("{MINIMAL}{more}"), Target::Aws).unwrap()
    };
    let environment = valid(&format!("[edge]\n{domain}{zone}"));
    assert_eq!(environment.origin_domain().as_deref(), Some("origin.app.example.org"));
    assert!(environment.load_balancer_tls());
    let environment = valid(&format!("[edge]\n{domain}{arn}"));
    assert_eq!(environment.origin_domain(), None);
    assert!(!environment.load_balancer_tls());

    let none = "6:10 the domain \"app.example.org\" has no certificate";
    assert_eq!(with(&format!("[edge]\n{domain}")), [none]);
    let alone = "6:1 a zone without a domain is of no use";
    assert_eq!(with(&format!("[edge]\n{zone}")), [alone]);
    let both = "8:1 `edge.certificate_arn` and `edge.hosted_zone_id` exclude each other";
    assert_eq!(with(&format!("[edge]\n{domain}{zone}{arn}")), [both]);
    let own = arn.replace("us-east-1", "eu-west-1");
    let both = "9:1 `compute.certificate_arn` and `edge.hosted_zone_id` exclude each other";
    assert_eq!(with(&format!("[edge]\n{domain}{zone}[compute]\n{own}")), [both]);
    let upper = with(&format!("[edge]\ndomain = \"App.example.org\"\n{zone}"));
    assert!(upper[0].contains("not a valid `edge.domain`"), "{upper:?}");
    let long = format!("[edge]\ndomain = \"{}.example.org\"\n{zone}", "x".repeat(50));
    assert!(with(&long)[0].contains("too long for a certificate"), "{:?}", with(&long));
}

#[test]
fn the_load_balancer_has_a_name_of_its_own_with_https_only() {
    let plain = "[compute]\ndomain = \"lb.example.org\"\n";
    let none = "6:10 the load balancer's domain \"lb.example.org\" has no certificate";
    assert_eq!(with(plain), [none]);
    let edge = "[edge]\ndomain = \"lb.example.org\"\nhosted_zone_id = \"Z0123\"\n";
    let same = "6:10 both load balancer and distribution are called \"lb.example.org\"";
    assert_eq!(with(&format!("{plain}{edge}")), [same]);
}

#[test]
fn an_unknown_environment_is_told_what_there_is() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
    let problems = load(&directory, "stagin").unwrap_err();
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `--env staging`?"));
    let problems = load(&directory, "qa").unwrap_err();
    let help = problems[0].help.as_deref().unwrap();
    assert!(help.contains("`local`") && help.contains("`bme init qa`"), "{help}");
}

#[test]
fn cognito_is_the_default_on_aws_and_takes_no_mcp_secret() {
    let user = "[compute.mcp]\nuser = \"0190b5b2-7f6e-7cc0-8000-0123456789ab\"\n";
    assert_eq!(with(user), ["6:8 with Cognito no secret opens a user's data"]);
    let text = |more: &str| format!("{MINIMAL}{more}");
    let auth = |text: &str| parse(Path::new("demo.toml"), text, Target::Aws).map(|it| it.auth());
    assert_eq!(auth(MINIMAL).unwrap(), Auth::Cognito);
    assert_eq!(auth(&text("[sandbox]\n")).unwrap(), Auth::Local);
    let local = text(&format!("[identity]\nauth = \"local\"\n{user}"));
    assert_eq!(auth(&local).unwrap(), Auth::Local);
    assert!(auth(&text("[sandbox]\n[identity]\nauth = \"none\"\n")).is_err());
    let tools = "[compute.mcp]\nallowed_tools = [\"drop_tables\"]\n";
    assert!(with(tools)[0].contains("drop_tables"), "{:?}", with(tools));
}

#[test]
fn a_pipeline_has_a_connection_and_no_sandbox() {
    let connection = "connection_arn = \"arn:aws:codeconnections:eu-west-1:123456789012:connection/0190b5b2-7f6e-7cc0-8000-0123456789ab\"\n";
    let text = |table: &str, more: &str| format!("{table}[delivery.pipeline]\n{more}");
    let complete = format!("{MINIMAL}{}", text("", connection));
    let environment = parse(Path::new("demo.toml"), &complete, Target::Aws).unwrap();
    let pipeline = environment.delivery.pipeline.unwrap();
    assert_eq!((pipeline.branch.as_str(), pipeline.repository), ("main", None));
    for (wrong, says) in [
        (text("", "branch = \"main\"\n"), "`[delivery.pipeline]` lacks the field `connection_arn`"),
        (text("", "connection_arn = \"x\"\n"), "is not a valid `delivery.pipeline.connection_arn`"),
        (text("[sandbox]\n", connection), "a sandbox has no CodePipeline"),
    ] {
        let problems = with(&wrong);
        assert!(problems.len() == 1 && problems[0].ends_with(says), "{problems:?}");
    }
}
