//! What is wrong is refused alike on every route that makes something, and leaves nothing behind in
//! any table; what is right comes back as it was sent, wherever the machines are.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use bme_service::{
    app::Timings,
    entity::{self, Kind},
};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::{
    entities::{body, path},
    entity_values::invalid,
    harness::{Call, Instance, Process, User, World, unique_email, unique_key},
};

/// A body that drips in.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_time_to_arrive_in() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let world = World::new().await;
    let timings = Timings { body: Duration::from_millis(500), ..Timings::default() };
    let instance = Instance::with_timings(&world.config, timings).await;
    let user = world.user().await;
    let mut stream = tokio::net::TcpStream::connect(instance.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "POST /api/goals HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        user.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let dripping = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(dripping.is_ok(), "the connection stays open: {answer}");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request-timeout\""), "{answer}");
}

/// A route that makes something, and a body that it takes.
struct Making {
    path: String,
    body: String,
}

/// Every route that makes something out of JSON, but for voice requests, whose bodies have other
/// limits.
fn makings() -> Vec<Making> {
    let account = || {
        json!({ "email": unique_email(), "password": "a long password", "name": "A" }).to_string()
    };
    let batch = format!("{{\"items\":[{}]}}", body(&entity::SCHEDULE, "", ""));
    entity::ALL
        .into_iter()
        .map(|entity| Making { path: path(entity), body: body(entity, "", "") })
        .chain([
            Making { path: "/api/schedule/batch".into(), body: batch },
            Making { path: "/api/admin/users".into(), body: account() },
            Making { path: "/api/auth/register".into(), body: account() },
        ])
        .collect()
}

/// How many rows each table has.
async fn rows(world: &World) -> BTreeMap<String, i64> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let mut counts = BTreeMap::new();
    for table in tables {
        let statement = format!("SELECT count(*) FROM {table}");
        let count =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&world.pool).await.unwrap();
        counts.insert(table, count);
    }
    counts
}

async fn administrator(world: &World) -> User {
    let admin = world.user().await;
    sqlx::query("UPDATE users SET role = 'admin'").execute(&world.pool).await.unwrap();
    admin
}

/// Bodies that are no JSON object in UTF-8.
fn broken(valid: &str) -> Vec<Vec<u8>> {
    let nested = "[".repeat(100_000);
    let mut broken: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "[]",
        "null",
        "true",
        "1",
        "NaN",
        "\"{}\"",
        "{}{}",
        "{\"a\":1,}",
        "{'a':1}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":1.}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x41\"}",
        "{} // comment",
        "<a/>",
        "a=1&b=2",
        &nested,
        &format!("\u{feff}{valid}"),
        &format!("{valid},"),
        &format!("[{valid}]"),
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    broken.push(b"{\"a\":\"\xff\"}".to_vec());
    // A surrogate in UTF-8, an overlong slash, and another encoding.
    broken.push(b"{\"a\":\"\xed\xa0\x80\"}".to_vec());
    broken.push(b"{\"a\":\"\xc0\xaf\"}".to_vec());
    broken.push(valid.encode_utf16().flat_map(u16::to_le_bytes).collect());
    // Cut off anywhere, as when a connection breaks behind a proxy that makes the length fit.
    broken.extend((0..valid.len()).step_by(11).map(|end| valid.as_bytes()[..end].to_vec()));
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_wrong_leaves_anything_behind() {
    const JSON: &str = "application/json";
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let admin = administrator(&world).await;
    let before = rows(&world).await;
    for Making { path, body } in makings() {
        let send = async |content_type: &str, more: &[(&str, &str)], body: Vec<u8>| {
            let mut call = Call::new(Method::POST, &path).by(&admin).key(&unique_key());
            if !content_type.is_empty() {
                call = call.header("content-type", content_type);
            }
            for (name, value) in more {
                call = call.header(name, value);
            }
            call.body(body).send(&instance).await
        };
        for content_type in [
            "",
            "text/plain",
            "text/json",
            "application/xml",
            "application/problem+json",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/octet-stream",
            "*/*",
            "application/json, text/plain",
            "application/json; charset=utf-16",
            "application/json; charset=iso-8859-1",
            "application / json",
            ";",
        ] {
            let reply = send(content_type, &[], body.clone().into_bytes()).await;
            assert_eq!(reply.problem(415), "unsupported-media-type", "{path} {content_type}");
        }
        for encoding in ["gzip", "br", "deflate", "identity, gzip"] {
            let more = [("content-encoding", encoding)];
            let reply = send(JSON, &more, body.clone().into_bytes()).await;
            assert_eq!(reply.problem(415), "unsupported-media-type", "{path} {encoding}");
        }
        for broken in broken(&body) {
            let text = String::from_utf8_lossy(&broken).chars().take(80).collect::<String>();
            let reply = send(JSON, &[], broken).await;
            assert_eq!(reply.problem(400), "invalid-json", "{path} {text}");
        }
        let large = format!("{}{body}", " ".repeat(256 * 1024));
        assert_eq!(send(JSON, &[], large.into()).await.problem(413), "body-too-large", "{path}");
        let first = body.split('"').nth(1).unwrap();
        for (member, field) in [
            (r#""surplus":1"#, "surplus"),
            (r#""__proto__":{}"#, "__proto__"),
            (r#""\u0000":1"#, "\0"),
            (r#""ключ":1"#, "ключ"),
            (&format!("{first:?}:1"), first),
            (&format!("\"deep\":{}1{}", "[".repeat(100_000), "]".repeat(100_000)), "deep"),
        ] {
            let body = body.replacen('{', &format!("{{{member},"), 1);
            let reply = send(JSON, &[], body.into()).await;
            assert_eq!(reply.problem(422), "validation", "{path} {field}");
            assert!(reply.fields().iter().all(|name| name == field), "{path} {field}: {reply}");
        }
    }
    for entity in entity::ALL {
        for field in entity.fields {
            for value in invalid(field) {
                let body = body(entity, field.name, &value);
                let call = Call::post(&path(entity), &body).by(&admin).key(&unique_key());
                let reply = call.send(&instance).await;
                assert_eq!(reply.problem(422), "validation", "{} {}", entity.path, field.name);
                assert_eq!(reply.fields(), [field.name], "{body}");
                let batch = format!("{{\"items\":[{body}]}}");
                if entity.path == entity::SCHEDULE.path {
                    let call = Call::post("/api/schedule/batch", &batch).by(&admin);
                    let reply = call.key(&unique_key()).send(&instance).await;
                    assert_eq!(reply.fields(), [format!("items[0].{}", field.name)], "{batch}");
                }
            }
        }
    }
    assert_eq!(rows(&world).await, before);
    // Every one of the valid bodies would have left something.
    for Making { path, body } in makings() {
        let made = Call::post(&path, &body).by(&admin).send(&instance).await;
        assert_eq!(made.status, 201, "{path}: {made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_refuses_what_is_no_month() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let dated = entity::ALL.into_iter().filter(|entity| entity.is_dated()).map(path);
    for path in dated.chain(["/api/balance".to_owned()]) {
        for month in [
            "",
            "2026",
            "2026-1",
            "2026-00",
            "2026-13",
            "0000-01",
            "10000-01",
            "-001-01",
            "2026-01-01",
            "2026-01Z",
            "2026%2F01",
            "202601",
            "Jan%202026",
            "2026-01%00",
            "%EF%BC%92026-01",
            "%ff",
            "2026-01&month=2026-02",
        ] {
            let reply = Call::get(&format!("{path}?month={month}")).by(&user).send(&instance).await;
            assert_eq!(reply.problem(400), "invalid-query", "{path} {month}");
        }
        for month in ["0001-01", "9999-12", "2024-02"] {
            let reply = Call::get(&format!("{path}?month={month}")).by(&user).send(&instance).await;
            assert_eq!(reply.status, 200, "{path} {month}: {reply}");
        }
    }
}

/// A day is a day on every machine: neither the time zone of the process nor that of the database
/// moves it, also not over the ends of months and where clocks change.
#[tokio::test(flavor = "multi_thread")]
async fn days_do_not_pass_through_a_time_zone() {
    let world = World::new().await;
    let name = &world.config.database.name;
    for zone in ["Pacific/Kiritimati", "Etc/GMT+12"] {
        let statement = format!("ALTER DATABASE {name} SET timezone = '{zone}'");
        sqlx::query(AssertSqlSafe(statement)).execute(&world.pool).await.unwrap();
        let process = Process::start("api", &world.config, &[("TZ", zone)]).await;
        let user = world.user().await;
        for entity in entity::ALL.into_iter().filter(|entity| entity.is_dated()) {
            for day in ["2026-03-29", "2024-02-29", "2025-12-31", "2026-01-01", "0001-01-01"] {
                let body = body(entity, "date", &format!("{day:?}"));
                let made = Call::post(&path(entity), &body)
                    .by(&user)
                    .try_send(&process.url)
                    .await
                    .unwrap();
                assert_eq!(made.json()["date"], day, "{zone}: {made}");
                let month = format!("{}?month={}", path(entity), &day[..7]);
                let list = Call::get(&month).by(&user).try_send(&process.url).await.unwrap().json();
                assert_eq!(list["items"][0]["date"], day, "{zone}: {list}");
                let at: Timestamp = made.json()["updatedAt"].as_str().unwrap().parse().unwrap();
                let age = Timestamp::now().as_second() - at.as_second();
                assert!((-60..=60).contains(&age), "{zone}: {made}");
            }
        }
    }
}

/// Text is kept as it is: not normalised, not trimmed, not replaced.
#[tokio::test(flavor = "multi_thread")]
async fn unicode_comes_back_unchanged() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let user = world.user().await;
    let texts = [
        "e\u{301} é",
        "👩‍👩‍👧‍👦",
        "שלום עולם",
        "\u{202e}abc",
        "a\u{200b}b",
        "\u{2028}\u{2029}",
        "\u{fffe}\u{ffff}",
        "\u{10ffff}",
        " a ",
        "\t\n\r\u{1}\u{7f}",
        "\\\"/<script>",
        "%s %00 $1 ''",
        "ﬀ ǅ İ ß",
    ];
    for entity in entity::ALL {
        for field in entity.fields {
            let Kind::Text { max, .. } = field.kind else { continue };
            for text in texts {
                let text: String = text.chars().take(max).collect();
                let sent = Value::from(text.as_str()).to_string();
                // The same with every character escaped.
                let escaped = text.encode_utf16().fold(String::new(), |mut escaped, unit| {
                    let _ = write!(escaped, "\\u{unit:04X}");
                    escaped
                });
                for sent in [sent, format!("\"{escaped}\"")] {
                    let call = Call::post(&path(entity), &body(entity, field.name, &sent));
                    let made = call.by(&user).send(&instance).await;
                    assert_eq!(made.json()[field.name], text, "{} {sent}: {made}", entity.path);
                    let one = format!("{}/{}", path(entity), made.json()["id"].as_str().unwrap());
                    let read = Call::get(&one).by(&user).send(&instance).await;
                    assert_eq!(read.json()[field.name], text, "{} {sent}", entity.path);
                }
            }
        }
    }
}
