//! Forgotten passwords.

use std::time::Duration;

use bme_service::{
    app::Timings,
    config::{ApiConfig, MailConfig, Secret},
};
use serde_json::json;

use crate::harness::{Call, Instance, Mailbox, Reply, World, eventually, timings, unique_email};

const OLD: &str = "correct horse battery";
const NEW: &str = "another horse battery";

struct Setting {
    world: World,
    mailbox: Mailbox,
    instance: Instance,
}

impl Setting {
    async fn start() -> Self {
        Self::with_timings(timings()).await
    }

    async fn with_timings(timings: Timings) -> Self {
        let (world, mailbox) = (World::new().await, Mailbox::start().await);
        let mail = MailConfig {
            smtp_url: Secret::new(&*mailbox.url),
            from: "BMe <noreply@example.org>".parse().unwrap(),
            public_url: "https://app.example".into(),
        };
        let config = ApiConfig { mail: Some(mail), ..world.config.clone() };
        Self { instance: Instance::with_timings(&config, timings).await, world, mailbox }
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> Reply {
        Call::post(path, &body.to_string()).send(&self.instance).await
    }

    async fn forgot(&self, email: &str) -> Reply {
        self.post("/api/auth/forgot-password", json!({ "email": email })).await
    }

    async fn reset(&self, token: &str) -> Reply {
        self.post("/api/auth/reset-password", json!({ "token": token, "password": NEW })).await
    }

    async fn login(&self, email: &str, password: &str) -> u16 {
        let body = json!({ "email": email, "password": password });
        self.post("/api/auth/login", body).await.status
    }

    /// The token of the mail that arrives as number `count`.
    async fn token(&self, count: usize) -> String {
        eventually("the mail", async || self.mailbox.mails().len() >= count).await;
        // Quoted-printable breaks lines with "=\n" and writes "=" as "=3D".
        let mail = self.mailbox.mails()[count - 1].replace("=\n", "").replace("=3D", "=");
        let (_, rest) = mail
            .split_once("https://app.example/reset-password#token=")
            .unwrap_or_else(|| panic!("no link in {mail}"));
        rest.lines().next().unwrap().trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_sets_a_new_password_once_and_ends_every_session() {
    let setting = Setting::start().await;
    let email = unique_email();
    let registered = setting
        .post("/api/auth/register", json!({ "email": email, "password": OLD, "name": "Ada" }))
        .await;
    let cookie = registered.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    assert_eq!(setting.forgot(&email).await.status, 200);
    let first = setting.token(1).await;
    assert!(setting.mailbox.mails()[0].contains(&format!("To: {email}")));
    assert_eq!(setting.forgot(&email).await.status, 200);
    let second = setting.token(2).await;
    assert_eq!(setting.reset(&first).await.problem(400), "invalid-reset-token");

    let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT token_hash FROM password_resets")
        .fetch_all(&setting.world.pool)
        .await
        .unwrap();
    assert_eq!(stored.len(), 1);
    assert_ne!(stored[0], second.as_bytes());

    let (one, two) = tokio::join!(setting.reset(&second), setting.reset(&second));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "one use");
    assert!([one, two].iter().any(|reply| reply.json()["message"].is_string()));
    assert_eq!(setting.reset(&second).await.problem(400), "invalid-reset-token");
    assert_eq!(setting.login(&email, OLD).await, 401);
    assert_eq!(setting.login(&email, NEW).await, 200);
    let refresh = Call::new(reqwest::Method::POST, "/api/auth/refresh").header("cookie", &cookie);
    assert_eq!(refresh.send(&setting.instance).await.problem(401), "session-ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_does_not_tell_whether_there_is_an_account() {
    let setting = Setting::start().await;
    let email = unique_email();
    setting
        .post("/api/auth/register", json!({ "email": email, "password": OLD, "name": "Ada" }))
        .await;
    // While no statement on the accounts is answered, neither answer waits for one.
    let mut lock = setting.world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE users IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let known = setting.forgot(&email).await;
    let unknown = setting.forgot(&unique_email()).await;
    assert_eq!((known.status, &known.body), (200, &unknown.body));
    assert_eq!(unknown.status, 200);
    let names = |reply: &Reply| reply.headers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&known), names(&unknown));
    setting.world.wait_for_blocked(2).await;
    lock.rollback().await.unwrap();
    setting.token(1).await;
    assert_eq!(setting.mailbox.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_and_tokens_expire() {
    let setting = Setting::start().await;
    let email = unique_email();
    setting
        .post("/api/auth/register", json!({ "email": email, "password": OLD, "name": "Ada" }))
        .await;
    assert_eq!(setting.forgot(&email).await.status, 200);
    let token = setting.token(1).await;
    sqlx::query("UPDATE password_resets SET expires_at = now()")
        .execute(&setting.world.pool)
        .await
        .unwrap();
    assert_eq!(setting.reset(&token).await.problem(400), "invalid-reset-token");

    for _ in 0..4 {
        assert_eq!(setting.forgot(&email).await.status, 200);
    }
    let refused = setting.forgot(&email).await;
    assert_eq!(refused.problem(429), "too-many-attempts");
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_does_not_end_is_given_up_and_its_token_stays_good() {
    let short = Timings { execution: Duration::from_secs(2), ..timings() };
    let setting = Setting::with_timings(short).await;
    let email = unique_email();
    setting
        .post("/api/auth/register", json!({ "email": email, "password": OLD, "name": "Ada" }))
        .await;
    assert_eq!(setting.forgot(&email).await.status, 200);
    let token = setting.token(1).await;
    // Who only looks passes.
    let block = setting.world.block("LOCK TABLE password_resets IN EXCLUSIVE MODE").await;
    assert_eq!(setting.reset(&token).await.problem(503), "timeout");
    block.rollback().await.unwrap();
    setting.world.wait_for_idle().await;
    // On a busy machine a hash alone may take longer than the time of this test.
    eventually("the old password", async || setting.login(&email, OLD).await == 200).await;
    assert_eq!(setting.reset(&token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_the_routes_do_not_exist() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    for path in ["/api/auth/forgot-password", "/api/auth/reset-password"] {
        assert_eq!(Call::post(path, "{}").send(&instance).await.problem(404), "not-found");
    }
}
