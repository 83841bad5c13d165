use std::{fs, path::Path};

use bme_runbooks::{
    environment::{self, PLACEHOLDER_ACCOUNT, Target},
    steps::delivery::workflows,
};

use super::Context;
use crate::{
    exit::{Exit, Stop},
    project::{ENVIRONMENTS, Project},
};

/// Write a commented environment file to start from, and the workflow that deploys it
///
/// Where the file is there already it stays as it is, and only what follows from it is written anew:
/// the GitHub workflow under `.github/workflows` and the schema for editors.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the environment
    name: String,
    /// Account that it may be applied to
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Region
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

/// The file that is started from; it is one of those that are tested.
const TEMPLATE: &str = include_str!("../../../environments/staging.toml");

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Stop> {
    let here = Context::current_directory()?;
    let directory = match Project::find(context.global.config.as_deref(), &here) {
        Ok(project) => project.environments,
        Err(stop) if context.global.config.is_some() => return Err(stop),
        Err(_) => here.join(ENVIRONMENTS),
    };
    let file = directory.join(format!("{}.toml", args.name));
    let there = file.exists();
    if there && (args.account.is_some() || args.region.is_some()) {
        let message = format!("{} is there already", file.display());
        return Err(Stop::usage(message, "edit that file, or choose another name"));
    }
    let text = if there {
        fs::read_to_string(&file).map_err(Stop::io(format!("read {}", file.display())))?
    } else {
        template(args)
    };
    let environment =
        environment::parse(&file, &text, Target::Emulator).map_err(Stop::Environment)?;
    let mut files = vec![(directory.join("schema.json"), environment::schema_json())];
    if !there {
        files.push((file, text));
    }
    let root = directory.parent().unwrap_or(&here);
    for (path, text) in workflows(&environment) {
        files.push((root.join(path), text));
    }
    for (path, text) in files {
        if write(&path, &text)? {
            context.output.note(&format!("wrote {}", path.display()));
        }
    }
    context.output.hint(&format!("`bme plan --env {}` shows what it asks for", args.name));
    Ok(Exit::Done)
}

fn template(args: &Args) -> String {
    let account = args.account.as_deref().unwrap_or(PLACEHOLDER_ACCOUNT);
    let region = args.region.as_deref().unwrap_or("eu-west-1");
    TEMPLATE
        .replace("name = \"staging\"", &format!("name = {:?}", args.name))
        .replace("\"eu-west-1\"", &format!("{region:?}"))
        .replace(&format!("[\"{PLACEHOLDER_ACCOUNT}\"]"), &format!("[{account:?}]"))
        .replace("A small stack to try releases on. Whatever", "Whatever")
}

/// Whether it had to be written.
fn write(path: &Path, text: &str) -> Result<bool, Stop> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(Stop::io(format!("make {}", directory.display())))?;
    }
    fs::write(path, text).map_err(Stop::io(format!("write {}", path.display())))?;
    Ok(true)
}
