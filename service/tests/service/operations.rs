//! The binary: migrations, the application role, probes, logs, the drain.

use std::{process::Stdio, time::Duration};

use bme_service::{
    config::{ApiConfig, AuthConfig, CognitoConfig, DatabaseConfig, Secret},
    database, migrate, routes,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::{
    harness::{
        Call, Instance, Process, World, command, eventually, shared, unique_email, unique_key,
    },
    openapi::operations,
};

const PATH: &str = "/api/transactions";
const BODY: &str = r#"{"type":"expense","amount":77.31,"currency":"EUR","category":"Food","date":"2026-11-23",
                       "description":"canary description"}"#;

/// Runs a sub-command to its end: exit code, standard output, standard error.
async fn run(
    subcommand: &str,
    config: &ApiConfig,
    more: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = command(subcommand, config);
    let output = command.envs(more.iter().copied()).stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_is_repeatable_and_makes_a_role_without_ddl() {
    let world = World::new().await;
    let database = shared().empty_database().await;
    let config = ApiConfig { database: database.clone(), ..world.config.clone() };
    // Roles belong to the whole server, so this test has its own name.
    let role = format!("app \"{}", database.name);
    let env =
        [("APP_DATABASE_USER", role.as_str()), ("APP_DATABASE_PASSWORD", "it's $ecret \\ \" %")];
    let (first, second) =
        tokio::join!(run("migrate", &config, &env), run("migrate", &config, &env));
    assert_eq!((first.0, second.0), (Some(0), Some(0)), "{first:?} {second:?}");
    for (_, output, error) in [&first, &second] {
        assert!(output.contains("schema is up to date"), "{output}");
        assert!(!output.contains("ecret") && error.is_empty(), "{output} {error}");
    }

    let as_role = DatabaseConfig {
        user: role.clone(),
        password: Some(Secret::new("it's $ecret \\ \" %")),
        ..database.clone()
    };
    let mut connection = PgConnection::connect_with(&database::options(&as_role)).await.unwrap();
    for refused in [
        "CREATE TABLE t (a int)",
        "DROP TABLE users",
        "ALTER TABLE users ADD a int",
        "DELETE FROM _sqlx_migrations",
        "TRUNCATE users",
        "CREATE ROLE other",
    ] {
        let error = sqlx::query(refused).execute(&mut connection).await.unwrap_err();
        assert_eq!(
            error.into_database_error().unwrap().code().as_deref(),
            Some("42501"),
            "{refused}"
        );
    }
    let timeout: String =
        sqlx::query_scalar("SHOW statement_timeout").fetch_one(&mut connection).await.unwrap();
    assert_eq!(timeout, "15s");

    // The service works as that role, on the freshly migrated schema.
    let world =
        World { config: ApiConfig { database: as_role, ..config.clone() }, pool: world.pool };
    let instance = Instance::start(&world.config).await;
    let body = json!({ "email": unique_email(), "password": "a long password", "name": "A" });
    let registered = Call::post("/api/auth/register", &body.to_string()).send(&instance).await;
    assert_eq!(registered.status, 201, "{registered}");
    let token = registered.json()["token"].as_str().unwrap().to_owned();
    let authorization = format!("Bearer {token}");
    let created = Call::post(PATH, BODY).header("authorization", &authorization).key(&unique_key());
    assert_eq!(created.send(&instance).await.status, 201);

    // A new password replaces the old one; the old one no longer opens.
    let env = [("APP_DATABASE_USER", role.as_str()), ("APP_DATABASE_PASSWORD", "another")];
    assert_eq!(run("migrate", &config, &env).await.0, Some(0));
    assert!(PgConnection::connect_with(&database::options(&world.config.database)).await.is_err());

    // A release that is rolled back meets a newer schema: its migrate has nothing to do.
    let master = PgConnection::connect_with(&database::options(&database)).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a newer release', true, '', 0)",
    )
    .execute(&mut master.unwrap())
    .await
    .unwrap();
    assert_eq!(run("migrate", &config, &[]).await.0, Some(0));
}

/// What serves and what works changes no schema: it may be older than the schema, or newer.
#[tokio::test(flavor = "multi_thread")]
async fn only_migrate_changes_the_schema() {
    let world = World::new().await;
    let database = shared().empty_database().await;
    let config = ApiConfig { database: database.clone(), ..world.config.clone() };
    for subcommand in ["api", "worker"] {
        let mut process = Process::start(subcommand, &config, &[]).await;
        // In production a database whose certificate nobody checks is worth a line.
        process.line(|line| line.contains("WARN") && line.contains("DATABASE_SSL_VERIFY")).await;
        if subcommand == "api" {
            let user = world.user().await;
            let list = Call::get(PATH).by(&user).try_send(&process.url).await.unwrap();
            assert_eq!(list.problem(500), "internal", "a table that is missing is our fault");
        }
        process.end().await;
    }
    let mut connection = PgConnection::connect_with(&database::options(&database)).await.unwrap();
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_fails_with_one_clear_line() {
    let world = World::new().await;
    let mut config = world.config.clone();
    config.database.port = 1;
    let (code, _, error) = run("migrate", &config, &[]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot connect to the database"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");

    let env = [("APP_DATABASE_USER", "master"), ("APP_DATABASE_PASSWORD", "x")];
    let (code, _, error) = run("migrate", &world.config, &env).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("APP_DATABASE_USER is the role"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_the_environment_is_reported_at_once() {
    let world = World::new().await;
    let env = [
        ("BIND_ADDRESS", "nowhere"),
        ("REDIS_URL", "http://:canary-secret@h"),
        ("JWT_SECRET", "canary-secret"),
        ("DATABASE_HOST", ""),
        ("QUEUE", "sqs"),
    ];
    let (code, output, error) = run("api", &world.config, &env).await;
    assert_eq!(code, Some(1));
    for name in ["BIND_ADDRESS", "REDIS_URL", "JWT_SECRET", "DATABASE_HOST", "VOICE_QUEUE_URL"] {
        assert!(error.contains(name), "{name} missing in {error}");
    }
    assert!(!error.contains("canary") && !output.contains("canary"), "{error}");
    assert_eq!(run("nonsense", &world.config, &[]).await.0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_by_its_exit_code() {
    let world = World::new().await;
    for subcommand in ["api", "worker"] {
        let mut process = Process::start(subcommand, &world.config, &[]).await;
        let bind = format!("0.0.0.0:{}", process.port);
        let (code, _, error) = run("healthcheck", &world.config, &[("BIND_ADDRESS", &bind)]).await;
        assert_eq!(code, Some(0), "{error}");
        let ready = Call::get("/ready").try_send(&process.url).await.unwrap();
        assert_eq!(ready.status, 200, "{ready}");
        process.child.kill().await.unwrap();
        let (code, _, error) = run("healthcheck", &world.config, &[("BIND_ADDRESS", &bind)]).await;
        assert_eq!(code, Some(1));
        assert!(error.contains("no answer from 127.0.0.1"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_access_line_per_request_without_personal_data() {
    let world = World::new().await;
    let mut process = Process::start("api", &world.config, &[]).await;
    let email = format!("canary-{}", unique_email());
    let body = json!({ "email": email, "password": "canary password", "name": "Canary Name" });
    let registered = Call::post("/api/v1/auth/register", &body.to_string())
        .try_send(&process.url)
        .await
        .unwrap();
    assert_eq!(registered.status, 201, "{registered}");
    let set_cookie = registered.header("set-cookie").unwrap().to_owned();
    assert!(set_cookie.ends_with("; Secure"), "{set_cookie}");
    assert!(registered.header("strict-transport-security").is_some());
    let token = registered.json()["token"].as_str().unwrap().to_owned();
    let user = registered.json()["user"]["id"].as_str().unwrap().to_owned();
    let created = Call::post(&format!("{PATH}?canary=1"), BODY)
        .header("authorization", &format!("Bearer {token}"))
        .header("x-request-id", "wanted-line")
        .key("canary-key-0123456789")
        .try_send(&process.url)
        .await
        .unwrap();
    assert_eq!(created.status, 201, "{created}");

    let (line, mut lines) =
        process.line(|line| line.contains("wanted-line") && line.contains("\"route\"")).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["method"], "POST", "{line}");
    assert_eq!(event["route"], "/api/transactions");
    assert_eq!(event["status"], 201);
    assert!(event["ms"].is_u64());
    assert_eq!(event["user_id"], user);
    assert_eq!(event["span"]["request_id"], "wanted-line");

    lines.push(line);
    let log = lines.join("\n");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
    assert_eq!(
        log.lines().filter(|line| line.contains("\"route\":\"/api/v1/auth/register\"")).count(),
        1
    );
    for canary in ["canary", "Canary", "77.31", &token, set_cookie.split(';').next().unwrap()] {
        assert!(!log.contains(canary), "{canary} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight() {
    let world = World::new().await;
    let mut process = Process::start("api", &world.config, &[]).await;
    let user = world.user().await;
    let block = world.block_transactions().await;
    let request = tokio::spawn({
        let (url, call) =
            (process.url.clone(), Call::post(PATH, BODY).by(&user).key(&unique_key()));
        async move { call.try_send(&url).await.unwrap() }
    });
    world.wait_for_blocked(1).await;
    terminate(&process).await;
    eventually("/health to say that it drains", async || {
        let reply = Call::get("/health").try_send(&process.url).await;
        reply.is_ok_and(|reply| {
            reply.status == 503
                && reply.problem(503) == "draining"
                && reply.header("connection") == Some("close")
        })
    })
    .await;
    eventually("new connections to be refused", async || {
        Call::get("/health").try_send(&process.url).await.is_err()
    })
    .await;
    assert!(process.child.try_wait().unwrap().is_none(), "it waits for the request in flight");
    block.rollback().await.unwrap();
    let reply = request.await.unwrap();
    assert_eq!(reply.status, 201, "{reply}");
    let ended = tokio::time::timeout(Duration::from_secs(20), process.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_drains_too() {
    let world = World::new().await;
    let mut process = Process::start("worker", &world.config, &[]).await;
    terminate(&process).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), process.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

/// Neither half a request nor a client that reads nothing is work in flight.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_hold_no_drain_up() {
    use tokio::io::AsyncWriteExt as _;

    let world = World::new().await;
    let mut process = Process::start("api", &world.config, &[]).await;
    let address = process.url.strip_prefix("http://").unwrap();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nx-half").await.unwrap();
    terminate(&process).await;
    let ended = tokio::time::timeout(Duration::from_secs(15), process.child.wait()).await;
    assert_eq!(ended.expect("an end without it").unwrap().code(), Some(0));
    drop(silent);
}

async fn terminate(process: &Process) {
    let id = process.child.id().unwrap().to_string();
    let sent = tokio::process::Command::new("kill").args(["-TERM", &id]).status().await.unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_cognito_mode_the_own_accounts_do_not_exist() {
    let world = World::new().await;
    let auth = AuthConfig::Cognito(CognitoConfig::new("http://127.0.0.1:1", "client"));
    let instance = Instance::start(&ApiConfig { auth, ..world.config.clone() }).await;
    let [own, others] = [true, false].map(|own| operations(&routes::api(own).split().1));
    let others: Vec<_> = others.iter().map(|operation| &operation.id).collect();
    let gone: Vec<_> = own.iter().filter(|operation| !others.contains(&&operation.id)).collect();
    assert!(gone.len() >= 12, "{}", gone.len());
    for operation in gone {
        let reply = operation.call("").send(&instance).await;
        // Accounts are listed and not made.
        let status = if operation.id == "createUser" { 405 } else { 404 };
        reply.problem(status);
    }
    let user = world.user().await;
    assert_eq!(
        Call::get("/api/balance").by(&user).send(&instance).await.problem(401),
        "unauthorized"
    );
}

/// `verify-full` never falls back to a plain connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_tls_is_refused_when_it_must_verify() {
    let world = World::new().await;
    let database = DatabaseConfig { ssl_verify: true, ..world.config.database.clone() };
    let instance = Instance::start(&ApiConfig { database, ..world.config.clone() }).await;
    let reply = Call::get("/ready").send(&instance).await;
    assert_eq!(reply.problem(503), "not-ready");
    assert_eq!(reply.json()["checks"]["database"], "failed");
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let versions: Vec<_> =
        migrate::migrations().iter().map(|migration| migration.version).collect();
    assert!(versions.iter().copied().eq((1..).take(versions.len())), "{versions:?}");
}
