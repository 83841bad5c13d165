//! What the emulator does not keep of an interface VPC endpoint: its security groups and whether its
//! service's name leads to it inside the VPC.

use hyper::Response;

use super::Gateway;
use super::answer::{Answer, Body};
use super::identify::{Call, Form};
use super::rds::element;
use super::state::Endpoint;

/// Whether the answer to this call has to be completed.
pub(super) fn concerns(call: &Call) -> bool {
    call.service == "ec2"
        && matches!(
            call.operation.as_str(),
            "CreateVpcEndpoint" | "ModifyVpcEndpoint" | "DescribeVpcEndpoints"
        )
}

/// Takes note of what the call asks for, and adds to the answer what was noted.
pub(super) async fn complete(
    gateway: &Gateway,
    call: &Call,
    form: &Form,
    response: Response<Body>,
) -> Response<Body> {
    let status = response.status();
    let Some(answer) = Answer::of(response).await else {
        return Answer::new(status, "text/plain", "").into_response();
    };
    if !answer.is_success() {
        return answer.into_response();
    }
    let text = answer.text().into_owned();
    let id = form.get("VpcEndpointId").or_else(|| element(&text, "vpcEndpointId"));
    if let Some(id) = id.filter(|_| call.mutating()) {
        gateway.additions.change(&call.scope, |regional| {
            change(regional.endpoints.entry(id.to_owned()).or_default(), form);
        });
    }
    let text = gateway.additions.read(&call.scope, |regional| {
        let endpoints = regional.endpoints.iter();
        endpoints.fold(text, |text, (id, endpoint)| {
            let id = format!("<vpcEndpointId>{id}</vpcEndpointId>");
            text.replace(&id, &format!("{id}{}", shown(endpoint)))
        })
    });
    answer.with_text(text).into_response()
}

fn change(endpoint: &mut Endpoint, form: &Form) {
    let removed = form.list("RemoveSecurityGroupId");
    endpoint.groups.retain(|group| !removed.contains(&group.as_str()));
    for group in form.list("SecurityGroupId").into_iter().chain(form.list("AddSecurityGroupId")) {
        endpoint.groups.insert(group.to_owned());
    }
    if let Some(private) = form.get("PrivateDnsEnabled") {
        endpoint.private_dns = private.eq_ignore_ascii_case("true");
    }
}

fn shown(endpoint: &Endpoint) -> String {
    let groups: Vec<_> = endpoint
        .groups
        .iter()
        .map(|group| format!("<item><groupId>{group}</groupId></item>"))
        .collect();
    format!(
        "<groupSet>{}</groupSet><privateDnsEnabled>{}</privateDnsEnabled>",
        groups.concat(),
        endpoint.private_dns
    )
}
