INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, content_type, content_encoding,
    app_id, resolved_at, resolution, resolved_by, resolved_reason)
    VALUES ('intake.json', 'expected JSON', 'intake', '{"x-key": "secret"}', 'sealed:body', 4, sha256('replayed'), 'application/json', '',
        '', now(), 'replayed', 'olga', 'the producer is fixed');
INSERT INTO destinations (organization_id, name, kind, config, secret, previous_secret, previous_secret_until)
    VALUES (1, 'hook', 'webhook', '{"url": "https://example.com"}', 'sealed:new', 'sealed:old', now() + interval '1 day');
