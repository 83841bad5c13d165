//! From the SDK's errors to the engine's classes.

use aws_smithy_runtime_api::{
    client::{orchestrator::HttpResponse, result::SdkError},
    http::Response,
};
use aws_smithy_types::error::{metadata::ProvideErrorMetadata, operation::BuildError};

use super::CODES;
use crate::engine::{Class, Error, Fault};

pub(super) const NO_CREDENTIALS: Fault = Fault {
    code: "ExpiredToken",
    cause: "the credentials have expired or are not known to AWS",
    mend: "no valid AWS credentials were found: run `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
};

pub(super) const UNREACHABLE: Fault = Fault {
    code: "unreachable",
    cause: "no connection to the endpoint came about",
    mend: "nothing listens there: for a local environment run `bme sandbox up`; otherwise check `aws.endpoint_url`, AWS_ENDPOINT_URL and your network",
};

pub(crate) const NO_ANSWER: Fault = Fault {
    code: "no-answer",
    cause: "the connection broke before the answer was read, so the call may have been carried out",
    mend: "run the command again: it looks first and makes nothing twice",
};

pub(super) const NOT_SENT: Fault = Fault {
    code: "not-sent",
    cause: "the call could not be put together, most often for lack of credentials or a region",
    mend: "check AWS_PROFILE and the credentials; if they are right, it is a mistake of bme's",
};

/// Turns an SDK error of `operation` (as IAM writes it: `ec2:CreateVpc`) into the engine's.
pub fn failed<E>(operation: &'static str) -> impl Fn(SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    move |error| {
        if let Some(ours) = not_sent(&error) {
            return Error { operation: operation.into(), ..ours.clone() };
        }
        let request_id = error
            .raw_response()
            .map(Response::headers)
            .and_then(|headers| {
                ["x-amzn-requestid", "x-amz-request-id", "x-amzn-request-id"]
                    .iter()
                    .find_map(|name| headers.get(*name))
            })
            .map(ToOwned::to_owned);
        let status = error.raw_response().map(|response| response.status().as_u16());
        let (code, message) = match &error {
            SdkError::ServiceError(service) => (
                service.err().code().map_or_else(
                    || status.map_or("unknown".into(), |status| format!("http-{status}")),
                    ToOwned::to_owned,
                ),
                service.err().message().map_or_else(|| chain(&error), ToOwned::to_owned),
            ),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                ("timeout".into(), "no answer within the time allowed".into())
            }
            SdkError::TimeoutError(_) => {
                ("timeout".into(), "no answer within the time allowed".into())
            }
            SdkError::DispatchFailure(_) => ("unreachable".into(), chain(&error)),
            SdkError::ConstructionFailure(_) => ("not-sent".into(), chain(&error)),
            _ => ("no-answer".into(), chain(&error)),
        };
        let class = match &error {
            SdkError::ServiceError(_) => class_of(&code, &message, status.unwrap_or_default()),
            SdkError::DispatchFailure(_) if is_refused(&message) => Class::Unreachable,
            SdkError::ConstructionFailure(_) => Class::Fatal,
            SdkError::DispatchFailure(_) if is_credentials(&message) => Class::Fatal,
            _ => Class::Unknown,
        };
        let hint = hint(&code, &message, class).map(ToOwned::to_owned);
        Error { operation: operation.into(), code, message, request_id, class, hint }
    }
}

/// What to do about an error of a call: what the table has for its code, or, where the code alone is too
/// general, for what has kept the call from being answered.
fn hint(code: &str, message: &str, class: Class) -> Option<&'static str> {
    let plain = code.rsplit_once('#').map_or(code, |(_, code)| code);
    if let Some(known) = CODES.iter().find(|fault| fault.code == plain) {
        return Some(known.mend);
    }
    if is_credentials(message) || is_identity(plain) {
        return Some(NO_CREDENTIALS.mend);
    }
    match (class, plain) {
        (Class::Unreachable, _) => Some(UNREACHABLE.mend),
        (Class::Fatal, "not-sent") => Some(NOT_SENT.mend),
        (_, "no-answer" | "timeout") => Some(NO_ANSWER.mend),
        _ => None,
    }
}

/// What an error says, with its causes. Never its debug form: that holds the whole answer, of a call
/// for a secret its value.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error of our own interceptor, which did not let the call out.
fn not_sent<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(<dyn std::error::Error>::downcast_ref)
}

/// Turns a builder's complaint about a missing member, a mistake of ours, into the engine's error.
pub fn built(operation: &'static str) -> impl Fn(BuildError) -> Error {
    move |error| Error::fatal(operation, "invalid-input", error.to_string())
}

/// The class of a service's error code, as far as the code alone tells; of `http-503` the status counts.
pub fn class(code: &str) -> Class {
    let status = code.strip_prefix("http-").and_then(|status| status.parse().ok());
    class_of(code, "", status.unwrap_or(400))
}

/// The engine's error for a refusal that an answer carries inside, next to what succeeded.
pub fn refused(operation: &str, code: &str, message: &str) -> Error {
    let class = class_of(code, message, 400);
    let hint = hint(code, message, class).map(ToOwned::to_owned);
    Error { class, hint, ..Error::fatal(operation, code, message) }
}

/// An error that only says "not there" becomes `None`.
pub fn not_found_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_refused(message: &str) -> bool {
    message.contains("Connection refused") || message.contains("dns error")
}

fn is_credentials(message: &str) -> bool {
    message.contains("credential") || message.contains("Credential")
}

fn is_identity(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "AuthFailure"
            | "InvalidAccessKeyId"
    )
}

/// The class of a service's error, by its code and where the code is not enough by its text.
fn class_of(code: &str, message: &str, status: u16) -> Class {
    let code = code.rsplit_once('#').map_or(code, |(_, code)| code);
    if [
        "Throttl",
        "RequestLimitExceeded",
        "TooManyRequests",
        "SlowDown",
        "PriorRequestNotComplete",
        "BandwidthLimit",
        "RequestThrottled",
    ]
    .iter()
    .any(|start| code.contains(start))
    {
        return Class::Throttled;
    }
    let not_yet = [
        "annot be assumed",
        "not authorized to perform: sts:AssumeRole",
        "unable to assume",
        "Unable to assume",
        "is not authorized to assume",
        "nvalid principal",
        "role with name",
    ];
    if matches!(code, "WAFUnavailableEntityException" | "WAFUnavailableEntity")
        || (matches!(
            code,
            "InvalidParameterValue"
                | "InvalidParameterException"
                | "ClientException"
                | "InvalidParameterCombination"
                | "MalformedPolicyDocument"
                | "MalformedPolicy"
        ) && not_yet.iter().any(|text| message.contains(text)))
    {
        return Class::Propagating;
    }
    // CodePipeline's and CodeBuild's codes for whatever is wrong with what they are to make.
    if matches!(code, "InvalidStructureException" | "InvalidInputException")
        && message.contains("not authorized to perform")
        && message.contains("AssumeRole")
    {
        return Class::Propagating;
    }
    // EC2's code for CreateFlowLogs, which elsewhere means a mistake of ours.
    if code == "InvalidParameter" && message.contains("Unable to assume given IAM role") {
        return Class::Propagating;
    }
    // ECS says all of these with one code.
    if matches!(code, "InvalidParameterException" | "ClientException") {
        if message.contains("still Draining") {
            return Class::InUse;
        }
        if message.contains("not idempotent") {
            return Class::AlreadyExists;
        }
    }
    // Application Auto Scaling, until it sees a service that has just been made.
    if code == "ValidationException" && message.contains("service doesn't exist") {
        return Class::Propagating;
    }
    if matches!(
        code,
        "DependencyViolation"
            | "ResourceInUse"
            | "ResourceInUseException"
            | "DeleteConflict"
            | "InvalidDBSubnetGroupStateFault"
            | "InvalidDBParameterGroupState"
            | "InvalidDBInstanceState"
            | "CacheSubnetGroupInUse"
            | "InvalidCacheParameterGroupState"
            | "InvalidReplicationGroupState"
            | "WAFAssociatedItemException"
            | "ClusterContainsServicesException"
            | "ClusterContainsTasksException"
            | "OriginAccessControlInUse"
            | "DistributionNotDisabled"
            | "BucketNotEmpty"
            | "ResponseHeadersPolicyInUse"
            | "FunctionInUse"
            | "InvalidIPAddress.InUse"
            | "InvalidDBProxyStateFault"
            | "QueueDeletedRecently"
            | "AWS.SimpleQueueService.QueueDeletedRecently"
            | "InvalidDBClusterStateFault"
    ) {
        return Class::InUse;
    }
    if matches!(
        code,
        "OperationAborted"
            | "ConcurrentModification"
            | "ConcurrentModificationException"
            | "ConditionalRequestConflict"
            | "WAFOptimisticLockException"
            | "PreconditionFailed"
            | "OperationNotPermittedException"
            | "IncorrectState"
            | "InvalidState"
            | "ResourceConflictException"
            | "ConcurrentUpdateException"
            // CloudWatch Logs and SNS.
            | "OperationAbortedException"
            | "ConcurrentAccess"
            | "ConcurrentAccessException"
    ) {
        return Class::Conflict;
    }
    // Route 53 says with this code whatever is wrong with one of the changes.
    if code == "InvalidChangeBatch" && message.contains("already exists") {
        return Class::AlreadyExists;
    }
    // X-Ray says everything with this code.
    if code == "InvalidRequestException" && message.contains("already exists") {
        return Class::AlreadyExists;
    }
    if code.contains("AlreadyExist")
        || code.contains("AlreadyOwnedByYou")
        || code.contains("AlreadyRegistered")
        || code.contains("Duplicate")
        || matches!(
            code,
            "EntityAlreadyExists"
                | "ResourceExistsException"
                | "QueueNameExists"
                | "WAFDuplicateItemException"
                | "Resource.AlreadyAssociated"
                | "GroupExistsException"
                | "PriorityInUse"
                | "PipelineNameInUseException"
        )
    {
        return Class::AlreadyExists;
    }
    if code.contains("NotFound")
        || code.contains("NoSuch")
        || code.contains("NonExistent")
        || code.contains("DoesNotExist")
        || code.contains("Nonexistent")
        || code == "ClusterNotFoundException"
        || code == "ServiceNotActiveException"
        || (code == "ClientException" && message.contains("Unable to describe task definition"))
        || (status == 404 && code.starts_with("http-"))
    {
        return Class::NotFound;
    }
    // S3 says it of one object inside an answer of 200.
    let broke = matches!(code, "InternalError" | "InternalFailure" | "ServiceUnavailable");
    if broke || status >= 500 { Class::Unknown } else { Class::Fatal }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::{body::SdkBody, error::ErrorMetadata};

    use super::*;

    #[test]
    fn an_error_has_the_hint_that_the_table_has_for_its_code() {
        let answered = |code: &str| {
            let error = PutObjectError::generic(ErrorMetadata::builder().code(code).build());
            let status = StatusCode::try_from(400_u16).unwrap();
            let response = HttpResponse::new(status, SdkBody::empty());
            failed("s3:PutObject")(SdkError::service_error(error, response)).hint
        };
        for fault in CODES {
            assert_eq!(answered(fault.code).as_deref(), Some(fault.mend), "{}", fault.code);
            assert_eq!(refused("s3:PutObject", fault.code, "").hint.as_deref(), Some(fault.mend));
        }
        assert_eq!(answered("com.amazon#AccessDenied"), answered("AccessDenied"));
        assert_eq!(answered("ExpiredToken").as_deref(), Some(NO_CREDENTIALS.mend));
        assert_eq!(answered("Nonsense"), None);
        let silent = SdkError::<PutObjectError, HttpResponse>::timeout_error("late");
        assert_eq!(failed("s3:PutObject")(silent).hint.as_deref(), Some(NO_ANSWER.mend));
    }

    #[test]
    fn codes_of_real_services_fall_into_their_class() {
        for (code, message, status, class) in [
            ("RequestLimitExceeded", "", 503, Class::Throttled),
            ("ThrottlingException", "", 400, Class::Throttled),
            ("DependencyViolation", "", 400, Class::InUse),
            ("InvalidVpcID.NotFound", "", 400, Class::NotFound),
            ("DBInstanceNotFound", "", 404, Class::NotFound),
            ("AWS.SimpleQueueService.NonExistentQueue", "", 400, Class::NotFound),
            ("InvalidPermission.Duplicate", "", 400, Class::AlreadyExists),
            ("RouteAlreadyExists", "", 400, Class::AlreadyExists),
            ("DBProxyTargetAlreadyRegisteredFault", "", 400, Class::AlreadyExists),
            ("OperationAbortedException", "", 400, Class::Conflict),
            ("ConcurrentAccess", "", 400, Class::Conflict),
            ("InvalidParameter", "Unable to assume given IAM role", 400, Class::Propagating),
            ("InvalidParameter", "Bad traffic type", 400, Class::Fatal),
            (
                "InvalidStructureException",
                "CodePipeline is not authorized to perform AssumeRole on role arn:aws:iam::1:role/x",
                400,
                Class::Propagating,
            ),
            ("InvalidStructureException", "Pipeline has only 1 stage(s).", 400, Class::Fatal),
            (
                "InvalidInputException",
                "CodeBuild is not authorized to perform: sts:AssumeRole on arn:aws:iam::1:role/x",
                400,
                Class::Propagating,
            ),
            ("PipelineNameInUseException", "", 400, Class::AlreadyExists),
            ("PipelineNotFoundException", "", 400, Class::NotFound),
            ("InternalFailure", "", 500, Class::Unknown),
            ("InternalError", "", 200, Class::Unknown),
            ("InvalidChangeBatch", "[… but it already exists]", 400, Class::AlreadyExists),
            ("InvalidChangeBatch", "[… is not permitted in zone x.]", 400, Class::Fatal),
            ("NoSuchHostedZone", "", 404, Class::NotFound),
            ("UnauthorizedOperation", "", 403, Class::Fatal),
            (
                "InvalidParameterException",
                "ECS was unable to assume the role",
                400,
                Class::Propagating,
            ),
            ("InvalidParameterException", "The cluster name is bad", 400, Class::Fatal),
            (
                "InvalidParameterException",
                "Creation of service was not idempotent.",
                400,
                Class::AlreadyExists,
            ),
            (
                "InvalidParameterException",
                "Unable to Start a service that is still Draining.",
                400,
                Class::InUse,
            ),
            (
                "ValidationException",
                "ECS service doesn't exist: service/a/b",
                400,
                Class::Propagating,
            ),
        ] {
            assert_eq!(class_of(code, message, status), class, "{code}");
        }
    }
}
