//! What the members of entities may hold and must not hold, from their descriptions.

use bme_service::entity::{Field, Kind, Presence};

/// Two different values that a member may hold, as JSON texts.
pub(crate) fn valid(field: &Field) -> [String; 2] {
    let both = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
    match field.kind {
        Kind::Text { max, .. } => [
            format!("{:?}", "Ü😀'; --".chars().take(max).collect::<String>()),
            format!("\"{}\"", "😀".repeat(max)),
        ],
        // The last first: the last category of a transaction fits every type, the first the first.
        Kind::OneOf(values) => {
            [format!("{:?}", values[values.len() - 1]), format!("{:?}", values[0])]
        }
        Kind::Currency => both(r#""EUR""#, r#""JPY""#),
        Kind::Money => both("0.01", "999999999999.99"),
        Kind::Decimal { max, .. } => [format!("{max}"), "1.25".to_owned()],
        Kind::Integer { min, max } => [min.to_string(), max.to_string()],
        Kind::Boolean => both("true", "false"),
        Kind::Date => both(r#""2024-02-29""#, r#""9999-12-31""#),
        Kind::Time => both(r#""00:00""#, r#""23:59""#),
        Kind::Color => both(r##""#a0B1c2""##, r##""#000000""##),
        Kind::Exercises => both(
            r#"[{"name":"Kniebeuge 🏋","sets":5,"reps":5,"weight":102.5,"notes":"tief"}]"#,
            r#"[{"name":"Plank","sets":0,"reps":10000}]"#,
        ),
    }
}

/// No amounts: what the column cannot hold, or holds differently.
const NO_AMOUNTS: &[&str] = &[
    "0",
    "0.00",
    "-1",
    "-0",
    "0.001",
    "1.001",
    "12.500",
    "1e3",
    "1e-2",
    "1000000000000",
    "999999999999.995",
    "18446744073709551616",
    r#""1""#,
    r#""12,50""#,
];

/// No days: not there, written otherwise, or with a time or a zone.
const NO_DAYS: &[&str] = &[
    r#""2025-02-29""#,
    r#""2026-04-31""#,
    r#""2026-13-01""#,
    r#""0000-01-01""#,
    r#""10000-01-01""#,
    r#""2026-1-1""#,
    r#""2026-02-30""#,
    r#""1900-02-29""#,
    r#""2026-00-10""#,
    r#""2026-01-00""#,
    r#""-0001-01-01""#,
    r#""+2026-01-01""#,
    r#"" 2026-01-01""#,
    r#""２０２６-01-01""#,
    r#""2026-01-01Z""#,
    r#""2026-01-01+14:00""#,
    r#""2026-01-01T00:00:00Z""#,
    r#""2026-W01-1""#,
    r#""01/02/2026""#,
    r#""today""#,
    "20260101",
];

/// No times of day.
const NO_TIMES: &[&str] = &[
    r#""24:00""#,
    r#""12:60""#,
    r#""9:00""#,
    r#""09:00:00""#,
    r#""09:00Z""#,
    r#""09:00+01:00""#,
    r#""９:00""#,
    r#""9:00 pm""#,
    "900",
];

/// Values that a member must not hold.
pub(crate) fn invalid(field: &Field) -> Vec<String> {
    let mut bad: Vec<String> = match field.kind {
        Kind::Text { min, max } => {
            let mut bad = vec![
                r#""a\u0000b""#.to_owned(),
                r#""\ud800""#.to_owned(),
                "1".to_owned(),
                format!("\"{}\"", "😀".repeat(max + 1)),
            ];
            if min > 0 {
                bad.push(r#""""#.to_owned());
            }
            bad
        }
        Kind::OneOf(values) => vec![
            r#""""#.into(),
            r#""nothing of it""#.into(),
            format!("{:?}", values[0].to_uppercase()),
            format!("{:?}", format!("{} ", values[0])),
            "0".into(),
        ],
        Kind::Currency => texts(&[r#""eur""#, r#""XXX""#, r#""EURO""#, r#""""#, "978"]),
        Kind::Money => texts(NO_AMOUNTS),
        Kind::Decimal { max, positive } => {
            let mut bad = texts(&["-1", "-0.01", "1.001", "1e1", r#""1""#]);
            bad.push(format!("{max}.01"));
            if positive {
                bad.push("0".into());
            }
            bad
        }
        Kind::Integer { min, max } => {
            let mut bad = texts(&["1.5", "1e2", "4294967296", r#""1""#]);
            bad.extend([(i64::from(min) - 1).to_string(), (i64::from(max) + 1).to_string()]);
            bad
        }
        Kind::Boolean => texts(&[r#""true""#, "1", "0"]),
        Kind::Date => texts(NO_DAYS),
        Kind::Time => texts(NO_TIMES),
        Kind::Color => texts(&[r##""#abc""##, r#""red""#, r##""#gggggg""##, r##""#é23456""##, "0"]),
        Kind::Exercises => {
            let mut bad = texts(&[
                "{}",
                r#"[{"name":"a","sets":1}]"#,
                r#"[{"name":"","sets":1,"reps":1}]"#,
                r#"[{"name":"a\u0000","sets":1,"reps":1}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"notes":"\u0000"}]"#,
                r#"[{"name":"a","sets":-1,"reps":1}]"#,
                r#"[{"name":"a","sets":10001,"reps":1}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"weight":-0.5}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"weight":1e999}]"#,
                r#"[{"name":"a","sets":1,"reps":1,"tempo":1}]"#,
                r#"[{"name":"a","name":"b","sets":1,"reps":1}]"#,
                "[1]",
            ]);
            let one = r#"{"name":"a","sets":1,"reps":1}"#;
            bad.push(format!("[{}]", vec![one; 101].join(",")));
            bad
        }
    };
    bad.extend(texts(&["1e999999999", "[]", "{}", "[null]"]));
    bad.push("9".repeat(400));
    if matches!(field.kind, Kind::Exercises) {
        bad.retain(|value| value != "[]");
    }
    if !matches!(field.presence, Presence::Nullable) {
        bad.push("null".into());
    }
    bad
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}
