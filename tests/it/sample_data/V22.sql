INSERT INTO controls (kind, scope, matcher, reason, who, expires_at)
    VALUES ('kill_switch', 'organization:acme', '{"organization": "acme", "source": "shop", "action": "park"}', 'a defect of the shop', 'olga', now());
