-- A reply that its queue refuses is tried for an hour, not for ever.
ALTER TABLE announcements ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
