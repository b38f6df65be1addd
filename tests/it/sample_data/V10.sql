INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, partial, read_again, skipped)
    VALUES ('018cc251-f400-7000-8000-000000000010', 'dispatch', 'checkout', 'partial', 'acme', 1, '{}', 'ready', 'fetch_states',
        '{"stage": "fetch_states", "version": 1, "generation": 1, "pieces": []}', true, '{"events": {"duplicate": 2}}');
UPDATE identities SET refresh_refusal = 'invalid_grant' WHERE organization_id = 2;
