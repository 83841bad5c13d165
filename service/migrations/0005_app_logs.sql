-- What an operator has to know: final failures and what administrators did. Never a transcript, an
-- e-mail address, an amount or a token.
CREATE TABLE app_logs (
    id         uuid        PRIMARY KEY,
    level      text        NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    event      text        NOT NULL CHECK (length(event) BETWEEN 1 AND 100),
    request_id text        CHECK (length(request_id) <= 64),
    user_id    uuid        REFERENCES users (id) ON DELETE CASCADE,
    detail     jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX app_logs_list ON app_logs (created_at DESC, id DESC);
CREATE INDEX app_logs_user_id ON app_logs (user_id);
