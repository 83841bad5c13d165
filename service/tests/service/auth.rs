//! Accounts, sessions and the lockout.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bme_service::{app::Timings, auth::REFRESH_COOKIE};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Call, Instance, JWT_SECRET, Reply, User, World, eventually, timings, unique_email,
};

const PASSWORD: &str = "correct horse battery";

async fn register(instance: &Instance, email: &str) -> Reply {
    let body = json!({ "email": email, "password": PASSWORD, "name": "Ada Lovelace" });
    Call::post("/api/auth/register", &body.to_string()).send(instance).await
}

fn login(email: &str, password: &str, ip: &str) -> Call {
    let body = json!({ "email": email, "password": password });
    Call::post("/api/auth/login", &body.to_string()).header("x-forwarded-for", ip)
}

/// The value of the refresh cookie that a reply sets.
fn cookie(reply: &Reply) -> String {
    let cookie = reply.header("set-cookie").unwrap_or_else(|| panic!("no cookie in {reply}"));
    let value = cookie.split(';').next().unwrap();
    value.strip_prefix(&format!("{REFRESH_COOKIE}=")).unwrap().to_owned()
}

fn with_cookie(path: &str, cookie: &str) -> Call {
    Call::new(reqwest::Method::POST, path)
        .header("cookie", &format!("a=b; {REFRESH_COOKIE}={cookie}"))
}

fn bearer(reply: &Reply) -> User {
    let body = reply.json();
    User {
        id: body["user"]["id"].as_str().unwrap().parse().unwrap(),
        token: body["token"].as_str().unwrap().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_signs_in_refreshes_and_signs_out() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let email = unique_email();

    let registered = register(&instance, &email.to_uppercase()).await;
    assert_eq!(registered.status, 201, "{registered}");
    let body = registered.json();
    assert_eq!(body["user"]["email"], email);
    assert_eq!(body["user"]["name"], "Ada Lovelace");
    assert_eq!(body["user"]["role"], "user");
    assert_eq!(body["expiresIn"], 900);
    assert!(body["user"]["createdAt"].as_str().unwrap().ends_with('Z'));
    assert!(!String::from_utf8_lossy(&registered.body).contains("argon2"));
    let stored: String =
        sqlx::query_scalar("SELECT password_hash FROM users").fetch_one(&world.pool).await.unwrap();
    // The least that OWASP's Password Storage Cheat Sheet asks for.
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    let claims = body["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    let set_cookie = registered.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/api", "Max-Age=25"] {
        assert!(set_cookie.contains(attribute), "{set_cookie}");
    }

    assert_eq!(register(&instance, &email).await.problem(409), "email-taken");

    let signed_in = login(&email, PASSWORD, "192.0.2.1").send(&instance).await;
    assert_eq!(signed_in.status, 200, "{signed_in}");
    let me = Call::get("/api/v1/auth/me").by(&bearer(&signed_in)).send(&instance).await;
    assert_eq!(me.json()["user"], signed_in.json()["user"]);

    let refreshed = with_cookie("/api/auth/refresh", &cookie(&signed_in)).send(&instance).await;
    assert_eq!(refreshed.status, 200, "{refreshed}");
    assert_ne!(cookie(&refreshed), cookie(&signed_in));
    let again = Call::get("/api/auth/me").by(&bearer(&refreshed)).send(&instance).await;
    assert_eq!(again.status, 200);

    let signed_out = with_cookie("/api/auth/logout", &cookie(&refreshed)).send(&instance).await;
    assert_eq!(signed_out.status, 204, "{signed_out}");
    assert!(signed_out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let ended = with_cookie("/api/auth/refresh", &cookie(&refreshed)).send(&instance).await;
    assert_eq!(ended.problem(401), "session-ended");

    // Another session of the same account lives on.
    let other = with_cookie("/api/auth/refresh", &cookie(&registered)).send(&instance).await;
    assert_eq!(other.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_refresh_token_revokes_its_family() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let stolen = cookie(&register(&instance, &unique_email()).await);
    let current = cookie(&with_cookie("/api/auth/refresh", &stolen).send(&instance).await);

    let reused = with_cookie("/api/auth/refresh", &stolen).send(&instance).await;
    assert_eq!(reused.problem(401), "session-ended");
    assert!(reused.header("set-cookie").unwrap().contains("Max-Age=0"));

    let revoked = with_cookie("/api/auth/refresh", &current).send(&instance).await;
    assert_eq!(revoked.problem(401), "session-ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_refreshes_at_once_do_not_both_win() {
    let world = World::new().await;
    let one = Instance::start(&world.config).await;
    let two = Instance::start(&world.config).await;
    let token = cookie(&register(&one, &unique_email()).await);
    let (first, second) = tokio::join!(
        with_cookie("/api/auth/refresh", &token).send(&one),
        with_cookie("/api/auth/refresh", &token).send(&two),
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
}

/// Compared within one run: a hash takes tens of milliseconds, an answer without one hardly any.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_login_does_not_tell_whether_an_account_exists() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    // Somebody who signs in with another provider has an account and no password.
    let (known, social) = (unique_email(), unique_email());
    for email in [&known, &social] {
        register(&instance, email).await;
    }
    sqlx::query("UPDATE users SET password_hash = NULL WHERE email = $1")
        .bind(&social)
        .execute(&world.pool)
        .await
        .unwrap();
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    for attempt in 0..9 {
        for (times, email) in took.iter_mut().zip([&known, &unique_email(), &social]) {
            let call = login(email, "not the password", &format!("192.0.2.{attempt}"));
            let started = Instant::now();
            assert_eq!(call.send(&instance).await.problem(401), "invalid-credentials");
            times.push(started.elapsed());
        }
    }
    let [known, others @ ..] = took.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    for other in others {
        assert!(other * 2 > known && known * 2 > other, "{known:?} and {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lockout_does_not_tell_whether_an_account_exists() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let known = unique_email();
    register(&instance, &known).await;
    let unknown = unique_email();

    let mut answers = Vec::new();
    for email in [&known, &unknown] {
        let mut seen = Vec::new();
        for _ in 0..7 {
            let reply = login(email, "not the password", "192.0.2.7").send(&instance).await;
            seen.push(reply.problem(reply.status));
        }
        answers.push(seen);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][4], "invalid-credentials");
    assert_eq!(answers[0][5], "too-many-attempts");

    // The right password does not help while locked out; another address is not concerned, unless
    // it only claims to be one: the entry left of our proxy's is the client's own invention.
    let locked = login(&known, PASSWORD, "192.0.2.7").send(&instance).await;
    assert_eq!(locked.problem(429), "too-many-attempts");
    let seconds: u64 = locked.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=900).contains(&seconds), "{seconds}");
    let forged = login(&known, PASSWORD, "203.0.113.9, 192.0.2.7").send(&instance).await;
    assert_eq!(forged.status, 429);
    let elsewhere = login(&known, PASSWORD, "192.0.2.8").send(&instance).await;
    assert_eq!(elsewhere.status, 200, "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_forgives_earlier_failures() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let email = unique_email();
    register(&instance, &email).await;
    for _ in 0..2 {
        for _ in 0..4 {
            assert_eq!(login(&email, "wrong", "192.0.2.3").send(&instance).await.status, 401);
        }
        assert_eq!(login(&email, PASSWORD, "192.0.2.3").send(&instance).await.status, 200);
    }
}

/// What waits for a lock has a connection that others need.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_does_not_end_is_given_up_and_leaves_nothing() {
    let world = World::new().await;
    let short = Timings { execution: Duration::from_secs(2), ..timings() };
    let instance = Instance::with_timings(&world.config, short).await;
    let (email, other) = (unique_email(), unique_email());
    let token = cookie(&register(&instance, &email).await);
    let body = json!({ "email": other, "password": PASSWORD, "name": "Ada" }).to_string();
    let block = world.block("LOCK TABLE sessions IN EXCLUSIVE MODE").await;
    for call in [
        Call::post("/api/auth/register", &body),
        login(&email, PASSWORD, "192.0.2.1"),
        with_cookie("/api/auth/refresh", &token),
        with_cookie("/api/auth/logout", &token),
    ] {
        let started = Instant::now();
        assert_eq!(call.send(&instance).await.problem(503), "timeout");
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    }
    block.rollback().await.unwrap();
    world.wait_for_idle().await;
    let accounts: i64 =
        sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&world.pool).await.unwrap();
    assert_eq!(accounts, 1);
    // With the usual time: on a busy machine a hash alone may take longer than that of this test.
    let instance = Instance::start(&world.config).await;
    assert_eq!(login(&email, PASSWORD, "192.0.2.1").send(&instance).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_names_every_invalid_member() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let reply = Call::post(
        "/api/auth/register",
        r#"{"email":"nobody","password":"too short","name":"\u0000","role":"admin"}"#,
    )
    .send(&instance)
    .await;
    assert_eq!(reply.problem(422), "validation");
    let mut fields = reply.fields();
    fields.sort();
    assert_eq!(fields, ["email", "name", "password", "role"]);
    let missing = Call::post("/api/auth/login", "{}").send(&instance).await;
    assert_eq!(missing.problem(422), "validation");
    assert_eq!(missing.fields(), ["email", "password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_valid_access_tokens_pass() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let (head, rest) = user.token.split_once('.').unwrap();
    let tampered = format!("{head}.x{rest}");
    for authorization in
        ["", "Bearer", "Bearer ", "Basic YTpi", &format!("Bearer {tampered}"), "Bearer a.b.c"]
    {
        let reply =
            Call::get("/api/auth/me").header("authorization", authorization).send(&instance).await;
        assert_eq!(reply.problem(401), "unauthorized", "{authorization}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    let lower_case =
        Call::get("/api/auth/me").header("authorization", &format!("bearer {}", user.token));
    assert_eq!(lower_case.send(&instance).await.status, 200);

    sqlx::query("DELETE FROM users WHERE id = $1")
        .bind(user.id)
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        Call::get("/api/auth/me").by(&user).send(&instance).await.problem(401),
        "unauthorized"
    );
}

/// Not every token under the same secret is one of ours.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_says_of_itself_is_checked() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let now = get_current_timestamp();
    let me = async |claim: &str, value: Value| {
        let mut claims = json!({
            "iss": "bme", "aud": "bme-api", "sub": user.id, "sid": Uuid::now_v7(), "iat": now,
            "exp": now + 600,
        });
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        } else {
            claims[claim] = value;
        }
        let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        let call = Call::get("/api/auth/me").header("authorization", &format!("Bearer {token}"));
        call.send(&instance).await
    };
    assert_eq!(me("iat", json!(now)).await.status, 200);
    for (claim, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
        ("aud", json!("other")),
        ("aud", Value::Null),
        ("exp", json!(now - 60)),
        ("exp", Value::Null),
        ("nbf", json!(now + 120)),
        ("sub", json!("nobody")),
        ("sub", Value::Null),
    ] {
        let reply = me(claim, value.clone()).await;
        assert_eq!(reply.problem(401), "unauthorized", "{claim} {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_refused() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let token = cookie(&register(&instance, &unique_email()).await);
    sqlx::query("UPDATE sessions SET expires_at = now() + interval '1 second'")
        .execute(&world.pool)
        .await
        .unwrap();
    // The session is used until it ends, and each use gives the next token.
    let mut token = token;
    eventually("the session to end", async || {
        let reply = with_cookie("/api/auth/refresh", &token).send(&instance).await;
        if reply.status == 200 {
            token = cookie(&reply);
        }
        reply.status == 401
    })
    .await;
}
