//! RDS: the sandbox's PostgreSQL behind every instance, cluster and proxy, and the managed master user
//! password, which the emulator lacks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hyper::Request;
use serde_json::{Value, json};

use super::answer::Answer;
use super::hosts;
use super::identify::{Call, Form, Scope};
use super::state::{Database, Regional};
use super::upstream::Payload;
use super::{Gateway, control};
use crate::sandbox::error::Error;
use crate::sandbox::postgres;

/// What a master user and its database belong to.
#[derive(Clone, Copy)]
enum Server {
    Instance,
    Cluster,
}

impl Server {
    /// The parameter and the element with its identifier.
    fn identifier(self) -> &'static str {
        match self {
            Self::Instance => "DBInstanceIdentifier",
            Self::Cluster => "DBClusterIdentifier",
        }
    }

    /// The parameter with the name of the first database.
    fn database(self) -> &'static str {
        match self {
            Self::Instance => "DBName",
            Self::Cluster => "DatabaseName",
        }
    }

    /// How the name of its secret begins, the secret's tag with its ARN, what the ARN names before its
    /// identifier, and what the secret's description calls it.
    fn secret(self) -> [&'static str; 4] {
        match self {
            Self::Instance => ["rds!db-", "aws:rds:primaryDBInstanceArn", "db", "DB instance"],
            Self::Cluster => {
                ["rds!cluster-", "aws:rds:primaryDBClusterArn", "cluster", "DB cluster"]
            }
        }
    }

    fn all(self, regional: &Regional) -> &BTreeMap<String, Database> {
        match self {
            Self::Instance => &regional.databases,
            Self::Cluster => &regional.clusters,
        }
    }

    fn all_mut(self, regional: &mut Regional) -> &mut BTreeMap<String, Database> {
        match self {
            Self::Instance => &mut regional.databases,
            Self::Cluster => &mut regional.clusters,
        }
    }

    /// The deletion of what was made without its database.
    fn undo(self, id: &str) -> [(&'static str, &str); 4] {
        let action = match self {
            Self::Instance => "DeleteDBInstance",
            Self::Cluster => "DeleteDBCluster",
        };
        [
            ("Action", action),
            ("Version", "2014-10-31"),
            (self.identifier(), id),
            ("SkipFinalSnapshot", "true"),
        ]
    }
}

/// Passes the call on, follows its effects on PostgreSQL, and completes the answer.
pub(super) async fn answer(
    gateway: &Gateway,
    call: &Call,
    request: &Request<Payload>,
    mut form: Form,
) -> Answer {
    let scope = &call.scope;
    // RDS makes and keeps the password; where the emulator does, PostgreSQL does not know it.
    let managed = form.is_true("ManageMasterUserPassword");
    if managed {
        form.remove("ManageMasterUserPassword");
        form.set("MasterUserPassword", &random_password());
    }
    let answer = gateway.emulator(request, form.encode()).await;
    if !answer.is_success() {
        return answer;
    }
    let in_cluster = form.get("DBClusterIdentifier").is_some_and(|id| !id.is_empty());
    let made = match call.operation.as_str() {
        "CreateDBInstance" if !in_cluster => Some(Server::Instance),
        "CreateDBCluster" => Some(Server::Cluster),
        _ => None,
    };
    let done = match (made, call.operation.as_str()) {
        (Some(server), _) => created(gateway, scope, server, &form, managed).await,
        (None, "CreateDBInstance") => {
            let id = form.get("DBInstanceIdentifier").unwrap_or_default().to_owned();
            gateway.additions.change(scope, |state| state.cluster_instances.insert(id));
            hosts::update(gateway)
        }
        (None, "ModifyDBInstance") => {
            modified(gateway, scope, Server::Instance, &form, managed).await
        }
        (None, "ModifyDBCluster") => {
            modified(gateway, scope, Server::Cluster, &form, managed).await
        }
        (None, "DeleteDBInstance") => deleted(gateway, scope, Server::Instance, &form).await,
        (None, "DeleteDBCluster") => deleted(gateway, scope, Server::Cluster, &form).await,
        (None, "CreateDBProxy") => {
            let name = form.get("DBProxyName").unwrap_or_default().to_owned();
            gateway.additions.change(scope, |state| state.proxies.insert(name));
            hosts::update(gateway)
        }
        (None, "DeleteDBProxy") => {
            let name = form.get("DBProxyName").unwrap_or_default();
            gateway.additions.change(scope, |state| state.proxies.remove(name));
            hosts::update(gateway)
        }
        _ => Ok(()),
    };
    if let Err(error) = done {
        if let Some(server) = made {
            // Without its database it must not seem to be there.
            let id = form.get(server.identifier()).unwrap_or_default();
            gateway.upstream.query(scope, "rds", &server.undo(id)).await;
        }
        return control::failed(call, &error);
    }
    let text = completed(gateway, scope, &answer.text());
    answer.with_text(text)
}

async fn created(
    gateway: &Gateway,
    scope: &Scope,
    server: Server,
    form: &Form,
    managed: bool,
) -> Result<(), Error> {
    let id = form.get(server.identifier()).unwrap_or_default();
    let user = form.get("MasterUsername").unwrap_or("postgres");
    let password = form.get("MasterUserPassword").unwrap_or_default();
    let initial = form.get(server.database());
    postgres::create_database(&gateway.paths, user, password, initial).await?;
    let secret_arn = if managed {
        Some(put_secret(gateway, scope, server, id, user, password).await?)
    } else {
        None
    };
    let database = Database {
        master_user: user.to_owned(),
        initial: initial.map(str::to_owned),
        secret_arn,
        log_exports: form
            .list("EnableCloudwatchLogsExports")
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    gateway.additions.change(scope, |state| server.all_mut(state).insert(id.to_owned(), database));
    hosts::update(gateway)
}

async fn modified(
    gateway: &Gateway,
    scope: &Scope,
    server: Server,
    form: &Form,
    managed: bool,
) -> Result<(), Error> {
    let id = form.get(server.identifier()).unwrap_or_default();
    let Some(mut database) =
        gateway.additions.read(scope, |state| server.all(state).get(id).cloned())
    else {
        return Ok(());
    };
    if let Some(password) = form.get("MasterUserPassword")
        && !(managed && database.secret_arn.is_some())
    {
        let user = &database.master_user;
        postgres::set_password(&gateway.paths, user, password).await?;
        if managed {
            let arn = put_secret(gateway, scope, server, id, user, password).await?;
            database.secret_arn = Some(arn);
        }
    }
    for kind in form.list("CloudwatchLogsExportConfiguration.EnableLogTypes") {
        database.log_exports.insert(kind.to_owned());
    }
    for kind in form.list("CloudwatchLogsExportConfiguration.DisableLogTypes") {
        database.log_exports.remove(kind);
    }
    gateway.additions.change(scope, |state| server.all_mut(state).insert(id.to_owned(), database));
    Ok(())
}

async fn deleted(
    gateway: &Gateway,
    scope: &Scope,
    server: Server,
    form: &Form,
) -> Result<(), Error> {
    let id = form.get(server.identifier()).unwrap_or_default();
    let (member, database) = gateway.additions.change(scope, |state| {
        (state.cluster_instances.remove(id), server.all_mut(state).remove(id))
    });
    if member {
        return hosts::update(gateway);
    }
    if let Some(arn) = database.as_ref().and_then(|d| d.secret_arn.as_ref()) {
        // As RDS does: the managed secret goes with its server, at once.
        let body = json!({ "SecretId": arn, "ForceDeleteWithoutRecovery": true });
        gateway.upstream.json(scope, "secretsmanager", "secretsmanager.DeleteSecret", &body).await;
    }
    let left: Vec<Database> = gateway
        .additions
        .all()
        .into_iter()
        .flat_map(|(_, regional)| {
            regional.databases.into_values().chain(regional.clusters.into_values())
        })
        .collect();
    if left.is_empty() {
        // With the last server go the roles that were made inside it.
        postgres::wipe(&gateway.paths).await?;
    } else if let Some(name) = database.and_then(|d| d.initial)
        // All are one PostgreSQL: another server may have the very same database.
        && !left.iter().any(|other| other.initial.as_ref() == Some(&name))
    {
        postgres::drop_database(&gateway.paths, &name).await?;
    }
    hosts::update(gateway)
}

/// Makes or renews the secret of the managed password; returns its ARN.
async fn put_secret(
    gateway: &Gateway,
    scope: &Scope,
    server: Server,
    id: &str,
    user: &str,
    password: &str,
) -> Result<String, Error> {
    let [start, tag, kind, words] = server.secret();
    let name = format!("{start}{id}");
    let content = json!({ "username": user, "password": password }).to_string();
    let owner = format!("arn:aws:rds:{}:{}:{kind}:{id}", scope.region, scope.account);
    let tags = json!([{ "Key": tag, "Value": owner }, { "Key": "aws:secretsmanager:owningService", "Value": "rds" }]);
    let create = json!({ "Name": name, "SecretString": content, "Tags": tags, "Description": format!("The secret associated with the primary RDS {words}: {owner}") });
    let mut answer = gateway
        .upstream
        .json(scope, "secretsmanager", "secretsmanager.CreateSecret", &create)
        .await;
    if !answer.is_success() {
        // Left over from a server whose deletion was cut short.
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

/// Our host names, the managed secret and the log exports, wherever an instance, a cluster or a proxy
/// shows.
fn completed(gateway: &Gateway, scope: &Scope, text: &str) -> String {
    let region = &scope.region;
    let (databases, clusters) =
        gateway.additions.read(scope, |state| (state.databases.clone(), state.clusters.clone()));
    let secret = |arn: &str| {
        let key = format!("arn:aws:kms:{region}:{}:alias/aws/secretsmanager", scope.account);
        format!(
            "<MasterUserSecret><SecretArn>{arn}</SecretArn><SecretStatus>active</SecretStatus><KmsKeyId>{key}</KmsKeyId></MasterUserSecret>"
        )
    };
    let text = in_blocks(text, "DBInstance", |block| {
        let Some(id) = element(block, "DBInstanceIdentifier") else {
            return block.to_owned();
        };
        let name = hosts::server(id, region);
        let mut block = in_blocks(block, "Endpoint", |endpoint| {
            in_blocks(endpoint, "Address", |_| name.clone())
        });
        let Some(database) = databases.get(id) else {
            return block;
        };
        if let Some(arn) = &database.secret_arn {
            block.push_str(&secret(arn));
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
    let text = in_blocks(&text, "DBCluster", |block| {
        let Some(id) = element(block, "DBClusterIdentifier") else {
            return block.to_owned();
        };
        // All of its instances are the same PostgreSQL.
        let name = hosts::server(id, region);
        let block = in_blocks(block, "Endpoint", |_| name.clone());
        let mut block = in_blocks(&block, "ReaderEndpoint", |_| name.clone());
        if let Some(arn) = clusters.get(id).and_then(|cluster| cluster.secret_arn.as_ref()) {
            block.push_str(&secret(arn));
        }
        block
    });
    let text = in_blocks(&text, "member", |member| match element(member, "RdsResourceId") {
        Some(id) => in_blocks(member, "Endpoint", |_| hosts::server(id, region)),
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
