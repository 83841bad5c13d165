//! Logging: JSON lines in production and staging, readable lines locally.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::Environment;

/// Whatever `RUST_LOG` says.
const RMCP: &str = "rmcp=warn";

/// Installs the process-wide subscriber. `RUST_LOG` overrides the filter. A second call does
/// nothing, so that tests may share a process.
pub fn init(environment: Environment) {
    let filter = EnvFilter::try_from_default_env()
        // sqlx logs statements at debug and slow statements at warn, with their text but no values.
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"))
        // rmcp logs whole messages at info and debug, with what a user said in them.
        .add_directive(RMCP.parse().expect("a directive of ours"));
    let registry = tracing_subscriber::registry().with(filter);
    let outcome = if environment == Environment::Local {
        registry.with(fmt::layer().with_writer(std::io::stderr)).try_init()
    } else {
        let json = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stdout);
        registry.with(json).try_init()
    };
    drop(outcome);
}
