//! A user of the emulator who may do what a policy says and nothing else: IAM is enforced.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

use crate::{Project, element, query};

/// Version of IAM's query protocol.
const VERSION: &str = "2010-05-08";

const NAME: &str = "operator";

/// The access key of the user.
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Project {
    /// Makes a user with the policy that `bme policy` prints. From now on IAM is enforced, and every
    /// `bme` of this project runs as that user.
    pub async fn enforce_iam(&mut self) -> Result<()> {
        query(&self.endpoint, "iam", VERSION, &format!("CreateUser&UserName={NAME}")).await?;
        let key = format!("CreateAccessKey&UserName={NAME}");
        let key = query(&self.endpoint, "iam", VERSION, &key).await?;
        self.operator = Some(Key {
            id: element(&key, "AccessKeyId")?.to_owned(),
            secret: element(&key, "SecretAccessKey")?.to_owned(),
        });
        self.allow(&self.printed_policy()?).await?;
        self.iam(Method::PUT).await?;
        Ok(())
    }

    /// The policy that `bme policy` prints for the file as it is.
    pub fn printed_policy(&self) -> Result<Value> {
        self.json(&["policy"])
    }

    /// Lets the user do what the policy says, and no longer what an earlier one did.
    pub async fn allow(&self, policy: &Value) -> Result<()> {
        let mut url = Url::parse(&self.endpoint)?;
        url.query_pairs_mut().append_pair("PolicyDocument", &policy.to_string());
        let document = url.query().context("no document")?;
        let put = format!("PutUserPolicy&UserName={NAME}&PolicyName=printed&{document}");
        query(&self.endpoint, "iam", VERSION, &put).await?;
        Ok(())
    }

    /// The actions that the calls since the beginning of the enforcement needed.
    pub async fn asked_actions(&self) -> Result<BTreeSet<String>> {
        let told = self.iam(Method::GET).await?;
        let asked = told["asked"].as_array().context("no actions")?;
        Ok(asked.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
    }

    async fn iam(&self, method: Method) -> Result<Value> {
        let url = format!("{}/_bme/iam", self.endpoint);
        let answer = Client::new().request(method, url).send().await?.error_for_status()?;
        let text = answer.text().await?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }
}

/// The actions that a policy document names.
pub fn named_actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().into_iter().flatten();
    statements.flat_map(|statement| texts(&statement["Action"])).map(ToOwned::to_owned).collect()
}

/// The policy without this action.
pub fn without(policy: &Value, action: &str) -> Value {
    let statements = policy["Statement"].as_array().into_iter().flatten();
    let left = statements.filter_map(|statement| {
        let mut actions = texts(&statement["Action"]);
        actions.retain(|one| *one != action);
        let mut statement = statement.clone();
        statement["Action"] = json!(actions);
        (!actions.is_empty()).then_some(statement)
    });
    json!({ "Version": policy["Version"], "Statement": left.collect::<Vec<_>>() })
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_taken_out_of_every_statement() {
        let policy = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "ec2:CreateVpc", "Resource": "*" },
            { "Effect": "Allow", "Action": ["ec2:CreateVpc", "ec2:DeleteVpc"], "Resource": "arn:1" },
        ]});
        let left = json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": ["ec2:DeleteVpc"], "Resource": "arn:1" },
        ]});
        assert_eq!(without(&policy, "ec2:CreateVpc"), left);
        assert_eq!(named_actions(&left).into_iter().collect::<Vec<_>>(), ["ec2:DeleteVpc"]);
    }
}
