//! Every kind of entity keeps the same promises, whatever it holds: the cases follow from its
//! description.

use bme_service::entity::{self, Entity, Kind, Presence};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::{
    entity_values::{invalid, valid},
    harness::{Call, Instance, Reply, User, World, unique_email, unique_key},
};

pub(crate) fn path(entity: &Entity) -> String {
    format!("/api/{}", entity.path)
}

/// A body with every member, in which one has another value; an empty value leaves it out.
pub(crate) fn body(entity: &Entity, member: &str, value: &str) -> String {
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
    each_lives(&World::new().await).await;
}

/// Migrations only add, and come before the release that wants them: until it is there, and after it
/// was rolled back, the release before meets columns that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_schema_adds_disturbs_nobody() {
    let world = World::new().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
           AND table_name <> '_sqlx_migrations'",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    for table in tables {
        let add = format!("ALTER TABLE {table} ADD COLUMN added text NOT NULL DEFAULT 'later'");
        sqlx::query(AssertSqlSafe(add)).execute(&world.pool).await.unwrap();
    }
    each_lives(&world).await;
    let instance = Instance::start(&world.config).await;
    let account = json!({ "email": unique_email(), "password": "a long password", "name": "A" });
    let registered = Call::post("/api/auth/register", &account.to_string()).send(&instance).await;
    assert_eq!(registered.status, 201, "{registered}");
    let (user, key) = (world.user().await, unique_key());
    let goal = body(&entity::GOAL, "", "");
    let first = Call::post("/api/goals", &goal).by(&user).key(&key).send(&instance).await;
    let again = Call::post("/api/goals", &goal).by(&user).key(&key).send(&instance).await;
    assert_eq!((first.status, &first.body), (201, &again.body), "{again}");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
}

async fn each_lives(world: &World) {
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

/// The members of each kind, those that may be left out with a question mark, and the words that some
/// of them are chosen from: as they were agreed on, and not as the description has them.
#[test]
fn each_has_the_members_that_were_agreed_on() {
    let categories = "Salary Freelance Investment Gift Food Housing Transportation Entertainment \
                      Shopping Healthcare Education Other";
    let agreed = [
        (
            "transactions",
            "type amount currency category date description? isRecurring?",
            vec![("type", "income expense"), ("category", categories)],
        ),
        (
            "schedule",
            "date title startTime endTime category emoji? order? isActive? recurrence? color?",
            vec![
                ("category", "Work Exercise Meal Sleep Personal Social Other"),
                ("recurrence", "daily weekdays weekends"),
            ],
        ),
        (
            "workouts",
            "date title type durationMinutes exercises? notes?",
            vec![("type", "strength cardio flexibility sports")],
        ),
        (
            "food-entries",
            "date name calories protein? carbs? fats? portionAmount? portionUnit? startTime? endTime?",
            vec![],
        ),
        ("daily-check-ins", "date sleepHours", vec![]),
        (
            "goals",
            "type target period",
            vec![("type", "calories workouts savings"), ("period", "daily weekly monthly yearly")],
        ),
    ];
    assert_eq!(agreed.len(), entity::ALL.len());
    for (path, members, words) in agreed {
        let entity = entity::ALL.into_iter().find(|entity| entity.path == path).unwrap();
        let described = entity.fields.iter().map(|field| {
            let optional = !matches!(field.presence, Presence::Required);
            format!("{}{}", field.name, if optional { "?" } else { "" })
        });
        assert_eq!(described.collect::<Vec<_>>().join(" "), members, "{path}");
        let chosen = entity.fields.iter().filter_map(|field| match field.kind {
            Kind::OneOf(values) => Some((field.name, values.join(" "))),
            _ => None,
        });
        let words: Vec<_> = words.into_iter().map(|(name, all)| (name, all.to_owned())).collect();
        assert_eq!(chosen.collect::<Vec<_>>(), words, "{path}");
    }
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
