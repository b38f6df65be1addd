-- Producers are known by the user that RabbitMQ has checked: what each may name is a row, and what each has caused says so.

CREATE TABLE producers (
    -- A user of RabbitMQ, the AMQP property user_id.
    name text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
    -- What its messages may name: names, and beginnings of names with a `*` behind them.
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
