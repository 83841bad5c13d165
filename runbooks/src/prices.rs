//! List prices of what costs whether it is used or not, by region: the table `prices.toml`.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Hours of a month, as in AWS's own calculator.
const HOURS: f64 = 730.0;

/// The region whose prices stand in where the table has none of a region.
const STAND_IN: &str = "us-east-1";

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml_edit::de::from_str(include_str!("prices.toml"))
        .expect("the table is compiled in, and a test reads it")
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    group: Vec<Group>,
}

/// Prices with one source.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Where they hold.
    pub regions: Vec<String>,
    /// AWS's page of them: its title and its address.
    pub source: String,
    /// The month in which they are known to have held, `2026-11`.
    pub date: String,
    /// What they are for.
    pub per: Per,
    /// What else is to be known: of what a price is, how it was come by.
    pub note: Option<String>,
    /// Each price by what it is of, US dollars.
    pub usd: BTreeMap<String, f64>,
}

/// The time that a price is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// An hour.
    Hour,
    /// A month.
    Month,
}

/// What has a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A NAT gateway.
    NatGateway,
    /// An interface endpoint in one zone.
    InterfaceEndpoint,
    /// A public IPv4 address.
    PublicIpv4,
    /// A database instance of this class in one zone.
    DbInstance(&'a str),
    /// An instance of Aurora of this class.
    AuroraInstance(&'a str),
    /// A GiB of a database's storage of this type in one zone.
    DbStorage(&'a str),
    /// RDS Proxy, for each vCPU of the database.
    DbProxyVcpu,
    /// A cache node.
    CacheNode {
        /// `redis` or `valkey`.
        engine: &'a str,
        /// For instance `cache.t4g.micro`.
        node_type: &'a str,
    },
    /// A vCPU of a Fargate task.
    FargateVcpu(Architecture),
    /// A GB of memory of a Fargate task.
    FargateGb(Architecture),
    /// An application load balancer.
    LoadBalancer,
    /// A web ACL.
    WebAcl,
    /// A rule of a web ACL.
    WebAclRule,
    /// A secret.
    Secret,
    /// A metric of an alarm.
    AlarmMetric,
    /// A dashboard.
    Dashboard,
}

/// What a Fargate task runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86,
    /// 64-bit ARM.
    Arm,
}

impl<'a> Item<'a> {
    /// Its name in the table.
    fn key(self) -> Cow<'a, str> {
        match self {
            Self::NatGateway => "nat-gateway".into(),
            Self::InterfaceEndpoint => "interface-endpoint".into(),
            Self::PublicIpv4 => "public-ipv4".into(),
            Self::DbInstance(class) => class.into(),
            Self::AuroraInstance(class) => format!("aurora/{class}").into(),
            Self::DbStorage(storage_type) => format!("db-storage-{storage_type}").into(),
            Self::DbProxyVcpu => "db-proxy-vcpu".into(),
            Self::CacheNode { engine, node_type } => format!("{engine}/{node_type}").into(),
            Self::FargateVcpu(Architecture::X86) => "fargate-x86-vcpu".into(),
            Self::FargateVcpu(Architecture::Arm) => "fargate-arm-vcpu".into(),
            Self::FargateGb(Architecture::X86) => "fargate-x86-gb".into(),
            Self::FargateGb(Architecture::Arm) => "fargate-arm-gb".into(),
            Self::LoadBalancer => "load-balancer".into(),
            Self::WebAcl => "web-acl".into(),
            Self::WebAclRule => "web-acl-rule".into(),
            Self::Secret => "secret".into(),
            Self::AlarmMetric => "alarm-metric".into(),
            Self::Dashboard => "dashboard".into(),
        }
    }
}

/// The prices of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    region: &'static str,
}

impl Prices {
    /// Those of `region`; where the table has none, those of us-east-1.
    pub fn of(region: &str) -> Self {
        let known = TABLE.group.iter().flat_map(|group| &group.regions);
        let own = known.map(String::as_str).find(|known| *known == region);
        Self { region: own.unwrap_or(STAND_IN) }
    }

    /// The region whose prices these are.
    pub fn region(self) -> &'static str {
        self.region
    }

    /// The groups of the table that hold here.
    pub fn groups(self) -> impl Iterator<Item = &'static Group> {
        TABLE
            .group
            .iter()
            .filter(move |group| group.regions.iter().any(|region| region.as_str() == self.region))
    }

    /// US dollars a month for one; nothing when the price is not known.
    pub fn monthly(self, item: Item<'_>) -> Option<f64> {
        let key = item.key();
        self.groups().find_map(|group| {
            let price = group.usd.get(&*key)?;
            Some(match group.per {
                Per::Hour => price * HOURS,
                Per::Month => *price,
            })
        })
    }

    /// US dollars a month for one of each entry of a member that is an array or an object.
    pub fn of_each(self, item: Item<'_>, member: &Value) -> Option<f64> {
        let entries = match member {
            Value::Array(entries) => entries.len(),
            Value::Object(entries) => entries.len(),
            _ => return None,
        };
        self.times(item, entries)
    }

    /// US dollars a month of an alarm: on each metric among `queries`, or on one where there are none.
    pub fn of_alarm(self, queries: &Value) -> Option<f64> {
        let queries = queries.as_object().into_iter().flatten();
        let metrics = queries.filter(|(_, query)| query["metricName"].is_string()).count();
        self.times(Item::AlarmMetric, metrics.max(1))
    }

    fn times(self, item: Item<'_>, count: usize) -> Option<f64> {
        Some(self.monthly(item)? * f64::from(u32::try_from(count).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::json;

    use super::*;
    use crate::environment::{self, Cache, Database, Environment, PLACEHOLDER_ACCOUNT, Target};

    const REGIONS: [&str; 2] = [STAND_IN, "eu-west-1"];

    #[test]
    fn every_price_has_a_region_a_source_and_a_date_and_only_one_of_each() {
        let mut seen = BTreeSet::new();
        for group in &TABLE.group {
            assert!(!group.regions.is_empty() && !group.usd.is_empty(), "{group:?}");
            assert!(group.source.contains(", https://aws.amazon.com/"), "{group:?}");
            let (year, month) = group.date.split_once('-').unwrap();
            assert!((2024..2100).contains(&year.parse::<u16>().unwrap()), "{group:?}");
            assert!((1..=12).contains(&month.parse::<u8>().unwrap()), "{group:?}");
            for (name, price) in &group.usd {
                assert!(*price > 0.0, "{name}");
                for region in &group.regions {
                    assert!(seen.insert((region, name)), "{name} has two prices in {region}");
                }
            }
        }
    }

    #[test]
    fn everything_of_a_fixed_kind_has_a_price_in_both_regions() {
        for region in REGIONS {
            let prices = Prices::of(region);
            assert_eq!(prices.region(), region);
            for item in [
                Item::NatGateway,
                Item::InterfaceEndpoint,
                Item::PublicIpv4,
                Item::DbStorage("gp3"),
                Item::DbProxyVcpu,
                Item::FargateVcpu(Architecture::X86),
                Item::FargateVcpu(Architecture::Arm),
                Item::FargateGb(Architecture::X86),
                Item::FargateGb(Architecture::Arm),
                Item::LoadBalancer,
                Item::WebAcl,
                Item::WebAclRule,
                Item::Secret,
                Item::AlarmMetric,
                Item::Dashboard,
            ] {
                assert!(prices.monthly(item).is_some(), "{item:?} in {region}");
            }
        }
    }

    fn shipped() -> Vec<Environment> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../environments");
        let files = ["local.toml", "staging.toml", "production.toml"].into_iter();
        files
            .map(|name| {
                let text = fs::read_to_string(directory.join(name)).unwrap();
                let text = text.replace(PLACEHOLDER_ACCOUNT, "123456789012");
                environment::parse(Path::new(name), &text, Target::Aws).unwrap()
            })
            .collect()
    }

    #[test]
    fn every_size_that_a_file_or_a_default_names_has_a_price_in_both_regions() {
        let mut classes = vec![Database::default().instance_class];
        let mut node_types = vec![Cache::default().node_type];
        for environment in shipped() {
            classes.push(environment.database.instance_class);
            node_types.push(environment.cache.node_type);
        }
        for prices in REGIONS.map(Prices::of) {
            for class in &classes {
                assert!(prices.monthly(Item::DbInstance(class)).is_some(), "{class}");
            }
            for node_type in &node_types {
                for engine in ["redis", "valkey"] {
                    let item = Item::CacheNode { engine, node_type };
                    assert!(prices.monthly(item).is_some(), "{engine} {node_type}");
                }
            }
        }
    }

    #[test]
    fn an_instance_of_aurora_costs_more_than_one_of_postgresql_in_both_regions() {
        for prices in REGIONS.map(Prices::of) {
            for class in ["db.t4g.medium", "db.r6g.large", "db.r7g.large"] {
                let (aurora, plain) = (Item::AuroraInstance(class), Item::DbInstance(class));
                assert!(prices.monthly(aurora) > prices.monthly(plain), "{class}");
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_has_no_price_rather_than_none_at_all() {
        let prices = Prices::of(STAND_IN);
        assert_eq!(prices.monthly(Item::DbInstance("db.x9z.large")), None);
        assert_eq!(prices.monthly(Item::CacheNode { engine: "redis", node_type: "cache.x" }), None);
        assert_eq!(prices.monthly(Item::DbStorage("io2")), None);
        assert_eq!(prices.of_each(Item::PublicIpv4, &Value::Null), None);
    }

    #[test]
    fn a_region_without_prices_takes_those_of_another_and_says_so() {
        assert_eq!(Prices::of("ap-south-1"), Prices::of(STAND_IN));
        assert_eq!(Prices::of("ap-south-1").region(), STAND_IN);
    }

    #[test]
    fn a_month_has_730_hours_and_an_alarm_is_paid_by_its_metrics() {
        let prices = Prices::of(STAND_IN);
        let is = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-9;
        assert!(is(prices.monthly(Item::NatGateway), 32.85));
        assert!(is(prices.of_each(Item::PublicIpv4, &json!(["a", "b"])), 7.3));
        assert!(is(prices.of_alarm(&Value::Null), 0.1));
        let queries = json!({"a": {"metricName": "A"}, "b": {"metricName": "B"}, "c": {"expression": "a + b"}});
        assert!(is(prices.of_alarm(&queries), 0.2));
    }
}
