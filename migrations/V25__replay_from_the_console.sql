-- A dead letter is published again by a worker when somebody asks for it in Postgres, and its body can be corrected before that.

ALTER TABLE dead_letters
    -- Who asked for it, when and why. Null after a failure that a repetition cannot change; the error stays.
    ADD COLUMN replay_wanted_at timestamptz,
    ADD COLUMN replay_wanted_by text,
    ADD COLUMN replay_wanted_role text,
    ADD COLUMN replay_wanted_reason text,
    -- When a worker may try next. A worker that tries moves it on, so that no other one does.
    ADD COLUMN replay_next_at timestamptz,
    ADD COLUMN replay_error text CHECK (length(replay_error) <= 2000),
    -- Who replaced the body, and when. The audit log has the hash of the one before.
    ADD COLUMN fixed_at timestamptz,
    ADD COLUMN fixed_by text,
    ADD CHECK ((replay_wanted_at IS NULL) = (replay_next_at IS NULL)),
    ADD CHECK (replay_wanted_at IS NULL OR (replay_wanted_by IS NOT NULL AND replay_wanted_role IS NOT NULL)),
    ADD CHECK ((fixed_at IS NULL) = (fixed_by IS NULL));
CREATE INDEX dead_letters_wanted ON dead_letters (replay_next_at) WHERE replay_next_at IS NOT NULL AND resolved_at IS NULL;
