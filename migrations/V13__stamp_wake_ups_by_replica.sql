-- Stamps say by whom, and a process is known through all its incarnations.

ALTER TABLE jobs
    -- The replica that stamped `woken_at`. Its stamps are taken back when it has ended or does not know whether it published.
    ADD COLUMN woken_by bigint,
    -- The replicas whose ends raised `crash_count`. One that turns out to have ended well is no longer counted.
    ADD COLUMN blamed bigint[];
ALTER TABLE replicas
    -- One number for all incarnations of one process.
    ADD COLUMN process uuid;

CREATE INDEX jobs_stamped ON jobs (woken_by, woken_at) WHERE state = 'ready' AND woken_at IS NOT NULL;
CREATE INDEX replicas_of_process ON replicas (process) WHERE NOT ended_well;

-- With the id, the rows of one organization that came at the same time have an order, and can be counted page by page.
DROP INDEX jobs_not_woken;
CREATE INDEX jobs_not_woken ON jobs (pipeline, organization, due_at, id) WHERE state = 'ready' AND woken_at IS NULL;
