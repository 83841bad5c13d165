//! What the service costs, measured from outside: the size of the image, the time to the first
//! ready answer, memory, and for five kinds of request the rate and the CPU time of the process,
//! beside what PostgreSQL and Redis do by themselves with the same statements.
//!
//! The service has core 0; the load, PostgreSQL and Redis share core 1. The kinds take turns in
//! every round, and a ratio is always one of figures from the same round. Nothing here fails by time;
//! a single error in the answers does end it.

// The table on stdout and the progress on stderr are what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod limit;
mod load;
mod servers;
mod service;

use anyhow::Result;
use bme_runbooks::release::{self, Image, Progress};
use bme_tests::workspace;

use crate::{
    limit::Limits,
    load::{Kind, Load},
    servers::Servers,
    service::Service,
};

/// Rounds over all kinds.
const ROUNDS: usize = 5;

/// Starts whose median is told.
const STARTS: usize = 9;

#[tokio::main]
async fn main() -> Result<()> {
    eprintln!("building the release, as `bme deploy` does");
    let built = release::build(&workspace(), &|progress| {
        if let Progress::Building { line } = progress {
            eprintln!("  {line}");
        }
    })
    .await?;
    let image = Image::new(built.binary.clone().into(), &built.web)?;
    println!("image       {:>8.2} MB compressed", mega(image.size()));
    println!("binary      {:>8.2} MB", mega(built.binary.len()));

    let servers = Servers::start()?;
    let binary = servers.directory().join("bme-service");
    std::fs::write(&binary, &built.binary)?;
    let environment = servers.environment();
    service::migrate(&binary, &environment)?;

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let service = Service::start(&binary, &environment)?;
        starts.push(service.milliseconds_to_ready);
    }
    let [least, median, most] = spread(&mut starts);
    println!("start       {median:>8.1} ms until ready (of {STARTS}: {least:.1} to {most:.1})");

    let service = Service::start(&binary, &environment)?;
    println!("idle        {:>8.1} MB resident", service.resident_megabytes()?);
    let load = Load::prepare(&service, servers.directory())?;
    let limits = Limits::prepare(&servers, &load)?;

    let mut table: Vec<Vec<Round>> = Kind::ALL.iter().map(|_| Vec::new()).collect();
    for round in 1..=ROUNDS {
        for (kind, rounds) in Kind::ALL.into_iter().zip(&mut table) {
            eprintln!("round {round} of {ROUNDS}: {}", kind.title());
            let before = service.cpu_seconds()?;
            let done = load.run(kind)?;
            let cpu = service.cpu_seconds()? - before;
            let limit = limits.run(kind)?;
            rounds.push(Round { rate: done.rate, microseconds: cpu / done.requests * 1e6, limit });
        }
    }
    println!("after load  {:>8.1} MB resident\n", service.resident_megabytes()?);
    println!("{:<18}{:>10}{:>8}{:>14}   pgbench", "request", "per s", "µs CPU", "min to max");
    for (kind, rounds) in Kind::ALL.into_iter().zip(&table) {
        print_row(kind, rounds);
    }
    println!("\n{:<18}{:>10}   asked of Redis for one request", "redis-benchmark", "per s");
    for (command, rate) in limit::redis(&servers)? {
        println!("{command:<18}{rate:>10.0}");
    }
    for kind in Kind::ALL {
        println!("{:<28}   {}", kind.title(), limits.redis_commands(kind, &load)?);
    }
    Ok(())
}

/// One kind of request in one round.
struct Round {
    /// Requests a second.
    rate: f64,
    /// CPU of the service's process per request, microseconds.
    microseconds: f64,
    /// Transactions a second of the same statements in `pgbench`.
    limit: Option<f64>,
}

fn print_row(kind: Kind, rounds: &[Round]) {
    let [_, rate, _] = spread(&mut rounds.iter().map(|round| round.rate).collect::<Vec<_>>());
    let mut cpu: Vec<_> = rounds.iter().map(|round| round.microseconds).collect();
    let [least, median, most] = spread(&mut cpu);
    let mut limits: Vec<_> = rounds.iter().filter_map(|round| round.limit).collect();
    let mut ratios: Vec<_> =
        rounds.iter().filter_map(|round| Some(round.rate / round.limit? * 100.0)).collect();
    let limit = if limits.is_empty() {
        "asks no database".to_owned()
    } else {
        let ([_, ratio, _], [_, rate, _]) = (spread(&mut ratios), spread(&mut limits));
        format!("{ratio:.0} % of {rate:.0} with the same statements")
    };
    let range = format!("{least:.0} to {most:.0}");
    println!("{:<18}{rate:>10.0}{median:>8.0}{range:>14}   {limit}", kind.title());
}

/// Least, median, most.
fn spread(figures: &mut [f64]) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    let last = figures.len() - 1;
    [figures[0], figures[last / 2], figures[last]]
}

#[allow(clippy::cast_precision_loss)] // Sizes of files.
fn mega(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
