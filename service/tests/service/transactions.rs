//! Transactions and balances.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Call, Instance, User, World};

const PATH: &str = "/api/transactions";

fn with(member: &str, value: &str) -> String {
    let mut members: Vec<(&str, &str)> = vec![
        ("type", r#""expense""#),
        ("amount", "12.50"),
        ("currency", r#""EUR""#),
        ("category", r#""Food""#),
        ("date", r#""2026-11-23""#),
    ];
    members.retain(|(name, _)| *name != member);
    if !value.is_empty() {
        members.push((member, value));
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

async fn create(instance: &Instance, user: &User, body: &str) -> Value {
    let reply = Call::post(PATH, body).by(user).send(instance).await;
    assert_eq!(reply.status, 201, "{body} -> {reply}");
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let body = r#"{"type":"income","amount":1234567.1,"currency":"JPY","category":"Salary","date":"2024-02-29",
                   "description":"Ünï 😀 '; DROP TABLE","isRecurring":true}"#;
    let created = Call::post(PATH, body).by(&user).send(&instance).await;
    assert_eq!(created.status, 201, "{created}");
    let text = String::from_utf8_lossy(&created.body).into_owned();
    assert!(text.contains(r#""amount":1234567.10,"#), "{text}");
    let document = created.json();
    assert_eq!(document["date"], "2024-02-29");
    assert_eq!(document["description"], "Ünï 😀 '; DROP TABLE");
    assert_eq!(document["isRecurring"], true);
    let id = document["id"].as_str().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    let path = format!("{PATH}/{id}");
    assert_eq!(created.header("location"), Some(path.as_str()));

    let read = Call::get(&path).by(&user).send(&instance).await;
    assert_eq!(read.body, created.body);

    let change = r#"{"type":"expense","category":"Housing","amount":0.01,"description":""}"#;
    let changed = Call::new(Method::PATCH, &path).json(change).by(&user).send(&instance).await;
    assert_eq!(changed.status, 200, "{changed}");
    let document = changed.json();
    assert_eq!(document["category"], "Housing");
    assert_eq!(document["description"], "");
    assert_eq!(document["currency"], "JPY");
    assert_eq!(document["date"], "2024-02-29");
    assert!(document["updatedAt"].as_str() >= document["createdAt"].as_str());

    // A category must fit the type that stays, and a type the category that stays.
    for change in [r#"{"category":"Salary"}"#, r#"{"type":"income"}"#] {
        let reply = Call::new(Method::PATCH, &path).json(change).by(&user).send(&instance).await;
        assert_eq!(reply.problem(422), "validation");
        assert_eq!(reply.fields(), ["category"]);
    }

    let deleted = Call::new(Method::DELETE, &path).by(&user).send(&instance).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(
            Call::new(method, &path).by(&user).send(&instance).await.problem(404),
            "not-found"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_members_are_named() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let long = format!("\"{}\"", "x".repeat(501));
    let cases = [
        ("date", r#""2026-02-30""#),
        ("date", r#""2025-02-29""#),
        ("date", r#""2026-13-01""#),
        ("date", r#""2026-1-1""#),
        ("date", r#""0000-01-01""#),
        ("date", r#""2026-01-01T00:00:00Z""#),
        ("date", "20260101"),
        ("date", ""),
        ("amount", "-1"),
        ("amount", "0"),
        ("amount", "0.00"),
        ("amount", "1.234"),
        ("amount", "1e3"),
        ("amount", "1000000000000"),
        ("amount", "99999999999999999999999999999999999999999999999999999999999999999999999999"),
        ("amount", "1e999999999"),
        ("amount", r#""12.50""#),
        ("amount", "null"),
        ("amount", ""),
        ("currency", r#""XXX""#),
        ("currency", r#""eur""#),
        ("currency", r#""EURO""#),
        ("category", r#""Salary""#),
        ("category", r#""food""#),
        ("type", r#""transfer""#),
        ("description", r#""a\u0000b""#),
        ("description", r#""\ud800""#),
        ("description", "1"),
        ("description", &long),
        ("isRecurring", r#""true""#),
        ("isRecurring", "1"),
        ("id", r#""0190b5b2-7f6e-7cc0-8000-0123456789ab""#),
        ("userId", r#""x""#),
        ("\u{0}", "1"),
    ];
    for (member, value) in cases {
        let body = if member == "\u{0}" {
            with("", "").replacen('{', r#"{"\u0000":1,"#, 1)
        } else {
            with(member, value)
        };
        let reply = Call::post(PATH, &body).by(&user).send(&instance).await;
        assert_eq!(reply.problem(422), "validation", "{body}");
        assert_eq!(reply.fields(), [member], "{body}");
    }
    let twice = with("", "").replacen('{', r#"{"amount":1,"#, 1);
    let reply = Call::post(PATH, &twice).by(&user).send(&instance).await;
    assert_eq!(reply.problem(422), "validation");
    assert_eq!(world.count_transactions().await, 0);

    let five_hundred = format!("\"{}\"", "😀".repeat(500));
    create(&instance, &user, &with("description", &five_hundred)).await;
    create(&instance, &user, &with("amount", "999999999999.99")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_has_its_own_categories() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let income = ["Salary", "Freelance", "Investment", "Gift"];
    let expense = [
        "Food",
        "Housing",
        "Transportation",
        "Entertainment",
        "Shopping",
        "Healthcare",
        "Education",
    ];
    let send = async |kind: &str, category: &str| {
        let body = json!({ "type": kind, "amount": 1, "currency": "EUR", "category": category,
                           "date": "2026-11-23" });
        Call::post(PATH, &body.to_string()).by(&user).send(&instance).await
    };
    for (kind, own, others) in
        [("income", &income[..], &expense[..]), ("expense", &expense[..], &income[..])]
    {
        for category in own.iter().copied().chain(["Other"]) {
            let reply = send(kind, category).await;
            assert_eq!(reply.status, 201, "{kind} {category}: {reply}");
        }
        for category in others.iter().copied() {
            let reply = send(kind, category).await;
            assert_eq!(reply.problem(422), "validation", "{kind} {category}");
            assert_eq!(reply.fields(), ["category"], "{kind} {category}");
        }
    }
    assert_eq!(world.count_transactions().await, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let stranger = world.user().await;
    let days = [
        "2026-10-31",
        "2026-11-01",
        "2026-11-30",
        "2026-12-01",
        "2026-11-15",
        "2026-11-15",
        "2026-11-15",
    ];
    for day in days {
        create(&instance, &user, &with("date", &format!("{day:?}"))).await;
    }
    create(&instance, &stranger, &with("date", r#""2026-11-15""#)).await;

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = Call::get(&format!("{PATH}?limit=2{cursor}")).by(&user).send(&instance).await;
        assert_eq!(reply.status, 200, "{reply}");
        let page = reply.json();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.len() <= 2);
        seen.extend(items.iter().map(|item| (item["date"].to_string(), item["id"].to_string())));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), days.len());
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");

    let month = Call::get(&format!("{PATH}?month=2026-11")).by(&user).send(&instance).await.json();
    let dates: Vec<_> =
        month["items"].as_array().unwrap().iter().map(|item| item["date"].clone()).collect();
    assert_eq!(
        json!(dates),
        json!(["2026-11-30", "2026-11-15", "2026-11-15", "2026-11-15", "2026-11-01"])
    );
    assert_eq!(month["nextCursor"], Value::Null);
    let empty =
        Call::get("/api/v1/transactions?month=1999-01").by(&user).send(&instance).await.json();
    assert_eq!(empty, json!({ "items": [], "nextCursor": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_transaction_does_not_exist() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (owner, stranger) = (world.user().await, world.user().await);
    let id = create(&instance, &owner, &with("", "")).await["id"].as_str().unwrap().to_owned();
    let path = format!("{PATH}/{id}");
    for call in [
        Call::get(&path),
        Call::new(Method::PATCH, &path).json(r#"{"amount":1}"#),
        Call::new(Method::DELETE, &path),
    ] {
        let reply = call.by(&stranger).send(&instance).await;
        assert_eq!(reply.problem(404), "not-found");
    }
    let list = Call::get(PATH).by(&stranger).send(&instance).await.json();
    assert_eq!(list["items"], json!([]));
    assert_eq!(Call::get(&path).by(&owner).send(&instance).await.json()["amount"], json!(12.5));
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_are_exact_and_per_currency() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    // In binary floating point these do not add up.
    for amount in ["0.10", "0.20", "999999999999.99", "999999999999.99"] {
        create(&instance, &user, &with("amount", amount)).await;
    }
    let income =
        r#"{"type":"income","amount":5,"currency":"USD","category":"Gift","date":"2026-01-01"}"#;
    create(&instance, &user, income).await;
    let reply = Call::get("/api/balance").by(&user).send(&instance).await;
    assert_eq!(
        String::from_utf8_lossy(&reply.body),
        concat!(
            r#"{"balances":[{"currency":"EUR","income":0.00,"expense":2000000000000.28,"balance":-2000000000000.28},"#,
            r#"{"currency":"USD","income":5.00,"expense":0.00,"balance":5.00}]}"#
        )
    );
    let january = Call::get("/api/balance?month=2026-01").by(&user).send(&instance).await.json();
    assert_eq!(january["balances"].as_array().unwrap().len(), 1);
}
