-- The engine's tables. Text columns with CHECK instead of enums; payloads and outputs are json, which keeps \u0000; the
-- database's clock decides; partial indexes over live rows only.

CREATE TABLE replicas (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    alive_until timestamptz NOT NULL,
    lanes text[] NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    ended_at timestamptz,
    -- It ended by itself: what it still owned did not kill it.
    ended_well boolean NOT NULL DEFAULT false
);
CREATE INDEX replicas_live ON replicas (id) WHERE ended_at IS NULL;

CREATE TABLE job_keys (
    source text NOT NULL CHECK (length(source) <= 64),
    dedupe_key text NOT NULL CHECK (length(dedupe_key) <= 255),
    job_id uuid NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, dedupe_key)
);
CREATE INDEX job_keys_by_age ON job_keys (created_at);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    pipeline text NOT NULL,
    parent_id uuid,
    open_children integer NOT NULL DEFAULT 0 CHECK (open_children >= 0),
    source text NOT NULL,
    dedupe_key text NOT NULL,
    organization text NOT NULL,
    schema bigint NOT NULL,
    -- Exactly one of the two: a payload of a schema not known yet is kept sealed.
    payload json,
    sealed_payload text,
    -- The account chosen by `configure`; it wins over the payload's.
    account text,
    reply_to text,
    correlation_id text,
    traceparent text,
    state text NOT NULL CHECK (state IN ('ready', 'running', 'waiting', 'succeeded', 'cancelled', 'parked')),
    stage text NOT NULL,
    attempt integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    generation integer NOT NULL DEFAULT 1,
    epoch bigint NOT NULL DEFAULT 0,
    owner bigint,
    -- The epoch of the last claim that committed something; a dead owner whose epoch it is not has committed nothing.
    committed_epoch bigint NOT NULL DEFAULT 0,
    crash_count integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    woken_at timestamptz,
    wait_reason text CHECK (wait_reason IN ('children', 'configuration', 'reauthentication', 'installation_disabled', 'hold', 'version')),
    wait_key text,
    wait_observed bigint,
    deadline timestamptz,
    error_code text,
    error_message text,
    error_hint text,
    fingerprint text,
    first_failed_at timestamptz,
    last_progress_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK ((payload IS NULL) <> (sealed_payload IS NULL)),
    CHECK ((state = 'running') = (owner IS NOT NULL)),
    CHECK ((state = 'waiting') = (wait_reason IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Due and not woken, organizations in turn: the waker's queue.
CREATE INDEX jobs_not_woken ON jobs (pipeline, organization, due_at) WHERE state = 'ready' AND woken_at IS NULL;
-- Woken and not claimed.
CREATE INDEX jobs_woken ON jobs (pipeline, woken_at) WHERE state = 'ready' AND woken_at IS NOT NULL;
CREATE INDEX jobs_owned ON jobs (owner) WHERE state = 'running';
CREATE INDEX jobs_waiting ON jobs (wait_key) WHERE state = 'waiting';
CREATE INDEX jobs_waiting_until ON jobs (deadline) WHERE state = 'waiting' AND deadline IS NOT NULL;
CREATE INDEX jobs_parked ON jobs (fingerprint) WHERE state = 'parked';
CREATE INDEX jobs_children ON jobs (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE checkpoints (
    job_id uuid NOT NULL,
    generation integer NOT NULL,
    stage text NOT NULL,
    version integer NOT NULL,
    output json NOT NULL,
    epoch bigint NOT NULL,
    attempt integer NOT NULL,
    replica bigint NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, generation, stage)
) PARTITION BY RANGE (job_id);

CREATE TABLE attempts (
    job_id uuid NOT NULL,
    generation integer NOT NULL,
    stage text NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('retried', 'parked', 'waited')),
    error_code text NOT NULL,
    message text NOT NULL,
    duration_ms bigint NOT NULL,
    replica bigint NOT NULL,
    epoch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (job_id);
CREATE INDEX attempts_of_job ON attempts (job_id);

CREATE TABLE effects (
    job_id uuid NOT NULL,
    key text NOT NULL,
    generation integer NOT NULL,
    stage text NOT NULL,
    target text NOT NULL,
    class text NOT NULL CHECK (class IN ('K1', 'K2', 'K3')),
    state text NOT NULL CHECK (state IN ('in_flight', 'confirmed', 'failed', 'unknown')),
    resource text,
    detail json NOT NULL,
    provider_ref text,
    epoch bigint NOT NULL,
    -- An earlier attempt may have done it, whatever a later one was told.
    maybe_done boolean NOT NULL DEFAULT false,
    -- How many times a duplicate became possible; raised before the call that may make it.
    unknowns integer NOT NULL DEFAULT 0,
    first_intent_at timestamptz NOT NULL DEFAULT now(),
    intent_at timestamptz NOT NULL DEFAULT now(),
    deadline_at timestamptz NOT NULL,
    settled_at timestamptz,
    PRIMARY KEY (job_id, key)
) PARTITION BY RANGE (job_id);
CREATE INDEX effects_on_resource ON effects (resource) WHERE resource IS NOT NULL;

CREATE TABLE checkpoints_default PARTITION OF checkpoints DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;
CREATE TABLE effects_default PARTITION OF effects DEFAULT;

-- The smallest UUIDv7 of a moment: 48 bits of Unix milliseconds, version 7, variant 10.
CREATE FUNCTION first_job_id_of(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- Makes the monthly partitions of this month and the following ones. A worker's role may call it; only the owner may do it.
CREATE FUNCTION ensure_partitions(months integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    parent text;
    month timestamptz;
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(7264019, 1);
    FOR i IN 0 .. months - 1 LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + make_interval(months => i);
        FOREACH parent IN ARRAY ARRAY['checkpoints', 'attempts', 'effects'] LOOP
            name := parent || '_' || to_char(month AT TIME ZONE 'UTC', 'YYYYMM');
            IF to_regclass(name) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', name, parent,
                    first_job_id_of(month), first_job_id_of(month + interval '1 month'));
            END IF;
        END LOOP;
    END LOOP;
END
$$;

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL,
    detail text NOT NULL,
    source text,
    dedupe_key text,
    message_id text,
    reply_to text,
    correlation_id text,
    routing_key text NOT NULL,
    headers json NOT NULL,
    -- The raw bytes, at most 1 MiB, sealed: they may hold secrets.
    sealed_body text NOT NULL,
    body_bytes bigint NOT NULL,
    body_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE INDEX dead_letters_open ON dead_letters (id) WHERE resolved_at IS NULL;

-- Outcome events still to be published: a row goes when the broker has confirmed its event.
CREATE TABLE announcements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid,
    routing_key text NOT NULL,
    reply_to text,
    correlation_id text,
    body json NOT NULL,
    -- From when on the waker may publish it; until then its writer does.
    publish_after timestamptz NOT NULL
);
CREATE INDEX announcements_due ON announcements (publish_after);

CREATE TABLE controls (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('pause', 'hold', 'kill_switch', 'circuit')),
    scope text NOT NULL,
    reason text NOT NULL,
    who text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    released_at timestamptz
);
CREATE INDEX controls_live ON controls (scope) WHERE released_at IS NULL;

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    who text NOT NULL,
    role text NOT NULL,
    action text NOT NULL,
    job_id uuid,
    before json,
    after json,
    reason text
);
CREATE FUNCTION audit_log_is_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is insert-only';
END
$$;
CREATE TRIGGER audit_log_insert_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_insert_only();

SELECT ensure_partitions(3);
