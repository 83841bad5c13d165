//! The protocol's side: which tools and resources there are, and their answers.

use std::sync::Arc;

use axum::http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        InitializeResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
        ResourceContents, ServerCapabilities, ToolAnnotations,
    },
    service::RequestContext,
};
use serde_json::Value;

use super::{
    auth::Caller,
    record::{Outcome, Record},
    resources::RESOURCES,
    tools::{TOOLS, Tool},
};
use crate::{app::App, problem::Problem};

/// What the endpoint knows of a request before the protocol sees it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) record: Arc<Record>,
    /// The arguments of a tool as they were sent.
    pub(super) arguments: Arc<str>,
}

/// Answers one request.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) app: App,
}

impl ServerHandler for Server {
    fn get_info(&self) -> InitializeResult {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        InitializeResult::new(capabilities)
            .with_server_info(Implementation::new("bme", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "The schedule, transactions and goals of one user. Days are YYYY-MM-DD, amounts are \
                 decimals in the currency that is named with them.",
            )
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let allowed = &self.app.mcp.allowed_tools;
        let tools = TOOLS.iter().filter(|tool| tool.is_on(allowed)).map(described);
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asked = asked(&context)?;
        let Some(tool) = Tool::find(&request.name, &self.app.mcp.allowed_tools) else {
            asked.record.note(Outcome::Refused);
            return Err(ErrorData::invalid_params("There is no such tool, or it is off.", None));
        };
        let answer = tool.run(&self.app, asked.caller, &asked.record, &asked.arguments).await;
        let result = match answer {
            Ok(json) => CallToolResult::success(vec![ContentBlock::text(json)]),
            Err(problem) => {
                asked.record.note(Outcome::of_status(problem.status().as_u16()));
                CallToolResult::error(vec![ContentBlock::text(told(&problem))])
            }
        };
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = RESOURCES.iter().map(|resource| {
            Resource::new(resource.uri, resource.name)
                .with_description(resource.description)
                .with_mime_type("application/json")
        });
        Ok(ListResourcesResult::with_all_items(resources.collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let asked = asked(&context)?;
        let Some(resource) = RESOURCES.iter().find(|resource| resource.uri == request.uri) else {
            asked.record.note(Outcome::Invalid);
            return Err(ErrorData::resource_not_found("There is no such resource.", None));
        };
        match resource.read(&self.app, asked.caller).await {
            Ok(json) => {
                let contents = ResourceContents::text(json, resource.uri);
                let contents = contents.with_mime_type("application/json");
                Ok(ReadResourceResult::new(vec![contents]).into())
            }
            Err(problem) => {
                asked.record.note(Outcome::of_status(problem.status().as_u16()));
                Err(ErrorData::internal_error(problem.detail().to_owned(), None))
            }
        }
    }
}

fn described(tool: &Tool) -> rmcp::model::Tool {
    let Value::Object(input) = tool.input() else {
        unreachable!("the schema of arguments is an object");
    };
    let hints = ToolAnnotations::new().read_only(!tool.writes()).destructive(false);
    rmcp::model::Tool::new(tool.name, tool.description, input)
        .with_annotations(hints.idempotent(!tool.writes()).open_world(false))
}

/// What the endpoint put into the HTTP request.
fn asked(context: &RequestContext<RoleServer>) -> Result<&Asked, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    parts
        .and_then(|parts| parts.extensions.get::<Asked>())
        .ok_or_else(|| ErrorData::internal_error("The request has no caller.", None))
}

/// A problem for the model that called: what is wrong, and with which arguments.
fn told(problem: &Problem) -> String {
    problem.errors().iter().fold(problem.detail().to_owned(), |text, error| {
        format!("{text}\n{}: {}", error.field, error.message)
    })
}
