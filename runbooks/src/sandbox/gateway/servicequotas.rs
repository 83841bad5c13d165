//! Service Quotas (API reference of 2019-06-24): AWS's defaults, and what a test sets instead.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Gateway;
use super::answer::Answer;
use super::identify::{Call, Scope};
use super::upstream::Payload;

/// Service, code, name and AWS's default, each from "Quotas" in the user guide of its service. The
/// default of Fargate is that of a new account.
const DEFAULTS: [(&str, &str, &str, f64); 10] = [
    ("vpc", "L-F678F1CE", "VPCs per Region", 5.0),
    ("vpc", "L-A4707A72", "Internet gateways per Region", 5.0),
    ("vpc", "L-FE5A380F", "NAT gateways per Availability Zone", 5.0),
    ("vpc", "L-29B6F2EB", "Interface VPC endpoints per VPC", 50.0),
    ("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5.0),
    ("elasticloadbalancing", "L-53DA6B97", "Application Load Balancers per Region", 50.0),
    ("rds", "L-7B6409FD", "DB instances", 40.0),
    ("rds", "L-D94C7EA3", "Proxies", 20.0),
    ("elasticache", "L-DFE45DF3", "Nodes per Region", 300.0),
    ("fargate", "L-3032A538", "Fargate On-Demand vCPU resource count", 6.0),
];

/// Values that a test has set, by code.
#[derive(Default)]
pub(super) struct Quotas(Mutex<BTreeMap<String, f64>>);

impl Quotas {
    pub(super) fn set(&self, values: BTreeMap<String, f64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn get(&self, code: &str) -> Option<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(code).copied()
    }
}

/// Answers the operations that read quotas.
pub(super) fn answer(gateway: &Gateway, call: &Call, body: &Payload) -> Option<Answer> {
    let input = body.json();
    let service = input["ServiceCode"].as_str().unwrap_or_default();
    let code = input["QuotaCode"].as_str().unwrap_or_default();
    let value = |code: &str, default: f64| match call.operation.as_str() {
        "GetServiceQuota" | "ListServiceQuotas" => gateway.quotas.get(code).unwrap_or(default),
        _ => default,
    };
    let of_service = DEFAULTS.iter().filter(|(of, ..)| *of == service);
    Some(match call.operation.as_str() {
        "GetServiceQuota" | "GetAWSDefaultServiceQuota" => {
            match of_service.clone().find(|(_, known, ..)| *known == code) {
                Some(&(_, _, name, default)) => {
                    let value = value(code, default);
                    Answer::json(
                        &json!({ "Quota": quota(&call.scope, service, code, name, value) }),
                    )
                }
                None => Answer::json_error(
                    "NoSuchResourceException",
                    "The request failed because the specified service or quota does not exist.",
                ),
            }
        }
        "ListServiceQuotas" | "ListAWSDefaultServiceQuotas" => {
            let quotas: Vec<Value> = of_service
                .map(|&(_, code, name, default)| {
                    quota(&call.scope, service, code, name, value(code, default))
                })
                .collect();
            Answer::json(&json!({ "Quotas": quotas }))
        }
        _ => return None,
    })
}

fn quota(scope: &Scope, service: &str, code: &str, name: &str, value: f64) -> Value {
    let Scope { account, region } = scope;
    json!({
        "ServiceCode": service,
        "ServiceName": service,
        "QuotaArn": format!("arn:aws:servicequotas:{region}:{account}:{service}/{code}"),
        "QuotaCode": code,
        "QuotaName": name,
        "Value": value,
        "Unit": "None",
        "Adjustable": true,
        "GlobalQuota": false,
        "QuotaAppliedAtLevel": "ACCOUNT",
    })
}
