use std::{fs, io, path::Path};

use bme_runbooks::environment::{self, PLACEHOLDER_ACCOUNT, Target};

use super::Context;
use crate::{
    exit::{Exit, Stop},
    project::{ENVIRONMENTS, Project},
};

/// Write a commented environment file to start from
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the environment
    name: String,
    /// Account that it may be applied to
    #[arg(long, value_name = "ID", default_value = PLACEHOLDER_ACCOUNT)]
    account: String,
    /// Region
    #[arg(long, value_name = "REGION", default_value = "eu-west-1")]
    region: String,
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
    let text = TEMPLATE
        .replace("name = \"staging\"", &format!("name = {:?}", args.name))
        .replace("\"eu-west-1\"", &format!("{:?}", args.region))
        .replace(&format!("[\"{PLACEHOLDER_ACCOUNT}\"]"), &format!("[{:?}]", args.account))
        .replace("A small stack to try releases on. Whatever", "Whatever");
    environment::parse(&file, &text, Target::Emulator).map_err(Stop::Environment)?;
    write(&directory, &file, &text)?;
    context.output.note(&format!("wrote {}", file.display()));
    context.output.hint(&format!("`bme plan --env {}` shows what it asks for", args.name));
    Ok(Exit::Done)
}

fn write(directory: &Path, file: &Path, text: &str) -> Result<(), Stop> {
    fs::create_dir_all(directory).map_err(Stop::io(format!("make {}", directory.display())))?;
    let new = fs::OpenOptions::new().write(true).create_new(true).open(file);
    match new.and_then(|mut opened| io::Write::write_all(&mut opened, text.as_bytes())) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let message = format!("{} is there already", file.display());
            return Err(Stop::usage(message, "choose another name, or edit that file"));
        }
        Err(error) => return Err(Stop::io(format!("write {}", file.display()))(error)),
    }
    // The first line of the file names the schema for editors.
    let schema = directory.join("schema.json");
    if schema.exists() {
        return Ok(());
    }
    fs::write(&schema, environment::schema_json())
        .map_err(Stop::io(format!("write {}", schema.display())))
}
