-- What failure groups and filters by code read. No column that a stage's commit writes is indexed or included: such a commit
-- stays a heap-only update. A job that goes well has no entry in any of these indexes.

-- Failure groups: the parked jobs of a fingerprint, and whom they hit.
CREATE INDEX jobs_parked_by_group ON jobs (fingerprint, id) INCLUDE (organization, first_failed_at) WHERE state = 'parked';
DROP INDEX IF EXISTS jobs_parked;
-- Likewise the open jobs of a fingerprint that are not parked.
CREATE INDEX jobs_retried_by_group ON jobs (fingerprint, id) INCLUDE (organization, first_failed_at)
    WHERE fingerprint IS NOT NULL AND state IN ('ready', 'running', 'waiting');
-- Every open job that has failed, by its code.
CREATE INDEX jobs_failing ON jobs (error_code COLLATE "C", id) INCLUDE (organization, first_failed_at)
    WHERE error_code IS NOT NULL AND state NOT IN ('succeeded', 'cancelled');

-- The last hour of failures. Rows arrive in the order of time, so a summary of each range of blocks is enough.
ALTER TABLE attempts ADD COLUMN fingerprint text;
CREATE INDEX attempts_by_time ON attempts USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX audit_log_by_time ON audit_log USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX audit_log_of_job ON audit_log (job_id, id) WHERE job_id IS NOT NULL;

-- A group is written soon after its fingerprint is first seen. What people know about it stays.
CREATE TABLE failure_groups (
    fingerprint text PRIMARY KEY CHECK (length(fingerprint) <= 200),
    pipeline text NOT NULL,
    stage text NOT NULL,
    error_code text NOT NULL,
    -- The message of a failure of the group.
    sample text NOT NULL CHECK (length(sample) <= 2048),
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    -- The version of the replica that had the first one.
    first_version text,
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    muted_until timestamptz,
    owner text CHECK (length(owner) <= 64),
    note text CHECK (length(note) <= 2000)
);
CREATE INDEX failure_groups_by_last ON failure_groups (last_seen_at, fingerprint);
