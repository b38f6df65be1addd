-- The history of a job in the month after the others, in the default partitions.
INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, woken_at)
    VALUES ('018d633f-0000-7000-8000-000000000012', 'dispatch', 'checkout', 'february', 'acme', 1, '{}', 'ready', 'fetch_states', now());
INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
    VALUES ('018d633f-0000-7000-8000-000000000012', 1, 'check_account', 1, '{}', 1, 1, 1, now());
