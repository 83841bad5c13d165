//! What Aurora has not, of what RDS for PostgreSQL has.

use super::Finding;
use crate::environment::{DatabaseEngine, Environment};

/// Aurora is for larger instances, and its backups can't be turned off (RDS API reference,
/// `CreateDBCluster`: a retention of 1 to 35 days).
pub(super) fn findings(environment: &Environment, findings: &mut Vec<Finding>) {
    let database = &environment.database;
    if database.engine != DatabaseEngine::AuroraPostgresql {
        return;
    }
    if !is_of_aurora(&database.instance_class) {
        let message = format!("Aurora PostgreSQL has no {}", database.instance_class);
        findings.push(
            Finding::at(&["database", "instance_class"], message)
                .reads("database.engine")
                .label("not a class of Aurora")
                .help("the smallest is db.t4g.medium; for production there is db.r7g.large"),
        );
    }
    if database.backup_retention_days == 0 {
        findings.push(
            Finding::at(
                &["database", "backup_retention_days"],
                "Aurora always keeps backups, for a day at least",
            )
            .reads("database.engine")
            .label("at least 1"),
        );
    }
}

/// "Aurora DB instance classes", Aurora user guide: the larger of the burstable ones, and those with
/// much memory.
fn is_of_aurora(class: &str) -> bool {
    let mut parts = class.split('.').skip(1);
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("t3" | "t4g", size) => matches!(size, "medium" | "large"),
        (family, _) => family.starts_with(['r', 'x']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aurora_has_the_larger_classes_only() {
        for class in ["db.t4g.medium", "db.t3.large", "db.r7g.large", "db.x2g.4xlarge"] {
            assert!(is_of_aurora(class), "{class}");
        }
        for class in ["db.t4g.micro", "db.t3.small", "db.t4g.xlarge", "db.m7g.large"] {
            assert!(!is_of_aurora(class), "{class}");
        }
    }
}
