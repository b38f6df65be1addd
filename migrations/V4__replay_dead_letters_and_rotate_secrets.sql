-- What operators do: dead letters are published again or put aside, secrets of destinations are replaced in two steps.

ALTER TABLE dead_letters
    -- As received; '' where the message had none, null where it came before this migration.
    ADD COLUMN content_type text,
    ADD COLUMN content_encoding text,
    ADD COLUMN app_id text,
    ADD COLUMN resolution text CHECK (resolution IN ('replayed', 'discarded')),
    ADD COLUMN resolved_by text,
    ADD COLUMN resolved_reason text,
    ADD CHECK (resolution IS NULL OR (resolved_at IS NOT NULL AND resolved_by IS NOT NULL));

ALTER TABLE destinations
    -- Sealed; signs beside the present one until then.
    ADD COLUMN previous_secret text,
    ADD COLUMN previous_secret_until timestamptz,
    ADD CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL));
