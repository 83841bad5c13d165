//! Keeps HAProxy's servers equal to the targets of the environment's API target group, over the
//! runtime API, so that no reload ever drops a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::identify::Scope;
use super::rds::{element, in_blocks};
use crate::sandbox::haproxy;

/// How often the target group is read.
const INTERVAL: Duration = Duration::from_millis(500);
/// Target health states that take new requests (Elastic Load Balancing user guide); `initial`
/// is among them because HAProxy checks every server itself before it sends it anything.
const SERVING: [&str; 3] = ["healthy", "initial", "unhealthy"];

/// What HAProxy is to do with a target.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Wanted {
    Serve,
    /// Finish what is open, take nothing new.
    Drain,
}

/// A server slot of HAProxy.
#[derive(Clone, PartialEq, Debug)]
struct Slot {
    name: String,
    address: Option<SocketAddr>,
    draining: bool,
}

/// Follows the target group for as long as the gateway runs.
pub(super) async fn follow(gateway: Arc<Gateway>) {
    let settings = &gateway.state.settings;
    let scope = Scope { account: settings.account.clone(), region: settings.region.clone() };
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(wanted) = wanted(&gateway, &scope).await
            && let Ok(answer) =
                haproxy::command(&gateway.paths, &["show servers state api".into()]).await
        {
            for command in commands(&wanted, &slots(&answer)) {
                if let Err(error) = haproxy::command(&gateway.paths, &command).await {
                    tracing::warn!(%error, "HAProxy does not take commands");
                }
            }
        }
    }
}

/// The targets by address; `None` while the emulator does not tell.
async fn wanted(gateway: &Gateway, scope: &Scope) -> Option<BTreeMap<SocketAddr, Wanted>> {
    let version = ("Version", "2015-12-01");
    let service = "elasticloadbalancing";
    let groups = gateway
        .upstream
        .query(scope, service, &[("Action", "DescribeTargetGroups"), version])
        .await;
    if !groups.is_success() {
        return None;
    }
    let Some(arn) =
        choose(&members(&groups.text(), "TargetGroupArn"), &gateway.state.settings.environment)
    else {
        return Some(BTreeMap::new());
    };
    let health = gateway
        .upstream
        .query(
            scope,
            service,
            &[("Action", "DescribeTargetHealth"), version, ("TargetGroupArn", &arn)],
        )
        .await;
    health.is_success().then(|| targets(&health.text()))
}

/// The environment's group, by its name; the one that speaks of the API, where there are more. Of a
/// long environment's name the group has only the start, see [`Label::new`](crate::aws::Label::new).
fn choose(arns: &[String], environment: &str) -> Option<String> {
    // 32 characters of a group's name less a hyphen and the hash.
    const KEPT: usize = 25;
    // arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID
    let name = |arn: &String| arn.split('/').nth(1).unwrap_or_default().to_owned();
    let start: String = format!("bme-{environment}-").chars().take(KEPT).collect();
    let start = start.trim_end_matches('-');
    let cut = |name: &str| environment.len() + 5 > KEPT && name.starts_with(start);
    let ours = |arn: &&String| name(arn).contains(environment) || cut(&name(arn));
    let own: Vec<&String> = arns.iter().filter(ours).collect();
    own.iter().find(|arn| name(arn).contains("api")).or(own.first()).map(|arn| (*arn).clone())
}

fn targets(xml: &str) -> BTreeMap<SocketAddr, Wanted> {
    // <member><Target><Id>10.89.1.2</Id><Port>8080</Port></Target>…<TargetHealth><State>healthy</State>
    xml.split("<Target>")
        .skip(1)
        .filter_map(|part| {
            let address = SocketAddr::new(
                element(part, "Id")?.parse().ok()?,
                element(part, "Port")?.parse().ok()?,
            );
            match element(part, "State")? {
                "draining" => Some((address, Wanted::Drain)),
                state if SERVING.contains(&state) => Some((address, Wanted::Serve)),
                _ => None,
            }
        })
        .collect()
}

/// `show servers state`: columns 4 (name), 5 (address), 7 (administrative state), 19 (port) of
/// format version 1 (HAProxy management guide).
fn slots(answer: &str) -> Vec<Slot> {
    const MAINTENANCE: u32 = 0x01;
    const DRAIN: u32 = 0x08;
    answer
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let administrative: u32 = columns.get(6)?.parse().ok()?;
            let address =
                SocketAddr::new(columns.get(4)?.parse().ok()?, columns.get(18)?.parse().ok()?);
            Some(Slot {
                name: (*columns.get(3)?).to_owned(),
                address: (administrative & MAINTENANCE == 0).then_some(address),
                draining: administrative & DRAIN != 0,
            })
        })
        .collect()
}

/// Commands, by connection, that turn `slots` into what is wanted.
fn commands(wanted: &BTreeMap<SocketAddr, Wanted>, slots: &[Slot]) -> Vec<Vec<String>> {
    let set = |slot: &Slot, what: &str| format!("set server api/{} {what}", slot.name);
    let mut commands = Vec::new();
    for slot in slots {
        let Some(address) = slot.address else {
            continue;
        };
        match wanted.get(&address) {
            None => commands.push(vec![set(slot, "state maint")]),
            Some(Wanted::Drain) if !slot.draining => commands.push(vec![set(slot, "state drain")]),
            Some(Wanted::Serve) if slot.draining => commands.push(vec![set(slot, "state ready")]),
            Some(_) => {}
        }
    }
    let used: Vec<SocketAddr> = slots.iter().filter_map(|slot| slot.address).collect();
    let mut free = slots.iter().filter(|slot| slot.address.is_none());
    for address in
        wanted.iter().filter(|(a, w)| **w == Wanted::Serve && !used.contains(a)).map(|(a, _)| a)
    {
        let Some(slot) = free.next() else {
            tracing::warn!(%address, slots = haproxy::SLOTS, "more targets than HAProxy has slots");
            break;
        };
        commands.push(vec![
            set(slot, &format!("addr {} port {}", address.ip(), address.port())),
            set(slot, "state ready"),
            // Down until its first check, which follows within a second.
            set(slot, "health down"),
        ]);
    }
    commands
}

/// Texts of all elements `name`.
fn members(xml: &str, name: &str) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    in_blocks(xml, name, |text| {
        found.borrow_mut().push(text.to_owned());
        String::new()
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 89, 1, last], 8080))
    }

    #[test]
    fn targets_are_read_with_their_states() {
        let xml = "<member><Target><Id>10.89.1.2</Id><Port>8080</Port></Target><TargetHealth><State>healthy</State></TargetHealth></member>\
                   <member><Target><Id>10.89.1.3</Id><Port>8080</Port></Target><TargetHealth><State>draining</State></TargetHealth></member>\
                   <member><Target><Id>10.89.1.4</Id><Port>8080</Port></Target><TargetHealth><State>unused</State></TargetHealth></member>";
        assert_eq!(
            targets(xml),
            BTreeMap::from([(address(2), Wanted::Serve), (address(3), Wanted::Drain)])
        );
    }

    #[test]
    fn slots_follow_the_targets() {
        let slot =
            |n: u8, address, draining| Slot { name: format!("target{n}"), address, draining };
        let slots = [
            slot(1, Some(address(2)), false),
            slot(2, Some(address(3)), false),
            slot(3, None, false),
        ];
        let wanted = BTreeMap::from([(address(3), Wanted::Drain), (address(4), Wanted::Serve)]);
        let commands = commands(&wanted, &slots);
        assert_eq!(commands[0], ["set server api/target1 state maint"]);
        assert_eq!(commands[1], ["set server api/target2 state drain"]);
        assert_eq!(commands[2][0], "set server api/target3 addr 10.89.1.4 port 8080");
        assert_eq!(commands.len(), 3);
    }

    #[test]
    fn the_environments_api_group_is_chosen() {
        let arn =
            |name: &str| format!("arn:aws:elasticloadbalancing:us-east-1:0:targetgroup/{name}/1");
        let arns = [arn("bme-staging-api"), arn("bme-local-mcp"), arn("bme-local-api")];
        assert_eq!(choose(&arns, "local"), Some(arn("bme-local-api")));
        assert_eq!(choose(&arns[..2], "local"), Some(arn("bme-local-mcp")));
        assert_eq!(choose(&arns, "production"), None);
        assert_eq!(choose(&[], "local"), None);
        // As `Label::new` cuts it.
        let long = [arn("bme-an-environment-with-a-0123ab")];
        assert_eq!(choose(&long, "an-environment-with-a-long-name"), Some(long[0].clone()));
        assert_eq!(choose(&long, "an-environment"), Some(long[0].clone()));
        assert_eq!(choose(&long, "an-other-environment-with-a-name"), None);
    }
}
