INSERT INTO controls (kind, scope, reason, who, expires_at, automatic, step, stepped_at)
    VALUES ('circuit', 'acme|webhook|2', 'five failures in a row', 'worker', now(), true, 2, now());
