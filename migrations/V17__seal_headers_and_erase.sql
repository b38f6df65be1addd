-- Headers of dead letters are sealed, since they may hold secrets, and what people and organizations have left behind can be erased.

-- All headers as received, sealed. `headers` has those of the allow-list alone from now on. Null: a worker of an earlier version has
-- kept the message, with all its headers in `headers`; SQL cannot seal, so the duty `headers` of any worker does it soon after.
ALTER TABLE dead_letters ADD COLUMN sealed_headers text;
CREATE INDEX dead_letters_unsealed ON dead_letters (id) WHERE sealed_headers IS NULL;
