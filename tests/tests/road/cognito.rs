//! Cognito signs users in: the service takes the emulator's tokens, and has no accounts of its own.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ask, eventually};
use reqwest::{Client, Url};
use serde_json::{Value, json};

/// A verifier and its challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const EMAIL: &str = "pool@example.com";
const PASSWORD: &str = "Correct-horse-battery-1";

pub(crate) async fn signs_users_in(project: &Project) -> Result<()> {
    let settings =
        "[identity]\nauth = \"cognito\"\n[compute.mcp]\nallowed_tools = [\"add_goal\"]\n";
    project.configure(settings)?;
    project.allow(&project.printed_policy()?).await?;
    project.run(&["--yes", "provision"])?;
    let client = Client::new();
    let post = async |path: &str, token: &str, body: &Value| {
        let post = client.post(format!("{}{path}", project.url)).json(body).bearer_auth(token);
        post.header("accept", "application/json, text/event-stream").send().await
    };
    let account = json!({"email": "own@example.com", "password": "correct horse battery"});
    eventually("the own accounts are gone", 120, async || {
        for _ in 0..10 {
            if post("/api/auth/login", "", &account).await?.status() != 404 {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;

    let tokens = tokens(project, "openid email mcp/read").await?;
    let token = |name: &str| tokens[name].as_str().context("no token");
    let access = token("access_token")?;
    let me =
        |token: &str| client.get(format!("{}/api/auth/me", project.url)).bearer_auth(token).send();
    let user: Value = me(access).await?.error_for_status()?.json().await?;
    ensure!(user["user"]["email"] == EMAIL, "{user}");
    ensure!(me(token("id_token")?).await?.status() == 401, "an ID token is for the client only");

    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", project.url);
    let metadata: Value = client.get(metadata).send().await?.error_for_status()?.json().await?;
    let issuer = metadata["authorization_servers"][0].as_str().unwrap_or_default();
    ensure!(issuer.starts_with("https://cognito-idp.us-east-1.amazonaws.com/"), "{metadata}");
    let tool = |name: &str, arguments: Value| {
        let params = json!({"name": name, "arguments": arguments});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    };
    let read = post("/mcp", access, &tool("list_goals", json!({}))).await?;
    let read: Value = read.error_for_status()?.json().await?;
    ensure!(read["result"]["isError"] == false, "{read}");
    let goal = json!({"type": "savings", "target": 1, "period": "daily"});
    let write = post("/mcp", access, &tool("add_goal", goal)).await?;
    ensure!(write.status() == 403, "{}", write.text().await?);
    Ok(())
}

/// The tokens of a user of the pool, by the code grant with PKCE, as the web application gets them.
async fn tokens(project: &Project, scope: &str) -> Result<Value> {
    let cognito = async |operation: &str, body: Value| {
        let target = format!("AWSCognitoIdentityProviderService.{operation}");
        ask(project, "cognito-idp", &target, &body).await
    };
    let id = |list: &Value, name: &str, key: &str| -> Result<String> {
        let list = list.as_array().context("no list")?;
        let found = list.iter().find(|one| one.to_string().contains(name));
        Ok(found.and_then(|one| one[key].as_str()).context("not found")?.to_owned())
    };
    let pools = cognito("ListUserPools", json!({"MaxResults": 60})).await?;
    let pool = id(&pools["UserPools"], "\"bme-local-user-pool\"", "Id")?;
    let clients = cognito("ListUserPoolClients", json!({"UserPoolId": pool})).await?;
    let client = id(&clients["UserPoolClients"], "\"bme-local-user-pool-client\"", "ClientId")?;
    let described =
        cognito("DescribeUserPoolClient", json!({"UserPoolId": pool, "ClientId": client})).await?;
    let callback = described["UserPoolClient"]["CallbackURLs"][0].as_str().context("no URL")?;
    let attributes =
        json!([{"Name": "email", "Value": EMAIL}, {"Name": "email_verified", "Value": "true"}]);
    let user = json!({
        "UserPoolId": pool, "Username": EMAIL, "UserAttributes": attributes, "MessageAction": "SUPPRESS",
    });
    cognito("AdminCreateUser", user).await?;
    let password =
        json!({"UserPoolId": pool, "Username": EMAIL, "Password": PASSWORD, "Permanent": true});
    cognito("AdminSetUserPassword", password).await?;

    let sign_in = [
        ("client_id", client.as_str()),
        ("redirect_uri", callback),
        ("scope", scope),
        ("response_type", "code"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("username", EMAIL),
        ("password", PASSWORD),
    ];
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let form = async |path: &str, fields: &[(&str, &str)]| -> Result<reqwest::Response> {
        let body = Url::parse_with_params("http://form/", fields)?;
        let post = http.post(format!("{}{path}", project.endpoint));
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        Ok(post.body(body.query().unwrap_or_default().to_owned()).send().await?)
    };
    let signed_in = form("/login", &sign_in).await?;
    let location = signed_in.headers().get("location").and_then(|value| value.to_str().ok());
    let location = Url::parse(location.context("no way back")?)?;
    let code = location.query_pairs().find(|(name, _)| name == "code").context("no code")?.1;
    let exchange = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("redirect_uri", callback),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    Ok(form("/oauth2/token", &exchange).await?.error_for_status()?.json().await?)
}
