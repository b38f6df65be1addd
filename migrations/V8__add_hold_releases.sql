-- Holds of destinations: one row for each kind and scope that workers place, used again and again, and how the jobs that wait
-- for a hold are let go after its end.

ALTER TABLE controls
    -- Placed by a worker, not by a person.
    ADD COLUMN automatic boolean NOT NULL DEFAULT false,
    -- How many jobs the last step after its end made due; 0 = none yet.
    ADD COLUMN step integer NOT NULL DEFAULT 0,
    ADD COLUMN stepped_at timestamptz;
CREATE UNIQUE INDEX controls_automatic ON controls (kind, scope) WHERE automatic;
CREATE INDEX controls_of_scope ON controls (scope);

-- The jobs of each hold, oldest first.
CREATE INDEX jobs_held ON jobs (wait_key, id) WHERE state = 'waiting' AND wait_reason = 'hold';
