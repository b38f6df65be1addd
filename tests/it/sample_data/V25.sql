INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_headers, sealed_body, body_bytes, body_sha256, replay_wanted_at,
        replay_wanted_by, replay_wanted_role, replay_wanted_reason, replay_next_at, replay_error, fixed_at, fixed_by)
    VALUES ('not_json', 'the body is not JSON', 'job', '{}', 'sealed:headers', 'sealed:body', 4, sha256('fixed'), '2026-01-01 12:00+00',
        'olga', 'admin', 'corrected', '2026-01-01 12:00:30+00', 'RabbitMQ is away', '2026-01-01 12:00+00', 'olga');
