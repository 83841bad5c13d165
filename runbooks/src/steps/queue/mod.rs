//! Step 5: the voice queue with its dead letters, the topic that alarms go to, and the two alarms
//! that say that work is left undone.

pub mod sqs_queue;
pub mod topic;

use std::collections::BTreeMap;

use sqs_queue::{Redrive, SqsQueue};
use topic::Topic;

use crate::{
    aws::Label,
    engine::{Graph, Handle, ResourceId},
    steps::{
        About, Stack,
        edge::bucket::{self, Bucket},
        observability::alarm::{Alarm, Bad, Metric, Signal},
    },
};

pub(super) const STEP: &str = "queue";

/// Name of the voice queue within the environment.
pub(super) const VOICE: &str = "voice";

/// Name of the queue of its dead letters.
pub(super) const DEAD_LETTER: &str = "voice-dead-letter";

/// Four days: a weekend passes before a waiting job is lost.
const RETENTION: i32 = 4 * 24 * 3600;

/// Fourteen days, the longest that SQS keeps a message: time to mend what broke and redrive.
const DEAD_LETTER_RETENTION: i32 = 14 * 24 * 3600;

/// Receivers need this many times the job's own limit before a message may be seen again: time for
/// its retries inside one receive (AWS asks the same factor of Lambda's queues).
const VISIBILITY_FACTOR: i32 = 6;

/// What other steps use.
pub struct Queue {
    /// Voice jobs.
    pub voice: Handle<SqsQueue>,
    /// Jobs that failed too often.
    pub dead_letter: Handle<SqsQueue>,
    /// The audio of voice jobs: a message carries a pointer, never the audio (trap 10).
    pub audio: Handle<Bucket>,
    /// Where alarms go.
    pub alerts: Handle<Topic>,
}

/// The label of the audio's bucket.
pub(crate) fn audio_label(stack: &Stack) -> Label {
    bucket::label(stack, ResourceId::new(STEP, "audio"), "audio")
}

/// What the step is, for `bme explain`.
pub const ABOUT: About = About {
    makes: "The SQS queue of voice jobs with one for its dead letters, a bucket for their audio, \
            the topic that alarms go to, and the two alarms that say that work is left undone.",
    why: "A voice job survives a task that dies: it comes back, and after too many tries it waits \
          with the dead letters for a person. A message carries a pointer, never the audio.",
    order: "Nothing here waits for another step. The voice queue comes after the dead letters, \
            the alarms after the topic.",
    trouble: &[
        (
            "nobody gets an e-mail",
            "each address in `queue.alert_emails` has to open the link that AWS sends it first",
        ),
        (
            "QueueDeletedRecently: a name is taken for a minute after its queue was deleted",
            "bme calls again until it is free",
        ),
        ("dead letters", "`bme status` counts them; mend why jobs fail before they are sent again"),
    ],
};

/// Adds the step's resources.
pub fn add(graph: &mut Graph, stack: &Stack) -> Queue {
    let settings = &stack.environment.queue;
    let voice_label = stack.label(STEP, VOICE, 80);
    let dead_letter = graph.add(SqsQueue {
        label: stack.label(STEP, DEAD_LETTER, 80),
        aws: stack.aws.clone(),
        visibility_timeout: 30,
        retention: DEAD_LETTER_RETENTION,
        redrive: None,
        dead_letters_of: vec![voice_label.name.clone()],
    });
    let voice = graph.add(SqsQueue {
        label: voice_label,
        aws: stack.aws.clone(),
        visibility_timeout: settings.job_timeout_seconds * VISIBILITY_FACTOR,
        retention: RETENTION,
        redrive: Some(Redrive { queue: dead_letter.clone(), max_receives: settings.max_receives }),
        dead_letters_of: Vec::new(),
    });
    let audio = graph.add(Bucket {
        label: audio_label(stack),
        aws: stack.aws.clone(),
        // The worker deletes what it has heard; this takes what a crash left.
        expire_after_days: Some(1),
    });
    let alerts = graph.add(Topic {
        label: stack.label(STEP, "alerts", 256),
        aws: stack.aws.clone(),
        emails: settings.alert_emails.clone(),
    });

    graph.add(Alarm {
        label: stack.label(STEP, "dead-letters", 255),
        aws: stack.aws.clone(),
        description: "Voice jobs failed too often and lie in the dead-letter queue: read the \
                      worker's log, mend the cause, then start a redrive of that queue in the SQS console."
            .into(),
        topic: alerts.clone(),
        signal: of_queue("ApproximateNumberOfMessagesVisible", &dead_letter),
        threshold: 0.0,
        bad: Bad::Above,
        evaluation_periods: 1,
        datapoints_to_alarm: 1,
        extra_needs: vec![dead_letter.id()],
    });
    graph.add(Alarm {
        label: stack.label(STEP, "oldest-message", 255),
        aws: stack.aws.clone(),
        description: "Voice jobs wait too long: look at the worker's tasks and raise \
                      `compute.worker.maximum` if all of them are busy."
            .into(),
        topic: alerts.clone(),
        signal: of_queue("ApproximateAgeOfOldestMessage", &voice),
        threshold: f64::from(settings.oldest_message_alarm_seconds),
        bad: Bad::Above,
        evaluation_periods: 3,
        datapoints_to_alarm: 3,
        extra_needs: vec![voice.id()],
    });
    Queue { voice, dead_letter, audio, alerts }
}

fn of_queue(name: &'static str, queue: &Handle<SqsQueue>) -> Signal {
    let queue = queue.clone();
    Signal::Metric(Metric {
        namespace: "AWS/SQS",
        name,
        statistic: "Maximum",
        period_seconds: 60,
        dimensions: Box::new(move |outputs| {
            BTreeMap::from([("QueueName".into(), outputs.show(&queue, |queue| queue.name.clone()))])
        }),
    })
}
