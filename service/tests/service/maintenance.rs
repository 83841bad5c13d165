//! What expires is deleted, and nothing else.

use bme_service::maintenance;

use crate::harness::{Process, User, World, eventually};

/// Expired rows, more than two batches of `app_logs`, and one valid row of each table.
async fn fill(world: &World, user: &User) {
    for statement in [
        "INSERT INTO idempotency_keys (user_id, key_hash, fingerprint, status, headers, body, expires_at)
         SELECT $1, sha256(n::text::bytea), sha256('f'), 201, '[]', '',
                now() + CASE n WHEN 1 THEN interval '1 hour' ELSE interval '-1 second' END
         FROM generate_series(1, 20) n",
        "INSERT INTO sessions (id, user_id, expires_at)
         SELECT gen_random_uuid(), $1,
                now() + CASE n WHEN 1 THEN interval '1 hour' ELSE interval '-1 second' END
         FROM generate_series(1, 5) n",
        "INSERT INTO refresh_tokens (token_hash, session_id, used_at)
         SELECT sha256((id::text || n)::bytea), id, now()
         FROM sessions, generate_series(1, 3) n WHERE user_id = $1",
        "INSERT INTO app_logs (id, level, event, user_id, created_at)
         SELECT gen_random_uuid(), 'error', 'test', $1,
                now() - CASE n WHEN 1 THEN interval '89 days' ELSE interval '91 days' END
         FROM generate_series(1, 2102) n",
        "INSERT INTO password_resets (token_hash, user_id, expires_at)
         SELECT sha256(n::text::bytea), $1,
                now() + CASE n WHEN 1 THEN interval '1 hour' ELSE interval '-1 second' END
         FROM generate_series(1, 3) n",
        "INSERT INTO mcp_audit (id, user_id, method, outcome, request_id, ms, created_at)
         SELECT gen_random_uuid(), $1, 'tools/list', 'ok', 'r', 1,
                now() - CASE n WHEN 1 THEN interval '89 days' ELSE interval '91 days' END
         FROM generate_series(1, 3) n",
        "INSERT INTO voice_jobs (id, user_id, state, transcript, code, today, timezone, execute,
                                 request_id, updated_at)
         SELECT gen_random_uuid(), $1, CASE WHEN n = 1 THEN 'queued' ELSE 'failed' END, 'said',
                CASE WHEN n > 1 THEN 'test' END, now(), 'UTC', true, 'r',
                now() - make_interval(days => (ARRAY[100, 13, 15, 91])[n])
         FROM generate_series(1, 4) n",
    ] {
        sqlx::query(statement).bind(user.id).execute(&world.pool).await.unwrap();
    }
}

async fn counts(world: &World) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT ARRAY[(SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM sessions),
                      (SELECT count(*) FROM refresh_tokens), (SELECT count(*) FROM app_logs),
                      (SELECT count(*) FROM password_resets), (SELECT count(*) FROM mcp_audit),
                      (SELECT count(*) FROM voice_jobs), (SELECT count(transcript) FROM voice_jobs)]",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_deletes_what_has_expired_and_nothing_else() {
    let world = World::new().await;
    let user = world.user().await;
    fill(&world, &user).await;
    assert_eq!(counts(&world).await, [20, 5, 15, 2102, 3, 3, 4, 4]);
    // Somebody holds one expired row: the sweep passes it by and does not wait.
    let mut tx = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM idempotency_keys WHERE expires_at < now() LIMIT 1 FOR UPDATE")
        .execute(&mut *tx)
        .await
        .unwrap();
    maintenance::sweep(&world.pool).await.unwrap();
    assert_eq!(counts(&world).await, [2, 1, 3, 1, 1, 1, 3, 2]);
    tx.rollback().await.unwrap();
    let (one, two) = tokio::join!(maintenance::sweep(&world.pool), maintenance::sweep(&world.pool));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(counts(&world).await, [1, 1, 3, 1, 1, 1, 3, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_sweeps() {
    let world = World::new().await;
    let user = world.user().await;
    fill(&world, &user).await;
    let mut process = Process::start("worker", &world.config, &[]).await;
    eventually("the first sweep", async || counts(&world).await == [1, 1, 3, 1, 1, 1, 3, 2]).await;
    process.end().await;
}
