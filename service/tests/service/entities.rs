//! Every kind of entity keeps the same promises, whatever it holds: the cases follow from its
//! description.

use bme_service::entity::{self, Entity, Field, Kind, Presence};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Call, Instance, Reply, User, World, unique_key};

/// Two different values that a member may hold, as JSON texts.
fn valid(field: &Field) -> [String; 2] {
    let both = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
    match field.kind {
        Kind::Text { max, .. } => [
            format!("{:?}", "Ü😀'; --".chars().take(max).collect::<String>()),
            format!("\"{}\"", "😀".repeat(max)),
        ],
        // The last first: the last category of a transaction fits every type, the first the first.
        Kind::OneOf(values) => {
            [format!("{:?}", values[values.len() - 1]), format!("{:?}", values[0])]
        }
        Kind::Currency => both(r#""EUR""#, r#""JPY""#),
        Kind::Money => both("0.01", "999999999999.99"),
        Kind::Decimal { max, .. } => [format!("{max}"), "1.25".to_owned()],
        Kind::Integer { min, max } => [min.to_string(), max.to_string()],
        Kind::Boolean => both("true", "false"),
        Kind::Date => both(r#""2024-02-29""#, r#""9999-12-31""#),
        Kind::Time => both(r#""00:00""#, r#""23:59""#),
        Kind::Color => both(r##""#a0B1c2""##, r##""#000000""##),
        Kind::Exercises => both(
            r#"[{"name":"Kniebeuge 🏋","sets":5,"reps":5,"weight":102.5,"notes":"tief"}]"#,
            r#"[{"name":"Plank","sets":0,"reps":10000}]"#,
        ),
    }
}

/// Values that a member must not hold.
fn invalid(field: &Field) -> Vec<String> {
    let mut bad: Vec<String> = match field.kind {
        Kind::Text { min, max } => {
            let mut bad = vec![
                r#""a\u0000b""#.to_owned(),
                r#""\ud800""#.to_owned(),
                "1".to_owned(),
                format!("\"{}\"", "😀".repeat(max + 1)),
            ];
            if min > 0 {
                bad.push(r#""""#.to_owned());
            }
            bad
        }
        Kind::OneOf(values) => vec![
            r#""""#.into(),
            r#""nothing of it""#.into(),
            format!("{:?}", values[0].to_uppercase()),
            format!("{:?}", format!("{} ", values[0])),
            "0".into(),
        ],
        Kind::Currency => texts(&[r#""eur""#, r#""XXX""#, r#""EURO""#, r#""""#, "978"]),
        Kind::Money => texts(&["0", "0.00", "-1", "-0", "1.001", "1e3", "1000000000000", r#""1""#]),
        Kind::Decimal { max, positive } => {
            let mut bad = texts(&["-1", "-0.01", "1.001", "1e1", r#""1""#]);
            bad.push(format!("{max}.01"));
            if positive {
                bad.push("0".into());
            }
            bad
        }
        Kind::Integer { min, max } => {
            let mut bad = texts(&["1.0", "1e2", "4294967296", r#""1""#]);
            bad.extend([(i64::from(min) - 1).to_string(), (i64::from(max) + 1).to_string()]);
            bad
        }
        Kind::Boolean => texts(&[r#""true""#, "1", "0"]),
        Kind::Date => texts(&[
            r#""2025-02-29""#,
            r#""2026-04-31""#,
            r#""2026-13-01""#,
            r#""0000-01-01""#,
            r#""10000-01-01""#,
            r#""2026-1-1""#,
            r#""2026-01-01T00:00:00Z""#,
            "20260101",
        ]),
        Kind::Time => {
            texts(&[r#""24:00""#, r#""12:60""#, r#""9:00""#, r#""09:00:00""#, r#""０9:00""#, "900"])
        }
        Kind::Color => texts(&[r##""#abc""##, r#""red""#, r##""#gggggg""##, r##""#é23456""##, "0"]),
        Kind::Exercises => {
            let mut bad = texts(&[
                "{}",
                r#"[{"name":"a","sets":1}]"#,
                r#"[{"name":"","sets":1,"reps":1}]"#,
                r#"[{"name":"a\u0000","sets":1,"reps":1}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"notes":"\u0000"}]"#,
                r#"[{"name":"a","sets":-1,"reps":1}]"#,
                r#"[{"name":"a","sets":10001,"reps":1}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"weight":-0.5}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"weight":1e999}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"tempo":1}]"#,
                r#"[{"name":"a","name":"b","sets":1,"reps":1}]"#,
                "[1]",
            ]);
            let one = r#"{"name":"a","sets":1,"reps":1}"#;
            bad.push(format!("[{}]", vec![one; 101].join(",")));
            bad
        }
    };
    bad.extend(texts(&["1e999999999", "[]", "{}", "[null]"]));
    bad.push("9".repeat(400));
    if matches!(field.kind, Kind::Exercises) {
        bad.retain(|value| value != "[]");
    }
    if !matches!(field.presence, Presence::Nullable) {
        bad.push("null".into());
    }
    bad
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn path(entity: &Entity) -> String {
    format!("/api/{}", entity.path)
}

/// A body with every member, in which one has another value; an empty value leaves it out.
fn body(entity: &Entity, member: &str, value: &str) -> String {
    let members: Vec<_> = entity
        .fields
        .iter()
        .filter_map(|field| {
            let text = if field.name == member { value } else { &valid(field)[0] };
            (!text.is_empty()).then(|| format!("{:?}:{text}", field.name))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

fn on_day(entity: &Entity, day: &str) -> String {
    body(entity, "date", &format!("{day:?}"))
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn create(entity: &Entity, instance: &Instance, user: &User, body: &str) -> Value {
    let reply = Call::post(&path(entity), body).by(user).send(instance).await;
    assert_eq!(reply.status, 201, "{body} -> {reply}");
    reply.json()
}

async fn count(world: &World, entity: &Entity) -> i64 {
    let statement = format!("SELECT count(*) FROM {}", entity.table);
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        let created =
            Call::post(&path(entity), &body(entity, "", "")).by(&user).send(&instance).await;
        assert_eq!(created.status, 201, "{}: {created}", entity.path);
        let mut present = created.json();
        let id = present["id"].as_str().unwrap().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        let one = format!("{}/{id}", path(entity));
        assert_eq!(created.header("location"), Some(one.as_str()));
        let names: Vec<_> = present.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), entity.fields.len() + 3, "{names:?}");
        for field in entity.fields {
            assert_eq!(present[field.name], value(&valid(field)[0]), "{} {}", one, field.name);
        }
        let read = Call::get(&one).by(&user).send(&instance).await;
        assert_eq!(read.body, created.body);
        let by_version =
            Call::get(&one.replacen("/api/", "/api/v1/", 1)).by(&user).send(&instance).await;
        assert_eq!(by_version.body, created.body);

        let patch = async |change: String| {
            Call::new(Method::PATCH, &one).json(&change).by(&user).send(&instance).await
        };
        for field in entity.fields {
            let other = &valid(field)[1];
            let changed = patch(format!("{{{:?}:{other}}}", field.name)).await;
            assert_eq!(changed.status, 200, "{} {}: {changed}", one, field.name);
            assert_only_changed(&mut present, &changed, field.name, &value(other));
        }
        for field in entity.fields {
            if matches!(field.presence, Presence::Nullable) {
                let cleared = patch(format!("{{{:?}:null}}", field.name)).await;
                assert_eq!(cleared.status, 200, "{} {}: {cleared}", one, field.name);
                assert_only_changed(&mut present, &cleared, field.name, &Value::Null);
            }
        }
        let unchanged = patch("{}".into()).await;
        assert_eq!(unchanged.status, 200, "{unchanged}");
        assert_only_changed(&mut present, &unchanged, "", &Value::Null);
        assert_eq!(Call::get(&one).by(&user).send(&instance).await.json(), present);

        let deleted = Call::new(Method::DELETE, &one).by(&user).send(&instance).await;
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
        for gone in [
            Call::get(&one),
            Call::new(Method::DELETE, &one),
            Call::new(Method::PATCH, &one).json("{}"),
        ] {
            assert_eq!(gone.by(&user).send(&instance).await.problem(404), "not-found");
        }
    }
}

/// Takes over what a change answered, after checking that nothing else changed.
#[track_caller]
fn assert_only_changed(present: &mut Value, reply: &Reply, member: &str, value: &Value) {
    let after = reply.json();
    assert!(after["updatedAt"].as_str() >= present["updatedAt"].as_str());
    if !member.is_empty() {
        present[member] = value.clone();
    }
    present["updatedAt"] = after["updatedAt"].clone();
    assert_eq!(after, *present);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_left_out_has_its_default() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        let required: Vec<_> = entity
            .fields
            .iter()
            .filter(|field| matches!(field.presence, Presence::Required))
            .map(|field| format!("{:?}:{}", field.name, valid(field)[0]))
            .collect();
        let created =
            create(entity, &instance, &user, &format!("{{{}}}", required.join(","))).await;
        for field in entity.fields {
            let expected = match field.presence {
                Presence::Required => value(&valid(field)[0]),
                Presence::Default(json) => value(json),
                Presence::Nullable => Value::Null,
            };
            assert_eq!(created[field.name], expected, "{} {}", entity.path, field.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_members_are_named_and_nothing_is_written() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        let refused = async |body: &str, fields: &[&str]| {
            let reply = Call::post(&path(entity), body).by(&user).send(&instance).await;
            assert_eq!(reply.problem(422), "validation", "{} {body}", entity.path);
            assert_eq!(reply.fields(), fields, "{} {body}", entity.path);
        };
        let required: Vec<_> = entity
            .fields
            .iter()
            .filter(|field| matches!(field.presence, Presence::Required))
            .map(|field| field.name)
            .collect();
        refused("{}", &required).await;
        let good = body(entity, "", "");
        for unknown in ["id", "userId", "createdAt", "__proto__"] {
            refused(&good.replacen('{', &format!("{{{unknown:?}:1,"), 1), &[unknown]).await;
        }
        for field in entity.fields {
            for value in invalid(field) {
                refused(&body(entity, field.name, &value), &[field.name]).await;
            }
            let twice = good.replacen('{', &format!("{{{:?}:{},", field.name, valid(field)[0]), 1);
            refused(&twice, &[field.name]).await;
        }
        assert_eq!(count(&world, entity).await, 0, "{}", entity.path);

        let present = create(entity, &instance, &user, &good).await;
        let one = format!("{}/{}", path(entity), present["id"].as_str().unwrap());
        for field in entity.fields {
            for value in invalid(field) {
                let change = format!("{{{:?}:{value}}}", field.name);
                let reply =
                    Call::new(Method::PATCH, &one).json(&change).by(&user).send(&instance).await;
                assert_eq!(reply.problem(422), "validation", "{one} {change}");
                assert_eq!(reply.fields(), [field.name], "{one} {change}");
            }
        }
        let unknown = Call::new(Method::PATCH, &one).json(r#"{"id":1}"#).by(&user);
        assert_eq!(unknown.send(&instance).await.fields(), ["id"]);
        assert_eq!(Call::get(&one).by(&user).send(&instance).await.json(), present);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_and_months_are_cut_out() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (user, stranger) = (world.user().await, world.user().await);
    let days = ["2026-11-01", "2026-12-01", "2026-11-30", "2026-10-31", "2026-11-15"];
    for entity in entity::ALL {
        for day in days {
            create(entity, &instance, &user, &on_day(entity, day)).await;
        }
        create(entity, &instance, &stranger, &on_day(entity, days[0])).await;
        let mut seen: Vec<(String, String)> = Vec::new();
        let mut cursor = String::new();
        loop {
            let address = format!("{}?limit=2{cursor}", path(entity));
            let page = Call::get(&address).by(&user).send(&instance).await.json();
            let items = page["items"].as_array().unwrap();
            assert!((1..=2).contains(&items.len()), "{page}");
            seen.extend(
                items.iter().map(|item| (item["date"].to_string(), item["id"].to_string())),
            );
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), days.len(), "{}", entity.path);
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");

        let month = Call::get(&format!("{}?month=2026-11", path(entity))).by(&user);
        let month = month.send(&instance).await;
        if entity.is_dated() {
            let page = month.json();
            let dates = page["items"].as_array().unwrap().iter().map(|item| &item["date"]);
            assert_eq!(
                json!(dates.collect::<Vec<_>>()),
                json!(["2026-11-30", "2026-11-15", "2026-11-01"])
            );
        } else {
            assert_eq!(month.problem(400), "invalid-query");
            assert_eq!(month.fields(), ["month"]);
        }
        for bad in [
            "limit=0",
            "limit=101",
            "limit=x",
            "cursor=%00",
            "cursor=",
            "month=2026-13",
            "a=1",
            "limit=1&limit=1",
        ] {
            let reply =
                Call::get(&format!("{}?{bad}", path(entity))).by(&user).send(&instance).await;
            assert_eq!(reply.problem(400), "invalid-query", "{} {bad}", entity.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_does_not_exist() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (owner, stranger) = (world.user().await, world.user().await);
    for entity in entity::ALL {
        let present = create(entity, &instance, &owner, &body(entity, "", "")).await;
        let id = present["id"].as_str().unwrap();
        let nobodys = uuid::Uuid::now_v7().to_string();
        for (id, user) in [(id, &stranger), (&*nobodys, &owner), ("not-an-id", &owner)] {
            let one = format!("{}/{id}", path(entity));
            let mut answers = Vec::new();
            for call in [
                Call::get(&one),
                Call::new(Method::PATCH, &one).json("{}"),
                Call::new(Method::DELETE, &one),
            ] {
                let reply = call.by(user).send(&instance).await;
                assert_eq!(reply.problem(404), "not-found", "{one}");
                answers.push(reply.json()["detail"].clone());
            }
            assert!(
                answers
                    .iter()
                    .all(|answer| *answer == format!("There is no such {}.", entity.noun))
            );
        }
        let list = Call::get(&path(entity)).by(&stranger).send(&instance).await.json();
        assert_eq!(list["items"], json!([]));
        let one = format!("{}/{id}", path(entity));
        assert_eq!(Call::get(&one).by(&owner).send(&instance).await.json(), present);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_post_repeats_the_answer_only() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let other = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        let key = unique_key();
        let call = Call::post(&path(entity), &body(entity, "", "")).by(&user).key(&key);
        let first = call.clone().send(&instance).await;
        assert_eq!(first.status, 201, "{first}");
        assert_eq!(first.header("idempotent-replayed"), None);
        for at in [&instance, &other] {
            let again = call.clone().send(at).await;
            assert_eq!((again.status, &again.body), (201, &first.body), "{again}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
            assert_eq!(again.header("location"), first.header("location"));
        }
        let different = Call::post(&path(entity), "{}").by(&user).key(&key);
        assert_eq!(different.send(&other).await.problem(422), "idempotency-key-reused");
        assert_eq!(count(&world, entity).await, 1, "{}", entity.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_accounts_token_writes_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    sqlx::query("DELETE FROM users").execute(&world.pool).await.unwrap();
    for entity in entity::ALL {
        let reply =
            Call::post(&path(entity), &body(entity, "", "")).by(&user).send(&instance).await;
        assert_eq!(reply.problem(401), "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_one_check_in() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (user, stranger) = (world.user().await, world.user().await);
    let put = async |user: &User, date: &str, hours: &str| {
        let body = format!(r#"{{"date":{date:?},"sleepHours":{hours}}}"#);
        Call::post("/api/daily-check-ins", &body).by(user).send(&instance).await
    };
    let first = put(&user, "2026-11-23", "7.5").await;
    assert_eq!(first.status, 201, "{first}");
    let second = put(&user, "2026-11-23", "8.25").await;
    assert_eq!(second.status, 200, "{second}");
    assert_eq!(second.json()["id"], first.json()["id"]);
    assert_eq!(second.json()["createdAt"], first.json()["createdAt"]);
    assert_eq!(second.json()["sleepHours"], json!(8.25));
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(put(&stranger, "2026-11-23", "1").await.status, 201);

    let next = put(&user, "2026-11-24", "6").await;
    assert_eq!(next.status, 201, "{next}");
    let one = format!("/api/daily-check-ins/{}", next.json()["id"].as_str().unwrap());
    let change = Call::new(Method::PATCH, &one).json(r#"{"date":"2026-11-23"}"#).by(&user);
    assert_eq!(change.send(&instance).await.problem(409), "day-taken");
    assert_eq!(Call::get(&one).by(&user).send(&instance).await.json(), next.json());
    let change = Call::new(Method::PATCH, &one).json(r#"{"date":"2026-11-25"}"#).by(&user);
    assert_eq!(change.send(&instance).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_check_ins_of_one_day_are_one() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let body = r#"{"date":"2026-11-23","sleepHours":7}"#;
    let calls =
        (0..20).map(|_| Call::post("/api/daily-check-ins", body).by(&user).try_send(&instance.url));
    let replies = futures_util::future::join_all(calls).await;
    let statuses: Vec<_> = replies.iter().map(|reply| reply.as_ref().unwrap().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 19, "{statuses:?}");
}

const BATCH: &str = "/api/schedule/batch";

fn batch(items: &[String]) -> String {
    format!("{{\"items\":[{}]}}", items.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_written_whole_and_once() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let items: Vec<_> =
        (0..100).map(|at| body(&entity::SCHEDULE, "title", &format!("\"Item {at}\""))).collect();
    let key = unique_key();
    let call = Call::post(BATCH, &batch(&items)).by(&user).key(&key);
    let first = call.clone().send(&instance).await;
    assert_eq!(first.status, 201, "{first}");
    let made = first.json()["items"].as_array().unwrap().clone();
    let titles: Vec<_> = made.iter().map(|item| item["title"].as_str().unwrap()).collect();
    assert!(titles.iter().enumerate().all(|(at, title)| *title == format!("Item {at}")));
    let one = format!("/api/schedule/{}", made[99]["id"].as_str().unwrap());
    assert_eq!(Call::get(&one).by(&user).send(&instance).await.json(), made[99]);
    let again = call.send(&instance).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(count(&world, &entity::SCHEDULE).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_item_writes_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let good = || body(&entity::SCHEDULE, "", "");
    let cases = [
        (
            batch(&[good(), "{}".into(), body(&entity::SCHEDULE, "title", "\"\""), "1".into()]),
            vec![
                "items[1].date",
                "items[1].title",
                "items[1].startTime",
                "items[1].endTime",
                "items[1].category",
                "items[2].title",
                "items[3]",
            ],
        ),
        (batch(&vec![good(); 101]), vec!["items"]),
        (batch(&[]), vec!["items"]),
        ("{}".into(), vec!["items"]),
        (r#"{"items":{}}"#.into(), vec!["items"]),
        (batch(&[good()]).replacen('{', r#"{"a":1,"#, 1), vec!["a"]),
        (batch(&[good().replacen('{', r#"{"id":1,"#, 1)]), vec!["items[0].id"]),
    ];
    for (body, fields) in cases {
        let reply = Call::post(BATCH, &body).by(&user).send(&instance).await;
        assert_eq!(reply.problem(422), "validation");
        assert_eq!(reply.fields(), fields);
    }
    assert_eq!(count(&world, &entity::SCHEDULE).await, 0);
}
