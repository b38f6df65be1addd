-- A bulk action: a snapshot of jobs, carried out in waves by any replica.
CREATE TABLE campaigns (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- A worker leaves alone an action that it does not know.
    action text NOT NULL CHECK (length(action) BETWEEN 1 AND 32),
    filter json NOT NULL,
    -- The group of failures that the filter names.
    fingerprint text,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'running', 'paused', 'aborted', 'finished')),
    -- Why it is paused or aborted.
    why text CHECK (length(why) <= 2000),
    who text NOT NULL,
    role text NOT NULL,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    per_second integer NOT NULL CHECK (per_second BETWEEN 1 AND 100),
    stop_at_percent integer NOT NULL CHECK (stop_at_percent BETWEEN 0 AND 100),
    -- The number of duplicates that the person has accepted.
    duplicates_allowed integer NOT NULL DEFAULT 0 CHECK (duplicates_allowed >= 0),
    -- Items, numbered from 1, and the next one to act on.
    total integer NOT NULL CHECK (total BETWEEN 0 AND 100000),
    next_n integer NOT NULL DEFAULT 1,
    -- The wave, its items, and how many waves have been since the start or the last pause.
    wave integer NOT NULL DEFAULT 0,
    wave_from integer NOT NULL DEFAULT 1,
    wave_until integer NOT NULL DEFAULT 0,
    ramp integer NOT NULL DEFAULT 0,
    -- Items by verdict. Those without one are open or acted on.
    refused integer NOT NULL DEFAULT 0,
    good integer NOT NULL DEFAULT 0,
    bad integer NOT NULL DEFAULT 0,
    unknown integer NOT NULL DEFAULT 0,
    -- The verdicts of the last waves.
    verdicts json NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When the next step is due. Not indexed: each step changes it, and few campaigns are open.
    next_at timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('aborted', 'finished')))
) WITH (fillfactor = 50);
CREATE INDEX campaigns_open ON campaigns (id) WHERE finished_at IS NULL;
CREATE INDEX campaigns_by_end ON campaigns (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE campaign_items (
    campaign bigint NOT NULL,
    n integer NOT NULL CHECK (n >= 1),
    job_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'acted', 'refused', 'good', 'bad', 'unknown')),
    why text CHECK (length(why) <= 2000),
    -- The stage of the job when it was acted on.
    stage text,
    acted_at timestamptz,
    PRIMARY KEY (campaign, n)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX campaign_items_of_job ON campaign_items (campaign, job_id);
