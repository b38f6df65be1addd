INSERT INTO samples (at, replica, data)
    VALUES ('2026-01-01 12:00+00', 1, '{"version":"0.1.0","ready":true,"not_ready":[],"counters":{},"gauges":{},"stages":{}}');
