//! The GitHub workflow that deploys an environment.

use crate::environment::Environment;

// Actions are pinned by commit: a tag can be moved to other code, a commit can't.
const CHECKOUT: &str = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1";
const CREDENTIALS: &str = "aws-actions/configure-aws-credentials@\
                           e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3";

/// The workflow files of the environment, as path in the repository and text. None for one that runs
/// on this machine, which GitHub can't reach, and none where a pipeline of AWS deploys.
pub fn workflows(environment: &Environment) -> Vec<(String, String)> {
    if environment.sandbox.is_some() || environment.delivery.pipeline.is_some() {
        return Vec::new();
    }
    let path = format!(".github/workflows/deploy-{}.yml", environment.name);
    vec![(path, text(environment))]
}

/// Name of the role that the workflow assumes.
pub fn role_name(environment: &str) -> String {
    format!("bme-{environment}-deploy")
}

fn text(environment: &Environment) -> String {
    let name = &environment.name;
    let region = &environment.aws.region;
    let account = environment.aws.accounts.first().map_or("", String::as_str);
    let repository = &environment.delivery.repository;
    let git_ref = &environment.delivery.git_ref;
    let role = role_name(name);
    let (trigger, tag) = if let Some(tags) = git_ref.strip_prefix("refs/tags/") {
        // A version's tag is the release's.
        (format!("tags: ['{tags}']"), "\"$GITHUB_REF_NAME\"")
    } else {
        let branch = git_ref.strip_prefix("refs/heads/").unwrap_or(git_ref);
        (format!("branches: ['{branch}']"), "\"sha-${GITHUB_SHA::12}\"")
    };
    format!(
        "\
# Written by `bme init {name}`; regenerate it rather than editing it.
name: Deploy {name}

on:
  push:
    {trigger}

permissions: {{}}

# One deployment at a time; one that has begun is never cut off.
concurrency:
  group: deploy-{name}
  cancel-in-progress: false

jobs:
  deploy:
    # The role trusts this repository only; in a fork there is nothing to deploy to.
    if: github.repository == '{repository}'
    runs-on: ubuntu-24.04
    timeout-minutes: 60
    permissions:
      contents: read
      id-token: write # the OIDC token, which AWS changes for credentials of this role
    env:
      BME_ENV: {name}
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
      - name: Build bme
        run: cargo build --locked --release -p bme
      - uses: {CREDENTIALS}
        with:
          role-to-assume: arn:aws:iam::{account}:role/{role}
          role-session-name: deploy-{name}
          aws-region: {region}
      - name: Deploy
        run: ./target/release/bme --yes deploy --tag {tag}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, git_ref: &str) -> Environment {
        serde_json::from_value(serde_json::json!({
            "name": name,
            "aws": { "region": "eu-west-1", "accounts": ["111122223333"] },
            "delivery": { "repository": "example/bme", "git_ref": git_ref },
        }))
        .unwrap()
    }

    const STAGING: &str = r#"# Written by `bme init staging`; regenerate it rather than editing it.
name: Deploy staging

on:
  push:
    branches: ['main']

permissions: {}

# One deployment at a time; one that has begun is never cut off.
concurrency:
  group: deploy-staging
  cancel-in-progress: false

jobs:
  deploy:
    # The role trusts this repository only; in a fork there is nothing to deploy to.
    if: github.repository == 'example/bme'
    runs-on: ubuntu-24.04
    timeout-minutes: 60
    permissions:
      contents: read
      id-token: write # the OIDC token, which AWS changes for credentials of this role
    env:
      BME_ENV: staging
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          persist-credentials: false
      - name: Build bme
        run: cargo build --locked --release -p bme
      - uses: aws-actions/configure-aws-credentials@e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3
        with:
          role-to-assume: arn:aws:iam::111122223333:role/bme-staging-deploy
          role-session-name: deploy-staging
          aws-region: eu-west-1
      - name: Deploy
        run: ./target/release/bme --yes deploy --tag "sha-${GITHUB_SHA::12}"
"#;

    #[test]
    fn staging_deploys_on_a_merge_to_main() {
        let files = workflows(&environment("staging", "refs/heads/main"));
        assert_eq!(files, [(".github/workflows/deploy-staging.yml".into(), STAGING.into())]);
    }

    #[test]
    fn production_differs_from_staging_in_its_name_its_trigger_and_its_tag() {
        let expected = STAGING
            .replace("branches: ['main']", "tags: ['v*']")
            .replace("\"sha-${GITHUB_SHA::12}\"", "\"$GITHUB_REF_NAME\"")
            .replace("staging", "production");
        let files = workflows(&environment("production", "refs/tags/v*"));
        assert_eq!(files, [(".github/workflows/deploy-production.yml".into(), expected)]);
    }

    #[test]
    fn where_a_pipeline_deploys_there_is_none() {
        let mut staging = environment("staging", "refs/heads/main");
        staging.delivery.pipeline =
            serde_json::from_value(serde_json::json!({ "connection_arn": "arn" })).ok();
        assert!(staging.delivery.pipeline.is_some() && workflows(&staging).is_empty());
    }

    #[test]
    fn an_environment_on_this_machine_has_none() {
        let mut local = environment("local", "refs/heads/main");
        local.sandbox = serde_json::from_str("{}").ok();
        assert!(local.sandbox.is_some() && workflows(&local).is_empty());
    }
}
