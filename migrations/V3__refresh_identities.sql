-- Identities refresh their tokens at Microsoft Entra, one refresher at a time among all replicas.

ALTER TABLE identities
    -- Until then somebody is refreshing the tokens, and nobody else may.
    ADD COLUMN refreshing_until timestamptz,
    -- When Microsoft Entra last refused the refresh token of this version.
    ADD COLUMN refresh_refused_at timestamptz,
    -- When the tokens were last refreshed because Azure DevOps did not take the access token before its end.
    ADD COLUMN access_refused_at timestamptz,
    -- SHA-256 of the tokens in the document last imported: the same ones again are old news, whatever they became since.
    ADD COLUMN imported_sha256 bytea CHECK (length(imported_sha256) = 32);

-- Makes due at most so many of the jobs that wait for a cause (with `seen`, of those that saw it so), and says how many.
-- Whoever removes a cause calls it in the same transaction.
CREATE FUNCTION release_waiting(cause text, at_most bigint, seen bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    WITH waiting AS (
        SELECT id FROM jobs WHERE state = 'waiting' AND wait_key = cause AND (seen IS NULL OR wait_observed = seen)
        ORDER BY id LIMIT at_most FOR UPDATE SKIP LOCKED
    ), released AS (
        UPDATE jobs SET state = 'ready', wait_reason = NULL, wait_key = NULL, wait_observed = NULL, due_at = now(), woken_at = NULL
        FROM waiting WHERE jobs.id = waiting.id
        RETURNING jobs.id
    )
    SELECT count(*) FROM released
$$;
