//! The OpenAPI 3.1 document and the router, from one list: an operation that is routed is in the
//! document, with the statuses that its parts can answer.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};
use serde_json::{Map, Value, json};

use crate::app::App;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Who has a valid access token.
    User,
    /// A user whose role in the database is admin.
    Admin,
}

/// One method of one path, described.
#[derive(Debug)]
pub struct Operation {
    method: Method,
    id: String,
    summary: String,
    access: Access,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    problems: BTreeSet<u16>,
    located: bool,
    links: Vec<(String, Value)>,
}

/// An operation with its handler.
pub struct Endpoint {
    operation: Operation,
    router: MethodRouter<App>,
}

/// Routes below `/api`, described.
#[derive(Default)]
pub struct Api {
    router: Router<App>,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

/// A reference to a schema that [`Api::schema`] has.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An optional parameter of the query.
pub fn query(name: &str, description: &str, schema: Value) -> Value {
    let mut parameter = json!({ "name": name, "in": "query", "description": description });
    parameter["schema"] = schema;
    parameter
}

impl Operation {
    /// An operation for signed-in users that answers nothing yet.
    pub fn new(method: Method, id: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            method,
            id: id.into(),
            summary: summary.into(),
            access: Access::User,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            problems: BTreeSet::new(),
            located: false,
            links: Vec::new(),
        }
    }

    /// For whom.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// With a parameter, see [`query`].
    #[must_use]
    pub fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn body(mut self, schema: Value) -> Self {
        self.body = Some(schema);
        self
    }

    /// At most once per idempotency key.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        for name in ["X-Idempotency-Key", "Idempotency-Key"] {
            self.parameters.push(json!({
                "name": name,
                "in": "header",
                "description": "One key per intention: repeating the request repeats the answer, not the effect.",
                "schema": { "type": "string", "pattern": "^[A-Za-z0-9_.:-]{16,255}$" },
            }));
        }
        self.problems.extend([409, 422]);
        self
    }

    /// Answers a JSON document.
    #[must_use]
    pub fn answers(mut self, status: u16, schema: Value) -> Self {
        let mut answer = json!({ "description": "Success.", "content": {} });
        answer["content"]["application/json"]["schema"] = schema;
        self.answers.insert(status, answer);
        self
    }

    /// Answers without a body, for instance 204 or a redirection.
    #[must_use]
    pub fn answers_empty(mut self, status: u16, description: &str) -> Self {
        self.answers.insert(status, json!({ "description": description }));
        self
    }

    /// The answers name the address of what was made in `Location`.
    #[must_use]
    pub fn located(mut self) -> Self {
        self.located = true;
        self
    }

    /// What was made is the `{id}` of another operation. `pointer` leads to the id in the answer.
    #[must_use]
    pub fn link(mut self, operation: impl Into<String>, pointer: &str) -> Self {
        let operation = operation.into();
        let link = json!({
            "operationId": operation, "parameters": { "id": format!("$response.body#{pointer}") },
        });
        self.links.push((operation, link));
        self
    }

    /// Can end in these problems besides those that its parts bring along.
    #[must_use]
    pub fn problems<const N: usize>(mut self, statuses: [u16; N]) -> Self {
        self.problems.extend(statuses);
        self
    }

    /// With its handler.
    pub fn on<H, T>(self, handler: H) -> Endpoint
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(self.method.clone())
            .expect("the methods of this service are standard ones");
        Endpoint { operation: self, router: on(filter, handler) }
    }

    fn document(&self, path: &str) -> Value {
        let mut problems = self.problems.clone();
        problems.extend([400, 429, 503]);
        match self.access {
            Access::Public => {}
            // 403 for a user: the token was granted for something else.
            Access::User | Access::Admin => problems.extend([401, 403]),
        }
        let mut parameters = self.parameters.clone();
        if let Some((_, rest)) = path.split_once('{') {
            problems.insert(404);
            let name = rest.split('}').next().unwrap_or_default();
            parameters.push(json!({
                "name": name, "in": "path", "required": true,
                "schema": { "type": "string", "format": "uuid" },
            }));
        }
        let mut document = json!({ "operationId": self.id, "summary": self.summary });
        if let Some(schema) = &self.body {
            problems.extend([408, 413, 415, 422]);
            document["requestBody"] = json!({
                "required": true, "content": { "application/json": { "schema": schema } },
            });
        }
        if !parameters.is_empty() {
            document["parameters"] = parameters.into();
        }
        if self.access == Access::Public {
            document["security"] = json!([]);
        }
        let mut responses: Map<String, Value> = self
            .answers
            .iter()
            .map(|(status, answer)| (status.to_string(), self.answer(answer.clone())))
            .collect();
        for status in problems.iter().filter(|status| !self.answers.contains_key(status)) {
            let name = match status {
                401 => "Unauthorized",
                429 | 503 => "RetryLater",
                _ => "Problem",
            };
            let answer = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert(status.to_string(), answer);
        }
        document["responses"] = responses.into();
        document
    }

    fn answer(&self, mut answer: Value) -> Value {
        answer["headers"] = json!({ "X-Request-Id": { "$ref": "#/components/headers/RequestId" } });
        if self.located {
            answer["headers"]["Location"] = json!({
                "required": true, "schema": { "type": "string", "format": "uri-reference" },
            });
        }
        if !self.links.is_empty() {
            answer["links"] = self.links.iter().cloned().collect::<Map<_, _>>().into();
        }
        answer
    }
}

impl Api {
    /// A path below `/api` with its operations.
    #[must_use]
    pub fn route<const N: usize>(mut self, path: &str, endpoints: [Endpoint; N]) -> Self {
        let mut methods = MethodRouter::new();
        let item = self.paths.entry(format!("/api{path}")).or_insert_with(|| json!({}));
        for endpoint in endpoints {
            let method = endpoint.operation.method.as_str().to_ascii_lowercase();
            item[method] = endpoint.operation.document(path);
            methods = methods.merge(endpoint.router);
        }
        self.router = self.router.route(path, methods);
        self
    }

    /// A schema with a name.
    ///
    /// # Panics
    /// When two different schemas get one name: a client would be generated for one of them only.
    #[must_use]
    pub fn schema(mut self, name: &str, schema: Value) -> Self {
        let present = self.schemas.get(name);
        assert!(present.is_none_or(|it| *it == schema), "two schemas are called {name}");
        self.schemas.insert(name.to_owned(), schema);
        self
    }

    /// Both lists together.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (name, schema) in other.schemas {
            self = self.schema(&name, schema);
        }
        self.paths.extend(other.paths);
        self.router = self.router.merge(other.router);
        self
    }

    /// The router below `/api`, and the document.
    pub fn split(self) -> (Router<App>, Value) {
        let mut schemas = self.schemas;
        schemas.insert("Problem".into(), problem_schema());
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "BMe",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The same API is served at /api and at /api/v1.",
            },
            "servers": [{ "url": "/" }],
            "security": [{ "bearer": [] }],
            "paths": self.paths,
            "components": {
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                },
                "headers": { "RequestId": {
                    "description": "Names this request in the logs.",
                    "required": true,
                    "schema": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" },
                } },
                "responses": {
                    "Problem": problem_response(None),
                    "Unauthorized": problem_response(Some(("WWW-Authenticate", json!({
                        "required": true, "schema": { "type": "string" },
                    })))),
                    "RetryLater": problem_response(Some(("Retry-After", json!({
                        "description": "Seconds.",
                        "required": true,
                        "schema": { "type": "integer", "minimum": 0 },
                    })))),
                },
                "schemas": schemas,
            },
        });
        (self.router, document)
    }
}

fn problem_response(header: Option<(&str, Value)>) -> Value {
    let mut response = json!({
        "description": "RFC 9457 problem details.",
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    if let Some((name, header)) = header {
        response["headers"][name] = header;
    }
    response
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "code", "requestId", "error"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "instance": { "type": "string", "format": "uri" },
            "code": { "type": "string", "description": "Stable: clients branch on it." },
            "requestId": { "type": "string" },
            "error": { "type": "string", "description": "The same text as `detail`, for older clients." },
            "errors": { "type": "array", "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": { "field": { "type": "string" }, "message": { "type": "string" } },
            } },
        },
    })
}
