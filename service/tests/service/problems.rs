//! Every error path answers problem+json, and every answer carries the headers it must.

use std::io::{Read as _, Write as _};

use bme_service::config::Environment;
use reqwest::Method;

use crate::harness::{Call, Instance, World};

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_document() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let path = "/api/transactions";
    let too_large = format!("{{\"description\":\"{}\"}}", "x".repeat(256 * 1024));
    let cases = [
        (Call::get("/"), 404, "not-found"),
        (Call::get("/api"), 404, "not-found"),
        (Call::get("/api/v2/balance"), 404, "not-found"),
        (Call::get("/api/transactions/").by(&user), 404, "not-found"),
        (Call::get("/api/transactions/not-an-id").by(&user), 404, "not-found"),
        (Call::get("/api/transactions/%ff").by(&user), 400, "bad-request"),
        (Call::new(Method::PUT, path).by(&user), 405, "method-not-allowed"),
        (Call::new(Method::OPTIONS, "/health"), 405, "method-not-allowed"),
        (Call::get(path), 401, "unauthorized"),
        (Call::get("/api/transactions?limit=0").by(&user), 400, "invalid-query"),
        (Call::get("/api/transactions?limit=101").by(&user), 400, "invalid-query"),
        (Call::get("/api/transactions?cursor=AAAA").by(&user), 400, "invalid-query"),
        (Call::get("/api/transactions?month=2026-13").by(&user), 400, "invalid-query"),
        (Call::get("/api/balance?mont=2026-12").by(&user), 400, "invalid-query"),
        (Call::new(Method::POST, path).by(&user).body("{}"), 415, "unsupported-media-type"),
        (
            Call::new(Method::POST, path).by(&user).header("content-type", "text/json").body("{}"),
            415,
            "unsupported-media-type",
        ),
        (
            Call::new(Method::POST, path)
                .by(&user)
                .header("content-type", "application/json; charset=latin1")
                .body("{}"),
            415,
            "unsupported-media-type",
        ),
        (
            Call::post(path, "{}").by(&user).header("content-encoding", "gzip"),
            415,
            "unsupported-media-type",
        ),
        (Call::post(path, &too_large).by(&user), 413, "body-too-large"),
        (Call::post(path, "{\"a\":").by(&user), 400, "invalid-json"),
        (Call::post(path, "[]").by(&user), 400, "invalid-json"),
        (Call::post(path, "").by(&user), 400, "invalid-json"),
        (Call::post(path, "{}").by(&user), 422, "validation"),
        (Call::post("/api/auth/login", "nonsense"), 400, "invalid-json"),
        (Call::post("/api/auth/refresh", "{\"a\":1}"), 422, "validation"),
        (Call::new(Method::POST, "/api/auth/logout").body("x"), 415, "unsupported-media-type"),
        (Call::new(Method::POST, "/api/auth/refresh"), 401, "session-ended"),
    ];
    for (call, status, code) in cases {
        let reply = call.send(&instance).await;
        assert_eq!(reply.problem(status), code, "{reply}");
        let text = String::from_utf8_lossy(&reply.body).to_lowercase();
        for leak in ["serde", "sqlx", "panicked", "src/", "<html", "expected value"] {
            assert!(!text.contains(leak), "{text}");
        }
    }
    let refused = Call::new(Method::PUT, path).by(&user).send(&instance).await;
    let mut allowed: Vec<_> = refused.header("allow").unwrap().split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_refused_before_it_is_read_where_its_length_tells() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    let known = format!("Bearer {}", user.token);
    for (path, authorization, expected) in [
        ("/api/transactions", &*known, "413"),
        ("/api/transactions", "Bearer x", "401"),
        ("/api/voice/understand", &*known, "413"),
        ("/api/voice/understand", "Bearer x", "401"),
    ] {
        let (address, authorization) = (address.clone(), authorization.to_owned());
        // Only the head is sent: an answer proves that nobody waited for the body.
        let status = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            write!(
                stream,
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\
                 content-type: application/json\r\ncontent-length: 1000000000\r\n\r\n"
            )
            .unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            String::from_utf8(answer[9..].to_vec()).unwrap()
        });
        assert_eq!(status.await.unwrap(), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_before_the_body_is_read_may_send_it_and_reads_the_answer() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let body = vec![b' '; 4 << 20];
        write!(
            stream,
            "POST /api/voice/understand HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            user.token,
            body.len()
        )
        .unwrap();
        // By now it is refused, and its connection has ended in the other direction.
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        // More than the two ends of a connection hold back for each other.
        stream.write_all(&body).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        [start.to_vec(), rest].concat()
    });
    let answer = String::from_utf8(answer.await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.ends_with('}') && answer.contains("body-too-large"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_bounded_too() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "POST /api/transactions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            user.token
        )
        .unwrap();
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        // The server may close before everything is written: that is its good right.
        for _ in 0..66 {
            if stream.write_all(chunk.as_bytes()).is_err() {
                break;
            }
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    });
    assert_eq!(answer.await.unwrap(), "HTTP/1.1 413");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_kept_when_they_are_safe() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let kept = Call::get("/nowhere").header("x-request-id", "trace.1_a-B").send(&instance).await;
    assert_eq!(kept.header("x-request-id"), Some("trace.1_a-B"));
    assert_eq!(kept.json()["requestId"], "trace.1_a-B");
    let replaced = Call::get("/health").header("x-request-id", "a b").send(&instance).await;
    let id = replaced.header("x-request-id").unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_security_headers() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for call in [
        Call::get("/health"),
        Call::get("/nowhere"),
        Call::get("/openapi.json"),
        Call::get("/api/balance").by(&user),
        Call::get("/api/balance"),
        Call::new(Method::OPTIONS, "/api/balance"),
        Call::post("/api/goals", "{}").by(&user),
    ] {
        let reply = call.send(&instance).await;
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            reply.header("content-security-policy"),
            Some("default-src 'none'; frame-ancestors 'none'")
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
            assert_eq!(reply.header(name), Some("same-origin"), "{name}");
        }
        assert!(reply.header("permissions-policy").unwrap().contains("microphone=()"));
        assert!(reply.header("server").is_none());
    }
}

/// Where browsers come in by TLS, they are told to come in by nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_demands_tls_but_locally() {
    let world = World::new().await;
    let mut config = world.config.clone();
    for (environment, demand) in [
        (Environment::Local, None),
        (Environment::Staging, Some("max-age=31536000; includeSubDomains")),
        (Environment::Production, Some("max-age=31536000; includeSubDomains")),
    ] {
        config.http.environment = environment;
        let instance = Instance::start(&config).await;
        for call in [
            Call::get("/health"),
            Call::get("/nowhere"),
            Call::get("/api/balance"),
            Call::post("/api/auth/login", "{}"),
        ] {
            let reply = call.send(&instance).await;
            assert_eq!(reply.header("strict-transport-security"), demand, "{reply}");
        }
    }
}

/// A request's head has a largest size: whoever sends more is refused, and not remembered for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let address = instance.url.strip_prefix("http://").unwrap().to_owned();
    for (lines, expected) in [(20, "HTTP/1.1 200"), (1000, "HTTP/1.1 431")] {
        let address = address.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            let head = format!("x-line: {}\r\n", "x".repeat(1000)).repeat(lines);
            let head =
                format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n");
            // The server may close before everything is written, and its answer be lost by that.
            let _ = stream.write_all(head.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = answer.await.unwrap();
        let lost = lines > 20 && answer.is_empty();
        assert!(lost || answer.starts_with(expected), "{answer}");
    }
    assert_eq!(Call::get("/health").send(&instance).await.status, 200);
}
