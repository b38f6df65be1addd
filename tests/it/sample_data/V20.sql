INSERT INTO api_tokens (name, sha256, role, source, created_by, expires_at)
    VALUES ('shop', sha256('shop'), 'producer', 'shop', 'olga', now() + interval '30 days'),
        ('ann', sha256('ann'), 'viewer', NULL, 'olga', now() + interval '30 days');
UPDATE api_tokens SET organizations = '{acme}', last_used_at = now() WHERE name = 'ann';
INSERT INTO idempotency_keys (token, key, request, before, after) VALUES (1, 'k1', sha256('POST'), '{}', '{}');
INSERT INTO audit_log (who, role, action, request_id, token)
    VALUES ('ann', 'operator', 'retry', '0195612e-9a00-7000-8000-000000000001', 'ann');
