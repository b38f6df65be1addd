-- Workers run without ownership. What only the owner can do, a worker asks functions of the owner's for, and each of them is
-- bounded by what it is for, whoever calls it. Which role has which right is in src/store/rights.rs: `dispatch migrate` grants it
-- after every migration. Workers of the version before go on as they are, as the owner.

-- The audit log: nobody forgets or invents who was connected, and nobody empties it.

ALTER TABLE audit_log
    -- The role that logged in (session_user). Null in rows from before this migration.
    ADD COLUMN login text,
    -- From where. Null where that was a socket file of the server's own machine, and in rows from before this migration.
    ADD COLUMN address inet;

-- Only the owner may say when: who restores a row gives it the time it had.
CREATE FUNCTION stamp_audit_row() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.login := session_user;
    NEW.address := inet_client_addr();
    IF NOT pg_has_role(session_user, (SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'MEMBER') THEN
        NEW.at := now();
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_log_stamped BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION stamp_audit_row();

CREATE FUNCTION audit_log_is_not_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is insert-only; rows may be deleted after 365 days, one by one';
END
$$;
CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_not_truncated();

-- Deletes the oldest rows: those from before `older_than`, none younger than 365 days, at most `at_most` and never more than 10,000.
-- Ids are in the order of time. Says how many.
CREATE FUNCTION prune_audit(older_than timestamptz, at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    pruned bigint;
BEGIN
    DELETE FROM audit_log WHERE id IN (
        SELECT id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT least(at_most, 10000)) oldest
        WHERE at < least(older_than, now() - interval '365 days'));
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;

-- Partitions: a worker has made and dropped what upkeep asks for, and nothing else.

-- As before, with a bound on `ahead`, whoever asks.
CREATE OR REPLACE FUNCTION missing_partitions(at timestamptz, ahead integer) RETURNS TABLE (parent text, month timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    of_parent text;
    last_month timestamptz;
    months timestamptz[];
    next_id uuid;
    found_id uuid;
BEGIN
    IF ahead IS NULL OR ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'expected 0 to 24 months ahead, got %', ahead;
    END IF;
    last_month := (date_trunc('month', at AT TIME ZONE 'UTC') + make_interval(months => ahead)) AT TIME ZONE 'UTC';
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

-- As before (V12), and for a role that is not the owner:
--   refused    the month is more than four months ahead, or is past and has no row in the default partition, or the table has 160
--              partitions, more than ten years of them; and at most 50,000 rows are moved, whatever `at_most` says
CREATE OR REPLACE FUNCTION make_partition(of_parent text, at timestamptz, at_most bigint DEFAULT 50000) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' SET enable_seqscan = off AS $$
DECLARE
    by_owner boolean := pg_has_role(session_user, current_user, 'MEMBER');
    rest text := of_parent || '_default';
    new_name text := of_parent || '_' || to_char(at AT TIME ZONE 'UTC', 'YYYYMM');
    new_low uuid := first_job_id_of(month_of(at));
    new_high uuid := first_job_id_of(month_after(at));
    movable bigint := CASE WHEN by_owner THEN at_most ELSE least(at_most, 50000) END;
    strangers bigint;
BEGIN
    IF of_parent IS NULL OR of_parent NOT IN ('checkpoints', 'attempts', 'effects') THEN
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
    IF NOT by_owner AND (month_of(at) > month_of(now() + interval '4 months')
        OR (SELECT count(*) FROM history_partitions() p WHERE p.parent = of_parent) >= 160) THEN
        RETURN 'refused';
    END IF;
    BEGIN
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %I WHERE job_id >= $1 AND job_id < $2 LIMIT $3 + 1) AS counted', rest)
            INTO strangers USING new_low, new_high, movable;
        IF strangers > movable THEN
            RETURN 'crowded';
        ELSIF NOT by_owner AND strangers = 0 AND month_of(at) < month_of(now()) THEN
            RETURN 'refused';
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

-- As before; and nothing is dropped that has not been over for a week, whatever `before` says.
CREATE OR REPLACE FUNCTION drop_partition(of_parent text, old_name text, before timestamptz) RETURNS text
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
    -- Clocks are at most 10 minutes apart where anything is dropped.
    ELSIF old_high > first_job_id_of(least(before, now() - interval '7 days' + interval '10 minutes')) THEN
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

-- For workers of the version before alone, which run as the owner.
CREATE OR REPLACE FUNCTION ensure_partitions(months integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    missing record;
BEGIN
    IF months IS NULL OR months NOT BETWEEN 1 AND 24 THEN
        RAISE EXCEPTION 'expected 1 to 24 months, got %', months;
    END IF;
    FOR missing IN SELECT parent, month FROM missing_partitions(now(), months - 1) LOOP
        EXIT WHEN make_partition(missing.parent, missing.month) IN ('busy', 'elsewhere');
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION ensure_partitions(integer), missing_partitions(timestamptz, integer),
    make_partition(text, timestamptz, bigint), drop_partition(text, text, timestamptz), prune_audit(timestamptz, bigint) FROM PUBLIC;
