-- The truth about a repeated request: written in the transaction of the effect itself. Redis only
-- holds the in-flight lock and a copy of the answer.
CREATE TABLE idempotency_keys (
    user_id     uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key_hash    bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    status      int2        NOT NULL CHECK (status BETWEEN 200 AND 499),
    headers     jsonb       NOT NULL,
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, key_hash)
);
-- Serves the deletion of expired rows in batches.
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
