//! Carrying the intents of a job out: all of them in one transaction, or none.

use axum::http::StatusCode;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    intent::{Action, Intent, Selector},
    job::Job,
};
use crate::{
    database::Database,
    entity::{Datum, Entity, Range, Row},
    page::Cursor,
    problem::Problem,
};

/// Rows among which a match is looked for; with more, no match is unambiguous.
const SCAN: i64 = 1000;
/// Most candidates that are reported.
const CANDIDATES: usize = 10;

/// Why a job was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else has the job, or had it.
    #[error("the job is somebody else's by now")]
    Lost,
    /// The database failed; it may work later.
    #[error("the database did not carry it out")]
    Database,
    /// The database will not take it, however often it is asked.
    #[error("the database refused it")]
    Refused,
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        // The conversion logs what happened, and knows what passes.
        Self::of(&Problem::from(error))
    }
}

impl ApplyError {
    fn of(problem: &Problem) -> Self {
        if problem.status() == StatusCode::SERVICE_UNAVAILABLE {
            Self::Database
        } else {
            Self::Refused
        }
    }
}

/// What became of one intent: a status, and a further member of the report as JSON.
enum Outcome {
    Applied(Option<String>),
    Unknown,
    Stopped(&'static str, Vec<Row>),
}

/// Carries the intents out and completes the job, in one transaction. When one of them cannot be
/// carried out, nothing is changed and the report says which and why.
pub async fn apply(database: &Database, job: &Job, intents: &[Intent]) -> Result<(), ApplyError> {
    let report = if job.execute {
        let mut tx = database.begin().await?;
        let mut reports = Vec::new();
        let mut stopped = None;
        for (n, intent) in intents.iter().enumerate() {
            if !job.claim(&mut tx, n).await? {
                return Err(ApplyError::Lost);
            }
            match carry_out(&mut tx, job.user_id, &intent.action).await? {
                Outcome::Applied(item) => reports.push(report(intent, "applied", "item", item)),
                Outcome::Unknown => reports.push(report(intent, "unknown", "", None)),
                Outcome::Stopped(status, candidates) => {
                    stopped = Some((n, status, candidates));
                    break;
                }
            }
        }
        let Some((at, status, candidates)) = stopped else {
            if !job.complete(&mut *tx, &whole(true, &reports)).await? {
                return Err(ApplyError::Lost);
            }
            tx.commit().await?;
            return Ok(());
        };
        tx.rollback().await?;
        let rows: Vec<_> = candidates.iter().take(CANDIDATES).map(Row::json).collect();
        let rows = format!("[{}]", rows.join(","));
        let reports: Vec<_> = intents
            .iter()
            .enumerate()
            .map(|(n, intent)| {
                if n == at {
                    report(intent, status, "candidates", Some(rows.clone()))
                } else {
                    report(intent, "not-applied", "", None)
                }
            })
            .collect();
        whole(false, &reports)
    } else {
        let reports: Vec<_> = intents
            .iter()
            .map(|intent| match intent.action {
                Action::Unknown => report(intent, "unknown", "", None),
                _ => {
                    report(intent, "proposed", "arguments", Some(intent.arguments.get().to_owned()))
                }
            })
            .collect();
        whole(false, &reports)
    };
    if job.complete(database, &report).await? { Ok(()) } else { Err(ApplyError::Lost) }
}

async fn carry_out(
    database: &mut PgConnection,
    user: Uuid,
    action: &Action,
) -> Result<Outcome, ApplyError> {
    match action {
        Action::Unknown => Ok(Outcome::Unknown),
        Action::Add(entity, item) => match entity.insert(database, user, item.clone()).await {
            Ok(inserted) => Ok(Outcome::Applied(Some(inserted.row.json()))),
            Err(problem) => refused(&problem),
        },
        Action::Edit(entity, selector, patch) => {
            let row = match the_one(database, user, entity, selector).await? {
                Ok(row) => row,
                Err(stopped) => return Ok(stopped),
            };
            match entity.update(database, user, row.id, patch.clone()).await {
                Ok(Some(row)) => Ok(Outcome::Applied(Some(row.json()))),
                Ok(None) => Ok(Outcome::Stopped("not-found", Vec::new())),
                Err(problem) => refused(&problem),
            }
        }
        Action::Delete(entity, selector) => {
            let row = match the_one(database, user, entity, selector).await? {
                Ok(row) => row,
                Err(stopped) => return Ok(stopped),
            };
            if entity.delete(database, user, row.id).await? {
                Ok(Outcome::Applied(Some(row.json())))
            } else {
                Ok(Outcome::Stopped("not-found", Vec::new()))
            }
        }
    }
}

/// The only one of the user's that is meant.
async fn the_one(
    database: &mut PgConnection,
    user: Uuid,
    entity: &'static Entity,
    selector: &Selector,
) -> Result<Result<Row, Outcome>, ApplyError> {
    if let Some(id) = selector.id {
        let row = entity.find(&mut *database, user, id).await?;
        let row = row.filter(|row| selector.fields.matches(&row.item));
        return Ok(row.ok_or_else(|| Outcome::Stopped("not-found", Vec::new())));
    }
    let range = match selector.fields.get(entity, "date") {
        Some(Datum::Date(day)) => Range { first: *day, last: *day },
        _ => Range::ALL,
    };
    let rows = entity.list(&mut *database, user, range, Cursor::START, SCAN).await?;
    let whole = rows.len() < usize::try_from(SCAN).unwrap_or(usize::MAX);
    let mut matching: Vec<_> =
        rows.into_iter().filter(|row| selector.fields.matches(&row.item)).collect();
    Ok(match (matching.len(), whole) {
        (1, true) => matching.pop().ok_or_else(|| Outcome::Stopped("not-found", Vec::new())),
        (0, true) => Err(Outcome::Stopped("not-found", Vec::new())),
        _ => Err(Outcome::Stopped("ambiguous", matching)),
    })
}

/// A decision about this very action is reported; everything else is tried again.
fn refused(problem: &Problem) -> Result<Outcome, ApplyError> {
    if problem.status().is_client_error() {
        Ok(Outcome::Stopped("refused", Vec::new()))
    } else {
        Err(ApplyError::of(problem))
    }
}

fn whole(changed: bool, reports: &[String]) -> String {
    format!("{{\"changed\":{changed},\"actions\":[{}]}}", reports.join(","))
}

fn report(intent: &Intent, status: &str, name: &str, json: Option<String>) -> String {
    let more = json.map_or_else(String::new, |json| format!(",\"{name}\":{json}"));
    format!(
        "{{\"intent\":\"{}\",\"kind\":\"{}\",\"status\":\"{status}\"{more}}}",
        intent.verb, intent.noun
    )
}
