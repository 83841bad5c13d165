-- Identities that others vouch for: Cognito, and the social logins of AUTH_MODE=local.

-- Such an account has no password, and no e-mail address where nobody vouches for one.
ALTER TABLE users ALTER COLUMN password_hash DROP NOT NULL;
ALTER TABLE users ALTER COLUMN email DROP NOT NULL;

-- When the holder of the account was seen to hold the mailbox. An account without it may have been
-- opened by somebody else in the owner's name.
ALTER TABLE users ADD COLUMN email_verified_at timestamptz;

CREATE TABLE identities (
    provider   text        NOT NULL CHECK (provider IN ('cognito', 'google', 'facebook', 'twitter')),
    subject    text        NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, subject)
);
CREATE INDEX identities_user_id ON identities (user_id, created_at DESC);

-- Only the SHA-256 of a reset token is kept, and the row goes when it is used.
CREATE TABLE password_resets (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX password_resets_user_id ON password_resets (user_id, created_at DESC);
