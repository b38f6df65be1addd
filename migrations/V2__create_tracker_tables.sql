-- The product's tables: what an organization has, what it is linked to in Azure DevOps, and what the worker did to it.
-- Text columns with CHECK instead of enums; e-mail addresses are stored in lowercase; secrets are sealed with the keyring.

CREATE TABLE organizations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug text NOT NULL UNIQUE CHECK (slug <> ''),
    name text NOT NULL
);

CREATE TABLE projects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations (id),
    slug text NOT NULL CHECK (slug <> ''),
    name text NOT NULL,
    UNIQUE (organization_id, slug)
);

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE user_emails (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users (id),
    email text NOT NULL CHECK (email <> '' AND email = lower(email)),
    verified boolean NOT NULL DEFAULT false,
    UNIQUE (user_id, email)
);
-- Many may claim an address, one may have it verified.
CREATE UNIQUE INDEX user_emails_verified ON user_emails (email) WHERE verified;

CREATE TABLE project_members (
    project_id bigint NOT NULL REFERENCES projects (id),
    user_id bigint NOT NULL REFERENCES users (id),
    PRIMARY KEY (project_id, user_id)
);

CREATE TABLE teams (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations (id),
    slug text NOT NULL CHECK (slug <> ''),
    UNIQUE (organization_id, slug)
);

CREATE TABLE team_members (
    team_id bigint NOT NULL REFERENCES teams (id),
    user_id bigint NOT NULL REFERENCES users (id),
    PRIMARY KEY (team_id, user_id)
);

CREATE TABLE integrations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- A GUID: compared without regard to case.
    account_id text NOT NULL CHECK (account_id <> ''),
    account_name text NOT NULL CHECK (account_name <> '')
);
CREATE UNIQUE INDEX integrations_by_account ON integrations (lower(account_id));

-- Any number of secrets may be valid at once: a rotation has at least two.
CREATE TABLE subscriptions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    integration_id bigint NOT NULL REFERENCES integrations (id),
    secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),
    valid_until timestamptz,
    UNIQUE (integration_id, secret_sha256)
);

CREATE TABLE identities (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations (id),
    name text NOT NULL CHECK (name <> ''),
    -- Sealed.
    access_token text NOT NULL,
    -- Sealed.
    refresh_token text,
    token_expires_at timestamptz NOT NULL,
    -- One more with every change of the tokens.
    version bigint NOT NULL DEFAULT 1,
    UNIQUE (organization_id, name),
    UNIQUE (organization_id, id)
);

CREATE TABLE organization_integrations (
    organization_id bigint NOT NULL REFERENCES organizations (id),
    integration_id bigint NOT NULL REFERENCES integrations (id),
    disabled boolean NOT NULL DEFAULT false,
    identity_id bigint,
    assignee_inbound boolean NOT NULL,
    assignee_outbound boolean NOT NULL,
    status_inbound boolean NOT NULL,
    PRIMARY KEY (organization_id, integration_id),
    -- An organization acts as its own identities only.
    FOREIGN KEY (organization_id, identity_id) REFERENCES identities (organization_id, id)
);
CREATE INDEX organization_integrations_of ON organization_integrations (integration_id);

CREATE TABLE external_issues (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    integration_id bigint NOT NULL REFERENCES integrations (id),
    work_item_id bigint NOT NULL CHECK (work_item_id > 0),
    UNIQUE (integration_id, work_item_id)
);

CREATE TABLE issue_groups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects (id),
    short_id text NOT NULL CHECK (short_id <> ''),
    title text NOT NULL,
    status text NOT NULL DEFAULT 'unresolved' CHECK (status IN ('unresolved', 'resolved')),
    -- Its members are subscribed while one of them is the assignee.
    team_id bigint REFERENCES teams (id),
    UNIQUE (project_id, short_id)
);

CREATE TABLE group_links (
    group_id bigint NOT NULL REFERENCES issue_groups (id),
    external_issue_id bigint NOT NULL REFERENCES external_issues (id),
    -- The work item's revision last applied to the assignee, or written by us; 0 = none.
    applied_rev bigint NOT NULL DEFAULT 0,
    -- The work item's revision last applied to the status; 0 = none.
    status_rev bigint NOT NULL DEFAULT 0,
    -- The state category of that revision.
    applied_category text,
    PRIMARY KEY (group_id, external_issue_id)
);
CREATE INDEX group_links_of ON group_links (external_issue_id);

CREATE TABLE group_assignees (
    group_id bigint PRIMARY KEY REFERENCES issue_groups (id),
    user_id bigint REFERENCES users (id),
    -- Which work item decided last, and System.ChangedDate of its revision. Null = not decided by Azure DevOps.
    decided_at timestamptz,
    decided_by bigint REFERENCES external_issues (id),
    CHECK ((decided_at IS NULL) = (decided_by IS NULL))
);

CREATE TABLE group_subscriptions (
    group_id bigint NOT NULL REFERENCES issue_groups (id),
    user_id bigint NOT NULL REFERENCES users (id),
    -- One person may be subscribed for several reasons; each ends by itself.
    reason text NOT NULL CHECK (reason IN ('assigned', 'team', 'manual')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_id, user_id, reason)
);

-- What people see in a group's feed.
CREATE TABLE activities (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id bigint NOT NULL REFERENCES issue_groups (id),
    kind text NOT NULL CHECK (kind IN ('assigned', 'unassigned', 'assignee_unresolved', 'resolved', 'unresolved')),
    -- The new assignee.
    user_id bigint REFERENCES users (id),
    -- Why, where the kind asks for it.
    reason text,
    -- The work item that decided, at this revision.
    external_issue_id bigint NOT NULL REFERENCES external_issues (id),
    rev bigint NOT NULL,
    job_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX activities_of_group ON activities (group_id, id);

-- What a group's assignee and status were, and when they changed.
CREATE TABLE group_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_id bigint NOT NULL REFERENCES issue_groups (id),
    field text NOT NULL CHECK (field IN ('assignee', 'status')),
    -- A user's id or a status, as text; null = nobody.
    before text,
    after text,
    job_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    CHECK (before IS DISTINCT FROM after)
);
CREATE INDEX group_history_of_group ON group_history (group_id, id);

CREATE TABLE destinations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations (id),
    name text NOT NULL CHECK (name <> ''),
    kind text NOT NULL CHECK (kind <> ''),
    config json NOT NULL,
    -- Sealed.
    secret text,
    is_default boolean NOT NULL DEFAULT false,
    unknown_policy text NOT NULL DEFAULT 'resend' CHECK (unknown_policy IN ('resend', 'hold')),
    disabled boolean NOT NULL DEFAULT false,
    UNIQUE (organization_id, name)
);

-- Service-hook events whose job has committed its assignments.
CREATE TABLE seen_events (
    integration_id bigint NOT NULL REFERENCES integrations (id),
    event_id text NOT NULL,
    job_id uuid NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (integration_id, event_id)
);
CREATE INDEX seen_events_by_age ON seen_events (seen_at);
