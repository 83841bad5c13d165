//! `AUTH_MODE=cognito` against an identity provider that misbehaves.

use std::num::NonZeroU32;

use bme_service::{
    config::{ApiConfig, AuthConfig, CognitoConfig, McpAccess},
    routes,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{
        Call, IdentityProvider, Instance, Reply, SigningKey, World, eventually, unique_email,
    },
    mcp::{self, audit, text, tool, with_token},
    openapi::operations,
};

const CLIENT: &str = "the-client";

struct Pool {
    world: World,
    provider: IdentityProvider,
    instance: Instance,
}

impl Pool {
    async fn start() -> Self {
        Self::of(World::new().await).await
    }

    /// With what else the world's configuration says.
    async fn of(world: World) -> Self {
        let provider = IdentityProvider::start().await;
        let pool = CognitoConfig {
            domain: Some(provider.url.clone()),
            ..CognitoConfig::new(&provider.url, CLIENT)
        };
        let auth = AuthConfig::Cognito(pool);
        let instance = Instance::start(&ApiConfig { auth, ..world.config.clone() }).await;
        Self { world, provider, instance }
    }

    fn claims(&self) -> Value {
        let now = get_current_timestamp();
        json!({
            "iss": self.provider.url, "sub": "subject-1", "token_use": "access", "client_id": CLIENT,
            "scope": "openid", "iat": now, "exp": now + 600,
        })
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    async fn me(&self, token: &str) -> Reply {
        let authorization = format!("Bearer {token}");
        let call = Call::get("/api/auth/me").header("authorization", &authorization);
        call.send(&self.instance).await
    }

    async fn users(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&self.world.pool).await.unwrap()
    }
}

fn with_header(pool: &Pool, change: impl FnOnce(&mut Header)) -> String {
    let key = &pool.provider.key;
    let mut header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::RS256) };
    change(&mut header);
    key.sign_with(&header, &pool.claims())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_gets_one_account_at_first_sight() {
    let pool = Pool::start().await;
    let token = pool.provider.key.sign(&pool.claims());
    let (first, second) = tokio::join!(pool.me(&token), pool.me(&token));
    assert_eq!((first.status, second.status), (200, 200), "{first} {second}");
    let user = first.json()["user"].clone();
    assert_eq!(user["id"], second.json()["user"]["id"]);
    assert_eq!(user["email"], Value::Null);
    assert_eq!(user["role"], "user");
    assert_eq!(pool.users().await, 1);

    let other = pool.provider.key.sign(&pool.claims_with("sub", json!("subject-2")));
    assert_ne!(pool.me(&other).await.json()["user"]["id"], user["id"]);
    // The keys were fetched once.
    assert_eq!(pool.provider.key_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_verified_address_links_to_an_account() {
    let pool = Pool::start().await;
    let existing = pool.world.user().await;
    let email: String = sqlx::query_scalar("SELECT email FROM users WHERE id = $1")
        .bind(existing.id)
        .fetch_one(&pool.world.pool)
        .await
        .unwrap();

    let info = |subject: &str, verified: &str| json!({ "sub": subject, "email": email, "email_verified": verified });
    let token = |subject: &str| pool.provider.key.sign(&pool.claims_with("sub", json!(subject)));
    pool.provider.set_user_info(info("thief", "false"));
    let thief = pool.me(&token("thief")).await.json();
    assert_ne!(thief["user"]["id"], existing.id.to_string());
    assert_eq!(thief["user"]["email"], Value::Null);

    // An answer about somebody else is no answer.
    pool.provider.set_user_info(info("owner", "true"));
    let other = pool.me(&token("other")).await.json();
    assert_ne!(other["user"]["id"], existing.id.to_string());

    let owner = pool.me(&token("owner")).await.json();
    assert_eq!(owner["user"]["id"], existing.id.to_string());
    let password: Option<String> =
        sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
            .bind(existing.id)
            .fetch_one(&pool.world.pool)
            .await
            .unwrap();
    assert_eq!(password, None, "whoever registered the address without holding it is out");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_created_while_user_info_fails() {
    let pool = Pool::start().await;
    let email = unique_email();
    pool.provider
        .set_user_info(json!({ "sub": "subject-1", "email": email, "email_verified": true }));
    let token = pool.provider.key.sign(&pool.claims());
    // The keys are known before everything breaks.
    assert_eq!(
        pool.me(&pool.provider.key.sign(&pool.claims_with("token_use", json!("id")))).await.status,
        401
    );
    pool.provider.set_broken(true);
    assert_eq!(pool.me(&token).await.problem(503), "identity-provider-unavailable");
    assert_eq!(pool.users().await, 0);
    pool.provider.set_broken(false);
    assert_eq!(pool.me(&token).await.json()["user"]["email"], email);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_token_is_refused() {
    let pool = Pool::start().await;
    let key = &pool.provider.key;
    let now = get_current_timestamp();
    let by_claim = |name: &str, value: Value| key.sign(&pool.claims_with(name, value));
    let hs256 = {
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::HS256) };
        let modulus = key.public["n"].as_str().unwrap();
        encode(&header, &pool.claims(), &EncodingKey::from_secret(modulus.as_bytes())).unwrap()
    };
    let good = key.sign(&pool.claims());
    let payload = good.split('.').nth(1).unwrap();
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoia2V5LTEifQ.{payload}.");
    let stranger = SigningKey::generate("key-1");
    let without = |name: &str| {
        let mut claims = pool.claims();
        claims.as_object_mut().unwrap().remove(name);
        key.sign(&claims)
    };
    let cases = [
        ("alg none", none),
        ("HS256 with the public key", hs256),
        ("another key under a known id", stranger.sign(&pool.claims())),
        ("RS512", with_header(&pool, |header| header.alg = Algorithm::RS512)),
        ("no kid", with_header(&pool, |header| header.kid = None)),
        ("kid traversal", with_header(&pool, |header| header.kid = Some("../key-1".into()))),
        ("jku", with_header(&pool, |header| header.jku = Some("http://evil.example".into()))),
        ("x5u", with_header(&pool, |header| header.x5u = Some("http://evil.example".into()))),
        ("expired", by_claim("exp", json!(now - 60))),
        ("no expiry", without("exp")),
        ("no subject", without("sub")),
        ("no issuer", without("iss")),
        ("not yet valid", by_claim("nbf", json!(now + 120))),
        ("another issuer", by_claim("iss", json!("https://evil.example"))),
        ("another client", by_claim("client_id", json!("other"))),
        ("no client", without("client_id")),
        ("an ID token", by_claim("token_use", json!("id"))),
        ("no use", without("token_use")),
        ("an empty subject", by_claim("sub", json!(""))),
    ];
    for (what, token) in cases {
        let reply = pool.me(&token).await;
        assert_eq!(reply.problem(401), "unauthorized", "{what}");
    }
    assert_eq!(pool.users().await, 0);
    assert_eq!(pool.me(&by_claim("exp", json!(now - 10))).await.status, 200, "within the leeway");
    assert_eq!(pool.me(&good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_outlive_the_issuer_and_a_flood_makes_one_refresh() {
    let mut pool = Pool::start().await;
    pool.provider.set_broken(true);
    let old = pool.provider.key.sign(&pool.claims());
    assert_eq!(pool.me(&old).await.problem(503), "identity-provider-unavailable");
    pool.provider.set_broken(false);
    eventually("the first keys", async || pool.me(&old).await.status == 200).await;

    let before = pool.provider.key_requests();
    pool.provider.rotate("key-2");
    let new = pool.provider.key.sign(&pool.claims());
    assert_eq!(pool.me(&new).await.status, 200);
    assert_eq!(pool.me(&old).await.status, 401, "a withdrawn key");
    assert_eq!(pool.provider.key_requests(), before + 1);

    pool.provider.set_broken(true);
    assert_eq!(pool.me(&new).await.status, 200, "known keys need no issuer");
    let flood = (0..50).map(|n| {
        let token = with_header(&pool, |header| header.kid = Some(format!("invented-{n}")));
        let pool = &pool;
        async move { pool.me(&token).await.status }
    });
    let statuses = futures_util::future::join_all(flood).await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(pool.provider.key_requests(), before + 1, "one refresh a minute");
}

/// Whoever is over the limit costs Postgres nothing, and who only passes by gets no account.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_decided_before_anybody_is_looked_up() {
    let mut world = World::new().await;
    world.config.limits.rest = NonZeroU32::new(3).unwrap();
    let pool = Pool::of(world).await;
    let subject = json!(Uuid::now_v7().to_string());
    let token = pool.provider.key.sign(&pool.claims_with("sub", subject));
    let nowhere = Call::get("/api/nowhere").header("authorization", &format!("Bearer {token}"));
    assert_eq!(nowhere.send(&pool.instance).await.problem(404), "not-found");
    assert_eq!(pool.users().await, 0);
    for left in ["1", "0"] {
        let reply = pool.me(&token).await;
        assert_eq!((reply.status, reply.header("ratelimit-remaining")), (200, Some(left)));
    }
    assert_eq!(pool.users().await, 1);
    let mut lock = pool.world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE identities, users IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    assert_eq!(pool.me(&token).await.problem(429), "rate-limited");
    lock.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_assistant_is_recorded_with_its_account() {
    let mut world = World::new().await;
    world.config.limits.rest = NonZeroU32::MIN;
    world.config.mcp.access = McpAccess::Scopes {
        resource: "https://bme.example/mcp".into(),
        issuer: "https://issuer.example/pool".into(),
    };
    let pool = Pool::of(world).await;
    let mut claims = pool.claims_with("sub", json!(Uuid::now_v7().to_string()));
    claims["scope"] = json!("mcp/read");
    let token = pool.provider.key.sign(&claims);
    let list = || with_token(tool("list_goals", "{}"), &token).send(&pool.instance);
    assert!(!text(&list().await).1);
    assert_eq!(list().await.problem(429), "rate-limited");
    eventually("the record", async || audit(&pool.world).await.len() == 2).await;
    let user: Uuid =
        sqlx::query_scalar("SELECT id FROM users").fetch_one(&pool.world.pool).await.unwrap();
    let rows = audit(&pool.world).await;
    assert_eq!((rows[0].0, rows[0].4.as_str()), (Some(user), "ok"));
    let refused: mcp::Row = (Some(user), String::new(), None, vec![], "refused".into());
    assert_eq!(rows[1], refused);
}

/// The matrix of `openapi.rs` for what only this mode has: tokens that were granted for something
/// else, and tokens that ended.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_tokens_of_the_wrong_scope() {
    let pool = Pool::start().await;
    let key = &pool.provider.key;
    let sign =
        |name: &str, value: Value| format!("Bearer {}", key.sign(&pool.claims_with(name, value)));
    let good = format!("Bearer {}", key.sign(&pool.claims()));
    let both = sign("scope", json!("openid mcp/read"));
    let expired = sign("exp", json!(get_current_timestamp() - 60));
    let operations = operations(&routes::api(false).split().1);
    assert!(operations.len() > 30, "{}", operations.len());
    for operation in &operations {
        let context = &operation.id;
        assert!(!operation.public, "{context}: nobody signs in here");
        let send = async |authorization: &str| {
            let nobodys = Uuid::now_v7().to_string();
            let call = operation.call(&nobodys).header("authorization", authorization);
            call.send(&pool.instance).await
        };
        for scope in ["mcp/read", "mcp/write", "mcp/read mcp/write"] {
            let reply = send(&sign("scope", json!(scope))).await;
            assert_eq!(reply.problem(403), "insufficient-scope", "{context}");
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer error=\"insufficient_scope\""));
        }
        assert_eq!(send(&expired).await.problem(401), "unauthorized", "{context}");
        for token in [&good, &both] {
            let reply = send(token).await;
            let refused = [401, 403].contains(&reply.status);
            let admins = operation.path.starts_with("/api/admin/");
            assert_eq!(refused, admins, "{context}: {reply}");
            if refused {
                assert_eq!(reply.problem(403), "forbidden", "{context}");
            }
        }
    }
}
