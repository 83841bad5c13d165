//! The status for people.

use std::fmt::Write as _;

use bme_runbooks::status::{State, Status};
use comfy_table::{Table, presets::NOTHING};
use console::style;

/// Steps, release, services, queue and lock.
pub(crate) fn table(status: &Status) -> String {
    let url = status.url.as_deref().unwrap_or("not reachable yet");
    let mut text = format!("{}  {url}\n\n", style(&status.env).bold());
    let mut steps = headed(&["", "step", "state", "ready", "missing", "differ"]);
    for step in &status.steps {
        let resources = step.resources;
        steps.add_row([
            step.number.to_string(),
            step.name.to_owned(),
            state(step.state).to_owned(),
            format!("{}/{}", resources.ready, resources.total),
            resources.missing.to_string(),
            resources.drifted.to_string(),
        ]);
    }
    push(&mut text, &steps);
    let _ = match &status.release {
        Some(release) => writeln!(
            text,
            "\nrelease  {} since {}\n         {}",
            style(&release.tag).bold(),
            release.deployed_at,
            release.digest
        ),
        None => writeln!(text, "\nrelease  none yet; `bme deploy --tag TAG` makes the first"),
    };
    if !status.services.is_empty() {
        text.push('\n');
        let mut services = headed(&["service", "desired", "running", "healthy", "task definition"]);
        for service in &status.services {
            let definition = &service.task_definition;
            services.add_row([
                service.name.clone(),
                service.desired.to_string(),
                service.running.to_string(),
                service.healthy.to_string(),
                definition.rsplit('/').next().unwrap_or(definition).to_owned(),
            ]);
        }
        push(&mut text, &services);
    }
    if let Some(queue) = &status.queue {
        let _ = writeln!(
            text,
            "\nqueue    {} waiting, {} being worked on, {} dead",
            queue.visible, queue.in_flight, queue.dead
        );
    }
    if let Some(lock) = &status.lock {
        let _ = writeln!(
            text,
            "\nlocked   by {} since {}, last seen beating {}",
            lock.holder, lock.since, lock.last_beat
        );
    }
    text
}

fn state(state: State) -> &'static str {
    match state {
        State::Complete => "complete",
        State::Incomplete => "incomplete",
        State::Drifted => "drifted",
        State::Absent => "absent",
    }
}

/// A table without lines.
pub(super) fn headed(names: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(names.iter().copied());
    table
}

/// Adds the table without the spaces at the ends of its lines.
pub(super) fn push(text: &mut String, table: &Table) {
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use bme_runbooks::{
        engine::lock::Holder,
        status::{Queue, Resources, Running, Service, Step},
    };

    use super::*;

    #[test]
    fn for_people() {
        console::set_colors_enabled(false);
        let step = |number, name, state, ready, missing, drifted| Step {
            number,
            name,
            state,
            resources: Resources { total: ready + missing + drifted, ready, missing, drifted },
        };
        let status = Status {
            env: "staging".into(),
            url: Some("https://d111111abcdef8.cloudfront.net".into()),
            steps: vec![
                step(1, "network", State::Complete, 31, 0, 0),
                step(2, "database", State::Drifted, 9, 0, 1),
                step(3, "cache", State::Incomplete, 2, 3, 0),
                step(4, "compute", State::Absent, 0, 20, 0),
            ],
            release: Some(Running {
                tag: "v1.2.3".into(),
                digest: format!("sha256:{}", "0f".repeat(32)),
                deployed_at: "2026-11-23T19:54:39Z".into(),
            }),
            services: vec![Service {
                name: "api".into(),
                desired: 2,
                running: 2,
                healthy: 1,
                task_definition:
                    "arn:aws:ecs:eu-west-1:123456789012:task-definition/bme-staging-api:7".into(),
            }],
            queue: Some(Queue { visible: 3, in_flight: 1, dead: 0 }),
            lock: Some(Holder {
                holder: "anna@laptop (pid 4711)".into(),
                run: "20261123T195439-4711".into(),
                since: "2026-11-23T19:54:39Z".into(),
                last_beat: "2026-11-23T19:55:09Z".into(),
            }),
        };
        insta::assert_snapshot!(table(&status));
    }
}
