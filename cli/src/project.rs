//! Where the environment files are.

use std::path::{Path, PathBuf};

use crate::exit::Stop;

/// Name of the directory that is looked for.
pub(crate) const ENVIRONMENTS: &str = "environments";

/// The directory of environment files and the project that it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Project {
    /// Holds the environment files.
    pub(crate) environments: PathBuf,
    /// The directory above; the sandbox's state and a release's source are relative to it.
    pub(crate) root: PathBuf,
}

impl Project {
    /// The given directory, or the nearest `environments` at or above `from`.
    pub(crate) fn find(config: Option<&Path>, from: &Path) -> Result<Self, Stop> {
        let environments = match config {
            Some(directory) => {
                let directory = from.join(directory);
                if !directory.is_dir() {
                    let message = format!("there is no directory {}", directory.display());
                    return Err(Stop::usage(message, "`--config` names the directory of the environment files"));
                }
                directory
            }
            None => from
                .ancestors()
                .map(|directory| directory.join(ENVIRONMENTS))
                .find(|directory| directory.is_dir())
                .ok_or_else(|| {
                    Stop::usage(
                        format!("there is no directory `{ENVIRONMENTS}` here or above"),
                        "run `bme init NAME` to write the first environment, or name one with `--config DIR`",
                    )
                })?,
        };
        let environments = environments
            .canonicalize()
            .map_err(Stop::io(format!("open {}", environments.display())))?;
        let root = environments.parent().unwrap_or(&environments).to_owned();
        Ok(Self { environments, root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_upwards() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir(root.path().join(ENVIRONMENTS)).unwrap();
        let project = Project::find(None, &below).unwrap();
        assert_eq!(project.root, root.path().canonicalize().unwrap());
        let named = Project::find(Some(Path::new("../../environments")), &below).unwrap();
        assert_eq!(project, named);
    }

    #[test]
    fn a_missing_directory_is_bad_usage() {
        let root = tempfile::tempdir().unwrap();
        let stop = Project::find(Some(Path::new("nowhere")), root.path()).unwrap_err();
        assert_eq!(stop.exit(), crate::exit::Exit::Invalid);
    }
}
