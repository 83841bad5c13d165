//! Releases for people.

use std::fmt::Write as _;

use bme_runbooks::release::Release;

use super::status::{headed, push};

/// All of them, newest first.
pub(crate) fn table(releases: &[Release]) -> String {
    let mut table = headed(&["tag", "deployed", "schema", "image"]);
    for release in releases {
        table.add_row([
            release.tag.clone(),
            release.deployed_at.clone(),
            release.schema.to_string(),
            release.digest.clone(),
        ]);
    }
    let mut text = String::new();
    push(&mut text, &table);
    text
}

/// One, whole.
pub(crate) fn detail(release: &Release) -> String {
    let mut text = format!(
        "tag       {}\ndeployed  {}\nimage     {}\nschema    {}\nweb       {}\n",
        release.tag, release.deployed_at, release.image, release.schema, release.web
    );
    for (name, value) in &release.configuration {
        let _ = writeln!(text, "variable  {name}={value}");
    }
    for (name, version) in &release.secret_versions {
        let _ = writeln!(text, "secret    {name} version {version}");
    }
    text
}
