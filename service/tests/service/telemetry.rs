//! What leaves the process besides answers: traces, metrics and errors.

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    middleware::from_fn_with_state,
    routing::get,
};
use bme_service::{
    app::Lifecycle,
    config::{Environment, HttpConfig, TelemetryConfig},
    edge::{Edge, surround},
    telemetry,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Call, Process, Receiver, World, attribute, unique_email, unique_key};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PATH: &str = "/api/transactions";
const BODY: &str = r#"{"type":"expense","amount":77.31,"currency":"EUR","category":"Food",
                       "date":"2026-11-23","description":"canary description"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_continues_its_callers_trace_down_to_redis_and_postgres() {
    let world = World::new().await;
    let receiver = Receiver::start().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.as_str())];
    let mut process = Process::start("api", &world.config, &env).await;
    let email = format!("canary-{}", unique_email());
    let body = json!({ "email": email, "password": "canary password", "name": "Canary Name" });
    let registered =
        Call::post("/api/auth/register", &body.to_string()).try_send(&process.url).await.unwrap();
    let token = registered.json()["token"].as_str().unwrap().to_owned();
    let user = registered.json()["user"]["id"].as_str().unwrap().to_owned();
    let authorization = format!("Bearer {token}");
    let created = Call::post(&format!("{PATH}?canary=1"), BODY)
        .header("authorization", &authorization)
        .header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("x-request-id", "traced-request")
        .key(&unique_key())
        .try_send(&process.url)
        .await
        .unwrap();
    assert_eq!(created.status, 201, "{created}");
    let id = created.json()["id"].as_str().unwrap().to_owned();
    // The caller decided against this one.
    let unsampled = "11111111111111111111111111111111";
    Call::get(PATH)
        .header("authorization", &authorization)
        .header("traceparent", &format!("00-{unsampled}-00f067aa0ba902b7-00"))
        .try_send(&process.url)
        .await
        .unwrap();
    let amazon = "Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=1";
    Call::get(&format!("{PATH}/{id}"))
        .header("authorization", &authorization)
        .header("x-amzn-trace-id", amazon)
        .try_send(&process.url)
        .await
        .unwrap();

    let (line, _) =
        process.line(|line| line.contains("traced-request") && line.contains("\"route\"")).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["trace_id"], TRACE, "{line}");
    assert_eq!(event["span"], json!({ "name": "request", "request_id": "traced-request" }));
    process.end().await;

    // Everything was sent before the end.
    let spans = receiver.spans();
    let traced: Vec<_> = spans.iter().filter(|(span, _)| hex(&span.trace_id) == TRACE).collect();
    let (request, resource) = traced
        .iter()
        .find(|(span, _)| span.name == "POST /api/transactions")
        .unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(request.kind, 2, "a server's span");
    let of_request = |key| attribute(&request.attributes, key);
    assert_eq!(of_request("http.route").as_deref(), Some(PATH));
    assert_eq!(of_request("http.response.status_code").as_deref(), Some("201"));
    assert_eq!(of_request("request_id").as_deref(), Some("traced-request"));
    assert_eq!(of_request("user_id"), Some(user));
    assert_eq!(attribute(resource, "service.name").as_deref(), Some("bme-api"));
    assert_eq!(attribute(resource, "service.version").as_deref(), Some("v0.0.0-test"));
    for name in ["EVALSHA", "SET", "transaction", "INSERT transactions"] {
        let found = traced.iter().find(|(span, _)| span.name == name);
        let (span, _) = found.unwrap_or_else(|| panic!("no {name} in {traced:#?}"));
        assert_eq!(span.kind, 3, "a client's span");
        let parent = traced.iter().find(|(parent, _)| parent.span_id == span.parent_span_id);
        assert!(parent.is_some(), "{name} has a parent in the trace");
    }
    assert!(spans.iter().all(|(span, _)| hex(&span.trace_id) != unsampled));
    let (read, _) = spans
        .iter()
        .find(|(span, _)| span.name == "GET /api/transactions/{id}")
        .expect("the request that a load balancer traced");
    assert_eq!(hex(&read.trace_id), "67891233abcdef012345678912345678");
    assert_eq!(hex(&read.parent_span_id), "53995c3f42cd8ad8");
    assert!(spans.iter().all(|(span, _)| span.events.is_empty()));
    receiver.has_none_of(&["canary", "Canary", "77.31", &token, &id]);
}

/// A collector that is away costs nothing but its spans.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_collector_the_service_serves_and_ends() {
    let world = World::new().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let mut process = Process::start("api", &world.config, &env).await;
    let user = world.user().await;
    let reply = Call::get(PATH).by(&user).try_send(&process.url).await.unwrap();
    assert_eq!(reply.status, 200, "{reply}");
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_by_template_and_class() {
    let world = World::new().await;
    let receiver = Receiver::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.as_str()),
        ("METRICS_ADDRESS", &address),
        ("RATE_LIMIT_LOGIN_PER_MINUTE", "1"),
    ];
    let mut process = Process::start("api", &world.config, &env).await;
    // The port is taken: the second one serves all the same, and says so.
    let mut second = Process::start("api", &world.config, &env).await;
    second.line(|line| line.contains("metrics are not served")).await;
    second.end().await;

    let user = world.user().await;
    let key = unique_key();
    let mut id = String::new();
    for _ in 0..2 {
        let call = Call::post(PATH, BODY).by(&user).key(&key);
        let reply = call.try_send(&process.url).await.unwrap();
        assert_eq!(reply.status, 201, "{reply}");
        id = reply.json()["id"].as_str().unwrap().to_owned();
    }
    let read = Call::get(&format!("{PATH}/{id}")).by(&user).try_send(&process.url).await.unwrap();
    assert_eq!(read.status, 200, "{read}");
    let login = json!({ "email": "canary@example.org", "password": "x" }).to_string();
    for _ in 0..2 {
        let ip = "10.255.255.1";
        let call = Call::post("/api/auth/login", &login).header("x-forwarded-for", ip);
        call.try_send(&process.url).await.unwrap();
    }
    let invented = Call::new("CANARY".parse().unwrap(), "/canary").try_send(&process.url).await;
    assert_eq!(invented.unwrap().status, 404);

    let scraped = Call::get("/metrics").try_send(&format!("http://{address}")).await.unwrap();
    assert_eq!(scraped.status, 200, "{scraped}");
    let text = String::from_utf8(scraped.body.to_vec()).unwrap();
    let value = |name: &str, labels: &[&str]| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        let line = line.unwrap_or_else(|| panic!("no {name} with {labels:?} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let count = "http_server_request_duration_seconds_count";
    let of = |method, route, class| {
        let labels = [
            format!("http_request_method=\"{method}\""),
            format!("http_route=\"{route}\""),
            format!("http_response_status_class=\"{class}\""),
        ];
        value(count, &labels.each_ref().map(String::as_str))
    };
    assert!((of("POST", PATH, "2xx") - 2.0).abs() < f64::EPSILON);
    assert!((of("GET", "/api/transactions/{id}", "2xx") - 1.0).abs() < f64::EPSILON);
    assert!((of("_OTHER", "unmatched", "4xx") - 1.0).abs() < f64::EPSILON);
    for result in ["new", "replay"] {
        let label = format!("result=\"{result}\"");
        let labels = [label.as_str(), &format!("route=\"{PATH}\"")];
        assert!((value("idem_total", &labels) - 1.0).abs() < f64::EPSILON);
    }
    let left = value("idem_lease_remaining_seconds_sum", &[]);
    assert!(left > 0.0 && left <= 30.0, "{left}");
    let login = |decision: &str| {
        let label = format!("decision=\"{decision}\"");
        value("rate_limit_decisions_total", &["bucket=\"login\"", &label])
    };
    assert!((login("allowed") + login("refused") - 2.0).abs() < f64::EPSILON);
    assert!(value("db_client_connection_count", &["state=\"idle\""]) >= 0.0);
    assert!(value("db_client_connection_count", &["state=\"used\""]) >= 0.0);
    for canary in ["canary", "CANARY", "77.31", &id, &user.id.to_string(), &key] {
        assert!(!text.contains(canary), "{canary} in {text}");
    }
    // Not for the public.
    let public = Call::get("/metrics").try_send(&process.url).await.unwrap();
    assert_eq!(public.problem(404), "not-found");

    process.end().await;
    let pushed = receiver.metrics();
    for name in ["http.server.request.duration", "rate_limit.decisions", "idem"] {
        assert!(pushed.iter().any(|found| found == name), "no {name} in {pushed:?}");
    }
}

/// The events in the envelopes that Sentry was sent: a line of JSON for the envelope, one for each
/// item, and the item itself.
fn events(receiver: &Receiver) -> Vec<Value> {
    let envelopes = receiver.bodies("/api/42/envelope/");
    let events = envelopes.iter().map(|envelope| {
        let text = std::str::from_utf8(envelope).unwrap();
        let [_, item, event] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("not one item in {text}");
        };
        assert_eq!(serde_json::from_str::<Value>(item).unwrap()["type"], "event", "{item}");
        serde_json::from_str(event).unwrap()
    });
    events.collect()
}

fn dsn(receiver: &Receiver) -> String {
    receiver.url.replace("http://", "http://key@") + "/42"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_once_without_the_request() {
    let world = World::new().await;
    let receiver = Receiver::start().await;
    let config = world.with_database_port(1);
    let mut process =
        Process::start("api", &config, &[("SENTRY_DSN", dsn(&receiver).as_str())]).await;
    let user = world.user().await;
    let created = Call::post(&format!("{PATH}?canary=1"), BODY)
        .by(&user)
        .header("x-request-id", "failed-request")
        .header("x-canary", "canary")
        .header("cookie", "canary=1")
        .try_send(&process.url)
        .await
        .unwrap();
    assert_eq!(created.problem(503), "database-unavailable");
    // What is the client's fault, and the probe, are nothing to report.
    let missing = Call::get("/api/canary").try_send(&process.url).await.unwrap();
    assert_eq!(missing.status, 404);
    assert_eq!(Call::get("/ready").try_send(&process.url).await.unwrap().status, 503);
    process.end().await;

    let events = events(&receiver);
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!(event["message"], "POST /api/transactions answered 503");
    assert_eq!(
        event["tags"],
        json!({
            "request_id": "failed-request", "method": "POST", "route": PATH, "status": "503",
            "code": "database-unavailable",
        })
    );
    assert_eq!(event["release"], "v0.0.0-test");
    assert_eq!(event["environment"], "production");
    for absent in ["request", "user", "breadcrumbs", "extra", "server_name"] {
        assert_eq!(event[absent], Value::Null, "{event:#}");
    }
    receiver.has_none_of(&["canary", "77.31", &user.token, &user.id.to_string()]);
}

/// Panics and dead jobs, in a process of their own: the hook is the whole process's. Nothing in the
/// service panics on request, so this test runs itself as that process.
#[tokio::test(flavor = "multi_thread")]
async fn panics_and_dead_jobs_are_reported_by_place_and_id() {
    const DSN: &str = "TEST_SENTRY_DSN";
    if let Ok(dsn) = std::env::var(DSN) {
        return panic_and_give_up(&dsn).await;
    }
    let receiver = Receiver::start().await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "telemetry::panics_and_dead_jobs_are_reported_by_place_and_id"])
        .arg("--nocapture")
        .env(DSN, dsn(&receiver))
        .output()
        .await
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let mut events = events(&receiver);
    events.sort_by_key(|event| event["message"].as_str().unwrap().to_owned());
    let messages: Vec<_> = events.iter().map(|event| event["message"].clone()).collect();
    assert_eq!(messages, ["dead job", "panic", "panic in GET /panics/{id}"], "{events:#?}");
    let [job, background, request] = [0, 1, 2].map(|index| &events[index]["tags"]);
    assert_eq!(*job, json!({ "job_id": "job-7", "code": "provider-failed", "attempts": "5" }));
    assert_eq!(request["request_id"], "panicking-request");
    for tags in [background, request] {
        let location = tags["location"].as_str().unwrap();
        assert!(location.contains("telemetry.rs:"), "{location}");
    }
    receiver.has_none_of(&["canary"]);
    assert!(!log.contains("canary"), "{log}");
}

async fn panic_and_give_up(dsn: &str) {
    let http = HttpConfig {
        environment: Environment::Production,
        release: "v0.0.0-test".into(),
        bind: ([127, 0, 0, 1], 0).into(),
        trusted_proxy_hops: 1,
        public_url: None,
        allowed_origins: Vec::new(),
    };
    let config = TelemetryConfig { sentry: Some(dsn.parse().unwrap()), ..Default::default() };
    let telemetry = telemetry::start(&http, &config).unwrap();

    let edge = Edge {
        lifecycle: Lifecycle::new("v0.0.0-test"),
        request_timeout: std::time::Duration::from_secs(5),
        hsts: false,
    };
    let panics = async |Path(id): Path<String>| -> String { panic!("canary {id}") };
    let router =
        Router::new().route("/panics/{id}", get(panics)).layer(from_fn_with_state(edge, surround));
    let request = Request::get("/panics/canary?canary=1")
        .header("x-request-id", "panicking-request")
        .body(Body::empty())
        .unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), 500);
    let id = "canary".to_owned();
    assert!(tokio::spawn(async move { panic!("{id}") }).await.unwrap_err().is_panic());
    tracing::error!(
        target: telemetry::DEAD_JOB, job_id = "job-7", code = "provider-failed", attempts = 5,
        "job given up"
    );
    // Neither an error nor a dead job.
    tracing::warn!(target: telemetry::DEAD_JOB, "a warning");
    tracing::error!("another error");
    telemetry.finish().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
