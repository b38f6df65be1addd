INSERT INTO organizations (slug, name) VALUES ('acme', 'Acme'), ('globex', 'Globex');
INSERT INTO projects (organization_id, slug, name) VALUES (1, 'shop', 'Shop');
INSERT INTO users (name) VALUES ('Ann'), ('Bob');
INSERT INTO user_emails (user_id, email, verified) VALUES (1, 'ann@example.com', true), (2, 'ann@example.com', false);
INSERT INTO project_members VALUES (1, 1), (1, 2);
INSERT INTO teams (organization_id, slug) VALUES (1, 'web');
INSERT INTO team_members VALUES (1, 1);
INSERT INTO integrations (account_id, account_name) VALUES ('A0000000-0000-0000-0000-000000000001', 'acme-devops');
INSERT INTO subscriptions (integration_id, secret_sha256, valid_until) VALUES
    (1, sha256('one'), NULL), (1, sha256('two'), now() + interval '1 day');
INSERT INTO identities (organization_id, name, access_token, refresh_token, token_expires_at)
    VALUES (1, 'service', 'sealed:access', 'sealed:refresh', now());
INSERT INTO organization_integrations VALUES (1, 1, false, 1, true, true, false), (2, 1, true, NULL, true, false, false);
INSERT INTO external_issues (integration_id, work_item_id) VALUES (1, 17);
INSERT INTO issue_groups (project_id, short_id, title, team_id) VALUES (1, 'SHOP-1', 'Checkout fails', 1);
INSERT INTO group_links VALUES (1, 1, 5, 4, 'InProgress');
INSERT INTO group_assignees VALUES (1, 1, now(), 1);
INSERT INTO group_subscriptions (group_id, user_id, reason) VALUES (1, 1, 'assigned'), (1, 1, 'team');
INSERT INTO activities (group_id, kind, user_id, external_issue_id, rev, job_id)
    VALUES (1, 'assigned', 1, 1, 5, '018cc251-f400-7000-8000-000000000008');
INSERT INTO group_history (group_id, field, before, after, job_id)
    VALUES (1, 'assignee', NULL, '1', '018cc251-f400-7000-8000-000000000008');
INSERT INTO destinations (organization_id, name, kind, config, secret, is_default)
    VALUES (1, 'chat', 'slack', '{"channel": "C1"}', 'sealed:secret', true);
INSERT INTO seen_events (integration_id, event_id, job_id) VALUES (1, 'event-1', '018cc251-f400-7000-8000-000000000008');
