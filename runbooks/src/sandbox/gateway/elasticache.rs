//! ElastiCache: the sandbox's Redis behind every replication group's names and AUTH tokens.

use hyper::Request;

use super::answer::Answer;
use super::hosts;
use super::identify::{Call, Form};
use super::rds::{element, in_blocks};
use super::upstream::Payload;
use super::{Gateway, control};

/// Passes the call on, follows its effects on Redis, and puts our names into the answer.
pub(super) async fn answer(
    gateway: &Gateway,
    call: &Call,
    request: &Request<Payload>,
    form: Form,
) -> Answer {
    let answer = gateway.emulator(request, form.encode()).await;
    if !answer.is_success() {
        return answer;
    }
    let id = form.get("ReplicationGroupId").unwrap_or_default().to_owned();
    let token = form.get("AuthToken").map(str::to_owned);
    let changed = match call.operation.as_str() {
        "CreateReplicationGroup" => {
            gateway
                .additions
                .change(&call.scope, |state| state.caches.insert(id, token.into_iter().collect()));
            true
        }
        "ModifyReplicationGroup" => gateway.additions.change(&call.scope, |state| {
            let tokens = state.caches.entry(id).or_default();
            match (form.get("AuthTokenUpdateStrategy"), token) {
                (Some("DELETE"), _) => tokens.clear(),
                (Some("SET"), Some(token)) => *tokens = vec![token],
                // ROTATE keeps the former token valid beside the new one.
                (_, Some(token)) => {
                    let former = tokens.pop();
                    *tokens = former.into_iter().chain([token]).collect();
                }
                (_, None) => return false,
            }
            true
        }),
        "DeleteReplicationGroup" => {
            gateway.additions.change(&call.scope, |state| state.caches.remove(&id));
            true
        }
        _ => false,
    };
    if changed && let Err(error) = control::configure_cache(gateway).await {
        return control::failed(call, &error);
    }
    let text = named(&answer.text(), &call.scope.region);
    answer.with_text(text)
}

/// Our host names in place of the emulator's, which are the same for all groups.
fn named(text: &str, region: &str) -> String {
    in_blocks(text, "ReplicationGroup", |block| {
        let Some(id) = element(block, "ReplicationGroupId") else {
            return block.to_owned();
        };
        let mut block = block.to_owned();
        for (endpoint, role) in [
            ("PrimaryEndpoint", "master"),
            ("ReaderEndpoint", "replica"),
            ("ReadEndpoint", "master"),
            ("ConfigurationEndpoint", "master"),
        ] {
            let name = hosts::cache(role, id, region);
            block =
                in_blocks(&block, endpoint, |inner| in_blocks(inner, "Address", |_| name.clone()));
        }
        block
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_the_names_of_their_group() {
        let text = "<R><ReplicationGroup><ReplicationGroupId>cache</ReplicationGroupId><PrimaryEndpoint><Address>redis</Address><Port>6379</Port></PrimaryEndpoint><ReaderEndpoint><Address>redis</Address></ReaderEndpoint></ReplicationGroup></R>";
        let text = named(text, "us-east-1");
        assert!(text.contains("<PrimaryEndpoint><Address>master.cache.sandbox.us-east-1.cache.amazonaws.com</Address><Port>6379</Port>"));
        assert!(text.contains(
            "<ReaderEndpoint><Address>replica.cache.sandbox.us-east-1.cache.amazonaws.com</Address>"
        ));
    }
}
