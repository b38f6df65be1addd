INSERT INTO announcements (routing_key, reply_to, body, publish_after, tries, reply_tries)
    VALUES ('job.cancelled', 'replies', '{}', now(), 1, 3);
