//! The Model Context Protocol at `/mcp`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bme_service::{
    app::Timings,
    config::{ApiConfig, McpAccess, McpConfig, Secret},
    mcp,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Call, Instance, Process, Proxy, Reply, Rule, Side, User, World, mcp_client, shared, timings,
};

pub(crate) const SECRET: &str = "the secret of an assistant, long enough";
const SCHEDULE_ITEM: &str = r#"{"date":"2026-11-23","title":"Canary title","startTime":"09:00",
                               "endTime":"10:00","category":"Work"}"#;

pub(crate) fn config(world: &World, user: &User, allowed: &[&str]) -> ApiConfig {
    let mcp = McpConfig {
        access: McpAccess::Secret { secret: Secret::new(SECRET), user: user.id },
        allowed_tools: allowed.iter().map(|name| (*name).to_owned()).collect(),
        allowed_hosts: None,
        allowed_origins: vec!["https://bme.example:443".into()],
    };
    ApiConfig { mcp, ..world.config.clone() }
}

/// A message of the protocol, without the handshake.
fn message(method: &str, params: &str) -> Call {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method:?},"params":{params}}}"#);
    Call::post("/mcp", &body).header("accept", "application/json, text/event-stream")
}

pub(crate) fn tool(name: &str, arguments: &str) -> Call {
    message("tools/call", &format!(r#"{{"name":{name:?},"arguments":{arguments}}}"#))
}

pub(crate) fn with_token(call: Call, token: &str) -> Call {
    call.header("authorization", &format!("Bearer {token}"))
}

/// The text of a tool's answer, and whether it is an error.
pub(crate) fn text(reply: &Reply) -> (String, bool) {
    assert_eq!(reply.status, 200, "{reply}");
    let result = &reply.json()["result"];
    let text = result["content"][0]["text"].as_str();
    (text.unwrap_or_else(|| panic!("{reply}")).to_owned(), result["isError"] == true)
}

pub(crate) type Row = (Option<Uuid>, String, Option<String>, Vec<String>, String);

/// Who, method, target, names of arguments and outcome of every request so far.
pub(crate) async fn audit(world: &World) -> Vec<Row> {
    sqlx::query_as("SELECT user_id, method, target, arguments, outcome FROM mcp_audit ORDER BY id")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

pub(crate) async fn last(world: &World) -> Row {
    audit(world).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_lists_calls_and_reads() {
    let world = World::new().await;
    let (user, stranger) = (world.user().await, world.user().await);
    let instance =
        Instance::start(&config(&world, &user, &["add_schedule_item", "add_transaction"])).await;
    let today = time::OffsetDateTime::now_utc().date().to_string();
    let schedule = |date: &str, title: &str| json!({ "date": date, "title": title, "startTime": "09:00", "endTime": "10:00", "category": "Work" });
    let strangers = schedule(&today, "not yours").to_string();
    let made = Call::post("/api/schedule", &strangers).by(&stranger).send(&instance).await;
    assert_eq!(made.status, 201, "{made}");
    let transaction = json!({ "type": "expense", "amount": 12.5, "currency": "EUR", "category": "Food", "date": today });
    let calls = json!([
        ["add_schedule_item", schedule(&today, "Run 😀")],
        ["add_transaction", transaction],
        ["list_schedule", { "date": today }],
        ["list_transactions", { "month": today[..7], "limit": 1 }],
        ["get_balance", {}],
        ["list_goals", {}],
        ["add_goal", { "type": "savings", "target": 1, "period": "daily" }],
        ["add_schedule_item", schedule("2026-02-30", "")],
        ["list_schedule", { "user": stranger.id }],
    ]);
    let both = mcp_client::talk(&format!("{}/mcp", instance.url), SECRET, &calls).await;
    for (mode, items) in [("auto", 1), ("legacy", 2)] {
        let answers = &both[mode];
        let tools: HashMap<String, Value> =
            serde_json::from_value(answers["tools"].clone()).unwrap();
        let mut names: Vec<_> = tools.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "add_schedule_item",
                "add_transaction",
                "get_balance",
                "list_goals",
                "list_schedule",
                "list_transactions"
            ]
        );
        for (name, tool) in &tools {
            assert_eq!(tool["inputSchema"]["type"], "object", "{name}");
            assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{name}");
            assert_eq!(tool["inputSchema"]["oneOf"], Value::Null, "{name}: models refuse it");
            assert_eq!(tool["annotations"]["readOnlyHint"], !name.starts_with("add_"), "{name}");
        }
        let answer = |at: usize| -> Value {
            let call = &answers["calls"][at];
            assert_eq!(call["error"], false, "{mode} {at}: {call}");
            serde_json::from_str(call["text"].as_str().unwrap()).unwrap()
        };
        assert_eq!(answer(0)["title"], "Run 😀");
        assert_eq!(answer(1)["amount"], json!(12.5));
        assert_eq!(answer(2)["items"].as_array().unwrap().len(), items);
        assert_eq!(answer(3)["items"].as_array().unwrap().len(), 1);
        assert_eq!(answer(3)["nextCursor"].is_string(), items > 1);
        assert_eq!(answer(4)["balances"][0]["currency"], "EUR");
        assert_eq!(answer(5), json!({ "items": [], "nextCursor": null }));
        let refused = &answers["calls"][6]["exception"];
        assert!(refused.as_str().is_some_and(|text| text.contains("no such tool")), "{refused}");
        for (at, words) in [(7, ["date: ", "title: "]), (8, ["user: ", "not a known member"])] {
            let wrong = &answers["calls"][at];
            assert_eq!(wrong["error"], true, "{wrong}");
            assert!(
                words.iter().all(|word| wrong["text"].as_str().unwrap().contains(word)),
                "{wrong}"
            );
        }
        let resources = answers["resources"].as_object().unwrap();
        assert_eq!(resources.len(), 3);
        for (uri, text) in resources {
            let page: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
            let expected = if uri == "bme://goals" { 0 } else { items };
            assert_eq!(page["items"].as_array().unwrap().len(), expected, "{uri}");
            assert!(!text.as_str().unwrap().contains("not yours"));
        }
    }
    let rows = audit(&world).await;
    assert!(rows.iter().all(|row| row.0 == Some(user.id)), "{rows:?}");
    let of = |method: &str, target: &str, outcome: &str| {
        let wanted =
            |row: &&Row| row.1 == method && row.2.as_deref() == Some(target) && row.4 == outcome;
        rows.iter().filter(wanted).count()
    };
    assert_eq!(of("tools/call", "add_goal", "refused"), 2, "{rows:?}");
    assert_eq!(of("tools/call", "add_schedule_item", "ok"), 2, "{rows:?}");
    assert_eq!(of("tools/call", "add_schedule_item", "invalid"), 2, "{rows:?}");
    assert_eq!(of("tools/call", "list_schedule", "ok"), 2, "{rows:?}");
    assert_eq!(of("resources/read", "bme://schedule/today", "ok"), 2, "{rows:?}");
    assert!(!format!("{rows:?}").contains("Run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_opens_this_and_nothing_else_opens_it() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&config(&world, &user, &["add_goal"])).await;
    let list = || tool("list_goals", "{}");
    for (call, what) in [
        (list(), "anonymous"),
        (list().by(&user), "an access token"),
        (with_token(list(), "the secret of an assistant, long enougi"), "another secret"),
        (with_token(list(), ""), "nothing"),
        (list().header("authorization", SECRET), "no scheme"),
        (list().header("authorization", &format!("Basic {SECRET}")), "another scheme"),
        (Call::get("/mcp"), "another method"),
    ] {
        let reply = call.header("x-request-id", "refused-1").send(&instance).await;
        assert_eq!(reply.problem(401), "unauthorized", "{what}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_eq!(
            last(&world).await,
            (None, String::new(), None, vec![], "refused".into()),
            "{what}"
        );
    }
    let ids: Vec<String> = sqlx::query_scalar("SELECT DISTINCT request_id FROM mcp_audit")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(ids, ["refused-1"]);
    for path in ["/api/goals", "/api/balance", "/api/auth/me", "/api/admin/users"] {
        let reply = with_token(Call::get(path), SECRET).send(&instance).await;
        assert_eq!(reply.problem(401), "unauthorized", "{path}");
    }
    let known = with_token(list(), SECRET).send(&instance).await;
    assert_eq!(text(&known), (r#"{"items":[],"nextCursor":null}"#.to_owned(), false));
    // Metadata is for those who come with tokens of an authorization server.
    let metadata = Call::get("/.well-known/oauth-protected-resource").send(&instance).await;
    assert_eq!(metadata.problem(404), "not-found");

    let off = Instance::start(&world.config).await;
    assert_eq!(with_token(list(), SECRET).send(&off).await.problem(404), "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_exact_and_what_is_sent_twice_is_refused() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&config(&world, &user, &["add_transaction"])).await;
    let add = |amount: &str| {
        let arguments = format!(
            r#"{{"type":"income","amount":{amount},"currency":"EUR","category":"Gift","date":"2026-11-23"}}"#
        );
        with_token(tool("add_transaction", &arguments), SECRET).send(&instance)
    };
    let (made, failed) = text(&add("999999999999.99").await);
    assert!(!failed && made.contains(r#""amount":999999999999.99,"#), "{made}");
    for bad in ["0.001", "1e2", "1,\"amount\":2", "-5", "\"1\""] {
        let (answer, failed) = text(&add(bad).await);
        assert!(failed && answer.contains("amount: "), "{bad}: {answer}");
        let row = last(&world).await;
        assert_eq!((row.2.as_deref(), row.4.as_str()), (Some("add_transaction"), "invalid"));
        assert_eq!(row.3, ["amount", "category", "currency", "date", "type"]);
    }
    assert_eq!(world.count_transactions().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_added_without_its_record() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&config(&world, &user, &["add_schedule_item"])).await;
    let add = || with_token(tool("add_schedule_item", SCHEDULE_ITEM), SECRET).send(&instance);
    assert!(!text(&add().await).1);
    let names: Vec<String> =
        ["category", "date", "endTime", "startTime", "title"].map(str::to_owned).to_vec();
    let expected: Row =
        (Some(user.id), "tools/call".into(), Some("add_schedule_item".into()), names, "ok".into());
    assert_eq!(audit(&world).await, [expected]);
    sqlx::query("ALTER TABLE mcp_audit RENAME TO gone").execute(&world.pool).await.unwrap();
    assert!(text(&add().await).1);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM schedule_items")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_or_gets_no_answer_leaves_one_record_that_is_true() {
    let world = World::new().await;
    let user = world.user().await;
    let proxy = Proxy::start(shared().postgres_port).await;
    let config = config(&world, &user, &["add_schedule_item"]);
    let database = world.with_database_port(proxy.port).database;
    let instance = Instance::start(&ApiConfig { database, ..config }).await;
    let add = || with_token(tool("add_schedule_item", SCHEDULE_ITEM), SECRET).send(&instance);
    let outcomes =
        async || -> Vec<String> { audit(&world).await.into_iter().map(|row| row.4).collect() };
    let items = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM schedule_items");
        count.fetch_one(&world.pool).await.unwrap()
    };
    // Committed, and the answer to it is lost.
    proxy.set(Rule::CutOn(Side::Server, b"COMMIT\0"));
    assert!(text(&add().await).1);
    proxy.set(Rule::Pass);
    assert_eq!((items().await, outcomes().await), (1, vec!["ok".to_owned()]));
    // Refused at the commit.
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'refused'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON schedule_items
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    assert!(text(&add().await).1);
    let both = vec!["ok".to_owned(), "failed".to_owned()];
    assert_eq!((items().await, outcomes().await), (1, both));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_addition_that_does_not_end_is_given_up_and_recorded() {
    let world = World::new().await;
    let user = world.user().await;
    let short = Timings { execution: Duration::from_secs(2), ..timings() };
    let config = config(&world, &user, &["add_schedule_item"]);
    let instance = Instance::with_timings(&config, short).await;
    let add = || with_token(tool("add_schedule_item", SCHEDULE_ITEM), SECRET).send(&instance);
    let block = world.block("LOCK TABLE schedule_items IN EXCLUSIVE MODE").await;
    let started = Instant::now();
    let (told, failed) = text(&add().await);
    assert!(failed && told.contains("took too long"), "{told}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    block.rollback().await.unwrap();
    world.wait_for_idle().await;
    assert!(!text(&add().await).1);
    let outcomes: Vec<_> = audit(&world).await.into_iter().map(|row| row.4).collect();
    assert_eq!(outcomes, ["failed", "ok"]);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM schedule_items")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_a_largest_size_and_a_next_page() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&config(&world, &user, &[])).await;
    sqlx::query(
        "INSERT INTO transactions (id, user_id, type, amount, currency, category, date, description)
         SELECT gen_random_uuid(), $1, 'expense', n, 'EUR', 'Food', DATE '2026-01-01' + n, repeat('😀', 500)
         FROM generate_series(1, 100) AS n",
    )
    .bind(user.id)
    .execute(&world.pool)
    .await
    .unwrap();
    let mut seen = 0;
    let mut cursor = String::new();
    loop {
        let arguments = format!(r#"{{"limit":100{cursor}}}"#);
        let reply = with_token(tool("list_transactions", &arguments), SECRET).send(&instance).await;
        let (page, failed) = text(&reply);
        assert!(!failed && page.len() <= mcp::MAX_OUTPUT + 200, "{}", page.len());
        let page: Value = serde_json::from_str(&page).unwrap();
        seen += page["items"].as_array().unwrap().len();
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!(r#","cursor":{next:?}"#);
    }
    assert_eq!(seen, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused_and_recorded() {
    let world = World::new().await;
    let user = world.user().await;
    let instance = Instance::start(&config(&world, &user, &[])).await;
    let accept = |call: Call| {
        with_token(call, SECRET).header("accept", "application/json, text/event-stream")
    };
    let large =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","x":"{}"}}"#, "x".repeat(256 * 1024));
    let foreign = |name, value| with_token(tool("list_goals", "{}"), SECRET).header(name, value);
    let cases = [
        (accept(Call::post("/mcp", &large)), 413, "invalid"),
        (accept(Call::new(Method::POST, "/mcp").body("{}")), 415, "invalid"),
        (accept(Call::get("/mcp")), 405, "invalid"),
        (accept(Call::new(Method::DELETE, "/mcp")), 405, "invalid"),
        (with_token(Call::post("/mcp", "{}"), SECRET), 406, "invalid"),
        (foreign("origin", "https://evil.example"), 403, "refused"),
        (foreign("origin", "http://bme.example"), 403, "refused"),
        (foreign("origin", "null"), 403, "refused"),
    ];
    for (call, status, outcome) in cases {
        let reply = call.send(&instance).await;
        reply.problem(status);
        let row = last(&world).await;
        assert_eq!((row.0, row.4.as_str()), (Some(user.id), outcome), "{reply}");
    }
    let own = foreign("origin", "https://bme.example").send(&instance).await;
    assert_eq!(own.status, 200, "{own}");
    for body in ["", "{", "[]", "1", r#"{"jsonrpc":"2.0","method":1}"#] {
        let reply = accept(Call::post("/mcp", body)).send(&instance).await;
        assert!((400..500).contains(&reply.status), "{body}: {reply}");
        assert_eq!(last(&world).await.4, "invalid", "{body}");
    }
    let unknown = accept(message("tools/none", "{}")).send(&instance).await;
    assert_eq!(unknown.json()["error"]["code"], -32601, "{unknown}");
    let row = last(&world).await;
    assert_eq!((row.1.as_str(), row.4.as_str()), ("tools/none", "invalid"));

    // In production only our own names are accepted in Host.
    let mut strict = config(&world, &user, &[]);
    strict.mcp.allowed_hosts = Some(vec!["bme.example".into()]);
    let strict = Instance::start(&strict).await;
    let reply = with_token(tool("list_goals", "{}"), SECRET).send(&strict).await;
    assert_eq!(reply.problem(403), "forbidden");
    assert_eq!(last(&world).await.4, "refused");
    let named = with_token(tool("list_goals", "{}"), SECRET).header("host", "bme.example");
    assert_eq!(named.send(&strict).await.status, 200);
}

/// Not even where an operator asks for every line.
#[tokio::test(flavor = "multi_thread")]
async fn neither_secret_nor_content_is_logged() {
    let world = World::new().await;
    let user = world.user().await;
    let id = user.id.to_string();
    let env = [
        ("MCP_SECRET", SECRET),
        ("MCP_USER_ID", &*id),
        ("MCP_ALLOWED_TOOLS", "add_schedule_item"),
        ("MCP_ALLOWED_HOSTS", "127.0.0.1"),
        ("RUST_LOG", "debug"),
    ];
    let mut process = Process::start("api", &world.config, &env).await;
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"Canary"}}"#;
    let notification =
        Call::post("/mcp", notification).header("accept", "application/json, text/event-stream");
    for (call, status) in [
        (notification, 202),
        (tool("add_schedule_item", SCHEDULE_ITEM), 200),
        (tool("list_schedule", "{}"), 200),
        (tool("list_schedule", r#"{"date":"Canary"}"#), 200),
        (tool("Canary", r#"{"Canary":"Canary"}"#), 200),
    ] {
        let reply = with_token(call, SECRET).try_send(&process.url).await.unwrap();
        assert_eq!(reply.status, status, "{reply}");
    }
    let end = with_token(Call::get("/mcp"), SECRET).header("x-request-id", "the-end");
    assert_eq!(end.try_send(&process.url).await.unwrap().status, 405);
    let (line, mut lines) =
        process.line(|line| line.contains("the-end") && line.contains("\"route\"")).await;
    assert!(line.contains(&format!("\"user_id\":\"{id}\"")), "{line}");
    lines.push(line);
    assert!(lines.iter().filter(|line| line.contains("\"route\":\"/mcp\"")).count() == 6);
    for line in &lines {
        assert!(!line.contains(SECRET) && !line.contains("Canary"), "{line}");
    }
    let outcomes: Vec<_> = audit(&world).await.into_iter().map(|row| row.4).collect();
    assert_eq!(outcomes, ["ok", "ok", "ok", "invalid", "refused", "invalid"]);
}
