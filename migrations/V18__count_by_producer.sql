-- What each producer and each organization has in Postgres, in rows and bytes, can be counted by an index alone.

-- Size of the message as received; of a follow-up, of its payload. Null of what came before this: it counts as a row without bytes
-- until it is finished.
ALTER TABLE jobs ADD COLUMN bytes integer;
-- Jobs and follow-ups that are not finished. No other statement asks for `finished_at IS NULL`, so none is planned with it; and
-- none of its columns changes between two stages.
CREATE INDEX jobs_unfinished ON jobs (producer, organization) INCLUDE (state, due_at, epoch, bytes) WHERE finished_at IS NULL;

-- Cancels that came before their job.
CREATE INDEX job_keys_noted_by ON job_keys (producer) WHERE job_id IS NULL;

ALTER TABLE dead_letters
    -- Body and headers as stored. Null of what came before this: it counts as a row without bytes.
    ADD COLUMN kept_bytes integer,
    -- Null where the body was not kept, as its producer's dead letters were over their quota in bytes.
    ALTER COLUMN sealed_body DROP NOT NULL;
CREATE INDEX dead_letters_open_of_producer ON dead_letters (producer) INCLUDE (kept_bytes) WHERE resolved_at IS NULL;

-- What a replica may still make for a producer or an organization, and what it is making. Of use for seconds only: a crash of
-- Postgres may empty it.
CREATE UNLOGGED TABLE quota_grants (
    -- `producer/checkout`, `producer` (of messages without one), `organization/acme`.
    holder text NOT NULL,
    kind text NOT NULL,
    replica bigint NOT NULL,
    rows bigint NOT NULL CHECK (rows >= 0),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    until timestamptz NOT NULL,
    PRIMARY KEY (holder, kind, replica)
);
CREATE INDEX quota_grants_by_end ON quota_grants (until);
