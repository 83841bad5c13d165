//! The two kinds of servers, for whose parameter groups RDS has operations of their own.

use tokio::time::Instant;

use crate::{
    aws::{Aws, failed},
    engine::Error,
    environment::DatabaseEngine,
};

/// What a parameter group is of, or the secret of a master user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// An instance of RDS for `PostgreSQL`.
    Instance,
    /// A cluster of Aurora.
    Cluster,
}

impl From<DatabaseEngine> for Of {
    fn from(engine: DatabaseEngine) -> Self {
        match engine {
            DatabaseEngine::Postgres => Self::Instance,
            DatabaseEngine::AuroraPostgresql => Self::Cluster,
        }
    }
}

/// A live group, of whichever kind.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) family: String,
    pub(super) arn: String,
}

impl Of {
    /// The engine, as RDS names it, with which the name of a family begins.
    pub fn engine(self) -> &'static str {
        match self {
            Self::Instance => "postgres",
            Self::Cluster => "aurora-postgresql",
        }
    }

    /// The ARNs of the groups for all versions whose names begin with `name`.
    pub fn arns(self, aws: &Aws, name: &str) -> String {
        let kind = match self {
            Self::Instance => "pg",
            Self::Cluster => "cluster-pg",
        };
        aws.arn("rds", &format!("{kind}:{name}-*"))
    }

    /// All live groups of the kind.
    pub(super) async fn groups(self, aws: &Aws, since: Instant) -> Result<Vec<Group>, Error> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Ok(match self {
            Self::Instance => {
                let groups = aws.rds.parameter_groups(since).await?;
                let groups = groups.iter().map(|group| Group {
                    name: text(group.db_parameter_group_name()),
                    family: text(group.db_parameter_group_family()),
                    arn: text(group.db_parameter_group_arn()),
                });
                groups.collect()
            }
            Self::Cluster => {
                let groups = aws.rds.cluster_parameter_groups(since).await?;
                let groups = groups.iter().map(|group| Group {
                    name: text(group.db_cluster_parameter_group_name()),
                    family: text(group.db_parameter_group_family()),
                    arn: text(group.db_cluster_parameter_group_arn()),
                });
                groups.collect()
            }
        })
    }

    /// The major version of `PostgreSQL` that the group `name` of those called `base` is for.
    pub(super) fn major(self, name: &str, base: &str) -> Option<u32> {
        let version = name.strip_prefix(base)?.strip_prefix('-')?;
        version.strip_prefix(self.engine())?.parse().ok()
    }

    /// Keeps the names of the parameter groups that are there.
    pub async fn retain_existing(
        self,
        aws: &Aws,
        names: &mut Vec<String>,
        since: Instant,
    ) -> Result<(), Error> {
        if !names.is_empty() {
            let there = self.groups(aws, since).await?;
            names.retain(|name| there.iter().any(|group| group.name == *name));
        }
        Ok(())
    }

    /// Deletes the parameter group of that name.
    pub async fn delete(self, aws: &Aws, name: &str) -> Result<(), Error> {
        let client = &aws.rds.client;
        match self {
            Self::Instance => {
                let delete = client.delete_db_parameter_group().db_parameter_group_name(name);
                delete.send().await.map_err(failed("rds:DeleteDBParameterGroup"))?;
            }
            Self::Cluster => {
                let delete = client.delete_db_cluster_parameter_group();
                let delete = delete.db_cluster_parameter_group_name(name);
                delete.send().await.map_err(failed("rds:DeleteDBClusterParameterGroup"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_environment_with_a_version_are_ours() {
        let of = |name| Of::Instance.major(name, "bme-a-parameter-group");
        assert_eq!(of("bme-a-parameter-group-postgres15"), Some(15));
        assert_eq!(of("bme-a-parameter-group"), None);
        // Of an environment called `a-parameter-group`.
        assert_eq!(of("bme-a-parameter-group-parameter-group-postgres15"), None);
        assert_eq!(of("bme-b-parameter-group-postgres15"), None);
        assert_eq!(of("bme-a-parameter-group-aurora-postgresql15"), None);
        let base = "bme-a-cluster-parameter-group";
        let aurora = Of::Cluster.major(&format!("{base}-aurora-postgresql16"), base);
        assert_eq!(aurora, Some(16));
    }
}
