//! What leaves the process besides answers: traces.

use serde_json::{Value, json};

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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
