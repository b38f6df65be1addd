-- Headers of dead letters are sealed, since they may hold secrets, and what people and organizations have left behind can be erased.

-- All headers as received, sealed. `headers` has those of the allow-list alone from now on. Null: a worker of an earlier version has
-- kept the message, with all its headers in `headers`; SQL cannot seal, so the duty `headers` of any worker does it soon after.
ALTER TABLE dead_letters ADD COLUMN sealed_headers text;
CREATE INDEX dead_letters_unsealed ON dead_letters (id) WHERE sealed_headers IS NULL;

-- Erasing a person or an organization (`dispatch erase`) takes what names them out of the audit log, too, and nothing else: that
-- somebody did something, what kind of thing and when, stays.

-- Rows of the audit log are never changed, but for texts that are erased, and never removed within a year.
CREATE OR REPLACE FUNCTION audit_log_is_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was audit_log;
    becomes audit_log;
BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '365 days' THEN
        RETURN OLD;
    END IF;
    -- Set by `erase_from_audit` alone, for as long as it runs; whoever sets it without being the owner has gained nothing.
    IF TG_OP = 'UPDATE' AND current_setting('dispatch.erasing', true) = 'on'
        AND (SELECT relowner FROM pg_class WHERE oid = TG_RELID) = current_user::regrole THEN
        was := OLD;
        becomes := NEW;
        was.who := '';
        was.job_id := NULL;
        was.before := NULL;
        was.after := NULL;
        was.reason := NULL;
        becomes.who := '';
        becomes.job_id := NULL;
        becomes.before := NULL;
        becomes.after := NULL;
        becomes.reason := NULL;
        IF was::text = becomes::text THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit_log is insert-only; rows may be deleted after 365 days';
END
$$;

-- Puts a pseudonym where the texts of a page of the audit log match `words` (an advanced regular expression): rows behind `after_id` up
-- to `up_to`, 1,000 at most. Of rows that are an organization's own nothing but the action stays: those about its jobs, about these
-- dead letters, or with a text that matches `own`. Says where the page ended and how many rows it has changed; a row of the log says
-- so, too. For the owner alone.
CREATE FUNCTION erase_from_audit(after_id bigint, up_to bigint, words text, pseudonym text, of_organization text, own text,
    letters bigint[], OUT last bigint, OUT changed bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF pseudonym !~ '^erased-[0-9a-f]{8}$' THEN
        RAISE EXCEPTION 'expected a pseudonym erased- with 8 hexadecimal digits, got %', pseudonym;
    END IF;
    SELECT max(page.id) INTO last FROM (
        SELECT id FROM audit_log WHERE id > after_id AND id <= up_to ORDER BY id LIMIT 1000) page;
    PERFORM set_config('dispatch.erasing', 'on', true);
    WITH page AS MATERIALIZED (
        SELECT a.id, of_organization IS NOT NULL AND (coalesce(j.organization = of_organization, false)
                OR coalesce(concat(a.before, a.after) ~ own, false)
                OR coalesce(substring(concat(a.before, a.after) from '"dead_letter_id"\s*:\s*(\d{1,18})')::bigint = ANY (letters), false))
            AS is_own
        FROM audit_log a LEFT JOIN jobs j ON j.id = a.job_id
        WHERE a.id > after_id AND a.id <= last
    )
    UPDATE audit_log a SET who = regexp_replace(a.who, words, pseudonym, 'gi'),
        job_id = CASE WHEN page.is_own THEN NULL ELSE a.job_id END,
        before = CASE WHEN a.before IS NULL THEN NULL WHEN page.is_own THEN json_build_object('erased', pseudonym)
            ELSE regexp_replace(a.before::text, words, pseudonym, 'gi')::json END,
        after = CASE WHEN a.after IS NULL THEN NULL WHEN page.is_own THEN json_build_object('erased', pseudonym)
            ELSE regexp_replace(a.after::text, words, pseudonym, 'gi')::json END,
        reason = CASE WHEN a.reason IS NOT NULL AND page.is_own THEN pseudonym
            ELSE regexp_replace(a.reason, words, pseudonym, 'gi') END
    FROM page
    WHERE a.id = page.id AND (page.is_own OR a.who ~* words OR concat(a.before, a.after) ~* words OR a.reason ~* words);
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM set_config('dispatch.erasing', 'off', true);
    IF changed > 0 THEN
        INSERT INTO audit_log (who, role, action, after) VALUES (session_user, 'owner', 'audit.erase',
            json_build_object('pseudonym', pseudonym, 'rows', changed, 'after', after_id, 'up_to', last));
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION erase_from_audit(bigint, bigint, text, text, text, text, bigint[]) FROM PUBLIC;
