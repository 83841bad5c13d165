//! What ECS and the tasks may do: no more than they need, by names that we choose, so that a policy
//! is complete before the things that it names exist.

use serde_json::{Value, json};

use super::{
    STEP,
    role::{Role, trusts},
    services::runs_collector,
};
use crate::steps::{
    Stack,
    database::master_user::MasterSecret,
    queue::{DEAD_LETTER, VOICE, audio_label},
};

/// What ECS itself may do to start a task: pull our image, read the environment's secrets, write to
/// its log groups. AWS's managed policy for this allows the images and logs of the whole account.
pub(super) fn execution(stack: &Stack) -> Role {
    let (region, account) = (&stack.aws.region, &stack.aws.account);
    let prefix = format!("bme-{}-", stack.environment.name);
    let repository = stack.label(STEP, "repository", 256).name;
    let master = MasterSecret::of(stack.environment.database.engine.into());
    role(
        stack,
        "task-execution-role",
        &[
            json!({
                "Sid": "SignInToTheRegistry",
                "Effect": "Allow",
                "Action": "ecr:GetAuthorizationToken",
                "Resource": "*",
            }),
            json!({
                "Sid": "PullTheImage",
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                "Resource": format!("arn:aws:ecr:{region}:{account}:repository/{repository}"),
            }),
            json!({
                "Sid": "WriteLogs",
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": format!("arn:aws:logs:{region}:{account}:log-group:{prefix}*:*"),
            }),
            json!({
                "Sid": "ReadOwnSecrets",
                "Effect": "Allow",
                "Action": "secretsmanager:GetSecretValue",
                "Resource": format!("arn:aws:secretsmanager:{region}:{account}:secret:{prefix}*"),
            }),
            json!({
                "Sid": "ReadTheMasterPassword",
                "Effect": "Allow",
                "Action": "secretsmanager:GetSecretValue",
                // RDS names the secret of a managed master password itself; it tags it with the server.
                "Resource": format!("arn:aws:secretsmanager:{region}:{account}:secret:{}*", master.name),
                "Condition": {"StringLike": {
                    (master.condition_key()):
                        format!("arn:aws:rds:{region}:{account}:{}:{prefix}*", master.server),
                }},
            }),
        ],
    )
}

/// What the API may do: put voice jobs into the queue and their audio into the bucket.
pub(super) fn api(stack: &Stack) -> Role {
    let send = json!({
        "Sid": "SendVoiceJobs",
        "Effect": "Allow",
        "Action": ["sqs:GetQueueAttributes", "sqs:SendMessage"],
        "Resource": queue(stack, VOICE),
    });
    role(stack, "api-role", &with_audio_and_traces(stack, send))
}

/// What the worker may do: take voice jobs from the queue, give them back or to the dead letters,
/// and bring dead ones back; read and delete their audio.
pub(super) fn worker(stack: &Stack) -> Role {
    let take = json!({
        "Sid": "TakeVoiceJobs",
        "Effect": "Allow",
        "Action": [
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
            "sqs:SendMessage",
        ],
        "Resource": [queue(stack, VOICE), queue(stack, DEAD_LETTER)],
    });
    role(stack, "worker-role", &with_audio_and_traces(stack, take))
}

/// Without `ListBucket` S3 answers 403, not 404, for audio that is gone (S3 API reference, `GetObject`).
fn audio(stack: &Stack) -> [Value; 2] {
    let bucket = format!("arn:aws:s3:::{}", audio_label(stack).name);
    [
        json!({
            "Sid": "KeepAudio",
            "Effect": "Allow",
            "Action": ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            "Resource": format!("{bucket}/*"),
        }),
        json!({
            "Sid": "MissAudio",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": bucket,
        }),
    ]
}

fn role(stack: &Stack, name: &str, statements: &[Value]) -> Role {
    Role {
        label: stack.label(STEP, name, 64),
        aws: stack.aws.clone(),
        trust: trusts("ecs-tasks.amazonaws.com", &stack.aws.account),
        managed_policies: Vec::new(),
        policy: json!({"Version": "2012-10-17", "Statement": statements}).into(),
    }
}

/// Both services reach the audio. The collector beside them sends traces; X-Ray has no resources to restrict them to.
fn with_audio_and_traces(stack: &Stack, statement: Value) -> Vec<Value> {
    let mut statements = vec![statement];
    statements.extend(audio(stack));
    if runs_collector(stack) {
        statements.push(json!({
            "Sid": "SendTraces",
            "Effect": "Allow",
            "Action": [
                "xray:GetSamplingRules",
                "xray:GetSamplingStatisticSummaries",
                "xray:GetSamplingTargets",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
            ],
            "Resource": "*",
        }));
    }
    statements
}

fn queue(stack: &Stack, name: &str) -> String {
    let name = stack.label(crate::steps::queue::STEP, name, 80).name;
    format!("arn:aws:sqs:{}:{}:{name}", stack.aws.region, stack.aws.account)
}
