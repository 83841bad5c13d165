//! Pages of other origins: who may read answers, and who may use the refresh cookie.

use bme_service::config::{ApiConfig, HttpConfig};
use reqwest::Method;

use crate::harness::{Call, Instance, Reply, World};

const APP: &str = "https://app.example.org";
const PUBLIC: &str = "https://bme.example.org";
const EVIL: &str = "https://app.example.org.evil.example";

async fn instance() -> Instance {
    let world = World::new().await;
    let http = HttpConfig {
        public_url: Some(format!("{PUBLIC}/start")),
        allowed_origins: vec![APP.into()],
        ..world.config.http.clone()
    };
    Instance::start(&ApiConfig { http, ..world.config }).await
}

fn shared_with(reply: &Reply) -> Option<&str> {
    assert_eq!(reply.headers.get_all("vary").iter().filter(|vary| *vary == "Origin").count(), 1);
    let origin = reply.header("access-control-allow-origin");
    let credentials = reply.header("access-control-allow-credentials");
    assert_eq!(credentials, origin.map(|_| "true"), "{reply}");
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_shared_with_the_listed_origins_only() {
    let instance = instance().await;
    for path in ["/health", "/api/transactions", "/api/nothing"] {
        let from = async |origin| Call::get(path).header("origin", origin).send(&instance).await;
        assert_eq!(shared_with(&from(APP).await), Some(APP));
        assert_eq!(shared_with(&from(PUBLIC).await), Some(PUBLIC));
        for other in [EVIL, "null", "http://app.example.org", "https://app.example.org:8443"] {
            assert_eq!(shared_with(&from(other).await), None);
        }
        assert_eq!(shared_with(&Call::get(path).send(&instance).await), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_before_anything_else() {
    let instance = instance().await;
    let preflight = async |origin| {
        Call::new(Method::OPTIONS, "/api/transactions/1")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,x-idempotency-key")
            .send(&instance)
            .await
    };
    let reply = preflight(APP).await;
    assert_eq!((reply.status, shared_with(&reply)), (204, Some(APP)));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("PATCH"));
    let headers = reply.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization") && headers.contains("x-idempotency-key"));
    assert!(reply.header("x-request-id").is_some() && reply.header("ratelimit-limit").is_none());
    let reply = preflight(EVIL).await;
    assert_eq!((reply.status, shared_with(&reply)), (204, None));
    assert_eq!(reply.header("access-control-allow-methods"), None);
    // Without a requested method it is an ordinary request.
    let plain = Call::new(Method::OPTIONS, "/api/transactions").send(&instance).await;
    assert_eq!(plain.problem(405), "method-not-allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_cannot_use_the_refresh_cookie() {
    let instance = instance().await;
    for path in ["/api/auth/refresh", "/api/v1/auth/refresh", "/api/auth/logout"] {
        let call = |pairs: &[(&str, &str)]| {
            let call = Call::new(Method::POST, path).header("cookie", "bme_refresh=x");
            pairs.iter().fold(call, |call, (name, value)| call.header(name, value))
        };
        let own = if path.ends_with("refresh") { 401 } else { 204 };
        for passing in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "cross-site"), ("origin", APP)],
            &[("origin", PUBLIC)],
        ] {
            assert_eq!(call(passing).send(&instance).await.status, own, "{passing:?}");
        }
        for refused in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", EVIL)],
            &[("origin", EVIL)],
            &[("origin", "null")],
        ] {
            let reply = call(refused).send(&instance).await;
            assert_eq!(reply.problem(403), "cross-site", "{refused:?}");
            assert_eq!(reply.header("set-cookie"), None);
        }
    }
}

/// Whose code it is, is in a cookie too.
#[tokio::test(flavor = "multi_thread")]
async fn another_site_exchanges_no_code() {
    let instance = instance().await;
    for path in ["/api/auth/exchange-code", "/api/v1/auth/exchange-code"] {
        let from = async |origin: &str, site: &str| {
            let call = Call::post(path, "{\"code\":\"a\"}").header("cookie", "oauth=a");
            let call = call.header("origin", origin).header("sec-fetch-site", site);
            call.send(&instance).await
        };
        for origin in [EVIL, "null"] {
            assert_eq!(from(origin, "cross-site").await.problem(403), "cross-site", "{origin}");
        }
        // Let in, to where nobody signs in with X.
        assert_eq!(from(APP, "cross-site").await.problem(404), "not-found");
    }
}
