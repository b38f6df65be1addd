INSERT INTO job_inputs (job_id, version, payload, replaced_by)
    SELECT id, 1, '{"schema": 1}', 'ann' FROM jobs WHERE dedupe_key = 'parent';
