//! RDS: the sandbox's PostgreSQL behind every instance and proxy, and the managed master user
//! password, which the emulator lacks.

use std::fmt::Write as _;

use hyper::Request;
use serde_json::{Value, json};

use super::answer::Answer;
use super::hosts;
use super::identify::{Call, Form, Scope};
use super::state::Database;
use super::upstream::Payload;
use super::{Gateway, control};
use crate::sandbox::error::Error;
use crate::sandbox::postgres;

/// Passes the call on, follows its effects on PostgreSQL, and completes the answer.
pub(super) async fn answer(
    gateway: &Gateway,
    call: &Call,
    request: &Request<Payload>,
    mut form: Form,
) -> Answer {
    let scope = &call.scope;
    // RDS makes and keeps the password; the emulator wants one that is given.
    let managed = form.is_true("ManageMasterUserPassword");
    if managed {
        form.remove("ManageMasterUserPassword");
        form.set("MasterUserPassword", &random_password());
    }
    let answer = gateway.emulator(request, form.encode()).await;
    if !answer.is_success() {
        return answer;
    }
    let done = match call.operation.as_str() {
        "CreateDBInstance" => created(gateway, scope, &form, managed).await,
        "ModifyDBInstance" => modified(gateway, scope, &form, managed).await,
        "DeleteDBInstance" => deleted(gateway, scope, &form).await,
        "CreateDBProxy" => {
            let name = form.get("DBProxyName").unwrap_or_default().to_owned();
            gateway.additions.change(scope, |state| state.proxies.insert(name));
            hosts::update(gateway)
        }
        "DeleteDBProxy" => {
            let name = form.get("DBProxyName").unwrap_or_default();
            gateway.additions.change(scope, |state| state.proxies.remove(name));
            hosts::update(gateway)
        }
        _ => Ok(()),
    };
    if let Err(error) = done {
        if call.operation == "CreateDBInstance" {
            // Without its database the instance must not seem to be there.
            let id = form.get("DBInstanceIdentifier").unwrap_or_default();
            let undo = [
                ("Action", "DeleteDBInstance"),
                ("Version", "2014-10-31"),
                ("DBInstanceIdentifier", id),
                ("SkipFinalSnapshot", "true"),
            ];
            gateway.upstream.query(scope, "rds", &undo).await;
        }
        return control::failed(call, &error);
    }
    let text = completed(gateway, scope, &answer.text());
    answer.with_text(text)
}

async fn created(
    gateway: &Gateway,
    scope: &Scope,
    form: &Form,
    managed: bool,
) -> Result<(), Error> {
    let id = form.get("DBInstanceIdentifier").unwrap_or_default();
    let user = form.get("MasterUsername").unwrap_or("postgres");
    let password = form.get("MasterUserPassword").unwrap_or_default();
    postgres::create_database(&gateway.paths, user, password, form.get("DBName")).await?;
    let secret_arn =
        if managed { Some(put_secret(gateway, scope, id, user, password).await?) } else { None };
    let database = Database {
        master_user: user.to_owned(),
        initial: form.get("DBName").map(str::to_owned),
        secret_arn,
        log_exports: form
            .list("EnableCloudwatchLogsExports")
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    gateway.additions.change(scope, |state| state.databases.insert(id.to_owned(), database));
    hosts::update(gateway)
}

async fn modified(
    gateway: &Gateway,
    scope: &Scope,
    form: &Form,
    managed: bool,
) -> Result<(), Error> {
    let id = form.get("DBInstanceIdentifier").unwrap_or_default();
    let Some(mut database) =
        gateway.additions.read(scope, |state| state.databases.get(id).cloned())
    else {
        return Ok(());
    };
    if let Some(password) = form.get("MasterUserPassword")
        && !(managed && database.secret_arn.is_some())
    {
        postgres::set_password(&gateway.paths, &database.master_user, password).await?;
        if managed {
            database.secret_arn =
                Some(put_secret(gateway, scope, id, &database.master_user, password).await?);
        }
    }
    for kind in form.list("CloudwatchLogsExportConfiguration.EnableLogTypes") {
        database.log_exports.insert(kind.to_owned());
    }
    for kind in form.list("CloudwatchLogsExportConfiguration.DisableLogTypes") {
        database.log_exports.remove(kind);
    }
    gateway.additions.change(scope, |state| state.databases.insert(id.to_owned(), database));
    Ok(())
}

async fn deleted(gateway: &Gateway, scope: &Scope, form: &Form) -> Result<(), Error> {
    let id = form.get("DBInstanceIdentifier").unwrap_or_default();
    let database = gateway.additions.change(scope, |state| state.databases.remove(id));
    if let Some(arn) = database.as_ref().and_then(|d| d.secret_arn.as_ref()) {
        // As RDS does: the managed secret goes with its instance, at once.
        let body = json!({ "SecretId": arn, "ForceDeleteWithoutRecovery": true });
        gateway.upstream.json(scope, "secretsmanager", "secretsmanager.DeleteSecret", &body).await;
    }
    let left = gateway.additions.all().iter().any(|(_, regional)| !regional.databases.is_empty());
    if left {
        if let Some(name) = database.and_then(|d| d.initial) {
            postgres::drop_database(&gateway.paths, &name).await?;
        }
    } else {
        // With the last instance go the roles that were made inside it.
        postgres::wipe(&gateway.paths).await?;
    }
    hosts::update(gateway)
}

/// Makes or renews the secret of the managed password; returns its ARN.
async fn put_secret(
    gateway: &Gateway,
    scope: &Scope,
    id: &str,
    user: &str,
    password: &str,
) -> Result<String, Error> {
    let name = format!("rds!db-{id}");
    let content = json!({ "username": user, "password": password }).to_string();
    let owner = format!("arn:aws:rds:{}:{}:db:{id}", scope.region, scope.account);
    let tags = json!([{ "Key": "aws:rds:primaryDBInstanceArn", "Value": owner }, { "Key": "aws:secretsmanager:owningService", "Value": "rds" }]);
    let create = json!({ "Name": name, "SecretString": content, "Tags": tags, "Description": format!("The secret associated with the primary RDS DB instance: {owner}") });
    let mut answer = gateway
        .upstream
        .json(scope, "secretsmanager", "secretsmanager.CreateSecret", &create)
        .await;
    if !answer.is_success() {
        // Left over from an instance whose deletion was cut short.
        let put = json!({ "SecretId": name, "SecretString": content });
        answer = gateway
            .upstream
            .json(scope, "secretsmanager", "secretsmanager.PutSecretValue", &put)
            .await;
    }
    let output: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    output["ARN"].as_str().map(str::to_owned).ok_or_else(|| Error::Request {
        request: format!("CreateSecret {name}"),
        reason: format!("{} {}", answer.status, answer.text()),
    })
}

/// Our host names, the managed secret and the log exports, wherever an instance or proxy shows.
fn completed(gateway: &Gateway, scope: &Scope, text: &str) -> String {
    let region = &scope.region;
    let databases = gateway.additions.read(scope, |state| state.databases.clone());
    let text = in_blocks(text, "DBInstance", |block| {
        let Some(id) = element(block, "DBInstanceIdentifier") else {
            return block.to_owned();
        };
        let name = hosts::instance(id, region);
        let mut block = in_blocks(block, "Endpoint", |endpoint| {
            in_blocks(endpoint, "Address", |_| name.clone())
        });
        let Some(database) = databases.get(id) else {
            return block;
        };
        if let Some(arn) = &database.secret_arn {
            let key = format!("arn:aws:kms:{region}:{}:alias/aws/secretsmanager", scope.account);
            // Writing to a String cannot fail.
            let _ = write!(
                block,
                "<MasterUserSecret><SecretArn>{arn}</SecretArn><SecretStatus>active</SecretStatus><KmsKeyId>{key}</KmsKeyId></MasterUserSecret>"
            );
        }
        if !database.log_exports.is_empty() && !block.contains("<EnabledCloudwatchLogsExports>") {
            let kinds: Vec<&str> = database.log_exports.iter().map(String::as_str).collect();
            let members = kinds.join("</member><member>");
            block = block.replace("<EnabledCloudwatchLogsExports/>", "");
            // Writing to a String cannot fail.
            let _ = write!(
                block,
                "<EnabledCloudwatchLogsExports><member>{members}</member></EnabledCloudwatchLogsExports>"
            );
        }
        block
    });
    let text = in_blocks(&text, "member", |member| match element(member, "RdsResourceId") {
        Some(id) => in_blocks(member, "Endpoint", |_| hosts::instance(id, region)),
        None => member.to_owned(),
    });
    // A proxy's host is in a plain <Endpoint> element.
    in_blocks(&text, "Endpoint", |endpoint| {
        match endpoint.split_once(".proxy-").filter(|(name, _)| !name.contains('<')) {
            Some((name, _)) => hosts::proxy(name, region),
            None => endpoint.to_owned(),
        }
    })
}

/// Replaces the content of every element `name` (without attributes) by what `change` makes of it.
pub(super) fn in_blocks(text: &str, name: &str, change: impl Fn(&str) -> String) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(&open) {
        let Some((inner, behind)) = after.split_once(&close) else {
            break;
        };
        result.push_str(before);
        result.push_str(&open);
        result.push_str(&change(inner));
        result.push_str(&close);
        rest = behind;
    }
    result.push_str(rest);
    result
}

/// Text of the first element `name`.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let after = text.split_once(&format!("<{name}>"))?.1;
    Some(after.split_once(&format!("</{name}>"))?.0)
}

/// 122 random bits in letters and digits only, as it also goes into connection strings.
fn random_password() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_content_of_the_named_element_changes() {
        let text = "<a><b>1</b><c><b>2</b></c></a>";
        assert_eq!(
            in_blocks(text, "b", |inner| format!("[{inner}]")),
            "<a><b>[1]</b><c><b>[2]</b></c></a>"
        );
        assert_eq!(in_blocks("<a><b>1</a>", "b", |_| String::new()), "<a><b>1</a>");
        assert_eq!(element(text, "c"), Some("<b>2</b>"));
        assert_eq!(element(text, "d"), None);
    }

    #[test]
    fn passwords_differ_and_are_long() {
        assert_ne!(random_password(), random_password());
        assert_eq!(random_password().len(), 32);
    }
}
