//! `/mcp` for tokens that carry scopes.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use axum::{http::request::Parts, middleware::from_fn_with_state};
use bme_service::{
    app::{App, Timings},
    auth::bearer_token,
    config::{ApiConfig, McpAccess},
    edge::{Edge, surround},
    mcp::{self, Caller, ScopedTokens, Scopes},
    problem::Problem,
    server,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Call, World},
    mcp::{SECRET, config, last, text, tool, with_token},
};

/// Tokens by their text.
struct Tokens(HashMap<&'static str, Caller>);

#[async_trait]
impl ScopedTokens for Tokens {
    async fn check(&self, head: &mut Parts) -> Result<Option<Caller>, Problem> {
        Ok(bearer_token(&head.headers).and_then(|token| self.0.get(token)).copied())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_what_their_scopes_say() {
    let world = World::new().await;
    let user = world.user().await;
    let mut config = config(&world, &user, &["add_goal"]);
    config.mcp.access = McpAccess::Scopes {
        resource: "https://bme.example/mcp".into(),
        issuer: "https://issuer.example/pool".into(),
    };
    let tokens = [("none", (false, false)), ("reads", (true, false)), ("writes", (false, true))]
        .map(|(token, (read, write))| {
            (token, Caller { user: user.id, scopes: Scopes { read, write } })
        });
    let url = serve(&config, Tokens(HashMap::from(tokens))).await;

    let metadata = "/.well-known/oauth-protected-resource";
    for path in [metadata.to_owned(), format!("{metadata}/mcp")] {
        let reply = Call::get(&path).try_send(&url).await.unwrap();
        assert_eq!(
            reply.json(),
            json!({
                "resource": "https://bme.example/mcp",
                "authorization_servers": ["https://issuer.example/pool"],
                "scopes_supported": ["mcp/read", "mcp/write"],
                "bearer_methods_supported": ["header"],
            })
        );
    }
    let document = format!("resource_metadata=\"https://bme.example{metadata}/mcp\"");
    let goal = r#"{"type":"savings","target":100,"period":"yearly"}"#;
    let (list, add) = (|| tool("list_goals", "{}"), || tool("add_goal", goal));
    for (call, status, code, challenge) in [
        (list(), 401, "unauthorized", format!("Bearer {document}, scope=\"mcp/read\"")),
        // The secret of the other mode, and a token of the other mode.
        (
            with_token(list(), SECRET),
            401,
            "unauthorized",
            format!("Bearer {document}, scope=\"mcp/read\""),
        ),
        (list().by(&user), 401, "unauthorized", format!("Bearer {document}, scope=\"mcp/read\"")),
        (
            with_token(list(), "none"),
            403,
            "insufficient-scope",
            format!("Bearer error=\"insufficient_scope\", {document}, scope=\"mcp/read\""),
        ),
        (
            with_token(add(), "reads"),
            403,
            "insufficient-scope",
            format!("Bearer error=\"insufficient_scope\", {document}, scope=\"mcp/write\""),
        ),
    ] {
        let reply = call.try_send(&url).await.unwrap();
        assert_eq!(reply.problem(status), code);
        assert_eq!(reply.header("www-authenticate"), Some(challenge.as_str()));
        let row = last(&world).await;
        // Who is known by the token is named, whatever it was granted for.
        assert_eq!((row.0, row.4.as_str()), ((status == 403).then_some(user.id), "refused"));
    }
    assert_eq!(last(&world).await.2.as_deref(), Some("add_goal"));
    for call in
        [with_token(list(), "reads"), with_token(add(), "writes"), with_token(list(), "writes")]
    {
        assert!(!text(&call.try_send(&url).await.unwrap()).1);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM goals").fetch_one(&world.pool).await.unwrap();
    assert_eq!(count, 1);
}

/// The endpoint alone, with its own tokens.
async fn serve(config: &ApiConfig, tokens: Tokens) -> String {
    let app = App::new(config.clone(), Timings::default()).unwrap();
    let edge = Edge {
        lifecycle: app.lifecycle.clone(),
        request_timeout: app.timings.request,
        hsts: false,
    };
    let router = mcp::routes(&app, Arc::new(tokens))
        .with_state(app.clone())
        .layer(from_fn_with_state(edge, surround));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(listener, router, app.lifecycle.clone(), stop));
    url
}
