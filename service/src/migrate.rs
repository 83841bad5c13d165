//! `migrate`: brings the schema up to date and makes the role that the service connects as.
//!
//! It runs against the instance's own endpoint: the advisory lock would pin an RDS Proxy session.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, migrate::Migrator};

use crate::{
    config::{MigrateConfig, Secret},
    database, scram,
};

/// The migrations that are embedded in this binary.
pub fn migrations() -> Migrator {
    sqlx::migrate!("./migrations")
}

/// Key of the advisory lock around the role, apart from the one that sqlx takes around migrations.
const ROLE_LOCK: i64 = 0x626d_6520_726f_6c65;

/// What was done.
#[derive(Debug)]
pub struct Migrated {
    /// Migrations this release knows; all are applied now.
    pub known: usize,
    /// Version of the newest of them.
    pub version: i64,
    /// Whether the application role was made or updated.
    pub role: bool,
}

/// Why the schema may not be up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error("cannot connect to the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// A migration failed; it was rolled back, earlier ones stay applied.
    #[error(
        "a migration failed and was rolled back, earlier ones stay applied; mend it and run migrate again: {0}"
    )]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The role was not made; the schema is up to date.
    #[error("the schema is up to date, but the application role is not; run migrate again: {0}")]
    Role(#[source] sqlx::Error),
    /// The master role cannot be the application's.
    #[error("APP_DATABASE_USER is the role that migrate itself connects as; name another one")]
    RoleIsMaster,
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes for a salt")]
    Salt,
}

/// Applies what is missing. Running it again changes nothing.
pub async fn run(config: &MigrateConfig) -> Result<Migrated, MigrateError> {
    let options = database::options(&config.database);
    let mut connection =
        PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    // Waiting for another migrate is right, waiting for ever is not.
    connection.execute("SET lock_timeout = '120s'").await.map_err(MigrateError::Connect)?;
    let mut migrations = migrations();
    // After a rollback the older release's migrate meets newer migrations: expand then contract keeps
    // it working on their schema.
    migrations.set_ignore_missing(true);
    migrations.run(&mut connection).await?;
    if let Some((user, password)) = &config.app_role {
        make_role(&mut connection, user, password).await?;
    }
    Ok(Migrated {
        known: migrations.iter().count(),
        version: migrations.iter().map(|migration| migration.version).max().unwrap_or(0),
        role: config.app_role.is_some(),
    })
}

async fn make_role(
    connection: &mut PgConnection,
    user: &str,
    password: &Secret,
) -> Result<(), MigrateError> {
    let verifier = scram::verifier(password.expose()).ok_or(MigrateError::Salt)?;
    let mut tx = connection.begin().await.map_err(MigrateError::Role)?;
    // Two migrates at once would fail with "tuple concurrently updated".
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(ROLE_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(MigrateError::Role)?;
    let (is_master, exists, quoted, database, verifier): (bool, bool, String, String, String) = sqlx::query_as(
        "SELECT current_user = $1, EXISTS (SELECT FROM pg_roles WHERE rolname = $1), quote_ident($1),
                quote_ident(current_database()), quote_literal($2)",
    )
    .bind(user)
    .bind(&verifier)
    .fetch_one(&mut *tx)
    .await
    .map_err(MigrateError::Role)?;
    if is_master {
        return Err(MigrateError::RoleIsMaster);
    }
    let verb = if exists { "ALTER" } else { "CREATE" };
    // The server itself quoted what is put together here. Time limits belong to the role: a SET per
    // session would pin RDS Proxy.
    let statements = format!(
        "{verb} ROLE {quoted} LOGIN PASSWORD {verifier};
         ALTER ROLE {quoted} SET statement_timeout = '15s';
         ALTER ROLE {quoted} SET lock_timeout = '10s';
         ALTER ROLE {quoted} SET idle_in_transaction_session_timeout = '20s';
         GRANT CONNECT ON DATABASE {database} TO {quoted};
         GRANT USAGE ON SCHEMA public TO {quoted};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted};
         REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM {quoted};
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {quoted};
         GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {quoted};
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {quoted};"
    );
    tx.execute(AssertSqlSafe(statements)).await.map_err(MigrateError::Role)?;
    tx.commit().await.map_err(MigrateError::Role)
}
