//! Signing in with X: the way there, the way back, and the one-time code.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bme_service::{
    app::Timings,
    config::{
        ApiConfig, AuthConfig, CognitoConfig, Environment, RedisConfig, Secret, SocialConfig,
        TwitterConfig,
    },
};
use reqwest::Url;
use serde_json::json;

use crate::harness::{
    Call, IdentityProvider, Instance, Reply, World, X_CLIENT, redis_connection, shared, timings,
    unique_email,
};

const REDIRECT: &str = "/api/auth/twitter/redirect";
const PUBLIC: &str = "https://app.example";

struct Setting {
    world: World,
    provider: IdentityProvider,
    config: ApiConfig,
    instance: Instance,
}

/// A browser that was sent to X.
struct Visit {
    authorize: Url,
    cookie: String,
    set_cookie: String,
}

impl Setting {
    async fn start() -> Self {
        let (world, provider) = (World::new().await, IdentityProvider::start().await);
        provider.set_user_info(json!({ "id": "2244994945", "name": "Ada", "username": "ada" }));
        let url = |path: &str| Url::parse(&format!("{}{path}", provider.url)).unwrap();
        let twitter = TwitterConfig {
            client_id: X_CLIENT.0.into(),
            client_secret: Secret::new(X_CLIENT.1),
            authorize_url: url("/i/oauth2/authorize"),
            token_url: url("/2/oauth2/token"),
            user_url: url("/2/users/me"),
            public_url: PUBLIC.into(),
        };
        let social = SocialConfig { twitter: Some(twitter), ..SocialConfig::default() };
        let config = ApiConfig { social, ..world.config.clone() };
        let instance = Instance::start(&config).await;
        Self { world, provider, config, instance }
    }

    async fn begin(&self, query: &str) -> Visit {
        let reply = Call::get(&format!("{REDIRECT}{query}")).send(&self.instance).await;
        Visit::of(&reply)
    }

    /// Comes back from X with these parameters.
    async fn call_back(&self, cookie: &str, parameters: &[(&str, &str)]) -> Landing {
        call_back(&self.instance, cookie, parameters).await
    }

    /// All the way to a one-time code.
    async fn code(&self, visit: &Visit) -> String {
        let x_code = self.provider.authorize(&visit.authorize);
        let parameters = [("state", &*visit.state()), ("code", &*x_code)];
        let landing = self.call_back(&visit.cookie, &parameters).await;
        assert_eq!(landing.name, "code");
        landing.value
    }

    async fn exchange(&self, cookie: &str, code: &str) -> Reply {
        exchange(&self.instance, cookie, code).await
    }
}

impl Visit {
    #[track_caller]
    fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 302, "{reply}");
        let set_cookie = reply.header("set-cookie").unwrap().to_owned();
        Self {
            authorize: Url::parse(reply.header("location").unwrap()).unwrap(),
            cookie: set_cookie.split(';').next().unwrap().to_owned(),
            set_cookie,
        }
    }

    fn parameter(&self, wanted: &str) -> String {
        let mut pairs = self.authorize.query_pairs();
        pairs.find(|(name, _)| name == wanted).unwrap().1.into_owned()
    }

    fn state(&self) -> String {
        self.parameter("state")
    }
}

/// The one parameter with which the front end is called.
#[derive(Debug, PartialEq)]
struct Landing {
    name: String,
    value: String,
}

impl Landing {
    fn error(code: &str) -> Self {
        Self { name: "error".into(), value: code.into() }
    }
}

async fn call_back(instance: &Instance, cookie: &str, parameters: &[(&str, &str)]) -> Landing {
    let url = Url::parse_with_params("http://x/api/auth/twitter/callback", parameters).unwrap();
    let path = &url.as_str()["http://x".len()..];
    let reply = Call::get(path).header("cookie", cookie).send(instance).await;
    assert_eq!(reply.status, 302, "{reply}");
    assert!(reply.body.is_empty(), "{reply}");
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let location = reply.header("location").unwrap();
    let query = location.strip_prefix("https://app.example/auth/callback?").unwrap();
    assert!(!query.contains('&'), "{location}");
    let (name, value) = query.split_once('=').unwrap();
    Landing { name: name.into(), value: value.into() }
}

async fn exchange(instance: &Instance, cookie: &str, code: &str) -> Reply {
    let body = json!({ "code": code }).to_string();
    Call::post("/api/auth/exchange-code", &body).header("cookie", cookie).send(instance).await
}

fn code_key(code: &str) -> String {
    let hash = digest::digest(&digest::SHA256, code.as_bytes());
    format!("oauth-code:{}", URL_SAFE_NO_PAD.encode(hash))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_to_the_same_account_each_time() {
    let setting = Setting::start().await;
    let visit = setting.begin("?returnTo=/goals").await;
    assert_eq!(visit.authorize.path(), "/i/oauth2/authorize");
    assert_eq!(visit.parameter("redirect_uri"), format!("{PUBLIC}/api/auth/twitter/callback"));
    // 256 bits in base64url.
    assert_eq!((visit.state().len(), visit.parameter("code_challenge").len()), (43, 43));
    for part in ["oauth=", "; Path=/;", "; HttpOnly", "; SameSite=Lax", "; Max-Age=900"] {
        assert!(visit.set_cookie.contains(part), "{part} missing in {}", visit.set_cookie);
    }

    // The provider compared the verifier with the challenge.
    let code = setting.code(&visit).await;
    assert_eq!(setting.provider.exchanges(), [200]);
    assert_eq!(code.len(), 43);
    let session = setting.exchange(&visit.cookie, &code).await;
    assert_eq!(session.status, 200, "{session}");
    let body = session.json();
    assert_eq!((&body["user"]["name"], &body["user"]["email"]), (&json!("Ada"), &json!(null)));
    assert_eq!(body["returnTo"], "/goals");
    assert!(!session.to_string().contains("canary"), "{session}");
    let cookies: Vec<_> =
        session.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2);
    assert!(cookies[0].starts_with("bme_refresh=") && cookies[0].contains("HttpOnly"));
    assert!(cookies[1].starts_with("oauth=; ") && cookies[1].contains("Max-Age=0"));
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let me = Call::get("/api/auth/me").header("authorization", &bearer);
    assert_eq!(me.send(&setting.instance).await.json()["user"], body["user"]);
    let refresh = Call::new(reqwest::Method::POST, "/api/auth/refresh")
        .header("cookie", cookies[0].split(';').next().unwrap());
    assert_eq!(refresh.send(&setting.instance).await.status, 200);

    let again = setting.begin("").await;
    let code = setting.code(&again).await;
    let again = setting.exchange(&again.cookie, &code).await.json();
    assert_eq!(again["user"]["id"], body["user"]["id"]);
    assert_eq!(again.get("returnTo"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_x_claims_links_to_nothing() {
    let setting = Setting::start().await;
    let email = unique_email();
    let body = json!({ "email": email, "password": "correct horse battery", "name": "Ada" });
    let registered =
        Call::post("/api/auth/register", &body.to_string()).send(&setting.instance).await;
    let info = json!({
        "id": "7", "name": "Ada", "email": email, "confirmed_email": email, "email_verified": true,
    });
    setting.provider.set_user_info(info);
    let visit = setting.begin("").await;
    let code = setting.code(&visit).await;
    let user = setting.exchange(&visit.cookie, &code).await.json()["user"].clone();
    assert_ne!(user["id"], registered.json()["user"]["id"]);
    assert_eq!(user["email"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_good_once_and_in_the_browser_that_began() {
    let setting = Setting::start().await;
    let invalid = Landing::error("invalid-state");
    let (visit, other) = (setting.begin("").await, setting.begin("").await);
    let x_code = setting.provider.authorize(&visit.authorize);
    let state = visit.state();
    let sound = [("state", &*state), ("code", &*x_code)];
    let wrong = [("state", "wrong"), ("code", &*x_code)];
    let long = "s".repeat(5000);
    for parameters in [&wrong[..], &sound[1..], &[], &[("state", &*long), ("code", &*x_code)]] {
        assert_eq!(setting.call_back(&visit.cookie, parameters).await, invalid, "{parameters:?}");
    }
    for cookie in ["", "oauth=", "another=1"] {
        assert_eq!(setting.call_back(cookie, &sound).await, invalid, "{cookie}");
    }
    // Nothing was asked of the provider, and the browser that began still gets through.
    assert!(setting.provider.exchanges().is_empty());
    assert_eq!(setting.call_back(&visit.cookie, &sound).await.name, "code");
    assert_eq!(setting.call_back(&visit.cookie, &sound).await, invalid, "replayed");

    // Another browser's cookie uses the state up.
    let state = other.state();
    let x_code = setting.provider.authorize(&other.authorize);
    let sound = [("state", &*state), ("code", &*x_code)];
    assert_eq!(setting.call_back(&visit.cookie, &sound).await, invalid, "another browser");
    assert_eq!(setting.call_back(&other.cookie, &sound).await, invalid, "used up");
    assert_eq!(setting.provider.exchanges(), [200]);

    // Two at once: one gets through.
    let visit = setting.begin("").await;
    let (state, x_code) = (visit.state(), setting.provider.authorize(&visit.authorize));
    let sound = [("state", &*state), ("code", &*x_code)];
    let (one, two) = tokio::join!(
        setting.call_back(&visit.cookie, &sound),
        setting.call_back(&visit.cookie, &sound)
    );
    assert_eq!([&one, &two].iter().filter(|landing| landing.name == "code").count(), 1);
    assert!(one == invalid || two == invalid, "{one:?} {two:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_once_and_in_the_browser_that_began() {
    let setting = Setting::start().await;
    let (visit, other) = (setting.begin("").await, setting.begin("").await);
    let code = setting.code(&visit).await;
    for cookie in ["", "oauth="] {
        assert_eq!(setting.exchange(cookie, &code).await.problem(400), "invalid-code", "{cookie}");
    }
    assert_eq!(setting.exchange(&visit.cookie, "wrong").await.problem(400), "invalid-code");
    let (one, two) = tokio::join!(
        setting.exchange(&visit.cookie, &code),
        setting.exchange(&visit.cookie, &code)
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400], "one use");
    assert_eq!(setting.exchange(&visit.cookie, &code).await.problem(400), "invalid-code");

    // Another browser's cookie uses the code up.
    let code = setting.code(&other).await;
    assert_eq!(setting.exchange(&visit.cookie, &code).await.problem(400), "invalid-code");
    assert_eq!(setting.exchange(&other.cookie, &code).await.problem(400), "invalid-code");
    let sessions: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions")
        .fetch_one(&setting.world.pool)
        .await
        .unwrap();
    assert_eq!(sessions, 1);
    assert_eq!(setting.exchange(&visit.cookie, "").await.problem(422), "validation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_end_is_given_up() {
    let setting = Setting::start().await;
    let short = Timings { execution: Duration::from_secs(2), ..timings() };
    let instance = Instance::with_timings(&setting.config, short).await;
    let (visit, next) = (setting.begin("").await, setting.begin("").await);
    let code = setting.code(&visit).await;
    // Somebody who has no account yet.
    setting.provider.set_user_info(json!({ "id": "42", "name": "Eve", "username": "eve" }));
    let (state, x_code) = (next.state(), setting.provider.authorize(&next.authorize));
    let block = setting.world.block("LOCK TABLE users, sessions IN EXCLUSIVE MODE").await;
    let exchanged = exchange(&instance, &visit.cookie, &code).await;
    assert_eq!(exchanged.problem(503), "timeout");
    let parameters = [("state", &*state), ("code", &*x_code)];
    let landing = call_back(&instance, &next.cookie, &parameters).await;
    assert_eq!(landing, Landing::error("sign-in-unavailable"));
    block.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_steps_expire_and_no_code_is_stored() {
    let setting = Setting::start().await;
    let mut redis = redis_connection(&shared().redis_url()).await;
    let visit = setting.begin("").await;
    let key = format!("pkce:{}", visit.state());
    let left: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.unwrap();
    assert!((540..=600).contains(&left), "{left}");
    let record: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
    assert!(!record.contains(visit.cookie.trim_start_matches("oauth=")), "only its hash");
    let () = redis::cmd("PEXPIRE").arg(&key).arg(0).query_async(&mut redis).await.unwrap();
    let (state, x_code) = (visit.state(), setting.provider.authorize(&visit.authorize));
    let landing = setting.call_back(&visit.cookie, &[("state", &state), ("code", &x_code)]).await;
    assert_eq!(landing, Landing::error("invalid-state"));

    let visit = setting.begin("").await;
    let code = setting.code(&visit).await;
    let key = code_key(&code);
    let left: i64 = redis::cmd("TTL").arg(&key).query_async(&mut redis).await.unwrap();
    assert!((240..=300).contains(&left), "{left}");
    let record: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
    assert!(!record.contains(&code) && !record.contains("canary"), "{record}");
    let () = redis::cmd("PEXPIRE").arg(&key).arg(0).query_async(&mut redis).await.unwrap();
    assert_eq!(setting.exchange(&visit.cookie, &code).await.problem(400), "invalid-code");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_at_the_provider_reaches_the_front_end_as_a_code() {
    let setting = Setting::start().await;
    let go = async |parameters: &[(&str, &str)]| {
        let visit = setting.begin("").await;
        let state = visit.state();
        let x_code = setting.provider.authorize(&visit.authorize);
        let mut all = vec![("state", &*state)];
        all.extend(parameters.iter().map(|(name, value)| match *value {
            "sound" => (*name, &*x_code),
            value => (*name, value),
        }));
        setting.call_back(&visit.cookie, &all).await
    };
    let refused = Landing::error("identity-provider-refused");
    let down = Landing::error("identity-provider-unavailable");
    assert_eq!(go(&[("error", "access_denied")]).await, Landing::error("access-denied"));
    assert_eq!(go(&[("error", "<script>"), ("code", "sound")]).await, refused);
    assert_eq!(go(&[]).await, refused);
    assert_eq!(go(&[("code", "invented")]).await, refused);
    assert_eq!(go(&[("code", "sound"), ("unknown", "1")]).await.name, "code");

    for info in [json!({ "name": "no id" }), json!({ "id": "x" }), json!({ "id": "" }), json!(1)] {
        setting.provider.set_user_info(info);
        assert_eq!(go(&[("code", "sound")]).await, down);
    }
    setting.provider.set_broken(true);
    assert_eq!(go(&[("code", "sound")]).await, down);

    // Nobody listens.
    let mut config = setting.config.clone();
    let twitter = config.social.twitter.as_mut().unwrap();
    twitter.token_url = Url::parse("http://127.0.0.1:1/token").unwrap();
    let instance = Instance::start(&config).await;
    let visit = Visit::of(&Call::get(REDIRECT).send(&instance).await);
    let state = visit.state();
    let parameters = [("state", &*state), ("code", "any")];
    assert_eq!(call_back(&instance, &visit.cookie, &parameters).await, down);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_or_postgres_nobody_waits() {
    let setting = Setting::start().await;
    let visit = setting.begin("").await;
    let code = setting.code(&visit).await;
    let redis = RedisConfig { url: Secret::new("redis://127.0.0.1:1"), ssl_ca: None };
    let dead = Instance::start(&ApiConfig { redis, ..setting.config.clone() }).await;
    let begun = Call::get(REDIRECT).send(&dead).await;
    assert_eq!(begun.problem(503), "sign-in-unavailable");
    assert_eq!(begun.header("set-cookie"), None);
    let exchanged = exchange(&dead, &visit.cookie, &code).await;
    assert_eq!(exchanged.problem(503), "sign-in-unavailable");
    assert!(exchanged.header("retry-after").is_some());
    // A person is at the other end of the callback.
    let landing =
        call_back(&dead, &visit.cookie, &[("state", &visit.state()), ("code", "any")]).await;
    assert_eq!(landing, Landing::error("sign-in-unavailable"));

    let mut config = setting.config.clone();
    config.database.port = 1;
    let dead = Instance::start(&config).await;
    let visit = setting.begin("").await;
    let (state, x_code) = (visit.state(), setting.provider.authorize(&visit.authorize));
    let parameters = [("state", &*state), ("code", &*x_code)];
    let landing = call_back(&dead, &visit.cookie, &parameters).await;
    assert_eq!(landing, Landing::error("sign-in-unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_belongs_to_the_host_where_cookies_are_secure() {
    let setting = Setting::start().await;
    let mut config = setting.config.clone();
    config.http.environment = Environment::Production;
    let instance = Instance::start(&config).await;
    let visit = Visit::of(&Call::get(REDIRECT).send(&instance).await);
    assert!(visit.set_cookie.starts_with("__Host-oauth="), "{}", visit.set_cookie);
    for part in ["; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(visit.set_cookie.contains(part), "{part} missing in {}", visit.set_cookie);
    }
    assert!(!visit.set_cookie.contains("Domain"), "{}", visit.set_cookie);
    let (state, x_code) = (visit.state(), setting.provider.authorize(&visit.authorize));
    let parameters = [("state", &*state), ("code", &*x_code)];
    let plain = visit.cookie.replace("__Host-", "");
    let invalid = Landing::error("invalid-state");
    assert_eq!(call_back(&instance, &plain, &parameters).await, invalid);
    let landing = call_back(&instance, &visit.cookie, &parameters).await;
    assert_eq!(landing.name, "code");
    assert_eq!(exchange(&instance, &visit.cookie, &landing.value).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_stays_on_the_front_end() {
    let setting = Setting::start().await;
    for query in [
        "?returnTo=//evil.example",
        "?returnTo=https://evil.example",
        "?returnTo=/%5Cevil.example",
        "?returnTo=goals",
        "?returnTo=/goals&returnTo=/x",
        "?redirect=/goals",
    ] {
        let reply = Call::get(&format!("{REDIRECT}{query}")).send(&setting.instance).await;
        assert_eq!(reply.problem(400), "invalid-query", "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_x_is_not_configured_the_routes_do_not_exist() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    for path in [REDIRECT, "/api/auth/twitter/callback?state=a&code=b"] {
        assert_eq!(Call::get(path).send(&instance).await.problem(404), "not-found");
    }
    let reply = exchange(&instance, "oauth=a", "a").await;
    assert_eq!(reply.problem(404), "not-found");

    // Nor where Cognito signs people in.
    let setting = Setting::start().await;
    let auth = AuthConfig::Cognito(CognitoConfig::new("http://127.0.0.1:1", "client"));
    let instance = Instance::start(&ApiConfig { auth, ..setting.config.clone() }).await;
    for path in [REDIRECT, "/api/auth/twitter/callback?state=a&code=b"] {
        assert_eq!(Call::get(path).send(&instance).await.problem(404), "not-found");
    }
    let reply = exchange(&instance, "oauth=a", "a").await;
    assert_eq!(reply.problem(404), "not-found");
}
