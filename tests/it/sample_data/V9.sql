INSERT INTO announcements (routing_key, reply_to, body, publish_after, created_at)
    VALUES ('job.parked', 'replies', '{}', now(), now() - interval '2 hours');
