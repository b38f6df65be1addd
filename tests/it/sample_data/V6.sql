INSERT INTO announcements (routing_key, reply_to, body, publish_after, reply_only, traceparent, tracestate)
    VALUES ('job.accepted', 'replies', '{}', now(), true, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'a=b');
INSERT INTO job_keys (source, dedupe_key, cancelled_by, created_at) VALUES
    ('checkout', 'cancelled-before-its-job', 'checkout', now() - interval '40 days');
UPDATE jobs SET tracestate = 'a=b' WHERE dedupe_key = 'ready';
