//! The model's client: how long it waits, how often it asks, and when it does not ask at all.

use std::time::{Duration, Instant};

use bme_service::{
    config::VoiceConfig,
    voice::gemini::{Gemini, GeminiError},
};
use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    voice_memory::{Answer, Model, Stage, gemini},
    voice_worker::{audio_of, say, status},
};

fn busy(headers: &[(&'static str, &str)], text: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Answer { headers, ..(429, text.to_owned()).into() }
}

/// As the API says it (`google.rpc.Status` with a `google.rpc.RetryInfo`).
fn retry_info(delay: &str) -> String {
    json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded.",
        "details": [
            { "@type": "type.googleapis.com/google.rpc.Help", "links": [] },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay },
        ] } })
    .to_string()
}

/// A model that says this first, and 200 afterwards.
async fn first(answer: Answer) -> Model {
    let first = std::sync::Mutex::new(Some(answer));
    Model::answering(move |_| {
        first.lock().unwrap().take().unwrap_or_else(|| (200, "done".into()).into())
    })
    .await
}

async fn ask(gemini: &Gemini) -> (Result<String, GeminiError>, Duration) {
    let asked = Instant::now();
    let answer = gemini.generate("{}").await;
    (answer, asked.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_asks_to_wait_is_waited() {
    for (answer, least) in [
        (busy(&[("retry-after", "1")], "busy"), Duration::from_secs(1)),
        (busy(&[], &retry_info("1.500s")), Duration::from_millis(1500)),
        // The longer one.
        (busy(&[("retry-after", "2")], &retry_info("1s")), Duration::from_secs(2)),
        (busy(&[("retry-after", "1")], &retry_info("2s")), Duration::from_secs(2)),
        // What says nothing is as if it was not there.
        (busy(&[("retry-after", "-1")], &retry_info("soon")), Duration::ZERO),
        (busy(&[], "{\"error\":{\"details\":[{}]}}"), Duration::ZERO),
    ] {
        let model = first(answer.clone()).await;
        let (text, took) = ask(&gemini(&model.config())).await;
        assert_eq!((text.as_deref(), model.count()), (Ok("done"), 2), "{}", answer.text);
        assert!(took >= least && took < least + Duration::from_secs(5), "{took:?}, not {least:?}");
        assert!(least > Duration::ZERO || took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_beyond_the_deadline_is_left_to_the_queue() {
    for (seconds, wait) in [("30", 30), ("18446744073709551615", u64::MAX)] {
        let model = first(busy(&[("retry-after", seconds)], "busy")).await;
        let (answer, took) = ask(&gemini(&model.config())).await;
        let wait = Some(Duration::from_secs(wait));
        assert_eq!((answer, model.count()), (Err(GeminiError::Unavailable { wait }), 1));
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let poll = say(&stage, &user, &json!({})).await;
    for (answer, wait) in [
        (busy(&[], &retry_info("40s")), Duration::from_secs(40)),
        // As long as any job waits.
        (busy(&[], &retry_info("86400s")), Duration::from_mins(5)),
    ] {
        let consumer = stage.consumer(&first(answer).await);
        let delivery = stage.delivery().await;
        assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
        assert_eq!(stage.queue.retried.lock().unwrap().pop(), Some(wait));
        assert_eq!(status(&stage, &user, &poll).await, "queued");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_calls_together_end_at_the_deadline() {
    let unavailable = Err(GeminiError::Unavailable { wait: None });
    let short = |model: &Model, attempt| VoiceConfig {
        attempt: Duration::from_millis(attempt),
        deadline: Duration::from_millis(1200),
        ..model.config()
    };
    let silent = Model::start(vec![], (0, String::new())).await;
    // One call takes it all, or more than one would.
    for attempt in [5000, 1000] {
        let (answer, took) = ask(&gemini(&short(&silent, attempt))).await;
        assert_eq!(answer, unavailable);
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    }
    // And they are never more than three.
    let failing = Model::start(vec![], (503, "busy".into())).await;
    assert_eq!(ask(&gemini(&failing.config())).await.0, unavailable);
    assert_eq!(failing.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_run_at_the_same_time_than_allowed() {
    let after = Duration::from_millis(150);
    let model = Model::answering(move |_| Answer { after, ..(200, "done".into()).into() }).await;
    let client = gemini(&VoiceConfig { concurrency: 2, ..model.config() });
    let answers = join_all((0..8).map(|_| client.generate("{}"))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((model.most_running(), model.count()), (2, 8));

    // Waiting for a place is a part of the deadline.
    let silent = Model::start(vec![], (0, String::new())).await;
    let deadline = Duration::from_millis(600);
    let client = gemini(&VoiceConfig {
        concurrency: 1,
        attempt: Duration::from_secs(5),
        deadline,
        ..silent.config()
    });
    let asked = Instant::now();
    let answers = join_all((0..4).map(|_| client.generate("{}"))).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_mostly_fails_is_left_alone_and_its_jobs_wait() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], (500, "down".into())).await;
    let consumer = stage.consumer(&model);
    join_all((0..7).map(|_| consumer.gemini.generate("{}"))).await;
    let asked = model.count();
    assert_eq!(consumer.gemini.generate("{}").await, Err(GeminiError::Open));
    let poll = say(&stage, &user, &json!({})).await;
    let delivery = stage.delivery().await;
    assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
    assert_eq!((status(&stage, &user, &poll).await.as_str(), model.count()), ("queued", asked));
    let attempts: i32 = sqlx::query_scalar("SELECT attempts FROM voice_jobs")
        .fetch_one(&stage.world.pool)
        .await
        .unwrap();
    assert_eq!((attempts, stage.delivery().await.attempt), (0, 1));
}

/// What the client knows about its user decides what "tomorrow" and "twelve fifty" are.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_told_the_day_the_zone_and_the_language() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], (400, "no".into())).await;
    let consumer = stage.consumer(&model);
    for (more, told) in [
        (
            json!({ "today": "2026-03-29", "timezone": "Europe/Zurich", "lang": "de-CH" }),
            ["2026-03-29", "Europe/Zurich", "de-CH"],
        ),
        (json!({}), ["2026-11-23", "UTC", "not known"]),
    ] {
        say(&stage, &user, &more).await;
        let delivery = stage.delivery().await;
        assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
        let (_, request) = model.last.lock().unwrap().take().unwrap();
        let instruction = request["systemInstruction"]["parts"][0]["text"].as_str().unwrap();
        for part in told {
            assert!(instruction.contains(part), "{part} missing in {instruction}");
        }
    }
}

/// What was said goes to the configured address and to no other that the answer names.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_points_elsewhere_is_not_followed() {
    let elsewhere = Model::start(vec![], (200, "done".into())).await;
    for status in [307, 308] {
        let path = "/v1beta/models/test-model:generateContent";
        let location = vec![("location", format!("{}{path}", elsewhere.url))];
        let moved = Answer { headers: location, ..(status, String::new()).into() };
        let model = Model::answering(move |_| moved.clone()).await;
        assert!(ask(&gemini(&model.config())).await.0.is_err(), "{status}");
        assert!(model.count() > 0, "{status}");
    }
    assert_eq!(elsewhere.count(), 0);
}

/// Names of the API's own list ("Audio understanding", supported formats), where it has one.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_told_the_type_by_its_own_name() {
    let stage = Stage::new().await;
    let user = stage.world.user().await;
    let model = Model::start(vec![], (400, "no".into())).await;
    let consumer = stage.consumer(&model);
    for (accepted, bytes, told) in [
        ("audio/webm;codecs=opus", &b"\x1a\x45\xdf\xa3...."[..], "audio/webm"),
        ("audio/ogg", b"OggS....", "audio/ogg"),
        ("audio/mp4", b"\0\0\0\x20ftypM4A ", "audio/m4a"),
        ("audio/mpeg", b"\xff\xfb\x90\x64", "audio/mp3"),
        ("audio/wav", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        ("audio/aac", b"\xff\xf1\x50\x80", "audio/aac"),
        ("audio/flac", b"fLaC\0\0\0\x22", "audio/flac"),
    ] {
        audio_of(&stage, &user, accepted, bytes).await;
        let delivery = stage.delivery().await;
        assert!(consumer.handle(&delivery, &CancellationToken::new()).await);
        let (_, request) = model.last.lock().unwrap().take().unwrap();
        assert_eq!(request["contents"][0]["parts"][0]["inlineData"]["mimeType"], told);
    }
}
