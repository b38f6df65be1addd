INSERT INTO identities (organization_id, name, access_token, token_expires_at, version, refreshing_until, refresh_refused_at,
    access_refused_at, imported_sha256)
    VALUES (2, 'service', 'sealed:access', now(), 4, now(), now(), now(), sha256('tokens'));
