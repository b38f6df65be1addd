-- Jobs that wait for a cause which is gone go on until none is left, whoever dies meanwhile; and indexes by which every
-- statement that runs in a loop or behind a command reads what it returns and no more.

-- Whatever waits for a cause has seen something of it; a pass over its jobs would overlook one that has not.
UPDATE jobs SET wait_observed = 0 WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_observed IS NULL;
-- The jobs of each cause, those that saw least of it first, then oldest first. A job that waits for its follow-ups waits for no
-- cause: it has no entry.
CREATE INDEX jobs_waiting_for ON jobs (wait_key, wait_observed, id) WHERE state = 'waiting' AND wait_reason <> 'children';
DROP INDEX jobs_waiting;
-- Lists of jobs that stand still, newest first, however old they are.
CREATE INDEX jobs_halted ON jobs (state, id) WHERE state IN ('waiting', 'parked');
CREATE INDEX jobs_follow_ups ON jobs (parent_id, id) WHERE parent_id IS NOT NULL;
DROP INDEX jobs_children;
-- A job that waits for its follow-ups is not parked when its deadline passes.
CREATE INDEX jobs_overdue ON jobs (deadline) WHERE state = 'waiting' AND wait_reason <> 'children' AND deadline IS NOT NULL;
DROP INDEX jobs_waiting_until;

-- Holds in force, and those that ended long ago. By their scope `controls_of_scope` finds them.
CREATE INDEX controls_by_end ON controls (expires_at);
DROP INDEX controls_live;

CREATE INDEX dead_letters_open_by_code ON dead_letters (code, id) WHERE resolved_at IS NULL;

-- Secrets that end: read every hour.
CREATE INDEX subscriptions_by_end ON subscriptions (valid_until) WHERE valid_until IS NOT NULL;
CREATE INDEX destinations_by_previous_end ON destinations (previous_secret_until) WHERE previous_secret_until IS NOT NULL;

-- Causes that are gone while jobs that waited for them do not go on yet. Each is one pass over the cause's entries in
-- `jobs_waiting_for`, a page at a time, from `after_observed` and `after_id` on: a job that goes on and waits again for the same
-- cause, which may be back, is behind the pass and stays.
CREATE TABLE releases (
    cause text PRIMARY KEY,
    -- Jobs that saw more of the cause than this wait for something else.
    up_to bigint NOT NULL,
    after_observed bigint NOT NULL,
    after_id uuid NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now(),
    -- When its next page is due.
    next_at timestamptz NOT NULL DEFAULT now() + interval '1 second'
);
CREATE INDEX releases_due ON releases (next_at);

-- Makes due a page of the jobs that wait for a cause and saw at most `up_to` of it, in the order of the pass. Where one of them
-- is locked by somebody else, the pass stays where it is. `done`: none is left.
CREATE FUNCTION release_page(gone text, up_to bigint, after_observed bigint, after_id uuid, at_most bigint,
    OUT released bigint, OUT done boolean, OUT last_observed bigint, OUT last_id uuid) LANGUAGE sql AS $$
    WITH page AS MATERIALIZED (
        SELECT id, wait_observed FROM jobs
        WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = gone AND wait_observed <= up_to
            AND (wait_observed, id) > (after_observed, after_id)
        ORDER BY wait_observed, id LIMIT at_most
    ), locked AS MATERIALIZED (
        SELECT waiting.id FROM page CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE jobs.id = page.id AND state || '' = 'waiting' AND wait_key || '' = gone
            FOR UPDATE SKIP LOCKED) waiting
    ), released AS (
        UPDATE jobs SET state = 'ready', wait_reason = NULL, wait_key = NULL, wait_observed = NULL, due_at = now(), woken_at = NULL
        FROM locked WHERE jobs.id = locked.id
        RETURNING jobs.id
    ), counted AS (
        SELECT (SELECT count(*) FROM released) AS released, (SELECT count(*) FROM page) AS seen
    )
    SELECT counted.released, counted.released = counted.seen AND counted.seen < at_most,
        CASE WHEN counted.released = counted.seen THEN last.wait_observed ELSE after_observed END,
        CASE WHEN counted.released = counted.seen THEN last.id ELSE after_id END
    FROM counted LEFT JOIN (SELECT wait_observed, id FROM page ORDER BY wait_observed DESC, id DESC LIMIT 1) last ON true
$$;

-- Whoever removes a cause calls it in the same transaction: the jobs that wait for it (with `seen`, those that saw at most so much
-- of it) go on, a page at once, the others by the pass that is noted here. Says how many go on at once.
CREATE FUNCTION begin_release(gone text, seen bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    least_observed CONSTANT bigint := -9223372036854775808;
    most_observed CONSTANT bigint := 9223372036854775807;
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    bound CONSTANT bigint := coalesce(seen, most_observed);
    page record;
BEGIN
    SELECT released, done INTO STRICT page FROM release_page(gone, bound, least_observed, nobody, 500);
    IF NOT page.done THEN
        INSERT INTO releases AS open (cause, up_to, after_observed, after_id) VALUES (gone, bound, least_observed, nobody)
        ON CONFLICT (cause) DO UPDATE SET up_to = greatest(open.up_to, excluded.up_to), after_observed = excluded.after_observed,
            after_id = excluded.after_id;
    END IF;
    RETURN page.released;
END
$$;

-- As before, for holds, whose jobs go on a few at a time, and for workers of earlier versions: in the order of the index, so that
-- few are read for few.
CREATE OR REPLACE FUNCTION release_waiting(cause text, at_most bigint, seen bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    WITH whoever AS MATERIALIZED (
        SELECT id FROM jobs WHERE seen IS NULL AND state = 'waiting' AND wait_reason <> 'children' AND wait_key = cause
        ORDER BY wait_observed, id LIMIT at_most FOR UPDATE SKIP LOCKED
    ), so_seen AS MATERIALIZED (
        SELECT id FROM jobs WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = cause AND wait_observed = seen
        ORDER BY id LIMIT at_most FOR UPDATE SKIP LOCKED
    ), waiting AS (
        SELECT id FROM whoever UNION ALL SELECT id FROM so_seen
    ), released AS (
        UPDATE jobs SET state = 'ready', wait_reason = NULL, wait_key = NULL, wait_observed = NULL, due_at = now(), woken_at = NULL
        FROM waiting WHERE jobs.id = waiting.id
        RETURNING jobs.id
    )
    SELECT count(*) FROM released
$$;
