//! How the service talks to AWS: one HTTP client and one place for region, credentials and limits.
//!
//! Region, endpoint (`AWS_ENDPOINT_URL`) and credentials come from the SDK's own chain; in a task of
//! ECS the credentials are the container's (`AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`).

use std::{error::Error, fmt::Write as _, sync::LazyLock, time::Duration};

use aws_config::{
    BehaviorVersion, ConfigLoader, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_sqs::config::SharedHttpClient;
use aws_smithy_http_client::{
    Builder,
    tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::sync::OnceCell;

/// Longest wait for one answer.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Longest call with its repetitions.
const OPERATION: Duration = Duration::from_secs(8);

/// Tries of one call.
const ATTEMPTS: u32 = 3;

/// The configuration of this process, read at first use.
pub async fn config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG.get_or_init(|| loader().load()).await
}

/// What every configuration begins with. A call that must not repeat says so itself.
pub fn loader() -> ConfigLoader {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
}

/// What went wrong, with its causes: the SDK's own text ends where it gets interesting, and its debug
/// text holds whole answers.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// With Mozilla's roots from the binary: an image from scratch has no store of its own.
fn http_client() -> SharedHttpClient {
    static ROOTS: LazyLock<String> = LazyLock::new(public_roots);
    let trust = TrustStore::empty().with_pem_certificate(ROOTS.as_bytes());
    let context =
        TlsContext::builder().with_trust_store(trust).build().expect("a trust store is enough");
    Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https()
}

fn public_roots() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for (at, character) in STANDARD.encode(certificate).chars().enumerate() {
            // RFC 7468: lines of 64 characters.
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        // Writing to a string can't fail.
        let _ = writeln!(pem, "\n-----END CERTIFICATE-----");
    }
    pem
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn every_root_survives_its_way_through_pem() {
        let read: Vec<_> = CertificateDer::pem_slice_iter(public_roots().as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(read.len() > 100);
        assert_eq!(read, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
    }
}
