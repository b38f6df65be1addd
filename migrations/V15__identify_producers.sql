-- Producers are known by the user that RabbitMQ has checked: what each may name is a row, and what each has caused says so.

CREATE TABLE producers (
    -- A user of RabbitMQ, the AMQP property user_id.
    name text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
    -- What its messages may name; `*` is any. Reply queues and sources by how they begin, where they end with `*`.
    sources text[] NOT NULL,
    organizations text[] NOT NULL,
    reply_queues text[] NOT NULL DEFAULT '{}',
    -- Discord application ids.
    applications text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- Who sent the message; null of what came before this, and of what comes without a user where everybody is trusted.
ALTER TABLE jobs ADD COLUMN producer text;
ALTER TABLE job_keys ADD COLUMN producer text;
ALTER TABLE dead_letters ADD COLUMN producer text;

-- What a replay shows to be taken for its producer's: SHA-256 of a random number that goes with the message.
ALTER TABLE dead_letters ADD COLUMN replay_sha256 bytea CHECK (length(replay_sha256) = 32);
CREATE INDEX dead_letters_replayed ON dead_letters (replay_sha256) WHERE replay_sha256 IS NOT NULL;
