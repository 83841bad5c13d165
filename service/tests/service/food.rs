//! `/api/food/search`.

use bme_service::{
    config::{ApiConfig, DatabaseConfig, Environment, MigrateConfig, Secret},
    database::{self, Database},
    migrate,
};
use redis::AsyncCommands as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::harness::{Call, Instance, Redis, User, World, redis_connection, shared};

async fn names(instance: &Instance, user: &User, query: &str) -> Vec<String> {
    let reply = Call::get(&format!("/api/food/search?{query}")).by(user).send(instance).await;
    assert_eq!(reply.status, 200, "{query} -> {reply}");
    let items = reply.json()["items"].as_array().unwrap().clone();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn foods_are_found_by_part_and_by_resemblance() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let found = names(&instance, &user, "q=chicken").await;
    assert!(found[..3].iter().all(|name| name.starts_with("Chicken")), "{found:?}");
    // What begins with it comes before what only contains it.
    let found = names(&instance, &user, "q=rice").await;
    assert!(found[0].starts_with("Rice"), "{found:?}");
    assert!(found.iter().any(|name| name == "Basmati rice, cooked"), "{found:?}");
    for (misspelt, wanted) in [
        ("chiken", "Chicken breast, cooked"),
        ("brocoli", "Broccoli, cooked"),
        ("GREEK%20YOGURT", "Yoghurt, Greek"),
    ] {
        let found = names(&instance, &user, &format!("q={misspelt}")).await;
        assert!(found.iter().any(|name| name == wanted), "{misspelt}: {found:?}");
    }
    assert_eq!(names(&instance, &user, "q=milk&limit=2").await.len(), 2);
    // Nothing in a text is a wildcard.
    for nothing in ["q=%25", "q=_____", "q=%5C", "q=xyzzy", "q=';--"] {
        assert_eq!(names(&instance, &user, nothing).await, [""; 0], "{nothing}");
    }
    let reply = Call::get("/api/food/search?q=egg%20white").by(&user).send(&instance).await;
    assert_eq!(reply.header("cache-control"), Some("private, max-age=3600"));
    assert_eq!(
        String::from_utf8_lossy(&reply.body[..80.min(reply.body.len())]),
        r#"{"items":[{"name":"Egg white","calories":52,"protein":11,"carbs":0.7,"fats":0.2}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_says_what_is_wrong_with_it() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let long = format!("q={}", "x".repeat(101));
    for (query, field) in [
        ("", "q"),
        ("q=", "q"),
        ("q=%20", "q"),
        ("q=a%00b", "q"),
        (&*long, "q"),
        ("q=a&limit=0", "limit"),
        ("q=a&limit=51", "limit"),
        ("q=a&cursor=1", "cursor"),
    ] {
        let path = format!("/api/food/search?{query}");
        let reply = Call::get(&path).by(&user).send(&instance).await;
        assert_eq!(reply.problem(400), "invalid-query", "{query}");
        assert_eq!(reply.fields(), [field], "{query}");
    }
    assert_eq!(
        Call::get("/api/food/search?q=a").send(&instance).await.problem(401),
        "unauthorized"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_in_redis_and_found_without_it() {
    let world = World::new().await;
    let mut redis = Redis::start();
    let instance = Instance::start(&world.with_redis(&redis.url())).await;
    let user = world.user().await;
    let before = names(&instance, &user, "q=banana").await;
    assert_eq!(before, ["Banana"]);
    let mut connection = redis_connection(&redis.url()).await;
    let keys: Vec<String> = connection.keys("food:search:*").await.unwrap();
    assert_eq!(keys.len(), 1);
    let lifetime: i64 = connection.ttl(&keys[0]).await.unwrap();
    assert!((3500..=3600).contains(&lifetime), "{lifetime}");
    // The same text in another spelling is answered from there.
    let body: Value = serde_json::json!({ "items": [{ "name": "from the cache" }] });
    let _: () = connection.set(&keys[0], body.to_string()).await.unwrap();
    assert_eq!(names(&instance, &user, "q=%20BANANA").await, ["from the cache"]);
    redis.stop();
    assert_eq!(names(&instance, &user, "q=banana").await, ["Banana"]);
}

/// The foods are a table of plausible values: what its parts yield is near what it says in all.
#[tokio::test(flavor = "multi_thread")]
async fn the_seed_is_consistent() {
    let world = World::new().await;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM foods").fetch_one(&world.pool).await.unwrap();
    assert!(count >= 150, "{count}");
    // 4 kcal per gram of protein and carbohydrate, 9 of fat (Atwater); fibre, alcohol and rounding
    // explain the rest.
    let odd: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM foods
         WHERE protein + carbs + fats > 100
            OR (abs(calories - (4 * protein + 4 * carbs + 9 * fats)) > greatest(25, calories * 0.25)
                AND name !~ 'Wine|Beer|Chia|Flaxseed')",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(odd, [""; 0]);
}

/// The role that the service connects as owns nothing and searches all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_application_role_finds_what_is_misspelt() {
    let world = World::new().await;
    let database = shared().empty_database().await;
    let role = (format!("search_{}", database.name), Secret::new("a password"));
    let config = MigrateConfig {
        environment: Environment::Local,
        database: database.clone(),
        app_role: Some(role.clone()),
    };
    migrate::run(&config).await.unwrap();
    let database = DatabaseConfig { user: role.0, password: Some(role.1), ..database };
    let redis = Redis::start();
    let config = ApiConfig { database, ..world.with_redis(&redis.url()) };
    let pool = Database::new(&config.database);
    let world = World { config, pool };
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    assert!(names(&instance, &user, "q=chiken").await[0].starts_with("Chicken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trigram_index_is_there() {
    let world = World::new().await;
    let index: Option<String> = sqlx::query_scalar(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'foods_name_trigrams'",
    )
    .fetch_optional(&world.pool)
    .await
    .unwrap();
    assert!(index.is_some_and(|index| index.contains("gin_trgm_ops")));
}

/// A role that may not create extensions migrates all the same, and parts of names are found.
#[tokio::test(flavor = "multi_thread")]
async fn foods_are_found_by_part_without_the_extension() {
    let world = World::new().await;
    let database = shared().empty_database().await;
    let role = format!("plain_{}", database.name);
    let mut master = PgConnection::connect_with(&database::options(&database)).await.unwrap();
    let grants =
        format!("CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT ALL ON SCHEMA public TO {role}");
    master.execute(AssertSqlSafe(grants)).await.unwrap();
    let as_role =
        DatabaseConfig { user: role, password: Some(Secret::new("plain")), ..database.clone() };
    let config = MigrateConfig {
        environment: Environment::Local,
        database: as_role.clone(),
        app_role: None,
    };
    migrate::run(&config).await.unwrap();
    let extensions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")
            .fetch_one(&mut master)
            .await
            .unwrap();
    assert_eq!(extensions, 0);

    let redis = Redis::start();
    let config = ApiConfig { database: as_role, ..world.with_redis(&redis.url()) };
    let pool = Database::new(&config.database);
    let world = World { config, pool };
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    assert_eq!(names(&instance, &user, "q=BANAN").await, ["Banana"]);
    assert!(names(&instance, &user, "q=rice").await[0].starts_with("Rice"));
    assert_eq!(names(&instance, &user, "q=%25").await, [""; 0]);
}
