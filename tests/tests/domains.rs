//! A domain in a Route 53 zone: certificates and records are made, mended and taken away again, and
//! nobody else's record is touched.

use anyhow::{Context as _, Result, ensure};
use bme_tests::{Project, ask, difference, inventory, query, rest, said};
use serde_json::{Value, json};

const ZONE: &str = "example.org";

/// What a domain at `app.example.org` brings: name and type of each record.
const RECORDS: [(&str, &str); 9] = [
    ("app", "A"),
    ("app", "AAAA"),
    ("bme-owner.app", "TXT"),
    ("_acme-challenge.app", "CNAME"),
    ("bme-owner._acme-challenge.app", "TXT"),
    ("origin.app", "A"),
    ("bme-owner.origin.app", "TXT"),
    ("_acme-challenge.origin.app", "CNAME"),
    ("bme-owner._acme-challenge.origin.app", "TXT"),
];

/// Records that every zone has, and the one that somebody else has made in this one.
const OTHERS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_comes_is_mended_and_goes_and_leaves_the_zone_as_it_was() -> Result<()> {
    let project = Project::new()?;
    project.run(&["sandbox", "up"])?;
    let empty = inventory(&project).await?;
    let zone = Zone::create(&project).await?;
    let theirs = "<Name>www.example.org.</Name><Type>A</Type><TTL>60</TTL><ResourceRecords>\
                  <ResourceRecord><Value>192.0.2.1</Value></ResourceRecord></ResourceRecords>";
    zone.change("CREATE", theirs).await?;

    zone.configure("app")?;
    project.run(&["--yes", "provision"])?;
    project.run(&["plan", "--check"])?;
    let there = zone.records().await?;
    for (name, kind) in RECORDS {
        ensure!(there.iter().any(|set| is(set, name, kind)), "no {kind} of {name}: {there:#?}");
    }
    ensure!(there.len() == RECORDS.len() + OTHERS, "{there:#?}");
    ensure!(certificates(&project).await? == 2, "not two certificates");
    https_between_edge_and_load_balancer(&project).await?;

    // Mended, whichever of them is gone.
    for (name, kind) in [("app", "A"), ("bme-owner.app", "TXT"), ("_acme-challenge.app", "CNAME")] {
        let record = there.iter().find(|set| is(set, name, kind)).context("it was there")?;
        zone.change("DELETE", record).await?;
        let plan = project.json(&["plan"])?;
        ensure!(actions(&plan)?.len() == 1, "{name} {kind}: {:?}", actions(&plan)?);
        project.run(&["--yes", "provision"])?;
        let mended = zone.records().await?;
        ensure!(mended.iter().any(|set| is(set, name, kind)), "no {kind} of {name}: {mended:#?}");
        ensure!(mended.len() == there.len(), "{mended:#?}");
    }

    // What somebody else has made is told and left alone.
    zone.configure("www")?;
    let refused = project.bme(&["--yes", "provision"]).output()?;
    let stderr = said(&refused, &["provision"], 1)?;
    ensure!(stderr.contains("not-ours") && stderr.contains("bme-owner.www"), "{stderr}");
    ensure!(zone.records().await? == there, "a record was touched");

    // A file without a domain, and one with another, leave nothing of the first.
    project.configure("")?;
    let gone = actions(&project.json(&["plan"])?)?;
    for id in ["edge/former-domain", "compute/former-domain"] {
        ensure!(gone.contains(&("delete".into(), id.into())), "{id} is not among {gone:?}");
    }
    project.run(&["--yes", "provision"])?;
    zone.is_as_it_was().await?;
    zone.configure("app")?;
    project.run(&["--yes", "provision"])?;
    zone.configure("shop")?;
    project.run(&["--yes", "provision"])?;
    let there = zone.records().await?;
    ensure!(!there.iter().any(|set| set.contains("app.example.org")), "{there:#?}");
    ensure!(there.len() == RECORDS.len() + OTHERS, "{there:#?}");
    project.run(&["plan", "--check"])?;

    project.run(&["--yes", "destroy", "--allow-data-loss"])?;
    zone.is_as_it_was().await?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "destroy left something: {left:#?}");
    Ok(())
}

/// A zone that somebody has made by hand.
struct Zone<'a> {
    project: &'a Project,
    id: String,
}

impl<'a> Zone<'a> {
    async fn create(project: &'a Project) -> Result<Self> {
        let request = format!(
            "<CreateHostedZoneRequest><Name>{ZONE}</Name>\
             <CallerReference>test</CallerReference></CreateHostedZoneRequest>"
        );
        let answer = rest(project, "route53", "/2013-04-01/hostedzone", Some(request)).await?;
        let id = between(&answer, "<Id>/hostedzone/", "<").context("a zone has an id")?;
        Ok(Self { project, id: id.to_owned() })
    }

    /// The environment's domain is `NAME.example.org`.
    fn configure(&self, name: &str) -> Result<()> {
        let (domain, id) = (format!("{name}.{ZONE}"), &self.id);
        self.project
            .configure(&format!("[edge]\ndomain = \"{domain}\"\nhosted_zone_id = \"{id}\"\n"))
    }

    fn path(&self) -> String {
        format!("/2013-04-01/hostedzone/{}/rrset", self.id)
    }

    /// The members of each record set, XML, in the order of Route 53.
    async fn records(&self) -> Result<Vec<String>> {
        let answer = rest(self.project, "route53", &self.path(), None).await?;
        let sets = answer.split("<ResourceRecordSet>").skip(1);
        Ok(sets.filter_map(|set| Some(set.split_once("</ResourceRecordSet>")?.0.into())).collect())
    }

    async fn change(&self, action: &str, record: &str) -> Result<()> {
        let request = format!(
            "<ChangeResourceRecordSetsRequest><ChangeBatch><Changes><Change>\
             <Action>{action}</Action><ResourceRecordSet>{record}</ResourceRecordSet>\
             </Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        rest(self.project, "route53", &self.path(), Some(request)).await.map(drop)
    }

    /// Only what every zone has, and what somebody else has made; no certificate either.
    async fn is_as_it_was(&self) -> Result<()> {
        let left = self.records().await?;
        ensure!(left.len() == OTHERS, "{left:#?}");
        ensure!(certificates(self.project).await? == 0, "a certificate is left");
        Ok(())
    }
}

/// Whether a record set is that of `NAME.example.org` of a type.
fn is(set: &str, name: &str, kind: &str) -> bool {
    set.starts_with(&format!("<Name>{name}.{ZONE}.</Name><Type>{kind}</Type>"))
}

/// How many certificates there are.
async fn certificates(project: &Project) -> Result<usize> {
    let answer = ask(project, "acm", "CertificateManager.ListCertificates", &json!({})).await?;
    Ok(answer["CertificateSummaryList"].as_array().context("a list of certificates")?.len())
}

/// The listener takes HTTPS, and the distribution calls it by the name of its certificate.
async fn https_between_edge_and_load_balancer(project: &Project) -> Result<()> {
    let balancing = async |parameters: &str| {
        query(&project.endpoint, "elasticloadbalancing", "2015-12-01", parameters).await
    };
    let balancers = balancing("DescribeLoadBalancers").await?;
    let arn = between(&balancers, "<LoadBalancerArn>", "<").context("a load balancer")?;
    let listeners = balancing(&format!("DescribeListeners&LoadBalancerArn={arn}")).await?;
    ensure!(listeners.contains("<Protocol>HTTPS</Protocol>"), "{listeners}");
    ensure!(listeners.contains("<CertificateArn>arn:aws:acm:"), "{listeners}");
    let distributions = rest(project, "cloudfront", "/2020-05-31/distribution", None).await?;
    ensure!(distributions.contains("origin.app.example.org"), "{distributions}");
    ensure!(distributions.contains("<CNAME>app.example.org</CNAME>"), "{distributions}");
    Ok(())
}

/// What a plan does, without what is right.
fn actions(plan: &Value) -> Result<Vec<(String, String)>> {
    let changes = plan["changes"].as_array().context("a plan has changes")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = changes.iter().map(|change| (text(&change["action"]), text(&change["id"])));
    Ok(all.filter(|(action, _)| action != "none" && action != "deferred").collect())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}
