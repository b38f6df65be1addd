INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample, first_version, owner, note)
    VALUES ('0123456789abcdef', 'dispatch', 'search_work_items', 'azure_devops.refused', 'the query is too long', '0.1.0', 'ann', 'asked them');
