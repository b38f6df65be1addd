INSERT INTO replicas (version, host, pid, alive_until, lanes, ended_at, process)
    VALUES ('0.1.0', 'three', 13, now(), '{dispatch}', now(), 'b0000000-0000-4000-8000-000000000001');
INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, woken_at, woken_by, crash_count, blamed,
    wait_reason, wait_key, wait_observed) VALUES
    ('018cc251-f400-7000-8000-000000000013', 'dispatch', 'checkout', 'stamped', 'acme', 1, '{}', 'ready', 'fetch_states', now(), 3, 1,
        '{3}', NULL, NULL, NULL),
    -- A worker of an earlier version has observed nothing of the cause.
    ('018cc251-f400-7000-8000-000000000014', 'dispatch', 'checkout', 'unobserved', 'acme', 1, '{}', 'waiting', 'check_account', NULL, NULL,
        0, NULL, 'reauthentication', 'reauthentication|1', NULL);
