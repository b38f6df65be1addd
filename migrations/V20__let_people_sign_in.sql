-- A token of the console and its API. Only its SHA-256 is stored.
CREATE TABLE api_tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 64),
    sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    role text NOT NULL CHECK (role IN ('producer', 'viewer', 'operator', 'admin')),
    -- The source of a producer's token.
    source text CHECK (length(source) <= 64),
    -- The organizations that it may see; null: all.
    organizations text[] CHECK (cardinality(organizations) BETWEEN 1 AND 100),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    last_used_at timestamptz,
    CHECK ((role = 'producer') = (source IS NOT NULL))
);
-- A name is free again when its token is revoked.
CREATE UNIQUE INDEX api_tokens_by_name ON api_tokens (name) WHERE revoked_at IS NULL;

-- The answer to a request that changed something, for a repetition of the request within a day.
CREATE TABLE idempotency_keys (
    token bigint NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 64),
    -- SHA-256 of method, path and body: the same key with another request is refused.
    request bytea NOT NULL CHECK (length(request) = 32),
    before json NOT NULL,
    after json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The request, and the token that it was made with; both null for a command.
ALTER TABLE audit_log ADD COLUMN request_id uuid, ADD COLUMN token text;
