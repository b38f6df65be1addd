ALTER TABLE jobs
    -- What the stage due has fetched so far, kept where a run of it ended before it was finished: {stage, version, pieces}. Written
    -- by the owner alone, like a checkpoint; gone when the stage is finished or a person starts it again.
    ADD COLUMN partial json,
    -- What the stages left aside, in counts by kind and reason: {"events": {"duplicate": 2}}.
    ADD COLUMN skipped json;
