//! The statements of an entity: fixed texts, made once from its description, always for one user.

use std::{fmt::Write as _, sync::Arc};

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, Row as _, postgres::PgRow};
use time::{Date, OffsetDateTime, macros::date};
use uuid::Uuid;

use super::{Entity, Item, Patch};
use crate::{calendar, page::Cursor, problem::Problem};

/// The texts. All parts come from `catalog`, none from a request.
#[derive(Debug)]
pub(super) struct Statements {
    list: Arc<str>,
    read: Arc<str>,
    lock: Arc<str>,
    insert: Arc<str>,
    update: Arc<str>,
    delete: Arc<str>,
}

/// One entity as the database has it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its id.
    pub id: Uuid,
    /// Its members.
    pub item: Item,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub updated_at: OffsetDateTime,
}

/// What an insertion did.
#[derive(Clone, Debug)]
pub struct Inserted {
    /// The row.
    pub row: Row,
    /// It replaced the one of the same day.
    pub replaced: bool,
}

/// The days that a list covers, both included.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first day.
    pub first: Date,
    /// The last day.
    pub last: Date,
}

impl Range {
    /// Every day.
    pub const ALL: Self = Self { first: date!(0001 - 01 - 01), last: Date::MAX };
}

impl Statements {
    fn of(entity: &Entity) -> Self {
        let table = entity.table;
        let names: Vec<_> = entity.fields.iter().map(|field| field.column).collect();
        let names = names.join(", ");
        let columns = format!("id, {names}, created_at, updated_at");
        let mut values = String::new();
        let mut assignments = String::new();
        for (at, field) in entity.fields.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            let _ = write!(values, ", ${}", at + 3);
            let _ = write!(assignments, "{separator}{} = ${}", field.column, at + 3);
        }
        let own = "WHERE id = $1 AND user_id = $2";
        let conflict = if entity.one_per_day {
            let replaced: Vec<_> = entity
                .fields
                .iter()
                .map(|field| format!("{0} = excluded.{0}", field.column))
                .collect();
            format!(" ON CONFLICT (user_id, date) DO UPDATE SET {}", replaced.join(", "))
        } else {
            String::new()
        };
        let list = if entity.is_dated() {
            format!(
                "SELECT {columns} FROM {table}
                 WHERE user_id = $1 AND date BETWEEN $2 AND $3 AND (date, id) < ($4, $5)
                 ORDER BY date DESC, id DESC LIMIT $6"
            )
        } else {
            format!(
                "SELECT {columns} FROM {table} WHERE user_id = $1 AND id < $2
                 ORDER BY id DESC LIMIT $3"
            )
        };
        Self {
            list: list.into(),
            read: format!("SELECT {columns} FROM {table} {own}").into(),
            lock: format!("SELECT {columns} FROM {table} {own} FOR UPDATE").into(),
            insert: format!(
                "INSERT INTO {table} (id, user_id, {names}) VALUES ($1, $2{values}){conflict}
                 RETURNING {columns}"
            )
            .into(),
            update: format!("UPDATE {table} SET {assignments} {own} RETURNING {columns}").into(),
            delete: format!("DELETE FROM {table} {own}").into(),
        }
    }
}

impl Entity {
    fn statements(&self) -> &Statements {
        self.statements.get_or_init(|| Statements::of(self))
    }

    fn row(&'static self, row: &PgRow) -> Result<Row, sqlx::Error> {
        let values = self
            .fields
            .iter()
            .map(|field| field.kind.column(row, field.column))
            .collect::<Result<_, _>>()?;
        Ok(Row {
            id: row.try_get("id")?,
            item: Item { entity: self, values },
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }

    /// At most `limit` rows after `cursor`, newest first.
    pub async fn list(
        &'static self,
        database: impl PgExecutor<'_>,
        user: Uuid,
        range: Range,
        cursor: Cursor,
        limit: i64,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().list))).bind(user);
        if self.is_dated() {
            query = query.bind(range.first).bind(range.last).bind(cursor.date);
        }
        let rows = query.bind(cursor.id).bind(limit).fetch_all(database).await?;
        rows.iter().map(|row| self.row(row)).collect()
    }

    /// One of the user's.
    pub async fn find(
        &'static self,
        database: impl PgExecutor<'_>,
        user: Uuid,
        id: Uuid,
    ) -> Result<Option<Row>, sqlx::Error> {
        let row = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().read)))
            .bind(id)
            .bind(user)
            .fetch_optional(database)
            .await?;
        row.map(|row| self.row(&row)).transpose()
    }

    /// Writes a new one. Where there is one per day, it replaces that day's.
    pub async fn insert(
        &'static self,
        database: &mut PgConnection,
        user: Uuid,
        item: Item,
    ) -> Result<Inserted, Problem> {
        let id = Uuid::now_v7();
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().insert)));
        query = query.bind(id).bind(user);
        for (field, value) in self.fields.iter().zip(item.values) {
            query = field.kind.bind(query, value);
        }
        let row = query.fetch_one(database).await.map_err(|error| self.refused(error))?;
        let row = self.row(&row)?;
        Ok(Inserted { replaced: row.id != id, row })
    }

    /// Changes one of the user's; `None` when there is none. It is locked first, so that members
    /// that are checked together are written together.
    pub async fn update(
        &'static self,
        database: &mut PgConnection,
        user: Uuid,
        id: Uuid,
        patch: Patch,
    ) -> Result<Option<Row>, Problem> {
        let present = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().lock)))
            .bind(id)
            .bind(user)
            .fetch_optional(&mut *database)
            .await?;
        let Some(present) = present else { return Ok(None) };
        let item = self.row(&present)?.item.patched(patch)?;
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().update)));
        query = query.bind(id).bind(user);
        for (field, value) in self.fields.iter().zip(item.values) {
            query = field.kind.bind(query, value);
        }
        let row = query.fetch_one(database).await.map_err(|error| self.refused(error))?;
        Ok(Some(self.row(&row)?))
    }

    /// Deletes one of the user's; false when there is none.
    pub async fn delete(
        &self,
        database: impl PgExecutor<'_>,
        user: Uuid,
        id: Uuid,
    ) -> Result<bool, sqlx::Error> {
        let deleted = sqlx::query(AssertSqlSafe(Arc::clone(&self.statements().delete)))
            .bind(id)
            .bind(user)
            .execute(database)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// What a constraint that a request can break means to its sender.
    fn refused(&self, error: sqlx::Error) -> Problem {
        if let sqlx::Error::Database(database) = &error {
            // The account was deleted while its token is still valid.
            if database.is_foreign_key_violation() {
                return Problem::unauthorized();
            }
            if database.is_unique_violation() {
                return Problem::new(
                    axum::http::StatusCode::CONFLICT,
                    "day-taken",
                    format!("There is already a {} of that day.", self.noun),
                );
            }
        }
        error.into()
    }
}

impl Row {
    /// The position in a list.
    pub fn cursor(&self) -> Cursor {
        let date = match self.item.get("date") {
            super::Datum::Date(date) => *date,
            _ => Cursor::START.date,
        };
        Cursor { date, id: self.id }
    }

    /// The JSON document.
    pub fn json(&self) -> String {
        let mut json = format!("{{\"id\":\"{}\"", self.id);
        for (field, value) in self.item.entity.fields.iter().zip(&self.item.values) {
            let _ = write!(json, ",\"{}\":", field.name);
            field.kind.write(value, &mut json);
        }
        let _ = write!(
            json,
            ",\"createdAt\":\"{}\",\"updatedAt\":\"{}\"}}",
            calendar::format_instant(self.created_at),
            calendar::format_instant(self.updated_at)
        );
        json
    }
}
