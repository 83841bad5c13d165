//! Postgres and Redis with TLS: who does not prove to be the server is nobody.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use bme_service::{
    config::{ApiConfig, DatabaseConfig, RedisConfig, Secret},
    database::Database,
    kv::Kv,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Call, Instance, Process, TlsServers, World, eventually, shared};

/// Far more than a handshake takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// An authority, as PEM, and what it signs with.
fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem().into_bytes(), Issuer::new(parameters, key))
}

/// The servers' certificate is for `localhost`, signed by an authority.
fn servers(issuer: &Issuer<'static, KeyPair>) -> TlsServers {
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, issuer).unwrap();
    TlsServers::start(&server.pem(), &key.serialize_pem())
}

fn redis_url(servers: &TlsServers, host: &str, token: &str) -> Secret {
    Secret::new(format!("rediss://:{token}@{host}:{}", servers.redis_port))
}

/// A configuration that trusts this authority, and knows both servers by this name.
fn config(base: &ApiConfig, servers: &TlsServers, host: &str, authority: &[u8]) -> ApiConfig {
    let database = DatabaseConfig {
        host: host.to_owned(),
        port: servers.postgres_port,
        ssl_verify: true,
        ssl_ca: Some(authority.to_vec()),
        ..shared().database("postgres")
    };
    let redis = RedisConfig {
        url: redis_url(servers, host, TlsServers::REDIS_TOKEN),
        ssl_ca: Some(authority.to_vec()),
    };
    ApiConfig { database, redis, ..base.clone() }
}

async fn checks(url: &str) -> Value {
    Call::get("/ready").try_send(url).await.unwrap().json()["checks"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_name_under_the_right_authority_is_the_server() {
    // The one provider of the process; another test may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ((ours, issuer), (foreign, _)) = (authority(), authority());
    let servers = servers(&issuer);
    let world = World::new().await;
    let right = Instance::start(&config(&world.config, &servers, "localhost", &ours)).await;
    eventually("both servers", async || {
        checks(&right.url).await == json!({ "database": "ok", "redis": "ok" })
    })
    .await;
    // The certificate is of a name, not of the address behind it.
    for (host, authority) in [("localhost", &foreign), ("127.0.0.1", &ours)] {
        let config = config(&world.config, &servers, host, authority);
        // The certificate is why, and not that nobody listens.
        let refused = Database::new(&config.database).ping(PATIENCE).await.unwrap_err();
        assert!(format!("{refused:?}").contains("ertificate"), "{host}: {refused:?}");
        let kv = Kv::new(&config.redis).unwrap();
        eventually("Redis to be refused for its certificate", async || {
            let refused = kv.ping(PATIENCE).await.unwrap_err();
            format!("{refused:?}").contains("ertificate")
        })
        .await;
        let instance = Instance::start(&config).await;
        // Several attempts to connect, each refused.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let failed = json!({ "database": "failed", "redis": "failed" });
            assert_eq!(checks(&instance.url).await, failed, "{host}");
        }
    }
}

/// Without the token Redis answers nobody, whatever its certificate says.
#[tokio::test(flavor = "multi_thread")]
async fn redis_answers_only_whoever_has_the_token() {
    // The one provider of the process; another test may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (ours, issuer) = authority();
    let servers = servers(&issuer);
    let world = World::new().await;
    let known = config(&world.config, &servers, "localhost", &ours);
    let mut guessed = known.clone();
    guessed.redis.url = redis_url(&servers, "localhost", "a-token-that-somebody-guessed");
    let instances = [Instance::start(&known).await, Instance::start(&guessed).await];
    for (instance, redis) in instances.iter().zip(["ok", "failed"]) {
        let expected = json!({ "database": "ok", "redis": redis });
        eventually("both servers", async || checks(&instance.url).await == expected).await;
    }
    // Several attempts to connect, each refused.
    for _ in 0..3 {
        assert_eq!(checks(&instances[1].url).await["redis"], "failed");
        let _ = timeout(Duration::from_millis(500), pending::<()>()).await;
    }
}

/// As a container is told: the authority's certificate in the environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_binary_verifies_by_what_its_environment_says() {
    let ((ours, issuer), (foreign, _)) = (authority(), authority());
    let servers = servers(&issuer);
    let world = World::new().await;
    let config = config(&world.config, &servers, "localhost", &ours);
    for (authority, state) in [(&ours, "ok"), (&foreign, "failed")] {
        let pem = std::str::from_utf8(authority).unwrap();
        let env =
            [("DATABASE_SSL_VERIFY", "true"), ("DATABASE_SSL_CA", pem), ("REDIS_SSL_CA", pem)];
        let mut process = Process::start("api", &config, &env).await;
        let expected = json!({ "database": state, "redis": state });
        eventually("the state of both", async || checks(&process.url).await == expected).await;
        process.end().await;
    }
}
