-- Kill switches: a control of the kind `kill_switch` stops the jobs that its matcher describes. A worker that does not
-- understand a matcher applies it to no job. The scope is `organization:SLUG` if the matcher names an organization, else
-- `all`.

ALTER TABLE controls ADD COLUMN matcher json;
