//! The sandbox for people.

use bme_runbooks::sandbox::{Running, Status};

use super::status::{headed, push};

/// Where it answers.
pub(crate) fn running(running: &Running) -> String {
    format!(
        "application   {}\nAWS endpoint  {}\nauthority     {}\n",
        running.url,
        running.endpoint_url,
        running.ca_pem.display()
    )
}

/// Its parts.
pub(crate) fn table(status: &Status) -> String {
    let mut table = headed(&["part", "state", "pid", "address"]);
    for part in &status.parts {
        table.add_row([
            part.name.to_owned(),
            if part.running { "running" } else { "down" }.to_owned(),
            part.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            part.address.clone(),
        ]);
    }
    let mut text = String::new();
    push(&mut text, &table);
    text
}
