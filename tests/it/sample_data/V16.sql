INSERT INTO audit_log (who, role, action, before, after, reason)
    VALUES ('olga', 'operator', 'destination.update', '{"name": "Ann"}', '{"name": "Bob"}', 'Ann has left');
