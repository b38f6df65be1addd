-- An event or a reply that is refused, or never confirmed, is published a bounded number of times.
ALTER TABLE announcements
    -- Publishes of the event that were sent and then refused or not confirmed in time.
    ADD COLUMN tries integer NOT NULL DEFAULT 0,
    -- The same of the reply.
    ADD COLUMN reply_tries integer NOT NULL DEFAULT 0;
