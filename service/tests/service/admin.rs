//! `/api/admin/…`.

use bme_service::app_log;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Call, Instance, User, World, unique_email, unique_key};

const USERS: &str = "/api/admin/users";
const LOGS: &str = "/api/admin/logs";

async fn set_role(world: &World, user: &User, role: &str) {
    sqlx::query("UPDATE users SET role = $2 WHERE id = $1")
        .bind(user.id)
        .bind(role)
        .execute(&world.pool)
        .await
        .unwrap();
}

async fn administrator(world: &World) -> User {
    let user = world.user().await;
    set_role(world, &user, "admin").await;
    user
}

fn one(id: &str) -> String {
    format!("{USERS}/{id}")
}

async fn events(world: &World) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT event, detail FROM app_logs ORDER BY id")
        .fetch_all(&world.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_read_from_the_database_at_every_call() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for path in [USERS, LOGS] {
        let call = || Call::get(path).by(&user).send(&instance);
        assert_eq!(call().await.problem(403), "forbidden");
        set_role(&world, &user, "admin").await;
        assert_eq!(call().await.status, 200);
        set_role(&world, &user, "user").await;
        assert_eq!(call().await.problem(403), "forbidden");
        assert_eq!(Call::get(path).send(&instance).await.problem(401), "unauthorized");
    }
    sqlx::query("DELETE FROM users").execute(&world.pool).await.unwrap();
    assert_eq!(Call::get(USERS).by(&user).send(&instance).await.problem(401), "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_changed_and_deleted() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let admin = administrator(&world).await;
    let email = unique_email();
    let body = json!({ "email": email.to_uppercase(), "name": " Ünï ", "password": "a long password", "role": "admin" });
    let key = unique_key();
    let call = Call::post(USERS, &body.to_string()).by(&admin).key(&key);
    let made = call.clone().header("x-request-id", "making").send(&instance).await;
    assert_eq!(made.status, 201, "{made}");
    let account = made.json();
    assert_eq!(
        (&account["email"], &account["name"], &account["role"]),
        (&json!(email), &json!("Ünï"), &json!("admin"))
    );
    assert_eq!(account.as_object().unwrap().len(), 5, "{account}");
    let id = account["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), Some(one(&id).as_str()));
    let again = call.send(&instance).await;
    assert_eq!((again.status, &again.body), (201, &made.body));
    let taken = Call::post(USERS, &body.to_string()).by(&admin).send(&instance).await;
    assert_eq!(taken.problem(409), "email-taken");

    let login = json!({ "email": email, "password": "a long password" }).to_string();
    let login = Call::post("/api/auth/login", &login).send(&instance).await;
    assert_eq!(login.status, 200, "{login}");

    let change = Call::new(Method::PATCH, &one(&id)).json(r#"{"name":"New","role":"user"}"#);
    let changed = change.by(&admin).send(&instance).await;
    assert_eq!(changed.status, 200, "{changed}");
    assert_eq!((&changed.json()["name"], &changed.json()["role"]), (&json!("New"), &json!("user")));

    let list = Call::get(USERS).by(&admin).send(&instance).await.json();
    assert_eq!(list["items"][0], changed.json());
    assert_eq!(list["items"].as_array().unwrap().len(), 2);

    let deleted = Call::new(Method::DELETE, &one(&id)).by(&admin).send(&instance).await;
    assert_eq!(deleted.status, 204, "{deleted}");
    for gone in [
        Call::new(Method::DELETE, &one(&id)),
        Call::new(Method::PATCH, &one(&id)).json("{}"),
        Call::new(Method::DELETE, &one("not-an-id")),
    ] {
        assert_eq!(gone.by(&admin).send(&instance).await.problem(404), "not-found");
    }

    let events = events(&world).await;
    let by = json!(admin.id);
    assert_eq!(
        events,
        [
            (
                "admin.user.created".into(),
                json!({ "administrator": by, "user": id, "role": "admin" })
            ),
            (
                "admin.user.changed".into(),
                json!({ "administrator": by, "user": id, "changed": ["name", "role"], "role": "user" })
            ),
            ("admin.user.deleted".into(), json!({ "administrator": by, "user": id })),
        ]
    );
    let logs = Call::get(LOGS).by(&admin).send(&instance).await.json();
    let made = &logs["items"][2];
    assert_eq!((&made["requestId"], &made["level"]), (&json!("making"), &json!("info")));
    assert!(!logs.to_string().contains(&email));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_stays_administrator() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let first = administrator(&world).await;
    let path = one(&first.id.to_string());
    let demote = |by: &User, path: &str| {
        Call::new(Method::PATCH, path).json(r#"{"role":"user"}"#).by(by).try_send(&instance.url)
    };
    let delete = Call::new(Method::DELETE, &path).by(&first);
    assert_eq!(demote(&first, &path).await.unwrap().problem(409), "last-administrator");
    assert_eq!(delete.clone().send(&instance).await.problem(409), "last-administrator");
    let rename = Call::new(Method::PATCH, &path).json(r#"{"name":"x","role":"admin"}"#).by(&first);
    assert_eq!(rename.send(&instance).await.status, 200);

    // Two who demote each other at once: one of them stays.
    let second = administrator(&world).await;
    let other = one(&second.id.to_string());
    let (one, two) = tokio::join!(demote(&first, &other), demote(&second, &path));
    let mut statuses = [one.unwrap().status, two.unwrap().status];
    statuses.sort_unstable();
    assert!(statuses == [200, 409] || statuses == [200, 403], "{statuses:?}");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE role = 'admin'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(left, 1);

    // Who is not the last may go, and the log keeps it.
    set_role(&world, &first, "admin").await;
    set_role(&world, &second, "admin").await;
    assert_eq!(delete.send(&instance).await.status, 204);
    assert_eq!(events(&world).await.last().unwrap().0, "admin.user.deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_accounts_are_refused() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let admin = administrator(&world).await;
    let good = json!({ "email": unique_email(), "name": "A", "password": "a long password" });
    for (member, value) in [
        ("email", json!("nobody")),
        ("email", json!("a\u{0}@b.example")),
        ("name", json!(" ")),
        ("name", json!("a\nb")),
        ("password", json!("short")),
        ("password", json!("x".repeat(257))),
        ("role", json!("root")),
        ("role", json!(null)),
        ("id", json!(1)),
    ] {
        let mut body = good.clone();
        body[member] = value;
        let reply = Call::post(USERS, &body.to_string()).by(&admin).send(&instance).await;
        assert_eq!(reply.problem(422), "validation", "{body}");
        assert_eq!(reply.fields(), [member]);
    }
    let path = one(&admin.id.to_string());
    for change in [r#"{"email":"a@b.example"}"#, r#"{"password":"a long password"}"#] {
        let reply = Call::new(Method::PATCH, &path).json(change).by(&admin).send(&instance).await;
        assert_eq!(reply.problem(422), "validation", "{change}");
    }
    assert!(events(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_logs_have_levels() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let admin = administrator(&world).await;
    for _ in 0..4 {
        world.user().await;
    }
    for (at, level) in app_log::LEVELS.into_iter().cycle().take(5).enumerate() {
        let detail = json!({ "at": at });
        app_log::write(&world.pool, level, "test", None, Some(admin.id), detail).await.unwrap();
    }
    for path in [USERS, LOGS] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page =
                Call::get(&format!("{path}?limit=2{cursor}")).by(&admin).send(&instance).await;
            let page = page.json();
            let items = page["items"].as_array().unwrap();
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen.len(), 5, "{path}");
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
        for bad in ["limit=0", "cursor=x", "a=1"] {
            let reply = Call::get(&format!("{path}?{bad}")).by(&admin).send(&instance).await;
            assert_eq!(reply.problem(400), "invalid-query");
        }
    }
    let infos = Call::get(&format!("{LOGS}?level=info")).by(&admin).send(&instance).await.json();
    let details: Vec<_> =
        infos["items"].as_array().unwrap().iter().map(|item| &item["detail"]["at"]).collect();
    assert_eq!(json!(details), json!([3, 0]));
    let bad = Call::get(&format!("{LOGS}?level=debug")).by(&admin).send(&instance).await;
    assert_eq!(bad.problem(400), "invalid-query");
}

#[test]
fn where_others_keep_the_accounts_none_is_made() {
    for (own, expected) in [(true, true), (false, false)] {
        let (_, document) = bme_service::routes::api(own).split();
        assert_eq!(document["paths"][USERS]["post"].is_object(), expected);
        assert!(document["paths"][USERS]["get"].is_object());
    }
}
