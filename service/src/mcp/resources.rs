//! The resources: what an assistant looks at without being asked for anything in particular.

use jiff::{Timestamp, tz::TimeZoneDatabase};
use time::Date;

use super::{auth::Caller, tools::list};
use crate::{
    app::App,
    calendar,
    entity::{Entity, GOAL, Range, SCHEDULE, TRANSACTION},
    page::{Cursor, MAX_LIMIT},
    problem::Problem,
    routes::settings::Settings,
};

/// One resource.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) uri: &'static str,
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    entity: &'static Entity,
    days: Days,
}

#[derive(Debug)]
enum Days {
    All,
    Today,
    ThisMonth,
}

/// Every resource.
pub(super) static RESOURCES: [Resource; 3] = [
    Resource {
        uri: "bme://schedule/today",
        name: "Today's schedule",
        description: "The user's schedule of today, in the user's time zone.",
        entity: &SCHEDULE,
        days: Days::Today,
    },
    Resource {
        uri: "bme://transactions/month",
        name: "This month's transactions",
        description: "The user's income and expenses of this month, in the user's time zone.",
        entity: &TRANSACTION,
        days: Days::ThisMonth,
    },
    Resource {
        uri: "bme://goals",
        name: "Goals",
        description: "What the user aims at.",
        entity: &GOAL,
        days: Days::All,
    },
];

impl Resource {
    /// What it holds now.
    pub(super) async fn read(&self, app: &App, caller: Caller) -> Result<String, Problem> {
        let range = match self.days {
            Days::All => Range::ALL,
            Days::Today => {
                let today = today(app, caller).await?;
                Range { first: today, last: today }
            }
            Days::ThisMonth => {
                let today = today(app, caller).await?;
                let month = calendar::format_date(today);
                let (first, last) =
                    calendar::parse_month(&month[..7]).ok_or_else(Problem::internal)?;
                Range { first, last }
            }
        };
        list(app, caller, self.entity, range, Cursor::START, MAX_LIMIT).await
    }
}

/// The day it is where the user lives.
async fn today(app: &App, caller: Caller) -> Result<Date, Problem> {
    let settings = Settings::of(&app.database, caller.user).await?;
    let zone = TimeZoneDatabase::bundled().get(&settings.time_zone);
    let today = zone.ok().and_then(|zone| {
        calendar::parse_date(&Timestamp::now().to_zoned_datetime(zone).date().to_string())
    });
    today.ok_or_else(Problem::internal)
}
