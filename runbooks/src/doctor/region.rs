//! Whether the region is open to the account and has enough zones.

use super::{Check, Patient};
use crate::{aws::failed, engine::Error};

/// Asks EC2 for the region's opt-in state and its zones.
pub(super) async fn check(patient: &Patient<'_>) -> Check {
    let Patient { aws, environment, timings, .. } = patient;
    let asked =
        tokio::try_join!(timings.repeat(|| opt_in(patient)), timings.repeat(|| aws.ec2.zones()),);
    match asked {
        Ok((status, zones)) => {
            judge(&aws.region, status.as_deref(), zones.len(), environment.network.zones)
        }
        Err(error) => Check::not_made("region", &error),
    }
}

/// `opt-in-not-required`, `opted-in` or `not-opted-in`; none when AWS knows no such region.
async fn opt_in(patient: &Patient<'_>) -> Result<Option<String>, Error> {
    let regions = patient.aws.ec2.client.describe_regions().all_regions(true).send().await;
    let regions = regions.map_err(failed("ec2:DescribeRegions"))?;
    let ours = regions
        .regions()
        .iter()
        .find(|region| region.region_name() == Some(patient.aws.region.as_str()));
    // An emulator may leave the state out.
    Ok(ours.map(|region| region.opt_in_status().unwrap_or("opt-in-not-required").to_owned()))
}

fn judge(region: &str, status: Option<&str>, zones: usize, wanted: u8) -> Check {
    match status {
        None => Check::fail("region", format!("AWS has no region {region}"))
            .with_hint("correct `aws.region`"),
        Some("not-opted-in") => {
            Check::fail("region", format!("{region} is not switched on in this account")).with_hint(
                format!("`aws account enable-region --region-name {region}`, then wait minutes"),
            )
        }
        Some(_) if zones < usize::from(wanted) => Check::fail(
            "region",
            format!("{region} has {zones} zones for this account, the file asks for {wanted}"),
        )
        .with_hint("lower `network.zones`, or choose another region"),
        Some(_) => Check::ok("region", format!("{region} is open, with {zones} zones")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_region_is_open_and_wide_enough() {
        let state = |status, zones| judge("eu-west-1", status, zones, 3).state;
        assert_eq!(state(Some("opt-in-not-required"), 3), State::Ok);
        assert_eq!(state(Some("opted-in"), 2), State::Fail);
        assert_eq!(state(Some("not-opted-in"), 3), State::Fail);
        assert_eq!(state(None, 3), State::Fail);
    }
}
