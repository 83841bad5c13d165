use std::path::Path;

use serde_json::Value;

use crate::{
    aws::Aws,
    engine::ResourceId,
    environment::{self, Target},
    release::Release,
    steps::{Stack, graph},
};

const STAGING: &str =
    "name = \"staging\"\n[aws]\nregion = \"eu-west-1\"\naccounts = [\"123456789012\"]\n";
const SANDBOX: &str = "[sandbox]\ngateway_port = 4567\n";
const USER: &str = "0190b5b2-7f6e-7cc0-8000-0123456789ab";

fn release(configuration: &[(&str, &str)]) -> Release {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Release {
        tag: "v1.0.0".into(),
        digest: "sha256:0".into(),
        image: "repository@sha256:0".into(),
        deployed_at: String::new(),
        configuration: configuration.iter().map(own).collect(),
        secret_versions: [].into(),
        web: String::new(),
        schema: 1,
    }
}

/// Variables and secrets of one container, after a release with this configuration.
fn container(more: &str, name: &str, configuration: &[(&str, &str)]) -> [Value; 2] {
    after(release(configuration), more, name)
}

fn after(release: Release, more: &str, name: &str) -> [Value; 2] {
    let text = format!("{STAGING}{more}");
    let environment = environment::parse(Path::new("staging.toml"), &text, Target::Aws).unwrap();
    let aws = Aws::unconnected("123456789012", "eu-west-1");
    let stack =
        Stack { environment, aws, release: Some(release), sandbox_ca: None, every_way_out: false };
    let graph = graph(&stack);
    let id = ResourceId::new("compute", &format!("{name}-task-definition"));
    let container = graph.desired(&id)["containers"][name].clone();
    ["environment", "secrets"].map(|part| container[part].clone())
}

#[test]
fn the_worker_knows_its_model() {
    let [variables, secrets] = container("", "worker", &[]);
    assert_eq!(variables["GEMINI_MODEL"], "gemini-2.5-flash");
    assert!(variables.get("GEMINI_BASE_URL").is_none(), "Google's own address");
    assert!(secrets["GEMINI_API_KEY"].as_str().unwrap().contains("compute/gemini-api-key"));
    let own = "[compute.gemini]\nmodel = \"gemini-3-pro\"\nbase_url = \"https://proxy.example\"\n";
    let [variables, _] = container(own, "worker", &[]);
    assert_eq!(variables["GEMINI_MODEL"], "gemini-3-pro");
    assert_eq!(variables["GEMINI_BASE_URL"], "https://proxy.example");
    let [variables, _] = container(SANDBOX, "worker", &[]);
    let stand_in = "http://gateway.sandbox.internal:4567/_bme/gemini";
    assert_eq!(variables["GEMINI_BASE_URL"], stand_in);
    let [variables, secrets] = container("", "api", &[]);
    assert!(variables.get("GEMINI_MODEL").is_none() && secrets.get("GEMINI_API_KEY").is_none());
}

#[test]
fn the_migration_goes_past_the_pool_as_the_master_of_either_engine() {
    let aurora = "[database]\nengine = \"aurora-postgresql\"\ninstance_class = \"db.r7g.large\"\n";
    for (more, server) in [("", "database/instance"), (aurora, "database/cluster")] {
        let [variables, secrets] = container(more, "migrate", &[]);
        assert_eq!(variables["DATABASE_HOST"], format!("(known after {server})"));
        let password = secrets["DATABASE_PASSWORD"].as_str().unwrap();
        assert_eq!(password, format!("(known after {server})"));
        let [variables, _] = container(more, "api", &[]);
        assert_eq!(variables["DATABASE_HOST"], "(known after database/proxy)");
    }
}

#[test]
fn on_aws_cognito_signs_users_in_and_the_service_holds_no_secret_for_it() {
    let [variables, secrets] = container("", "api", &[]);
    assert_eq!(variables["AUTH_MODE"], "cognito");
    assert_eq!(variables["COGNITO_ISSUER"], "(known after identity/user-pool)");
    assert_eq!(variables["COGNITO_CLIENT_ID"], "(known after identity/user-pool-client)");
    assert_eq!(variables["COGNITO_DOMAIN"], "(known after identity/user-pool-domain)");
    assert!(variables.get("COGNITO_JWKS_URL").is_none(), "below the issuer");
    assert!(secrets.get("JWT_SECRET").is_none() && secrets.get("MCP_SECRET").is_none());
}

#[test]
fn the_sandbox_and_whoever_asks_for_it_have_own_accounts() {
    for more in [SANDBOX, "[identity]\nauth = \"local\"\n"] {
        let [variables, secrets] = container(more, "api", &[]);
        assert_eq!(variables["AUTH_MODE"], "local", "{more}");
        assert!(variables.get("COGNITO_ISSUER").is_none(), "{more}");
        assert!(secrets["JWT_SECRET"].as_str().unwrap().contains("compute/service-secret"));
    }
    let [variables, _] =
        container(&format!("{SANDBOX}[identity]\nauth = \"cognito\"\n"), "api", &[]);
    assert_eq!(variables["COGNITO_DOMAIN"], "http://gateway.sandbox.internal:4567");
    assert!(variables.get("COGNITO_JWKS_URL").is_some());
}

#[test]
fn the_mcp_secret_opens_only_what_a_user_was_named_for() {
    let local = "[identity]\nauth = \"local\"\n[compute.mcp]\n";
    let [variables, secrets] = container(local, "api", &[]);
    assert_eq!(variables["MCP_ALLOWED_HOSTS"], "(known after compute/load-balancer)");
    assert!(variables.get("MCP_USER_ID").is_none() && secrets.get("MCP_SECRET").is_none());
    assert!(variables.get("MCP_ALLOWED_TOOLS").is_none());
    let more =
        format!("{local}user = \"{USER}\"\nallowed_tools = [\"add_goal\", \"add_transaction\"]\n");
    let [variables, secrets] = container(&more, "api", &[]);
    assert_eq!(variables["MCP_USER_ID"], USER);
    assert_eq!(variables["MCP_ALLOWED_TOOLS"], "add_goal,add_transaction");
    assert!(secrets["MCP_SECRET"].as_str().unwrap().contains("compute/mcp-secret"));
    let [variables, _] = container(&more, "worker", &[]);
    assert!(variables.get("MCP_USER_ID").is_none());
}

#[test]
fn each_proxy_in_front_is_counted_and_no_other() {
    for (more, hops) in [("", "2"), (SANDBOX, "1")] {
        for name in ["api", "worker"] {
            let [variables, _] = container(more, name, &[]);
            assert_eq!(variables["TRUSTED_PROXY_HOPS"], hops, "{name}");
        }
    }
}

#[test]
fn the_configuration_of_the_release_wins() {
    let [variables, _] = container("", "worker", &[("GEMINI_MODEL", "gemini-older")]);
    assert_eq!(variables["GEMINI_MODEL"], "gemini-older");
}

#[test]
fn other_versions_of_the_servers_secrets_make_another_task_definition() {
    let of = |secret: &str, version: &str| {
        let versions = [(format!("bme-staging-{secret}"), version.to_owned())];
        let release = Release { secret_versions: versions.into(), ..release(&[]) };
        let [variables, _] = after(release, "", "api");
        variables["SECRET_VERSIONS"].clone()
    };
    assert_eq!(of("auth-token", "one"), of("auth-token", "one"));
    assert_ne!(of("auth-token", "one"), of("auth-token", "two"));
    assert_ne!(of("application-secret", "one"), of("application-secret", "two"));
    assert_eq!(of("auth-token", "one").as_str().map(str::len), Some(16), "a hash");
    // ECS itself is told the version: a task that does not read it goes on.
    assert_eq!(of("gemini-api-key", "one"), of("gemini-api-key", "two"));
}
