//! The OpenAPI document: it is what was agreed on, and every operation in it lets in whom it says.

use std::{collections::BTreeSet, fs};

use bme_service::{
    app::{App, Timings},
    config::{ApiConfig, McpAccess, McpConfig},
    routes,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Call, Instance, JWT_SECRET, User, World, command};

/// The document as the front end knows it.
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

fn document() -> Value {
    routes::api(true).split().1
}

/// A change of the API is a change of this file: `BME_WRITE_OPENAPI=1` writes it.
#[test]
fn the_document_is_the_snapshot() {
    let document = document();
    if std::env::var_os("BME_WRITE_OPENAPI").is_some() {
        fs::write(SNAPSHOT, format!("{document:#}\n")).unwrap();
    }
    let snapshot: Value = serde_json::from_str(&fs::read_to_string(SNAPSHOT).unwrap()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert_eq!(snapshot["paths"][path], *item, "{path} differs: BME_WRITE_OPENAPI=1 writes it");
    }
    assert_eq!(snapshot, document, "the document differs: BME_WRITE_OPENAPI=1 writes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_prints_the_document() {
    let world = World::new().await;
    let output = command("openapi", &world.config).env_clear().output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, document());
    let instance = Instance::start(&world.config).await;
    assert_eq!(Call::get("/openapi.json").send(&instance).await.json(), document());
}

/// Routes that no client is generated for: probes, the document itself, and the Model Context Protocol,
/// which describes itself.
const OTHERS: [&str; 6] = [
    "/health",
    "/ready",
    "/openapi.json",
    "/mcp",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
];

/// A route that is in neither list is one that nobody looked at: the matrix below is for the
/// operations of the document.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_in_the_document_or_listed_here() {
    let world = World::new().await;
    let mcp = McpConfig {
        access: McpAccess::Scopes {
            resource: "https://bme.example/mcp".into(),
            issuer: "https://issuer.example/pool".into(),
        },
        ..McpConfig::default()
    };
    let app = App::new(ApiConfig { mcp, ..world.config.clone() }, Timings::default()).unwrap();
    // The paths are all that a router shows of itself; two are the fallback's.
    let shown = format!("{:?}", routes::router(app));
    let texts = shown.split('"').skip(1).step_by(2);
    let routed: BTreeSet<&str> =
        texts.filter(|text| text.starts_with('/') && *text != "/" && !text.contains('*')).collect();
    let document = document();
    let documented: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .flat_map(|path| [path.clone(), path.replacen("/api/", "/api/v1/", 1)])
        .chain(OTHERS.map(str::to_owned))
        .collect();
    assert_eq!(routed, documented.iter().map(String::as_str).collect());
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                members.values().for_each(|member| walk(member, document));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
    let names: Vec<_> = operations(&document).into_iter().map(|operation| operation.id).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}

/// The names and the formats of what a part of the document describes, behind its references too.
fn described<'a>(value: &'a Value, document: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref") {
                let pointer = target.strip_prefix('#').unwrap();
                described(document.pointer(pointer).unwrap(), document, found);
            }
            for name in ["name", "format"] {
                found.extend(members.get(name).and_then(Value::as_str));
            }
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().map(String::as_str));
            }
            members.values().for_each(|member| described(member, document, found));
        }
        Value::Array(items) => items.iter().for_each(|item| described(item, document, found)),
        _ => {}
    }
}

/// Nobody can make this service fetch what they choose: no request names an address.
#[test]
fn no_member_of_a_request_is_an_address() {
    let document = document();
    let mut found = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            described(&operation["requestBody"], &document, &mut found);
            described(&operation["parameters"], &document, &mut found);
        }
    }
    // Both are read: bodies behind references, and parameters.
    for known in ["mimeType", "exercises", "returnTo", "cursor", "email", "uuid"] {
        assert!(found.contains(known), "{known} missing in {found:?}");
    }
    for name in found {
        let lower = name.to_lowercase();
        let words = ["url", "uri", "href", "link", "host", "domain", "callback", "webhook"];
        let address = words.iter().find(|part| lower.contains(**part));
        assert_eq!(address, None, "{name}: who may choose what is fetched?");
    }
}

/// Who may call an operation, and whose things it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    /// Everybody.
    Public,
    /// Everybody, where the provider or the mail server that it needs is configured.
    Configured,
    /// The owner of the voice job that the path names.
    Job,
    /// Each user, for what is theirs; the path names nothing of anybody.
    Own,
    /// The owner of what the path names, which is made by a POST to the path before it.
    Owner(Body),
    /// Administrators.
    Admin,
}

/// What is sent to make one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Body(&'static str);

const TRANSACTION: Body =
    Body(r#"{"type":"expense","amount":1,"currency":"EUR","category":"Food","date":"2026-11-23"}"#);
const SCHEDULE_ITEM: Body = Body(
    r#"{"date":"2026-11-23","title":"A","startTime":"09:00","endTime":"10:00","category":"Work"}"#,
);
const WORKOUT: Body =
    Body(r#"{"date":"2026-11-23","title":"A","type":"cardio","durationMinutes":1}"#);
const FOOD_ENTRY: Body = Body(r#"{"date":"2026-11-23","name":"A","calories":1}"#);
const CHECK_IN: Body = Body(r#"{"date":"2026-11-23","sleepHours":1}"#);
const GOAL: Body = Body(r#"{"type":"savings","target":1,"period":"daily"}"#);

/// One row for each operation. An operation without a row fails the test: whoever adds one says here
/// who may call it.
const MATRIX: &[(&str, Access)] = &[
    ("beginSignInWithX", Access::Configured),
    ("createDailyCheckIn", Access::Own),
    ("createFoodEntry", Access::Own),
    ("createGoal", Access::Own),
    ("createScheduleItem", Access::Own),
    ("createScheduleItems", Access::Own),
    ("createTransaction", Access::Own),
    ("createUser", Access::Admin),
    ("createWorkout", Access::Own),
    ("deleteDailyCheckIn", Access::Owner(CHECK_IN)),
    ("deleteFoodEntry", Access::Owner(FOOD_ENTRY)),
    ("deleteGoal", Access::Owner(GOAL)),
    ("deleteScheduleItem", Access::Owner(SCHEDULE_ITEM)),
    ("deleteTransaction", Access::Owner(TRANSACTION)),
    ("deleteUser", Access::Admin),
    ("deleteWorkout", Access::Owner(WORKOUT)),
    ("exchangeCode", Access::Configured),
    ("finishSignInWithX", Access::Configured),
    ("forgotPassword", Access::Configured),
    ("getBalance", Access::Own),
    ("getDailyCheckIn", Access::Owner(CHECK_IN)),
    ("getFoodEntry", Access::Owner(FOOD_ENTRY)),
    ("getGoal", Access::Owner(GOAL)),
    ("getJob", Access::Job),
    ("getMe", Access::Own),
    ("getScheduleItem", Access::Owner(SCHEDULE_ITEM)),
    ("getSettings", Access::Own),
    ("getTransaction", Access::Owner(TRANSACTION)),
    ("getWorkout", Access::Owner(WORKOUT)),
    ("listDailyCheckIn", Access::Own),
    ("listFoodEntry", Access::Own),
    ("listGoal", Access::Own),
    ("listLogs", Access::Admin),
    ("listScheduleItem", Access::Own),
    ("listTransaction", Access::Own),
    ("listUsers", Access::Admin),
    ("listWorkout", Access::Own),
    ("login", Access::Public),
    ("logout", Access::Public),
    ("putSettings", Access::Own),
    ("refresh", Access::Public),
    ("register", Access::Public),
    ("resetPassword", Access::Configured),
    ("searchFoods", Access::Own),
    ("signInWithFacebook", Access::Configured),
    ("signInWithGoogle", Access::Configured),
    ("understandVoice", Access::Own),
    ("updateDailyCheckIn", Access::Owner(CHECK_IN)),
    ("updateFoodEntry", Access::Owner(FOOD_ENTRY)),
    ("updateGoal", Access::Owner(GOAL)),
    ("updateScheduleItem", Access::Owner(SCHEDULE_ITEM)),
    ("updateTransaction", Access::Owner(TRANSACTION)),
    ("updateUser", Access::Admin),
    ("updateWorkout", Access::Owner(WORKOUT)),
];

pub(crate) struct Operation {
    pub(crate) id: String,
    method: Method,
    pub(crate) path: String,
    pub(crate) public: bool,
    has_body: bool,
}

impl Operation {
    /// A request that is right but for who sends it.
    pub(crate) fn call(&self, id: &str) -> Call {
        let call = Call::new(self.method.clone(), &self.path.replace("{id}", id));
        if self.has_body { call.json("{}") } else { call }
    }
}

pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| Operation {
            id: operation["operationId"].as_str().unwrap().to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            path: path.clone(),
            public: operation["security"] == json!([]),
            has_body: operation["requestBody"].is_object(),
        })
    });
    each.collect()
}

/// A token that ended a minute ago.
fn expired(user: &User) -> String {
    let now = jsonwebtoken::get_current_timestamp();
    let claims = json!({
        "iss": "bme", "aud": "bme-api", "sub": user.id, "sid": Uuid::now_v7(), "iat": now - 960, "exp": now - 60,
    });
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lets_in_whom_it_says() {
    let world = World::new().await;
    let instance = Instance::start(&world.config).await;
    let (owner, stranger, admin) = (world.user().await, world.user().await, world.user().await);
    sqlx::query("UPDATE users SET role = 'admin' WHERE id = $1")
        .bind(admin.id)
        .execute(&world.pool)
        .await
        .unwrap();
    let document = document();
    let operations = operations(&document);
    let rows: BTreeSet<_> = MATRIX.iter().map(|(id, _)| *id).collect();
    let known: BTreeSet<_> = operations.iter().map(|operation| &*operation.id).collect();
    assert_eq!(rows, known, "every operation has one row in MATRIX, and every row an operation");

    let nobodys = Uuid::now_v7().to_string();
    for operation in &operations {
        let (_, access) = MATRIX.iter().find(|(id, _)| *id == operation.id).unwrap();
        let context = &operation.id;
        let public = matches!(access, Access::Public | Access::Configured);
        assert_eq!(operation.public, public, "{context}");
        let anonymous = operation.call(&nobodys).send(&instance).await;
        if *access == Access::Configured {
            assert_eq!(anonymous.problem(404), "not-found", "{context}");
            continue;
        }
        if *access == Access::Public {
            assert!(anonymous.status != 404 && anonymous.status != 405, "{context}: {anonymous}");
            assert!(
                anonymous.status == 204 || anonymous.json()["code"] != "unauthorized",
                "{context}"
            );
            continue;
        }
        assert_eq!(anonymous.problem(401), "unauthorized", "{context}");
        for token in [expired(&owner), "nonsense".into(), format!("{}x", owner.token)] {
            let call = operation.call(&nobodys).header("authorization", &format!("Bearer {token}"));
            assert_eq!(call.send(&instance).await.problem(401), "unauthorized", "{context}");
        }
        match access {
            Access::Public | Access::Configured => unreachable!("handled above"),
            Access::Job => {
                let id = world.job_of(&owner).await;
                for other in [&stranger, &admin] {
                    let reply = operation.call(&id).by(other).send(&instance).await;
                    assert_eq!(reply.problem(404), "not-found", "{context}");
                }
                let reply = operation.call(&id).by(&owner).send(&instance).await;
                assert_eq!(reply.status, 200, "{context}: {reply}");
            }
            Access::Own => {
                let reply = operation.call("").by(&stranger).send(&instance).await;
                assert!(![401, 403, 404, 405].contains(&reply.status), "{context}: {reply}");
            }
            Access::Owner(Body(body)) => {
                let all = operation.path.strip_suffix("/{id}").unwrap();
                let made = Call::post(all, body).by(&owner).send(&instance).await;
                assert!([200, 201].contains(&made.status), "{context}: {made}");
                let id = made.json()["id"].as_str().unwrap().to_owned();
                for other in [&stranger, &admin] {
                    let reply = operation.call(&id).by(other).send(&instance).await;
                    assert_eq!(reply.problem(404), "not-found", "{context}");
                    let list = Call::get(all).by(other).send(&instance).await;
                    assert_eq!(list.json()["items"], json!([]), "{context}");
                }
                let reply = operation.call(&id).by(&owner).send(&instance).await;
                assert!([200, 204].contains(&reply.status), "{context}: {reply}");
            }
            Access::Admin => {
                let by_user = operation.call(&nobodys).by(&owner).send(&instance).await;
                assert_eq!(by_user.problem(403), "forbidden", "{context}");
                let by_admin = operation.call(&nobodys).by(&admin).send(&instance).await;
                assert!(![401, 403, 405].contains(&by_admin.status), "{context}: {by_admin}");
            }
        }
    }
}
