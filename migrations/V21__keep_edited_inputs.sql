-- The inputs that a job had before a person edited it. Deleted with the job. The token of an interaction is not part of them: it is
-- sealed in the job's own payload, which every edit keeps.
CREATE TABLE job_inputs (
    job_id uuid NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    payload json NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    replaced_by text NOT NULL,
    PRIMARY KEY (job_id, version)
);
