//! Postgres with TLS: who does not prove to be the server is nobody.

use std::time::{Duration, Instant};

use bme_service::config::{ApiConfig, DatabaseConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::harness::{Call, Instance, TlsPostgres, World, eventually, shared};

/// An authority, as PEM, and what it signs with.
fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem().into_bytes(), Issuer::new(parameters, key))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_name_under_the_right_authority_is_the_database() {
    let ((ours, issuer), (foreign, _)) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let postgres = TlsPostgres::start(&server.pem(), &key.serialize_pem());
    let world = World::new().await;
    let state = async |host: &str, authority: &[u8]| {
        let database = DatabaseConfig {
            host: host.to_owned(),
            port: postgres.port,
            ssl_verify: true,
            ssl_ca: Some(authority.to_vec()),
            ..shared().database("postgres")
        };
        let instance = Instance::start(&ApiConfig { database, ..world.config.clone() }).await;
        let state = async || {
            let reply = Call::get("/ready").send(&instance).await;
            reply.json()["checks"]["database"].as_str().unwrap().to_owned()
        };
        if host == "localhost" && authority == ours {
            eventually("the database", async || state().await == "ok").await;
            return;
        }
        // Several attempts to connect, each refused.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            assert_eq!(state().await, "failed", "{host}");
        }
    };
    state("localhost", &ours).await;
    state("localhost", &foreign).await;
    // The certificate is of a name, not of the address behind it.
    state("127.0.0.1", &ours).await;
}
