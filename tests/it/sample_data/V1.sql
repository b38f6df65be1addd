-- Ids begin with the time of the job: January 2024 lies in the default partitions.
INSERT INTO replicas (version, host, pid, alive_until, lanes, ended_at, ended_well) VALUES
    ('0.1.0', 'one', 11, now() + interval '1 minute', '{dispatch}', NULL, false),
    ('0.1.0', 'two', 12, now() - interval '40 days', '{dispatch}', now() - interval '40 days', true);

INSERT INTO jobs (id, pipeline, parent_id, open_children, source, dedupe_key, organization, schema, payload, sealed_payload,
    state, stage, epoch, owner, woken_at, wait_reason, wait_key, wait_observed, deadline, error_code, fingerprint, finished_at) VALUES
    ('018cc251-f400-7000-8000-000000000001', 'dispatch', NULL, 0, 'checkout', 'ready', 'acme', 1, '{"n": "\u0000"}', NULL,
        'ready', 'check_account', 0, NULL, now(), NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000002', 'dispatch', NULL, 0, 'checkout', 'running', 'acme', 1, '{}', NULL,
        'running', 'fetch_states', 3, 1, now(), NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000003', 'dispatch', NULL, 1, 'checkout', 'parent', 'acme', 1, '{}', NULL,
        'waiting', 'send_follow_ups', 4, NULL, NULL, 'children', NULL, NULL, now(), NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000004', 'messaging', '018cc251-f400-7000-8000-000000000003', 0, 'checkout', 'child', 'acme', 1,
        '{}', NULL, 'waiting', 'deliver_message', 1, NULL, NULL, 'hold', 'hold|acme|slack|1', 7, now(), NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000005', 'dispatch', NULL, 0, 'checkout', 'waits', 'acme', 1, '{}', NULL,
        'waiting', 'check_account', 1, NULL, NULL, 'configuration', 'configuration|acme', NULL, NULL, NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000006', 'dispatch', NULL, 0, 'checkout', 'newer', 'acme', 9, NULL, 'sealed:payload',
        'waiting', 'check_account', 1, NULL, NULL, 'version', 'version|9', 0, NULL, NULL, NULL, NULL),
    ('018cc251-f400-7000-8000-000000000007', 'dispatch', NULL, 0, 'checkout', 'parked', 'globex', 1, '{}', NULL,
        'parked', 'patch_work_item', 2, NULL, NULL, NULL, NULL, NULL, NULL, 'azure_devops.forbidden', 'f00d', NULL),
    ('018cc251-f400-7000-8000-000000000008', 'dispatch', NULL, 0, 'checkout', 'done', 'globex', 1, '{}', NULL,
        'succeeded', 'send_follow_ups', 5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, now());

-- Keys as old as their jobs, an old key without its job, and a recent one.
INSERT INTO job_keys (source, dedupe_key, job_id, digest, created_at)
    SELECT source, dedupe_key, id, sha256('message'), now() - interval '40 days' FROM jobs WHERE parent_id IS NULL;
INSERT INTO job_keys (source, dedupe_key, job_id, digest, created_at) VALUES
    ('checkout', 'old-without-job', '018cc251-f400-7000-8000-0000000000aa', sha256('old'), now() - interval '40 days'),
    ('checkout', 'new-without-job', '018cc251-f400-7000-8000-0000000000ab', sha256('new'), now() - interval '10 days');

INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
    VALUES ('018cc251-f400-7000-8000-000000000002', 1, 'check_account', 1, '{"account": "a"}', 3, 1, 1, now());
INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch)
    VALUES ('018cc251-f400-7000-8000-000000000007', 1, 'patch_work_item', 1, 'parked', 'azure_devops.forbidden', 'refused', 12, 2, 2);
INSERT INTO effects (job_id, key, generation, stage, target, class, state, resource, detail, epoch, deadline_at)
    VALUES ('018cc251-f400-7000-8000-000000000007', 'patch', 1, 'patch_work_item', 'work item 1', 'K1', 'failed', 'item/1', '{}', 2, now());

INSERT INTO dead_letters (code, detail, source, routing_key, headers, sealed_body, body_bytes, body_sha256, resolved_at) VALUES
    ('intake.json', 'expected JSON', NULL, 'intake', '{"x-trace": "1"}', 'sealed:body', 4, sha256('open'), NULL),
    ('intake.schema', 'expected schema 1', 'checkout', 'intake', '{}', 'sealed:body', 4, sha256('resolved'), now());
INSERT INTO announcements (job_id, routing_key, reply_to, body, publish_after)
    VALUES ('018cc251-f400-7000-8000-000000000008', 'job.succeeded', 'replies', '{}', now());
INSERT INTO controls (kind, scope, reason, who, expires_at, released_at) VALUES
    ('hold', 'acme|slack|1', 'rate limited', 'worker', now() + interval '1 hour', NULL),
    ('pause', 'globex', 'maintenance', 'olga', now() - interval '1 day', now() - interval '2 days');
INSERT INTO audit_log (at, who, role, action, job_id, reason) VALUES
    (now() - interval '400 days', 'olga', 'operator', 'job.retry', '018cc251-f400-7000-8000-000000000007', 'asked by Ann'),
    (now() - interval '10 days', 'olga', 'operator', 'job.cancel', '018cc251-f400-7000-8000-000000000008', NULL);
