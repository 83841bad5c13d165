//! Events for Sentry: panics, answers of 5xx, and dead jobs. Each is made of constant texts, ids,
//! codes and route templates; nothing of a request or of a user is there to be scrubbed.

use std::{
    cell::Cell,
    panic::{self, PanicHookInfo},
    sync::{
        Arc, OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode, header};
use sentry::{
    Client, ClientOptions, Envelope, Level, Transport,
    protocol::{Event, Values},
    types::Dsn,
};
use tokio::{sync::mpsc, task};
use tracing::{Subscriber, field};
use tracing_subscriber::{
    Layer,
    filter::filter_fn,
    layer::{Context, Filter},
    registry::LookupSpan,
};

use crate::config::HttpConfig;

/// The target of the error events that report a job given up.
pub const DEAD_JOB: &str = "dead_job";

/// The fields of such an event that are sent on: ids, codes and counts.
const DEAD_JOB_FIELDS: [&str; 5] = ["job_id", "request_id", "queue", "code", "attempts"];

/// Most events that wait to be sent; further ones are dropped.
const QUEUE: usize = 100;

/// Silence after a 429 without `Retry-After`, as Sentry's SDKs have it.
const QUIET: Duration = Duration::from_mins(1);

/// Longest silence that Sentry may ask for.
const QUIET_MAX: Duration = Duration::from_hours(1);

/// The client of the process.
static CLIENT: OnceLock<Arc<Client>> = OnceLock::new();

tokio::task_local! {
    /// Where the current request panicked.
    static PANICKED: Cell<Option<String>>;
}

/// Sends events from now on. Needs a Tokio runtime.
pub(super) fn start(dsn: &Dsn, http: &HttpConfig, sender: reqwest::Client) -> Arc<Client> {
    let options = sentry::apply_defaults(
        ClientOptions::default()
            .dsn(&dsn.to_string())
            .release(http.release.clone())
            .environment(http.environment.name())
            .transport(Arc::new(Outbox::new(dsn, sender)))
            .before_send(|event| Some(scrub(event))),
    );
    let client = Arc::new(Client::with_options(options));
    Arc::clone(CLIENT.get_or_init(|| client))
}

/// What the SDK's integrations must not add, now or in a later version.
fn scrub(mut event: Event<'static>) -> Event<'static> {
    event.request = None;
    event.user = None;
    event.server_name = None;
    event.breadcrumbs = Values::default();
    event.extra.clear();
    event
}

fn capture<'t>(
    message: String,
    tags: impl IntoIterator<Item = (&'t str, String)>,
    fingerprint: Vec<String>,
) {
    if let Some(client) = CLIENT.get() {
        let event = Event {
            level: Level::Error,
            message: Some(message),
            tags: tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            fingerprint: fingerprint.into_iter().map(Into::into).collect(),
            ..Event::default()
        };
        client.capture_event(event, None);
    }
}

/// Replaces the panic hook: the message may hold values, so only a constant one is logged, in the
/// form of every other line. A request's panic is reported with its answer.
pub(super) fn watch_panics() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let constant = info.payload().downcast_ref::<&'static str>();
        tracing::error!(location, message = constant.unwrap_or(&"panicked"));
        let of_request = PANICKED.try_with(|panicked| panicked.set(Some(location.clone()))).is_ok();
        if !of_request {
            capture("panic".to_owned(), [("location", location.clone())], vec![location]);
        }
    }));
}

/// Runs a request whose panics [`failed`] reports.
pub async fn watched<F: Future>(request: F) -> F::Output {
    PANICKED.scope(Cell::new(None), request).await
}

/// Reports an answer of 5xx, once for each request.
pub fn failed(
    method: &Method,
    route: &str,
    status: StatusCode,
    code: Option<&'static str>,
    request_id: &str,
) {
    let mut tags = vec![
        ("request_id", request_id.to_owned()),
        ("method", method.to_string()),
        ("route", route.to_owned()),
        ("status", status.as_u16().to_string()),
    ];
    tags.extend(code.map(|code| ("code", code.to_owned())));
    tags.extend(super::trace_id().map(|id| ("trace_id", id)));
    let panicked = PANICKED.try_with(Cell::take).ok().flatten();
    let message = match &panicked {
        Some(_) => format!("panic in {method} {route}"),
        None => format!("{method} {route} answered {}", status.as_u16()),
    };
    let cause = panicked.as_deref().or(code).unwrap_or_default().to_owned();
    let fingerprint = vec![method.to_string(), route.to_owned(), cause];
    tags.extend(panicked.map(|location| ("location", location)));
    capture(message, tags, fingerprint);
}

/// Reports every error event whose target is [`DEAD_JOB`].
pub(super) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    DeadJobs.with_filter(dead_jobs())
}

fn dead_jobs<S>() -> impl Filter<S> {
    filter_fn(|metadata| {
        metadata.is_event()
            && metadata.target() == DEAD_JOB
            && *metadata.level() == tracing::Level::ERROR
    })
}

struct DeadJobs;

impl<S: Subscriber> Layer<S> for DeadJobs {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut tags = Tags(Vec::new());
        event.record(&mut tags);
        let code = tags.0.iter().find(|(name, _)| *name == "code");
        let code = code.map(|(_, code)| code.clone()).unwrap_or_default();
        capture("dead job".to_owned(), tags.0, vec!["dead job".to_owned(), code]);
    }
}

struct Tags(Vec<(&'static str, String)>);

impl Tags {
    fn add(&mut self, field: &field::Field, value: String) {
        if DEAD_JOB_FIELDS.contains(&field.name()) {
            self.0.push((field.name(), value));
        }
    }
}

impl field::Visit for Tags {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// A bounded queue before Sentry: whoever reports never waits.
struct Outbox {
    queue: mpsc::Sender<Mail>,
}

enum Mail {
    Envelope(Vec<u8>),
    /// Answered when everything before it is sent.
    Flush(SyncSender<()>),
}

impl Outbox {
    fn new(dsn: &Dsn, sender: reqwest::Client) -> Self {
        let (queue, mail) = mpsc::channel(QUEUE);
        let auth = dsn.to_auth(Some("bme-service")).to_string();
        task::spawn(deliver(mail, sender, dsn.envelope_api_url().to_string(), auth));
        Self { queue }
    }
}

impl Transport for Outbox {
    fn send_envelope(&self, envelope: Envelope) {
        let mut bytes = Vec::new();
        if envelope.to_writer(&mut bytes).is_ok() {
            // Full: an outage makes more events than anybody reads.
            let _ = self.queue.try_send(Mail::Envelope(bytes));
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let (done, flushed) = sync_channel(1);
        self.queue.try_send(Mail::Flush(done)).is_ok() && flushed.recv_timeout(timeout).is_ok()
    }
}

async fn deliver(
    mut mail: mpsc::Receiver<Mail>,
    sender: reqwest::Client,
    url: String,
    auth: String,
) {
    let mut quiet_until = Instant::now();
    while let Some(mail) = mail.recv().await {
        let envelope = match mail {
            Mail::Envelope(envelope) => envelope,
            Mail::Flush(done) => {
                // The one who waited may have gone.
                let _ = done.send(());
                continue;
            }
        };
        if Instant::now() < quiet_until {
            continue;
        }
        let request = sender
            .post(&url)
            .header("x-sentry-auth", &auth)
            .header(header::CONTENT_TYPE, "application/x-sentry-envelope")
            .body(envelope);
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {
                let asked = answer.headers().get(header::RETRY_AFTER);
                let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
                quiet_until =
                    Instant::now() + asked.map_or(QUIET, Duration::from_secs).min(QUIET_MAX);
            }
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                tracing::warn!(status = answer.status().as_u16(), "Sentry refused an event");
            }
            // The error's text may hold the key.
            Err(_) => tracing::warn!("Sentry is not reachable"),
        }
    }
}
