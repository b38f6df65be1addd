-- What the console's charts read: a row for each replica every 15 s, and at once when its readiness changes. A row is kept for
-- 48 hours. Rows arrive in the order of their primary key, so an hour is one range of it.
CREATE TABLE samples (
    at timestamptz NOT NULL DEFAULT now(),
    replica bigint NOT NULL,
    -- Cumulative counters, gauges, times of stages, and readiness; see `store::SampleData`.
    data json NOT NULL CHECK (octet_length(data::text) <= 65536),
    PRIMARY KEY (at, replica)
);
