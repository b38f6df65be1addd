INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_headers, sealed_body, body_bytes, body_sha256, producer)
    VALUES ('intake.json', 'expected JSON', 'intake', '{}', 'sealed:headers', 'sealed:body', 4, sha256('headers'), 'checkout');
