ALTER TABLE jobs
    -- What the stage due has so far, kept where a run of it ended before it was finished: {stage, version, generation, pieces}.
    -- Written by the owner alone, like a checkpoint; gone when the stage is finished.
    ADD COLUMN partial json,
    -- A person has started the stage again since: what was read before is read again.
    ADD COLUMN read_again boolean NOT NULL DEFAULT false,
    -- What the stages left aside, in counts by kind and reason: {"events": {"duplicate": 2}}.
    ADD COLUMN skipped json;

ALTER TABLE identities
    -- What Microsoft Entra said when it last refused the refresh token of this version.
    ADD COLUMN refresh_refusal text;
