//! `POST /api/schedule/batch`.

use serde_json::json;

use crate::harness::{Call, Instance, World, unique_key};

fn item(title: &str) -> String {
    json!({
        "date": "2026-11-23", "title": title, "startTime": "09:00", "endTime": "10:00", "category": "Work",
    })
    .to_string()
}

async fn count(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM schedule_items").fetch_one(&world.pool).await.unwrap()
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
    let items: Vec<_> = (0..100).map(|at| item(&format!("Item {at}"))).collect();
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
    assert_eq!(count(&world).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_item_writes_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let good = || item("A");
    let cases = [
        (
            batch(&[good(), "{}".into(), item(""), "1".into()]),
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
    assert_eq!(count(&world).await, 0);
}
