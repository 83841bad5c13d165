-- Voice jobs. The row is the truth about a job and outlives its message in the queue.
CREATE TABLE voice_jobs (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    state        text        NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'processing', 'completed', 'failed')),
    -- What was said: here, or as audio in the blob store. Erased when the job is completed.
    transcript   text        CHECK (length(transcript) BETWEEN 1 AND 10000),
    blob         text,
    mime_type    text,
    lang         text,
    today        date        NOT NULL,
    timezone     text        NOT NULL,
    execute      boolean     NOT NULL,
    request_id   text        NOT NULL,
    -- Whoever works on it holds this token; a write with another token has no effect.
    lease_token  uuid,
    lease_until  timestamptz,
    -- The provider's valid answer, so that a crash does not pay twice. Erased when the job ends.
    model_answer text,
    result       jsonb,
    code         text,
    enqueued_at  timestamptz NOT NULL DEFAULT now(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'failed') = (code IS NOT NULL)),
    CHECK ((state = 'completed') = (result IS NOT NULL))
);
CREATE INDEX voice_jobs_list ON voice_jobs (user_id, created_at DESC);
-- Serves the relay, which looks for jobs whose message was lost.
CREATE INDEX voice_jobs_open ON voice_jobs (enqueued_at) WHERE state IN ('queued', 'processing');
CREATE TRIGGER voice_jobs_updated_at BEFORE UPDATE ON voice_jobs
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- One row for each action that was applied, keyed job:{id}:{n}: none is applied twice.
CREATE TABLE voice_job_actions (
    key        text        PRIMARY KEY,
    job_id     uuid        NOT NULL REFERENCES voice_jobs (id) ON DELETE CASCADE,
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX voice_job_actions_job_id ON voice_job_actions (job_id);
CREATE INDEX voice_job_actions_user_id ON voice_job_actions (user_id);
