//! Google's and Facebook's ID tokens.

use std::time::Duration;

use bme_service::{
    app::Timings,
    config::{ApiConfig, IdProviderConfig, SocialConfig},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use crate::harness::{
    Call, IdentityProvider, Instance, Reply, SigningKey, World, eventually, timings, unique_email,
};

const CLIENT: &str = "our-client";
const GOOGLE: (&str, &str) = ("/api/auth/google", "https://accounts.google.com");
const FACEBOOK: (&str, &str) = ("/api/auth/facebook", "https://www.facebook.com");

struct Setting {
    world: World,
    provider: IdentityProvider,
    instance: Instance,
}

impl Setting {
    async fn start() -> Self {
        Self::with_timings(timings()).await
    }

    async fn with_timings(timings: Timings) -> Self {
        let (world, provider) = (World::new().await, IdentityProvider::start().await);
        let config = IdProviderConfig { client_id: CLIENT.into(), jwks_url: provider.jwks_url() };
        let social =
            SocialConfig { google: Some(config.clone()), facebook: Some(config), twitter: None };
        let config = ApiConfig { social, ..world.config.clone() };
        let instance = Instance::with_timings(&config, timings).await;
        Self { world, provider, instance }
    }

    /// Signs in with these claims on top of sound ones.
    async fn sign_in(
        &self,
        (path, issuer): (&str, &str),
        more: Value,
        nonce: Option<&str>,
    ) -> Reply {
        let now = get_current_timestamp();
        let mut claims = json!({ "iss": issuer, "aud": CLIENT, "sub": "person-1", "iat": now, "exp": now + 600 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut body = json!({ "idToken": self.provider.key.sign(&claims) });
        if let Some(nonce) = nonce {
            body["nonce"] = nonce.into();
        }
        Call::post(path, &body.to_string()).send(&self.instance).await
    }

    async fn register(&self, email: &str) -> Reply {
        let body = json!({ "email": email, "password": "correct horse battery", "name": "Ada" });
        Call::post("/api/auth/register", &body.to_string()).send(&self.instance).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_to_the_same_account_each_time() {
    let setting = Setting::start().await;
    let email = unique_email();
    let claims = json!({ "email": email, "email_verified": true, "name": "Ada Lovelace" });
    let first = setting.sign_in(GOOGLE, claims.clone(), None).await;
    assert_eq!(first.status, 200, "{first}");
    let user = &first.json()["user"];
    assert_eq!((&user["email"], &user["name"]), (&json!(email), &json!("Ada Lovelace")));
    assert!(first.header("set-cookie").unwrap().contains("HttpOnly"));
    let token = first.json()["token"].as_str().unwrap().to_owned();
    let me = Call::get("/api/auth/me").header("authorization", &format!("Bearer {token}"));
    assert_eq!(me.send(&setting.instance).await.json()["user"], *user);

    // The address is only what finds an account at first; then it is the subject.
    let again = setting.sign_in(GOOGLE, json!({ "email": unique_email() }), None).await;
    assert_eq!(again.json()["user"]["id"], user["id"]);
    // The subject of another provider is somebody else.
    let other = setting.sign_in(FACEBOOK, json!({}), None).await;
    assert_ne!(other.json()["user"]["id"], user["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_not_taken_over_by_an_unverified_address() {
    let setting = Setting::start().await;
    let email = unique_email();
    let registered = setting.register(&email).await;
    assert_eq!(registered.status, 201);
    let id = registered.json()["user"]["id"].clone();
    for (provider, verified) in [
        (GOOGLE, json!(false)),
        (FACEBOOK, json!(false)),
        // Facebook gives no such claim, so it is not believed.
        (FACEBOOK, json!(true)),
    ] {
        let claims = json!({ "email": email.to_uppercase(), "email_verified": verified });
        let reply = setting.sign_in(provider, claims, None).await;
        assert_eq!(reply.problem(409), "email-not-verified");
    }
    let silent = setting.sign_in(GOOGLE, json!({ "email": email }), None).await;
    assert_eq!(silent.problem(409), "email-not-verified");

    // Nor does it keep its owner from registering later.
    let squatted = unique_email();
    let claims = json!({ "sub": "squatter", "email": squatted, "email_verified": false });
    assert_eq!(setting.sign_in(GOOGLE, claims, None).await.json()["user"]["email"], json!(null));
    assert_eq!(setting.register(&squatted).await.status, 201);

    let owner = json!({ "email": email, "email_verified": true });
    let linked = setting.sign_in(GOOGLE, owner, None).await;
    assert_eq!(linked.json()["user"]["id"], id);
    // Whoever registered the address without proving it has no way in any more.
    let login = json!({ "email": email, "password": "correct horse battery" });
    let login = Call::post("/api/auth/login", &login.to_string()).send(&setting.instance).await;
    assert_eq!(login.problem(401), "invalid-credentials");
    let cookie = registered.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let refresh = Call::new(reqwest::Method::POST, "/api/auth/refresh").header("cookie", &cookie);
    assert_eq!(refresh.send(&setting.instance).await.problem(401), "session-ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_id_token_is_refused() {
    let setting = Setting::start().await;
    let now = get_current_timestamp();
    for (what, claims) in [
        ("another audience", json!({ "aud": "other" })),
        ("another issuer", json!({ "iss": "https://evil.example" })),
        ("the other provider's issuer", json!({ "iss": FACEBOOK.1 })),
        ("expired", json!({ "exp": now - 60 })),
        ("not yet valid", json!({ "nbf": now + 120 })),
        ("no audience", json!({ "aud": null })),
    ] {
        let reply = setting.sign_in(GOOGLE, claims, None).await;
        assert_eq!(reply.problem(401), "invalid-id-token", "{what}");
    }
    let nonce = json!({ "nonce": "n-1" });
    let wrong = setting.sign_in(GOOGLE, nonce.clone(), Some("n-2")).await;
    assert_eq!(wrong.problem(401), "invalid-id-token");
    let absent = setting.sign_in(GOOGLE, json!({}), Some("n-1")).await;
    assert_eq!(absent.problem(401), "invalid-id-token");
    let stolen = setting.sign_in(GOOGLE, nonce.clone(), None).await;
    assert_eq!(stolen.problem(401), "invalid-id-token");
    assert_eq!(setting.sign_in(GOOGLE, nonce, Some("n-1")).await.status, 200);
    assert_eq!(
        Call::post("/api/auth/google", "{}").send(&setting.instance).await.problem(422),
        "validation"
    );
}

/// Who signed it decides, not what its header says.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_providers_own_key_signs() {
    let setting = Setting::start().await;
    let key = &setting.provider.key;
    let now = get_current_timestamp();
    let claims = json!({
        "iss": GOOGLE.1, "aud": CLIENT, "sub": "person-1", "iat": now, "exp": now + 600,
    });
    let send = async |token: &str| {
        let body = json!({ "idToken": token }).to_string();
        Call::post(GOOGLE.0, &body).send(&setting.instance).await
    };
    let sound = key.sign(&claims);
    setting.provider.set_broken(true);
    let reply = send(&sound).await;
    assert_eq!(reply.problem(503), "identity-provider-unavailable", "without keys nobody can say");
    assert!(reply.header("retry-after").is_some());
    setting.provider.set_broken(false);
    eventually("the first keys", async || send(&sound).await.status == 200).await;

    let named = |algorithm| Header { kid: Some(key.id.clone()), ..Header::new(algorithm) };
    let modulus = key.public["n"].as_str().unwrap();
    let public = EncodingKey::from_secret(modulus.as_bytes());
    let payload = sound.split('.').nth(1).unwrap();
    for (what, token) in [
        ("another key under a known id", SigningKey::generate(&key.id).sign(&claims)),
        ("HS256 with the public key", encode(&named(Algorithm::HS256), &claims, &public).unwrap()),
        ("RS512", key.sign_with(&named(Algorithm::RS512), &claims)),
        ("alg none", format!("eyJhbGciOiJub25lIiwia2lkIjoia2V5LTEifQ.{payload}.")),
        ("no signature", format!("{}.", sound.rsplit_once('.').unwrap().0)),
        ("no key id", key.sign_with(&Header::new(Algorithm::RS256), &claims)),
        ("no token", "not a token".to_owned()),
    ] {
        assert_eq!(send(&token).await.problem(401), "invalid-id-token", "{what}");
    }
    assert_eq!(send(&sound).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_does_not_end_is_given_up() {
    let short = Timings { execution: Duration::from_secs(2), ..timings() };
    let setting = Setting::with_timings(short).await;
    let people = [json!({}), json!({ "sub": "person-2" })];
    assert_eq!(setting.sign_in(GOOGLE, people[0].clone(), None).await.status, 200);
    // Whether the account or only the session has to be made.
    let block = setting.world.block("LOCK TABLE users, sessions IN EXCLUSIVE MODE").await;
    for person in &people {
        let reply = setting.sign_in(GOOGLE, person.clone(), None).await;
        assert_eq!(reply.problem(503), "timeout");
    }
    block.rollback().await.unwrap();
    for person in people {
        assert_eq!(setting.sign_in(GOOGLE, person, None).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_configured_does_not_exist() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    for path in ["/api/auth/google", "/api/auth/facebook"] {
        let reply = Call::post(path, r#"{"idToken":"a.b.c"}"#).send(&instance).await;
        assert_eq!(reply.problem(404), "not-found");
    }
}
