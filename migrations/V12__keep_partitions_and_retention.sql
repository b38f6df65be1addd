-- Partitions are made and dropped one at a time under a short wait for locks, and everything that grows has a rule for how long it
-- is kept. Nothing here rewrites a table; the indexes are of few rows.

-- When a job id was made: the first 48 bits of a UUIDv7 are Unix milliseconds.
CREATE FUNCTION time_of_job_id(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- The monthly partitions of the jobs' history, without the default ones: ids from `low` up to `high`.
CREATE FUNCTION history_partitions() RETURNS TABLE (parent text, name text, low uuid, high uuid)
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT p.relname::text, c.relname::text, (regexp_match(b.bound, 'FROM \(''([0-9a-f-]+)''\)'))[1]::uuid,
        (regexp_match(b.bound, 'TO \(''([0-9a-f-]+)''\)'))[1]::uuid
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
        CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
    WHERE i.inhparent IN ('public.checkpoints'::regclass, 'public.attempts'::regclass, 'public.effects'::regclass)
        AND b.bound LIKE 'FOR VALUES FROM (''%'') TO (''%'')'
$$;

-- The month that a moment lies in, UTC.
CREATE FUNCTION month_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
$$;

CREATE FUNCTION month_after(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
$$;

-- Which partitions are to be made: those of the month of `at` and of the `ahead` months behind it, and of earlier months that
-- have rows in a default partition. Later rows, of a worker whose clock runs ahead, stay there until their month comes nearer.
CREATE FUNCTION missing_partitions(at timestamptz, ahead integer) RETURNS TABLE (parent text, month timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    of_parent text;
    last_month timestamptz := (date_trunc('month', at AT TIME ZONE 'UTC') + make_interval(months => ahead)) AT TIME ZONE 'UTC';
    months timestamptz[];
    next_id uuid;
    found_id uuid;
BEGIN
    FOREACH of_parent IN ARRAY ARRAY['checkpoints', 'attempts', 'effects'] LOOP
        SELECT array_agg((date_trunc('month', at AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC')
            INTO months FROM generate_series(0, ahead) i;
        next_id := '00000000-0000-0000-0000-000000000000';
        -- Hops from month to month along the index.
        FOR i IN 1 .. 24 LOOP
            EXECUTE format('SELECT job_id FROM %I WHERE job_id >= $1 AND job_id < $2 ORDER BY job_id LIMIT 1', of_parent || '_default')
                INTO found_id USING next_id, first_job_id_of(month_after(last_month));
            EXIT WHEN found_id IS NULL;
            months := months || month_of(time_of_job_id(found_id));
            next_id := first_job_id_of(month_after(time_of_job_id(found_id)));
        END LOOP;
        RETURN QUERY SELECT DISTINCT of_parent, m FROM unnest(months) m
            WHERE NOT EXISTS (SELECT FROM history_partitions() p
                WHERE p.parent = of_parent AND p.low <= first_job_id_of(m) AND p.high >= first_job_id_of(month_after(m)))
            ORDER BY m;
    END LOOP;
END
$$;

-- Makes one partition: prepared as a table of its own, filled with the rows of its month that stand in the default partition, and
-- attached, all in one transaction. A worker's role may call it; only the owner may do it. Says what came of it:
--   there      it was there before
--   made
--   busy       a lock was not had within 200 ms; nothing is changed
--   elsewhere  somebody else makes one just now
--   crowded    more than `at_most` rows would have to be moved, for as long as the default partition is locked: they stay there,
--              where they are found as well. In a quiet hour: SELECT make_partition('checkpoints', '2027-01-01', 100000000)
--   taken      another table has the name
CREATE FUNCTION make_partition(of_parent text, at timestamptz, at_most bigint DEFAULT 50000) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' SET enable_seqscan = off AS $$
DECLARE
    rest text := of_parent || '_default';
    new_name text := of_parent || '_' || to_char(at AT TIME ZONE 'UTC', 'YYYYMM');
    new_low uuid := first_job_id_of(month_of(at));
    new_high uuid := first_job_id_of(month_after(at));
    strangers bigint;
BEGIN
    IF of_parent NOT IN ('checkpoints', 'attempts', 'effects') THEN
        RAISE EXCEPTION 'expected checkpoints, attempts or effects, got %', of_parent;
    END IF;
    IF NOT pg_try_advisory_xact_lock(7264019, 1) THEN
        RETURN 'elsewhere';
    END IF;
    -- Partitions made in a session whose time zone has a summer time may reach an hour into the next month.
    SELECT coalesce(max(p.high::text)::uuid, new_low) INTO new_low FROM history_partitions() p
        WHERE p.parent = of_parent AND p.low <= new_low AND p.high > new_low;
    SELECT coalesce(min(p.low::text)::uuid, new_high) INTO new_high FROM history_partitions() p
        WHERE p.parent = of_parent AND p.low >= new_low AND p.low < new_high;
    IF new_low >= new_high THEN
        RETURN 'there';
    END IF;
    IF to_regclass(new_name) IS NOT NULL THEN
        RETURN 'taken';
    END IF;
    BEGIN
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %I WHERE job_id >= $1 AND job_id < $2 LIMIT $3 + 1) AS counted', rest)
            INTO strangers USING new_low, new_high, at_most;
        IF strangers > at_most THEN
            RETURN 'crowded';
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL, CONSTRAINT within_bounds CHECK (job_id >= %L AND job_id < %L))',
            new_name, of_parent, new_low, new_high);
        -- Nobody may add rows of the month to the default partition from here on.
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
        IF strangers > 0 THEN
            -- Both have the columns of their parent, in its order.
            EXECUTE format('WITH moved AS (DELETE FROM %I WHERE job_id >= $1 AND job_id < $2 RETURNING *)
                INSERT INTO %I SELECT * FROM moved', rest, new_name) USING new_low, new_high;
        END IF;
        -- The new table's CHECK says what a scan of it would; the default partition is scanned.
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', of_parent, new_name, new_low, new_high);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT within_bounds', new_name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'busy';
    END;
    RETURN 'made';
END
$$;

-- Drops one partition that ended before `before` and in whose range no job is left. A worker's role may call it. Says what came of
-- it: dropped, busy and elsewhere as above, gone (there is none of the name), young, needed (a job is left).
CREATE FUNCTION drop_partition(of_parent text, old_name text, before timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' SET enable_seqscan = off AS $$
DECLARE
    old_low uuid;
    old_high uuid;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7264019, 1) THEN
        RETURN 'elsewhere';
    END IF;
    SELECT p.low, p.high INTO old_low, old_high FROM history_partitions() p WHERE p.parent = of_parent AND p.name = old_name;
    IF NOT FOUND THEN
        RETURN 'gone';
    ELSIF old_high > first_job_id_of(before) THEN
        RETURN 'young';
    ELSIF EXISTS (SELECT FROM jobs WHERE id >= old_low AND id < old_high) THEN
        RETURN 'needed';
    END IF;
    BEGIN
        EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', of_parent);
        -- A job is there before its history: whoever has added some since has shown the job, too.
        IF EXISTS (SELECT FROM jobs WHERE id >= old_low AND id < old_high) THEN
            RETURN 'needed';
        END IF;
        EXECUTE format('DROP TABLE %I', old_name);
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'busy';
    END;
    RETURN 'dropped';
END
$$;

-- What workers of the version before call, also before a migration: it makes what it can, and never fails because of a lock or of
-- rows in a default partition.
CREATE OR REPLACE FUNCTION ensure_partitions(months integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN SELECT parent, month FROM missing_partitions(now(), months - 1) LOOP
        EXIT WHEN make_partition(missing.parent, missing.month) IN ('busy', 'elsewhere');
    END LOOP;
END
$$;

-- Rows of the audit log are never changed, and never removed within a year.
CREATE OR REPLACE FUNCTION audit_log_is_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '365 days' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is insert-only; rows may be deleted after 365 days';
END
$$;

CREATE INDEX job_keys_without_job ON job_keys (created_at) WHERE job_id IS NULL;
CREATE INDEX dead_letters_resolved ON dead_letters (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX replicas_ended ON replicas (ended_at) WHERE ended_at IS NOT NULL;

-- A key goes with its job from now on. Those whose job went before them are of no use.
DELETE FROM job_keys k
WHERE job_id IS NOT NULL AND created_at < now() - interval '30 days' AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = k.job_id);
