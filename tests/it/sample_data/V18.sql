UPDATE jobs SET bytes = 120 WHERE dedupe_key = 'produced';
INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_headers, sealed_body, body_bytes, body_sha256, producer, kept_bytes)
    VALUES ('quota.dead_letters', 'the body was not kept', 'intake', '{}', 'sealed:headers', NULL, 4, sha256('quota'), 'checkout', 14);
INSERT INTO quota_grants (holder, kind, replica, rows, bytes, until) VALUES ('producer/checkout', 'jobs', 1, 10, 4096, now());
