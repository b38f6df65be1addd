-- What producers are told and may wish: replies to a repeated message, trace context of announcements, and a cancel that comes
-- before its job.

-- A reply to a message that came again: its producer alone is told, not the event exchange.
ALTER TABLE announcements ADD COLUMN reply_only boolean NOT NULL DEFAULT false;
-- W3C trace context of the job, for the headers of the event and the reply.
ALTER TABLE announcements ADD COLUMN traceparent text;
ALTER TABLE announcements ADD COLUMN tracestate text;
ALTER TABLE jobs ADD COLUMN tracestate text;

-- A key without a job is a cancel that came before its job: the job, when it comes, is made and cancelled at once.
ALTER TABLE job_keys ALTER COLUMN job_id DROP NOT NULL;
ALTER TABLE job_keys ALTER COLUMN digest DROP NOT NULL;
ALTER TABLE job_keys ADD COLUMN cancelled_by text;
ALTER TABLE job_keys ADD CONSTRAINT job_keys_job_or_wish CHECK (
    (job_id IS NULL) = (digest IS NULL) AND (job_id IS NOT NULL OR cancelled_by IS NOT NULL));
