//! A voice request becomes a job.

use std::time::Duration;

use axum::http::{StatusCode, header};
use jiff::{Timestamp, tz::TimeZoneDatabase};
use serde_json::json;
use sqlx::PgConnection;
use time::Date;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{QUEUE, Voice, audio};
use crate::{
    body::{self, Object, text},
    calendar,
    idempotency::{Answer, Hash},
    pii::{Audio, Transcript},
    problem::Problem,
    queue::Message,
    telemetry,
};

/// Audio of a job that nobody ever worked on vanishes after this time.
const AUDIO_LIFETIME: Duration = Duration::from_hours(24);

/// Longest transcript in characters.
pub const MAX_TRANSCRIPT: usize = 10_000;

/// Namespace of the ids of jobs that have an idempotency key (RFC 9562, section 5.5); random.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b1f_6d0e_3c1a_4f57_9a86_2f1f_0c6e_7d43);

/// A valid voice request.
#[derive(Debug)]
pub struct Submission {
    said: Said,
    lang: Option<String>,
    today: Date,
    timezone: String,
    execute: bool,
}

#[derive(Debug)]
enum Said {
    Transcript(Transcript),
    Audio { bytes: Audio, media_type: &'static str },
}

impl Submission {
    /// Reads the body of a request.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let mut object = Object::parse(body)?;
        let transcript = object.optional("transcript", text(1, MAX_TRANSCRIPT));
        // Bounded by the body already; the exact bound is the decoder's.
        let sound = object.optional("audio", text(0, usize::MAX));
        let mime_type = object.optional("mimeType", text(0, 100));
        let lang = object.optional("lang", |raw| {
            let tag = text(2, 35)(raw)?;
            let plain = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if plain { Ok(tag) } else { Err("must be a language tag such as en-GB".to_owned()) }
        });
        let today = object.optional("today", |raw| {
            let day = text(10, 10)(raw).ok().and_then(|day| calendar::parse_date(&day));
            day.ok_or_else(|| "must be an existing day as YYYY-MM-DD".to_owned())
        });
        let timezone = object.optional("timezone", |raw| {
            let name = text(1, 64)(raw)?;
            let known = TimeZoneDatabase::bundled().get(&name).is_ok();
            if known { Ok(name) } else { Err("must be an IANA time zone".to_owned()) }
        });
        let execute = object.optional("execute", body::boolean).unwrap_or(true);
        match (&transcript, &sound) {
            (None, None) => object.error("transcript", "or audio is required"),
            (Some(_), Some(_)) => object.error("audio", "must not be given with transcript"),
            (Some(_), None) if mime_type.is_some() => {
                object.error("mimeType", "must not be given with transcript");
            }
            (None, Some(_)) if mime_type.is_none() => object.error("mimeType", "is required"),
            _ => {}
        }
        object.finish()?;
        let said = match (transcript, sound, mime_type) {
            (Some(transcript), ..) => Said::Transcript(Transcript::new(transcript)),
            (None, Some(sound), Some(mime_type)) => {
                let media_type = audio::media_type(&mime_type)?;
                let bytes = Audio::new(audio::decode(&sound, media_type)?);
                Said::Audio { bytes, media_type }
            }
            _ => return Err(Problem::internal()),
        };
        let timezone = timezone.unwrap_or_else(|| "UTC".to_owned());
        let today = today.or_else(|| today_in(&timezone)).ok_or_else(Problem::internal)?;
        Ok(Self { said, lang, today, timezone, execute })
    }

    /// Writes the job and enqueues it, before the transaction commits: a message without a row is
    /// dropped by the worker after a while, a row without a message would be waited for in vain.
    pub async fn write(
        self,
        voice: &Voice,
        database: &mut PgConnection,
        user: Uuid,
        key: Option<Hash>,
        request_id: &str,
    ) -> Result<Answer, Problem> {
        let id = key.map_or_else(Uuid::now_v7, |key| {
            Uuid::new_v5(&NAMESPACE, &[user.as_bytes().as_slice(), &key.0].concat())
        });
        let (transcript, blob, media_type) = match self.said {
            Said::Transcript(transcript) => (Some(transcript), None, None),
            Said::Audio { bytes, media_type } => {
                // Its own key for each attempt: one that is given up takes no other's audio away.
                let blob = format!("voice/{}", Uuid::now_v7());
                voice.blobs.put(&blob, bytes.into_inner(), AUDIO_LIFETIME).await.map_err(
                    |error| {
                        tracing::warn!(%error, "audio not written");
                        unavailable()
                    },
                )?;
                (None, Some(blob), Some(media_type))
            }
        };
        let sending = telemetry::send_span(voice.queue.system(), QUEUE, id);
        let message = Message {
            v: Message::VERSION,
            job_id: id,
            user_id: user,
            blob: blob.clone(),
            request_id: request_id.to_owned(),
            traceparent: sending.in_scope(telemetry::traceparent),
        };
        let inserted = sqlx::query(
            "INSERT INTO voice_jobs (id, user_id, transcript, blob, mime_type, lang, today, timezone,
                                     execute, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
        )
        .bind(id)
        .bind(user)
        .bind(transcript.as_ref().map(Transcript::expose))
        .bind(&blob)
        .bind(media_type)
        .bind(self.lang)
        .bind(self.today)
        .bind(self.timezone)
        .bind(self.execute)
        .bind(request_id)
        .execute(database)
        .await;
        let outcome = match inserted {
            // The key was used before: its job is the answer.
            Ok(done) if done.rows_affected() == 0 => {
                discard(voice, blob.as_deref()).await;
                Ok(())
            }
            Ok(_) => {
                voice.queue.enqueue(&message).instrument(sending).await.map(drop).map_err(|error| {
                    tracing::warn!(%error, "voice job not enqueued");
                    unavailable()
                })
            }
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
                Err(Problem::unauthorized())
            }
            Err(error) => Err(error.into()),
        };
        if let Err(problem) = outcome {
            discard(voice, blob.as_deref()).await;
            return Err(problem);
        }
        let poll = format!("/api/jobs/{id}");
        let body = json!({ "jobId": id, "status": "queued", "pollUrl": poll });
        let body = body.to_string().into_bytes();
        Ok(Answer::json(StatusCode::ACCEPTED, body, &[(header::LOCATION, poll)]))
    }
}

async fn discard(voice: &Voice, blob: Option<&str>) {
    if let Some(blob) = blob
        && let Err(error) = voice.blobs.delete(blob).await
    {
        tracing::warn!(%error, "audio not deleted; its lifetime ends it");
    }
}

fn today_in(timezone: &str) -> Option<Date> {
    let zone = TimeZoneDatabase::bundled().get(timezone).ok()?;
    calendar::parse_date(&Timestamp::now().to_zoned_datetime(zone).date().to_string())
}

fn unavailable() -> Problem {
    Problem::unavailable("queue-unavailable", "Voice requests cannot be taken right now.", 5)
}
