//! Each migration only expands: what the release before it reads and writes is still there, means the
//! same, and is accepted. The catalog of the database is compared before and after each step.

use std::collections::{BTreeMap, BTreeSet};

use bme_service::{database, migrate};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::harness::shared;

/// Columns that may be null although once they might not, a step that was taken before the first
/// release. The one before would stumble over the accounts that others vouch for, and over no others.
const LOOSENED: [&str; 2] = ["users.email", "users.password_hash"];

/// What a release says about a column without knowing it.
#[derive(Debug, PartialEq, Eq)]
struct Column {
    kind: String,
    required: bool,
    /// The database fills it in.
    filled: bool,
}

/// A table, the columns that are concerned, and the text of the definition.
type Definition = (String, Vec<String>, String);

/// A schema as a release sees it.
#[derive(Debug)]
struct Schema {
    /// By `table.column`.
    columns: BTreeMap<String, Column>,
    tables: BTreeSet<String>,
    /// Checks and foreign keys.
    conditions: BTreeSet<Definition>,
    /// Unique indexes, which an upsert names.
    unique: BTreeSet<Definition>,
    /// Triggers, with their table.
    triggers: BTreeSet<(String, String)>,
    /// Signatures with the type of the answer.
    functions: BTreeSet<String>,
}

async fn look(connection: &mut PgConnection) -> Schema {
    let columns: Vec<(String, String, String, bool, bool)> = sqlx::query_as(
        "SELECT relname::text, attname::text, format_type(atttypid, atttypmod), attnotnull,
                atthasdef OR attidentity <> ''
         FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
           AND NOT attisdropped",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let conditions: Vec<Definition> = sqlx::query_as(
        "SELECT conrelid::regclass::text,
                ARRAY(SELECT attname::text FROM pg_attribute
                      WHERE attrelid = conrelid AND attnum = ANY (conkey) ORDER BY attnum),
                pg_get_constraintdef(oid)
         FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype IN ('c', 'f', 'x')",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let unique: Vec<Definition> = sqlx::query_as(
        "SELECT indrelid::regclass::text,
                ARRAY(SELECT attname::text FROM pg_attribute
                      WHERE attrelid = indrelid AND attnum = ANY (indkey::int2[]) ORDER BY attnum),
                pg_get_indexdef(indexrelid)
         FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
         WHERE relnamespace = 'public'::regnamespace AND indisunique",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let triggers: Vec<(String, String)> = sqlx::query_as(
        "SELECT tgrelid::regclass::text, pg_get_triggerdef(pg_trigger.oid)
         FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
         WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let functions: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regprocedure::text || ' ' || pg_get_function_result(oid) FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    Schema {
        tables: columns.iter().map(|(table, ..)| table.clone()).collect(),
        columns: columns
            .into_iter()
            .map(|(table, name, kind, required, filled)| {
                (format!("{table}.{name}"), Column { kind, required, filled })
            })
            .collect(),
        conditions: conditions.into_iter().collect(),
        unique: unique.into_iter().collect(),
        triggers: triggers.into_iter().collect(),
        functions: functions.into_iter().collect(),
    }
}

/// What of the schema before is missing, changed or narrower after it.
fn narrowed(before: &Schema, after: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    for (name, old) in &before.columns {
        let Some(new) = after.columns.get(name) else {
            found.push(format!("{name} is gone"));
            continue;
        };
        if old.kind != new.kind {
            found.push(format!("{name} was {} and is {}", old.kind, new.kind));
        }
        if new.required && !old.required {
            found.push(format!("{name} may be null no more"));
        }
        if old.required && !new.required && !LOOSENED.contains(&name.as_str()) {
            found.push(format!("{name} may be null, which the release before cannot read"));
        }
        if old.filled && !new.filled {
            found.push(format!("{name} is filled in no more"));
        }
    }
    for (name, new) in &after.columns {
        let table = name.split('.').next().unwrap();
        let added = before.tables.contains(table) && !before.columns.contains_key(name);
        if added && new.required && !new.filled {
            found.push(format!("{name} must be given, which the release before does not"));
        }
    }
    // On columns that the release before does not know, it has nothing to break.
    let concerns = |table: &str, columns: &[String]| {
        let known = |column: &String| before.columns.contains_key(&format!("{table}.{column}"));
        before.tables.contains(table) && (columns.is_empty() || columns.iter().any(known))
    };
    for new in
        [after.conditions.difference(&before.conditions), after.unique.difference(&before.unique)]
    {
        for (table, columns, definition) in new {
            if concerns(table, columns) {
                found.push(format!("{table} has a new condition: {definition}"));
            }
        }
    }
    for (_, _, gone) in before.unique.difference(&after.unique) {
        found.push(format!("an upsert may name what is gone: {gone}"));
    }
    for (table, definition) in after.triggers.symmetric_difference(&before.triggers) {
        if before.tables.contains(table) {
            found.push(format!("{table} has another trigger: {definition}"));
        }
    }
    let gone = before.functions.difference(&after.functions);
    found.extend(gone.map(|function| format!("{function} is gone")));
    found
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    let done = connection.execute(AssertSqlSafe(sql.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{error} in {sql}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_only_expands() {
    let database = shared().empty_database().await;
    let mut connection = PgConnection::connect_with(&database::options(&database)).await.unwrap();
    let mut before = look(&mut connection).await;
    for migration in migrate::migrations().iter() {
        execute(&mut connection, migration.sql.as_str()).await;
        let after = look(&mut connection).await;
        let narrowed = narrowed(&before, &after);
        assert!(narrowed.is_empty(), "migration {}: {narrowed:#?}", migration.version);
        before = after;
    }
    assert!(before.tables.len() > 10, "{:?}", before.tables);
}

/// The comparison sees what it is there for.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_narrows_is_noticed() {
    let database = shared().new_database().await;
    let mut connection = PgConnection::connect_with(&database::options(&database)).await.unwrap();
    let before = look(&mut connection).await;
    for (step, noticed) in [
        ("DROP TABLE goals", true),
        ("ALTER TABLE goals DROP COLUMN period", true),
        ("ALTER TABLE goals RENAME COLUMN period TO rhythm", true),
        ("ALTER TABLE goals ALTER COLUMN target TYPE numeric(10, 2)", true),
        ("ALTER TABLE goals ADD COLUMN color text NOT NULL", true),
        ("ALTER TABLE goals ALTER COLUMN type DROP NOT NULL", true),
        ("ALTER TABLE schedule_items ALTER COLUMN emoji SET NOT NULL", true),
        ("ALTER TABLE schedule_items ALTER COLUMN is_active DROP DEFAULT", true),
        ("ALTER TABLE goals ADD CHECK (target < 1000)", true),
        ("CREATE UNIQUE INDEX ON goals (user_id, type)", true),
        ("ALTER TABLE daily_check_ins DROP CONSTRAINT daily_check_ins_one_per_day", true),
        ("DROP TRIGGER goals_updated_at ON goals", true),
        ("DROP FUNCTION search_foods", true),
        ("ALTER TABLE goals ADD COLUMN color text CHECK (color <> '')", false),
        ("ALTER TABLE goals ADD COLUMN color text NOT NULL DEFAULT 'red'", false),
        ("CREATE INDEX ON goals (period)", false),
        ("CREATE TABLE things (id uuid PRIMARY KEY, goal uuid REFERENCES goals (id))", false),
    ] {
        execute(&mut connection, "BEGIN").await;
        execute(&mut connection, step).await;
        let narrowed = narrowed(&before, &look(&mut connection).await);
        assert_eq!(!narrowed.is_empty(), noticed, "{step}: {narrowed:?}");
        execute(&mut connection, "ROLLBACK").await;
    }
}
