//! The document against the built service, by a tester that shares no line with either: every
//! operation, examples of all kinds of right and wrong requests, every check on.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;
use tokio::{process::Command, task::spawn_blocking};

use crate::{
    harness::{IdentityProvider, Instance, Mailbox, Process, User, World, X_CLIENT, python},
    openapi,
};

/// The version of the tester: another one has other examples.
const TESTER: &str = "schemathesis==4.32.5";

/// The same examples every time.
const SEED: &str = "9457";

/// Most generated examples for each operation; those that cover the schema come on top.
const EXAMPLES: &str = "12";

/// What only administrators may do begins with this.
const ADMIN: &str = "/api/admin/";

#[tokio::test(flavor = "multi_thread")]
async fn the_service_keeps_what_its_document_promises() {
    let world = World::new().await;
    let (user, admin) = (world.user().await, world.user().await);
    sqlx::query("UPDATE users SET role = 'admin' WHERE id = $1")
        .bind(admin.id)
        .execute(&world.pool)
        .await
        .unwrap();
    let provider = IdentityProvider::start().await;
    let mailbox = Mailbox::start().await;
    // Where redirections lead: its answers are problem documents like any other.
    let elsewhere = Instance::start(&world.config).await;
    let keys = provider.jwks_url();
    let authorize = format!("{}/authorize", elsewhere.url);
    let (token, me) =
        (format!("{}/2/oauth2/token", provider.url), format!("{}/2/users/me", provider.url));
    let everything = [
        ("APP_ENV", "local"),
        ("RUST_LOG", "warn"),
        ("GOOGLE_CLIENT_ID", "google-client"),
        ("GOOGLE_JWKS_URL", &keys),
        ("FACEBOOK_APP_ID", "facebook-app"),
        ("FACEBOOK_JWKS_URL", &keys),
        ("TWITTER_CLIENT_ID", X_CLIENT.0),
        ("TWITTER_CLIENT_SECRET", X_CLIENT.1),
        ("TWITTER_AUTHORIZE_URL", &authorize),
        ("TWITTER_TOKEN_URL", &token),
        ("TWITTER_USER_URL", &me),
        ("SMTP_URL", &mailbox.url),
        ("MAIL_FROM", "bme@example.org"),
        ("PUBLIC_URL", &elsewhere.url),
    ];
    let process = Process::start("api", &world.config, &everything).await;
    let interpreter =
        spawn_blocking(|| python(&TESTER.replace("==", "-"), &[TESTER])).await.unwrap();
    let only_admins = ["--include-path-regex", &format!("^{ADMIN}")];
    let (by_user, by_admin) = tokio::join!(
        run(&interpreter, &process.url, &user, &[]),
        run(&interpreter, &process.url, &admin, &only_admins),
    );
    let document: Value =
        reqwest::get(format!("{}/openapi.json", process.url)).await.unwrap().json().await.unwrap();
    let operations = openapi::operations(&document);
    let admins = operations.iter().filter(|operation| operation.path.starts_with(ADMIN)).count();
    assert!(admins > 0);
    for (report, operations) in [(by_user, operations.len()), (by_admin, admins)] {
        let tested = &report["operations"];
        assert_eq!(tested["tested"], operations, "{tested}");
        // Ten for each operation is what the schemas alone give.
        let examples = report["test_cases"]["generated"].as_u64().unwrap();
        assert!(examples > 10 * operations as u64, "{examples}");
        for phase in ["coverage", "fuzzing", "stateful"] {
            assert_eq!(report["phases"][phase]["status"], "success", "{phase}");
        }
    }
}

/// Runs the tester and gives its report. Panics with its output when a check failed.
async fn run(interpreter: &Path, url: &str, user: &User, more: &[&str]) -> Value {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/schemathesis");
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let output = Command::new(interpreter.with_file_name("schemathesis"))
        .args(["--config-file", &format!("{own}/schemathesis.toml"), "run"])
        .arg(format!("{url}/openapi.json"))
        .args(["--header", &format!("Authorization: Bearer {}", user.token)])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--checks", "all", "--no-color"])
        .arg("--report-json-path")
        .arg(&report)
        .args(more)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", own)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap()
}
