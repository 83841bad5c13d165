//! What leaves the built binary, `api` and `worker`, received and read by others: one trace from a
//! request through the queue to the model and back, what went wrong, and nothing that is private.

use std::collections::{HashMap, HashSet};

use aws_sdk_sqs::{config::ProvideCredentials as _, types::MessageSystemAttributeName};
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};

use crate::{
    harness::{
        Call, IdentityProvider, IndependentReceiver, Process, Redis, Reply, SigningKey, World,
        emulator, eventually, redis_connection, unique_email, unique_key,
    },
    voice_memory::{Model, calls},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const VOICE: &str = "/api/voice/understand";

/// In every private text that is sent, and in no name of ours.
const CANARY: &str = "canary";
/// The amounts that are sent.
const AMOUNTS: [&str; 2] = ["7731.59", "8842.68"];

/// What carries the jobs, looked at from behind.
enum Carrier {
    Redis,
    Sqs { client: aws_sdk_sqs::Client, urls: [String; 2], env: Vec<(&'static str, String)> },
}

impl Carrier {
    async fn sqs() -> Self {
        let sdk = tokio::task::spawn_blocking(emulator).await.unwrap().account().await;
        let client = aws_sdk_sqs::Client::new(&sdk);
        let mut urls = Vec::new();
        for name in ["voice", "voice-dead"] {
            let created = client.create_queue().queue_name(name).send().await.unwrap();
            urls.push(created.queue_url.unwrap());
        }
        let s3 = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build();
        let s3 = aws_sdk_s3::Client::from_conf(s3);
        // The names of buckets are everybody's.
        let bucket = format!("audio-{}", unique_key());
        s3.create_bucket().bucket(&bucket).send().await.unwrap();
        let credentials = sdk.credentials_provider().unwrap().provide_credentials().await.unwrap();
        let env = vec![
            ("QUEUE", "sqs".to_owned()),
            ("VOICE_QUEUE_URL", urls[0].clone()),
            ("VOICE_DEAD_LETTER_QUEUE_URL", urls[1].clone()),
            ("AUDIO_BUCKET", bucket),
            ("AWS_ENDPOINT_URL", sdk.endpoint_url().unwrap().to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        Self::Sqs { client, urls: urls.try_into().unwrap(), env }
    }

    fn system(&self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Sqs { .. } => "aws_sqs",
        }
    }

    /// All messages, waiting and dead, each with all that is said around it.
    async fn messages(&self, redis: &str) -> Vec<(Value, String)> {
        let mut found = Vec::new();
        match self {
            Self::Redis => {
                let mut connection = redis_connection(redis).await;
                for stream in ["{q:voice}:s", "{q:voice}:d"] {
                    let mut command = redis::cmd("XRANGE");
                    let entries: Vec<(String, HashMap<String, String>)> = command
                        .arg(stream)
                        .arg("-")
                        .arg("+")
                        .query_async(&mut connection)
                        .await
                        .unwrap();
                    found.extend(entries.into_iter().map(|(_, entry)| {
                        (serde_json::from_str(&entry["message"]).unwrap(), format!("{entry:?}"))
                    }));
                }
            }
            Self::Sqs { client, urls, .. } => {
                for url in urls {
                    let call = client.receive_message().queue_url(url).visibility_timeout(0);
                    let call = call.message_system_attribute_names(MessageSystemAttributeName::All);
                    let call = call.message_attribute_names("All").max_number_of_messages(10);
                    for message in call.send().await.unwrap().messages() {
                        let body: Value = serde_json::from_str(message.body().unwrap()).unwrap();
                        found.push((body["message"].clone(), format!("{message:?}")));
                    }
                }
            }
        }
        found
    }
}

/// What is in a Redis: names and values. Values that are there to keep what a user wrote, for the
/// user alone, are left out: answers that may be asked for again, and audio.
async fn contents(url: &str) -> Vec<String> {
    let mut connection = redis_connection(url).await;
    let mut ask = async |command: &[&str]| -> redis::Value {
        let mut built = redis::cmd(command[0]);
        built.arg(&command[1..]);
        built.query_async(&mut connection).await.unwrap()
    };
    let keys: Vec<String> = redis::from_redis_value(ask(&["KEYS", "*"]).await).unwrap();
    let mut found = Vec::new();
    for key in &keys {
        let kind: String = redis::from_redis_value(ask(&["TYPE", key]).await).unwrap();
        let value = match kind.as_str() {
            _ if key.starts_with("idempotency:") || key.starts_with("blob:") => redis::Value::Nil,
            "string" => ask(&["GET", key]).await,
            "stream" => ask(&["XRANGE", key, "-", "+"]).await,
            "zset" => ask(&["ZRANGE", key, "0", "-1"]).await,
            "hash" => ask(&["HGETALL", key]).await,
            "set" => ask(&["SMEMBERS", key]).await,
            other => panic!("{key} is a {other}"),
        };
        found.push(format!("{key} {value:?}"));
    }
    assert!(keys.iter().any(|key| key.starts_with("idempotency:")), "{keys:?}");
    found
}

/// Both processes, everything around them, and what was told to them in confidence.
struct Stage {
    world: World,
    carrier: Carrier,
    redis: Redis,
    receiver: IndependentReceiver,
    provider: IdentityProvider,
    model: Model,
    api: Process,
    secrets: Vec<String>,
}

impl Stage {
    async fn new(carrier: Carrier) -> Self {
        let (world, redis) = (World::new().await, Redis::start());
        let receiver = IndependentReceiver::start().await;
        let provider = IdentityProvider::start().await;
        let args = json!({ "type": "expense", "amount": 8842.68, "currency": "EUR",
                           "category": "Food", "date": "2026-11-23", "description": "canary lunch" });
        let model = Model::start(
            vec![calls(&[("add_transaction", args)])],
            (400, "canary refusal".to_owned()),
        );
        let model = model.await;
        let mut secrets: Vec<_> = AMOUNTS.map(str::to_owned).into();
        secrets.push(CANARY.to_owned());
        let config = world.with_redis(&redis.url());
        let env = environment(&carrier, &receiver, &provider, &model);
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let api = Process::start("api", &config, &env).await;
        Self { world, carrier, redis, receiver, provider, model, api, secrets }
    }

    async fn worker(&self) -> Process {
        let config = self.world.with_redis(&self.redis.url());
        let env = environment(&self.carrier, &self.receiver, &self.provider, &self.model);
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start("worker", &config, &env).await
    }

    async fn send(&self, call: Call) -> Reply {
        call.header("x-canary", "canary").try_send(&self.api.url).await.unwrap()
    }

    async fn ended(&self, authorization: &str, poll: &str) -> Value {
        let mut job = Value::Null;
        eventually("a job to end", async || {
            let call = Call::get(poll).header("authorization", authorization);
            job = self.send(call).await.json();
            ["completed", "failed"].contains(&job["status"].as_str().unwrap())
        })
        .await;
        job
    }

    #[track_caller]
    fn keeps(&self, what: &str, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{secret} in {what}: {text}");
        }
    }
}

fn environment(
    carrier: &Carrier,
    receiver: &IndependentReceiver,
    provider: &IdentityProvider,
    model: &Model,
) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.clone()),
        ("SENTRY_DSN", receiver.dsn()),
        ("GEMINI_BASE_URL", model.url.clone()),
        ("GEMINI_MODEL", "test-model".to_owned()),
        ("GEMINI_API_KEY", "canary-key".to_owned()),
        ("GOOGLE_CLIENT_ID", "our-client".to_owned()),
        ("GOOGLE_JWKS_URL", provider.jwks_url()),
        // What an operator who looks for a fault sees.
        ("RUST_LOG", "debug".to_owned()),
    ];
    if let Carrier::Sqs { env: more, .. } = carrier {
        env.extend(more.iter().cloned());
    }
    env
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_and_nothing_private_by_redis() {
    one_trace_and_nothing_private(Carrier::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_and_nothing_private_by_sqs() {
    one_trace_and_nothing_private(Carrier::sqs().await).await;
}

async fn one_trace_and_nothing_private(carrier: Carrier) {
    let mut stage = Stage::new(carrier).await;
    let authorization = sign_in(&mut stage).await;
    fail(&mut stage, &authorization).await;

    let said = r#"{"transcript":"canary transcript","today":"2026-11-23"}"#;
    let accepted = Call::post(VOICE, said)
        .header("authorization", &authorization)
        .header("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .header("x-request-id", "voice-request")
        .key(&unique_key());
    let accepted = stage.send(accepted).await;
    assert_eq!(accepted.status, 202, "{accepted}");
    // Nobody works yet.
    let messages = stage.carrier.messages(&stage.redis.url()).await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    let (message, whole) = &messages[0];
    stage.keeps("a message", whole);
    assert_eq!(message["requestId"], "voice-request");
    let parent = message["traceparent"].as_str().unwrap_or_else(|| panic!("{message}"));
    assert_eq!(&parent[..36], format!("00-{TRACE}-"));

    let mut worker = stage.worker().await;
    let poll = accepted.json()["pollUrl"].as_str().unwrap().to_owned();
    let done = stage.ended(&authorization, &poll).await;
    assert_eq!(done["result"]["actions"][0]["item"]["amount"], 8842.68, "{done}");
    // "OggS canary audio", which the model refuses.
    let sound = r#"{"audio":"T2dnUyBjYW5hcnkgYXVkaW8=","mimeType":"audio/ogg"}"#;
    stage.secrets.push("T2dnUyBjYW5hcnkgYXVkaW8".to_owned());
    let accepted = Call::post(VOICE, sound)
        .header("authorization", &authorization)
        .header("x-request-id", "dead-request");
    let accepted = stage.send(accepted).await;
    let poll = accepted.json()["pollUrl"].as_str().unwrap().to_owned();
    let dead = stage.ended(&authorization, &poll).await;
    assert_eq!(dead["code"], "provider-refused", "{dead}");
    let mut messages = Vec::new();
    eventually("a dead letter", async || {
        messages = stage.carrier.messages(&stage.redis.url()).await;
        !messages.is_empty()
    })
    .await;
    let dead = messages.iter().map(|(_, whole)| whole);
    for text in dead.chain(&contents(&stage.redis.url()).await) {
        stage.keeps("the queue or Redis", text);
    }

    // Everything is sent before the end.
    stage.api.end().await;
    worker.end().await;
    let logs = [stage.api.rest().await, worker.rest().await];
    for line in logs.iter().flatten() {
        stage.keeps("the log", line);
    }
    let received = stage.receiver.received().await;
    assert_eq!(received["refused"], json!([]));
    for sent in received["raw"].as_array().unwrap() {
        stage.keeps("telemetry", sent.as_str().unwrap());
    }
    is_one_trace(&received, &parent[36..52], stage.carrier.system());
    tells_what_went_wrong(&received);
    measures(&received);
    logs_each_request_once(&logs);
}

/// Registers, logs in well and badly, and keeps a transaction; the header of the session.
async fn sign_in(stage: &mut Stage) -> String {
    let email = format!("canary-{}", unique_email());
    let body = json!({ "email": email, "password": "canary password", "name": "canary name" });
    let registered = stage.send(Call::post("/api/auth/register", &body.to_string())).await;
    assert_eq!(registered.status, 201, "{registered}");
    let known = json!({ "email": email, "password": "canary password" }).to_string();
    let session = stage.send(Call::post("/api/auth/login?canary=1", &known)).await;
    assert_eq!(session.status, 200, "{session}");
    for reply in [&registered, &session] {
        stage.secrets.push(reply.json()["token"].as_str().unwrap().to_owned());
        let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap();
        stage.secrets.push(cookie.split_once('=').unwrap().1.to_owned());
    }
    let wrong = json!({ "email": email, "password": "canary guess" }).to_string();
    assert_eq!(stage.send(Call::post("/api/auth/login", &wrong)).await.status, 401);
    let authorization = format!("Bearer {}", session.json()["token"].as_str().unwrap());
    let transaction = json!({ "type": "expense", "amount": 7731.59, "currency": "EUR",
                              "category": "Food", "date": "2026-11-23",
                              "description": "canary description" });
    let created = Call::post("/api/transactions", &transaction.to_string())
        .header("authorization", &authorization)
        .key(&unique_key());
    assert_eq!(stage.send(created).await.status, 201);
    authorization
}

/// A social login that is refused and one whose provider is down, and an answer of 500.
async fn fail(stage: &mut Stage, authorization: &str) {
    let now = get_current_timestamp();
    let claims = json!({ "iss": "https://accounts.google.com", "aud": "our-client", "iat": now,
                         "exp": now + 600, "sub": "canary-person", "name": "canary name",
                         "email": format!("canary-{}", unique_email()), "email_verified": true });
    // Nobody's keys have this id; they are asked for again.
    let token = SigningKey::generate("key-2").sign(&claims);
    let body = json!({ "idToken": token }).to_string();
    let refused = stage.send(Call::post("/api/auth/google", &body)).await;
    assert_eq!(refused.problem(401), "invalid-id-token");
    let cut = json!({ "idToken": format!("canary.{token}") }).to_string();
    assert_eq!(stage.send(Call::post("/api/auth/google", &cut)).await.status, 401);
    stage.secrets.push(token);

    let gone = "ALTER TABLE goals RENAME TO goals_that_are_gone";
    sqlx::query(gone).execute(&stage.world.pool).await.unwrap();
    let goal = r#"{"type":"savings","target":7731.59,"period":"monthly"}"#;
    let failed = Call::post("/api/goals?canary=1", goal)
        .header("authorization", authorization)
        .header("x-request-id", "failed-request");
    let failed = stage.send(failed).await;
    assert_eq!(failed.problem(500), "internal");
    assert_eq!(failed.json()["requestId"], "failed-request");
}

/// The request, the message, the job, and what each of them asked of others.
fn is_one_trace(received: &Value, sent: &str, system: &str) {
    let spans = received["spans"].as_array().unwrap();
    let text = |span: &Value, name: &str| span[name].as_str().unwrap().to_owned();
    let traced: HashMap<_, _> = spans
        .iter()
        .filter(|span| span["trace"] == TRACE)
        .map(|span| (text(span, "id"), span))
        .collect();
    let find = |name: &str, kind: &str, service: &str| {
        let mut found = traced.values().filter(|span| {
            (text(span, "name").as_str(), &span["kind"], &span["service"])
                == (name, &json!(kind), &json!(service))
        });
        let one = found.next();
        *one.unwrap_or_else(|| panic!("no {name} of {service} in {traced:#?}"))
    };
    let request = find("POST /api/voice/understand", "server", "bme-api");
    let sending = find("send voice", "producer", "bme-api");
    let process = find("process voice", "consumer", "bme-worker");
    let model = find("generate_content test-model", "client", "bme-worker");
    // Everything hangs together below the caller's span.
    assert_eq!(request["parent"], CALLER);
    for (id, span) in &traced {
        let parent = text(span, "parent");
        assert!(id == request["id"].as_str().unwrap() || traced.contains_key(&parent), "{span:#}");
        assert_eq!(span["events"], 0, "{span:#}");
    }
    assert_eq!(sending["id"], sent);
    assert_eq!(process["parent"], sending["id"]);
    assert_eq!(model["parent"], process["id"]);

    let attributes = |span: &Value, expected: Value| {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(span["attributes"][name], *value, "{name} in {span:#}");
        }
    };
    for (span, operation) in [(sending, "send"), (process, "process")] {
        let job = &process["attributes"]["messaging.message.id"];
        attributes(
            span,
            json!({ "messaging.system": system, "messaging.operation.name": operation,
                    "messaging.operation.type": operation,
                    "messaging.destination.name": "voice", "messaging.message.id": job }),
        );
    }
    attributes(
        process,
        json!({ "request_id": "voice-request", "attempt": 1, "outcome": "completed" }),
    );
    attributes(
        model,
        json!({ "gen_ai.operation.name": "generate_content", "gen_ai.provider.name": "gcp.gemini",
                "gen_ai.request.model": "test-model", "http.response.status_code": 200 }),
    );
    for (service, operation, table) in [
        ("bme-api", "INSERT", "voice_jobs"),
        ("bme-worker", "UPDATE", "voice_jobs"),
        ("bme-worker", "INSERT", "voice_job_actions"),
        ("bme-worker", "INSERT", "transactions"),
    ] {
        let name = format!("{operation} {table}");
        let span = find(&name, "client", service);
        let expected = json!({ "db.system.name": "postgresql", "db.query.summary": name,
                               "db.operation.name": operation, "db.collection.name": table });
        attributes(span, expected);
        assert!(span["nanoseconds"].as_u64().unwrap() > 0, "{span:#}");
    }
    // The worker acknowledges many jobs to Redis at once, which is in no one's trace; what it reads
    // for one job is (below).
    let script = find("EVALSHA", "client", "bme-api");
    attributes(script, json!({ "db.system.name": "redis", "db.operation.name": "EVALSHA" }));
    // What failed says so, and is a trace of its own.
    let dead =
        spans.iter().find(|span| span["attributes"]["request_id"] == "dead-request").unwrap();
    assert_ne!(dead["trace"], TRACE);
    let refused =
        spans.iter().filter(|span| span["failed"] == true && span["trace"] == dead["trace"]);
    let mut refused: Vec<_> = refused.map(|span| text(span, "name")).collect();
    refused.sort_unstable();
    assert_eq!(refused, ["generate_content test-model", "process voice"]);
    if system == "redis" {
        // The worker's first commands there may be the queue's own scripts.
        let audio = spans.iter().find(|span| {
            span["trace"] == dead["trace"]
                && span["service"] == "bme-worker"
                && span["name"] == "GET"
        });
        let audio = audio.unwrap_or_else(|| panic!("no audio read in the trace of {dead:#}"));
        assert_eq!(audio["kind"], "client");
        attributes(audio, json!({ "db.system.name": "redis", "db.operation.name": "GET" }));
    }
    // Nobody's trace: what happens all the time without a request.
    let pings: Vec<_> = spans.iter().filter(|span| span["name"] == "PING").collect();
    assert!(pings.iter().all(|ping| ping["parent"] != ""), "{pings:#?}");
}

fn tells_what_went_wrong(received: &Value) {
    let mut events = received["events"].as_array().unwrap().clone();
    events.sort_by_key(|event| event["message"].as_str().unwrap().to_owned());
    let [answer, job] = &events[..] else { panic!("{events:#?}") };
    assert_eq!(answer["message"], "POST /api/goals answered 500");
    assert_eq!(answer["tags"]["request_id"], "failed-request");
    assert_eq!(answer["tags"]["code"], "internal");
    assert_eq!(job["message"], "dead job");
    assert_eq!(job["tags"]["request_id"], "dead-request");
    assert_eq!(job["tags"]["code"], "provider-refused");
    for event in &events {
        assert_eq!(event["release"], "v0.0.0-test");
        assert_eq!(event["environment"], "production");
    }
}

/// What either process counts, also over OTLP.
fn measures(received: &Value) {
    let found: HashSet<_> = received["metrics"].as_array().unwrap().iter().collect();
    let is_there = |service: &str, name: &str, unit: &str| {
        let metric = json!({ "name": name, "service": service, "unit": unit });
        assert!(found.contains(&metric), "no {metric} in {found:#?}");
    };
    is_there("bme-api", "http.server.request.duration", "s");
    is_there("bme-worker", "messaging.process.duration", "s");
    for service in ["bme-api", "bme-worker"] {
        is_there(service, "db.client.connection.count", "");
        is_there(service, "db.client.connection.max", "");
        is_there(service, "messaging.queue.messages", "");
    }
}

/// One access line per request and one line per attempt at a job, with what belongs to it; the
/// request's id is in every line on the way, in both processes.
fn logs_each_request_once([api, worker]: &[Vec<String>; 2]) {
    let parse = |line: &String| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let [api, worker] = [api, worker].map(|lines| lines.iter().map(parse).collect::<Vec<_>>());
    for (lines, target, id) in [
        (&api, "access", "voice-request"),
        (&api, "access", "failed-request"),
        (&worker, "job", "voice-request"),
        (&worker, "job", "dead-request"),
    ] {
        let of_request = lines.iter().filter(|line| line["span"]["request_id"] == id);
        let found: Vec<_> = of_request.filter(|line| line["target"] == target).collect();
        let [line] = found[..] else { panic!("{found:#?} for {id} of {lines:#?}") };
        assert!(line["ms"].is_u64() && line["user_id"].is_string(), "{line}");
        assert!(line["trace_id"].is_string(), "{line}");
        if id == "voice-request" {
            assert_eq!(line["trace_id"], TRACE, "{line}");
        }
    }
    let access = api.iter().filter(|line| line["target"] == "access");
    for line in access {
        let probe = ["/health", "/ready"].contains(&line["route"].as_str().unwrap());
        assert!(
            line["method"].is_string() && line["status"].is_u64() && line["ms"].is_u64(),
            "{line}"
        );
        assert!(line["span"]["request_id"].is_string() || probe, "{line}");
    }
    let lunch = worker.iter().find(|line| line["outcome"] == "completed").unwrap();
    assert_eq!(lunch["attempt"], 1, "{lunch}");
    // Whatever the service itself says about a request or a job says which.
    let of_jobs = worker.iter().filter(|line| {
        let target = line["target"].as_str().unwrap();
        target.starts_with("bme_service::voice") || ["job", "dead_job"].contains(&target)
    });
    let ids: Vec<_> = of_jobs.map(|line| line["span"]["request_id"].as_str()).collect();
    assert!(ids.len() > 3 && ids.iter().all(Option::is_some), "{ids:?} of {worker:#?}");
}
