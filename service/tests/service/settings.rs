//! `/api/settings`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Call, Instance, Reply, User, World};

const PATH: &str = "/api/settings";

fn changed() -> Value {
    json!({
        "currency": "JPY",
        "dateFormat": "DD.MM.YYYY",
        "language": "zh-Hant-TW",
        "firstDayOfWeek": "sunday",
        "timeZone": "Asia/Tokyo",
    })
}

async fn put(instance: &Instance, user: &User, body: &str) -> Reply {
    Call::new(Method::PUT, PATH).json(body).by(user).send(instance).await
}

async fn get(instance: &Instance, user: &User) -> Value {
    let reply = Call::get(PATH).by(user).send(instance).await;
    assert_eq!(reply.status, 200, "{reply}");
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_have_defaults_and_are_replaced_as_a_whole() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (user, stranger) = (world.user().await, world.user().await);
    let defaults = json!({
        "currency": "EUR",
        "dateFormat": "YYYY-MM-DD",
        "language": "en",
        "firstDayOfWeek": "monday",
        "timeZone": "UTC",
    });
    assert_eq!(get(&instance, &user).await, defaults);
    let first = put(&instance, &user, &changed().to_string()).await;
    assert_eq!((first.status, first.json()), (200, changed()));
    assert_eq!(get(&instance, &user).await, changed());
    assert_eq!(get(&instance, &stranger).await, defaults);
    // Putting again replaces; the time zone comes back in the database's spelling.
    let mut other = changed();
    other["timeZone"] = "america/new_york".into();
    let second = put(&instance, &user, &other.to_string()).await;
    assert_eq!(second.json()["timeZone"], "America/New_York");
    assert_eq!(get(&instance, &user).await, second.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_settings_are_named_and_change_nothing() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    assert_eq!(put(&instance, &user, &changed().to_string()).await.status, 200);
    for (member, values) in [
        ("currency", json!(["eur", "XXX", "", null, 1])),
        ("dateFormat", json!(["yyyy-mm-dd", "MM-DD", "", null])),
        ("language", json!(["english", "en_GB", "EN", "", null, "e\u{0}"])),
        ("firstDayOfWeek", json!(["Monday", "mon", 0, null])),
        ("timeZone", json!(["Mars/Olympus", "UTC+3", "../UTC", "", null, "Europe/Berlin\u{0}"])),
    ] {
        for value in values.as_array().unwrap() {
            let mut body = changed();
            body[member] = value.clone();
            let reply = put(&instance, &user, &body.to_string()).await;
            assert_eq!(reply.problem(422), "validation", "{body}");
            assert_eq!(reply.fields(), [member], "{body}");
        }
        let mut body = changed();
        body.as_object_mut().unwrap().remove(member);
        assert_eq!(put(&instance, &user, &body.to_string()).await.fields(), [member]);
    }
    let mut body = changed();
    body["theme"] = "dark".into();
    assert_eq!(put(&instance, &user, &body.to_string()).await.fields(), ["theme"]);
    assert_eq!(get(&instance, &user).await, changed());

    sqlx::query("DELETE FROM users").execute(&world.pool).await.unwrap();
    let gone = put(&instance, &user, &changed().to_string()).await;
    assert_eq!(gone.problem(401), "unauthorized");
}
