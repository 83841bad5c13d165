//! What the database itself promises, whoever writes to it: everything belongs to a user, every list
//! has its index, and no value is out of its range.

use bme_service::entity::{self, Entity, Field, Kind, Presence};
use sqlx::AssertSqlSafe;

use crate::{
    entities::{body, path},
    harness::{Call, Instance, User, World},
};

/// Tables that belong to nobody: the accounts, what all share, and the bookkeeping of migrations.
/// A refresh token belongs to its session.
const NOBODYS: [&str; 4] = ["users", "foods", "_sqlx_migrations", "refresh_tokens"];

async fn texts(world: &World, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(&world.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_belongs_to_a_user_and_goes_with_them() {
    let world = World::new().await;
    let mut with_owner = texts(
        &world,
        "SELECT conrelid::regclass::text FROM pg_constraint
         JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
         WHERE contype = 'f' AND confrelid = 'users'::regclass AND confdeltype = 'c'
           AND attname = 'user_id'",
    )
    .await;
    let mut expected =
        texts(&world, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'").await;
    expected.retain(|table| !NOBODYS.contains(&table.as_str()));
    with_owner.sort_unstable();
    expected.sort_unstable();
    assert_eq!(with_owner, expected);
    for entity in entity::ALL {
        assert!(expected.iter().any(|table| table == entity.table), "{}", entity.table);
    }

    let instance = Instance::start(&world.config).await;
    let (leaving, staying) = (world.user().await, world.user().await);
    for entity in entity::ALL {
        for user in [&leaving, &staying] {
            let made = Call::post(&path(entity), &body(entity, "", "")).by(user);
            assert_eq!(made.send(&instance).await.status, 201);
        }
    }
    sqlx::query("DELETE FROM users WHERE id = $1")
        .bind(leaving.id)
        .execute(&world.pool)
        .await
        .unwrap();
    for entity in entity::ALL {
        let statement = format!("SELECT user_id FROM {}", entity.table);
        let left: Vec<uuid::Uuid> =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&world.pool).await.unwrap();
        assert_eq!(left, [staying.id], "{}", entity.table);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_has_its_index() {
    let world = World::new().await;
    let indexes =
        texts(&world, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'").await;
    for entity in entity::ALL {
        let order =
            if entity.is_dated() { "user_id, date DESC, id DESC" } else { "user_id, id DESC" };
        let wanted = format!(" ON public.{} USING btree ({order})", entity.table);
        assert!(indexes.iter().any(|index| index.ends_with(&wanted)), "{wanted} in {indexes:#?}");
    }
}

/// A value that the database must refuse, as an expression of SQL, for each way to leave the range.
fn out_of_range(field: &Field) -> Vec<String> {
    let mut bad = match field.kind {
        Kind::Text { min, max } => {
            let mut bad = vec![format!("repeat('😀', {})", max + 1)];
            if min > 0 {
                bad.push("''".into());
            }
            bad
        }
        Kind::OneOf(values) => {
            vec!["''".into(), "'nothing of it'".into(), format!("'{}'", values[0].to_uppercase())]
        }
        Kind::Currency => vec!["'eur'".into(), "'EURO'".into(), "'E1R'".into()],
        Kind::Money => vec!["0".into(), "-0.01".into(), "1000000000000".into()],
        Kind::Decimal { max, positive } => {
            let least = if positive { "0" } else { "-0.01" };
            vec![least.into(), format!("{max}.01")]
        }
        Kind::Integer { min, max } => {
            vec![(i64::from(min) - 1).to_string(), (i64::from(max) + 1).to_string()]
        }
        Kind::Date => vec![
            "DATE '0001-12-31 BC'".into(),
            "DATE '10000-01-01'".into(),
            "DATE 'infinity'".into(),
        ],
        Kind::Color => vec!["'#abc'".into(), "'red'".into(), "'#gggggg'".into()],
        Kind::Exercises => vec!["'{}'".into(), "'1'".into()],
        Kind::Boolean | Kind::Time => Vec::new(),
    };
    if !matches!(field.presence, Presence::Nullable) {
        bad.push("NULL".into());
    }
    bad
}

async fn make(entity: &Entity, instance: &Instance, user: &User) {
    let made = Call::post(&path(entity), &body(entity, "", "")).by(user).send(instance).await;
    assert_eq!(made.status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_keeps_every_range() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        make(entity, &instance, &user).await;
        for field in entity.fields {
            for value in out_of_range(field) {
                let statement = format!("UPDATE {} SET {} = {value}", entity.table, field.column);
                let refused =
                    sqlx::query(AssertSqlSafe(statement.clone())).execute(&world.pool).await;
                let error = refused.expect_err(&statement).into_database_error().unwrap();
                let code = error.code().unwrap().into_owned();
                // check_violation, not_null_violation, numeric_value_out_of_range,
                // string_data_right_truncation (appendix A of Postgres's documentation).
                let known = ["23514", "23502", "22003", "22001"];
                assert!(known.contains(&code.as_str()), "{statement}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_numeric_and_changes_are_dated_by_the_database() {
    let world = World::new().await;
    let floats = texts(
        &world,
        "SELECT table_name || '.' || column_name FROM information_schema.columns
         WHERE table_schema = 'public' AND data_type IN ('real', 'double precision', 'money')
           AND table_name <> '_sqlx_migrations'",
    )
    .await;
    assert_eq!(floats, [""; 0]);
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    for entity in entity::ALL {
        let money: Vec<_> =
            entity.fields.iter().filter(|field| matches!(field.kind, Kind::Money)).collect();
        for field in money {
            let shape: (i32, i32) = sqlx::query_as(
                "SELECT numeric_precision::int, numeric_scale::int FROM information_schema.columns
                 WHERE table_name = $1 AND column_name = $2",
            )
            .bind(entity.table)
            .bind(field.column)
            .fetch_one(&world.pool)
            .await
            .unwrap();
            assert_eq!(shape, (14, 2), "{}.{}", entity.table, field.column);
        }
        make(entity, &instance, &user).await;
        // Not even whoever says otherwise.
        let statement = format!(
            "UPDATE {} SET updated_at = '2000-01-01' RETURNING updated_at > created_at",
            entity.table
        );
        let later: bool =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&world.pool).await.unwrap();
        assert!(later, "{}", entity.table);
    }
    // Whatever else has such a column.
    let undated = texts(
        &world,
        "SELECT table_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND column_name = 'updated_at'
         EXCEPT
         SELECT tgrelid::regclass::text FROM pg_trigger
         WHERE tgfoid = 'set_updated_at'::regproc AND tgenabled = 'O'
           AND pg_get_triggerdef(oid) LIKE '%BEFORE UPDATE ON%FOR EACH ROW%'",
    )
    .await;
    assert_eq!(undated, [""; 0]);
}

/// What is no entity: accounts, settings, jobs, logs and what others vouch for.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_keeps_the_ranges_of_everything_else() {
    let world = World::new().await;
    let user = world.user().await;
    world.job_of(&user).await;
    for statement in [
        "INSERT INTO settings (user_id, currency, date_format, language, first_day_of_week, time_zone)
         VALUES ($1, 'EUR', 'YYYY-MM-DD', 'en', 'monday', 'UTC')",
        "INSERT INTO identities (provider, subject, user_id) VALUES ('google', 'a', $1)",
        "INSERT INTO app_logs (id, level, event, user_id) VALUES (gen_random_uuid(), 'info', 'a', $1)",
        "INSERT INTO mcp_audit (id, user_id, method, outcome, request_id, ms)
         VALUES (gen_random_uuid(), $1, 'a', 'ok', 'r', 1)",
        "INSERT INTO idempotency_keys
             (user_id, key_hash, fingerprint, status, headers, body, expires_at)
         VALUES ($1, sha256('k'), sha256('f'), 201, '[]', '', now())",
    ] {
        sqlx::query(statement).bind(user.id).execute(&world.pool).await.unwrap();
    }
    for (table, change) in [
        ("users", "role = 'root'"),
        ("users", "email = 'Ada@example.org'"),
        ("users", "email = 'a'"),
        ("users", "name = ''"),
        ("users", "name = repeat('a', 101)"),
        ("settings", "currency = 'eur'"),
        ("settings", "date_format = 'MM-DD'"),
        ("settings", "language = 'e'"),
        ("settings", "first_day_of_week = 'Monday'"),
        ("settings", "time_zone = ''"),
        ("identities", "provider = 'github'"),
        ("identities", "subject = ''"),
        ("voice_jobs", "state = 'done'"),
        ("voice_jobs", "state = 'failed'"),
        ("voice_jobs", "state = 'completed'"),
        ("voice_jobs", "transcript = repeat('a', 10001)"),
        ("voice_jobs", "attempts = -1"),
        ("app_logs", "level = 'debug'"),
        ("app_logs", "event = ''"),
        ("mcp_audit", "outcome = 'maybe'"),
        ("mcp_audit", "ms = -1"),
        ("idempotency_keys", "status = 500"),
        ("idempotency_keys", "key_hash = 'short'"),
        ("idempotency_keys", "fingerprint = 'short'"),
    ] {
        let statement = format!("UPDATE {table} SET {change}");
        let refused = sqlx::query(AssertSqlSafe(statement.clone())).execute(&world.pool).await;
        let error = refused.expect_err(&statement).into_database_error().unwrap();
        assert_eq!(error.code().as_deref(), Some("23514"), "{statement}: {error}");
    }
}
