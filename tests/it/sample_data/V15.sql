INSERT INTO producers (name, sources, organizations, reply_queues, applications)
    VALUES ('checkout', '{checkout*}', '{acme}', '{replies}', '{1001}');
INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, producer)
    VALUES ('018cc251-f400-7000-8000-000000000015', 'dispatch', 'checkout', 'produced', 'acme', 1, '{}', 'ready', 'check_account',
        'checkout');
INSERT INTO job_keys (source, dedupe_key, job_id, digest, producer)
    VALUES ('checkout', 'produced', '018cc251-f400-7000-8000-000000000015', sha256('produced'), 'checkout');
INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, producer)
    VALUES ('intake.producer', 'expected a listed source', 'intake', '{}', 'sealed:body', 4, sha256('produced'), 'checkout');
