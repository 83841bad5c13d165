//! The longest name that an environment may have, three zones and everything that is optional, in two
//! regions: AWS's own models take every request, and a second look finds nothing to do.

use anyhow::{Result, ensure};
use bme_tests::{Project, ask, difference, inventory, requests};
use serde_json::json;

/// 40 characters.
const NAME: &str = "local-with-the-longest-name-there-may-be";

/// What the tables of the file hold besides, by the line after which it stands.
const BESIDES: [(&str, &str); 3] = [
    ("[database]", "multi_az = true\n"),
    (
        "[compute]",
        "certificate_arn = \"arn:aws:acm:REGION:000000000000:certificate/0198c5a4-0000-7000-8000-000000000001\"\n",
    ),
    ("[queue]", "alert_emails = [\"alerts@example.com\"]\n"),
];

const TABLES: &str = r#"
[tags]
team = "platform"
"cost:centre" = "R 1/2 + 3 = @home"

[network]
zones = 3
nat = "NAT"

[cache]
engine = "ENGINE"
nodes = 2
snapshot_retention_days = 1

[identity]
auth = "cognito"
callback_urls = ["https://example.com/auth/callback", "http://localhost:3000/auth/callback"]
google_secret = "google"
facebook_secret = "facebook"

[edge]
domain = "app.example.com"
certificate_arn = "arn:aws:acm:us-east-1:000000000000:certificate/0198c5a4-0000-7000-8000-000000000002"
price_class = "PriceClass_All"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_name_and_all_options_in_two_regions() -> Result<()> {
    // Without a NAT gateway there are endpoints for the services.
    for (region, nat, engine) in
        [("eu-west-1", "per-zone", "redis"), ("us-east-1", "none", "valkey")]
    {
        in_region(region, nat, engine).await?;
    }
    Ok(())
}

async fn in_region(region: &str, nat: &str, engine: &str) -> Result<()> {
    let project = Project::named(NAME, region)?;
    let file = project.file();
    let mut text = std::fs::read_to_string(&file)?;
    for (table, more) in BESIDES {
        text = text.replacen(&format!("{table}\n"), &format!("{table}\n{more}"), 1);
    }
    text += TABLES;
    text = text
        .replace("REGION", region)
        .replace("\"NAT\"", &format!("\"{nat}\""))
        .replace("ENGINE", engine)
        .replace("container_insights = false", "container_insights = true")
        .replace("backup_retention_days = 0", "backup_retention_days = 7")
        .replace("collector = false", "collector = true");
    std::fs::write(file, text)?;

    project.run(&["sandbox", "up"])?;
    requests::self_test(&project)?;
    let empty = inventory(&project).await?;
    requests::record(&project).await?;
    for name in ["google", "facebook"] {
        let value = json!({"clientId": "id", "clientSecret": "secret"}).to_string();
        let secret = json!({"Name": name, "SecretString": value});
        ask(&project, "secretsmanager", "secretsmanager.CreateSecret", &secret).await?;
    }
    project.run(&["--yes", "provision"])?;
    let plan = project.json(&["plan"])?;
    let changes = ["create", "update", "replace", "delete"].map(|what| &plan["summary"][what]);
    ensure!(changes.iter().all(|count| **count == 0), "{region}: {plan:#}");
    project.run(&["--yes", "destroy", "--allow-data-loss"])?;
    let left = difference(&empty, &inventory(&project).await?);
    ensure!(left.is_empty(), "{region}: destroy left something: {left:#?}");
    requests::all_valid(&project).await
}
