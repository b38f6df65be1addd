INSERT INTO campaigns (action, filter, who, role, reason, per_second, stop_at_percent, total, next_at)
    VALUES ('retry', '{"ids": ["018cc251-f400-7000-8000-000000000007"]}', 'olga', 'operator', 'the query is shorter', 5, 20, 1, now() + interval '1 day');
INSERT INTO campaign_items (campaign, n, job_id) SELECT id, 1, '018cc251-f400-7000-8000-000000000007' FROM campaigns;
