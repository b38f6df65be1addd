INSERT INTO releases (cause, up_to, after_observed, after_id)
    VALUES ('configuration|globex', 9, 3, '018cc251-f400-7000-8000-000000000005');
