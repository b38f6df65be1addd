//! The privileges of the worker and reader roles on the schema. `dispatch migrate` grants them
//! (`roles`), and `dispatch check --live` reports the missing ones (`probe`). Every new table, and
//! every new column that readers may see, gets a line here.

/// The group role of the roles that workers log in with.
pub const WORKER: &str = "dispatch_worker";
/// The group role with read access, but not to payloads, sealed values, tokens, reply addresses,
/// names or addresses of people.
pub(super) const READER: &str = "dispatch_reader";

/// A table and the privileges on it, in the words of SQL.
pub(super) struct TableRights {
    pub(super) table: &'static str,
    /// The privileges of a worker, separated by commas. Locking a row requires `UPDATE`.
    pub(super) worker: &'static str,
    /// The columns that a reader may select, separated by commas; empty: no access to the table.
    pub(super) reader: &'static str,
}

const fn on(table: &'static str, worker: &'static str, reader: &'static str) -> TableRights {
    TableRights {
        table,
        worker,
        reader,
    }
}

const ALL: &str = "SELECT,INSERT,UPDATE,DELETE";

/// Every table of the schema.
pub(super) const TABLES: &[TableRights] = &[
    on(
        "refinery_schema_history",
        "SELECT",
        "version,name,applied_on",
    ),
    on(
        "replicas",
        ALL,
        "id,version,host,pid,started_at,alive_until,lanes,draining,ended_at,ended_well,process",
    ),
    on(
        "job_keys",
        ALL,
        "source,dedupe_key,job_id,created_at,cancelled_by,producer",
    ),
    on(
        "jobs",
        ALL,
        "id,pipeline,parent_id,open_children,source,dedupe_key,organization,schema,account,correlation_id,traceparent,state,stage,\
         attempt,generation,epoch,owner,committed_epoch,crash_count,due_at,woken_at,woken_by,blamed,wait_reason,wait_key,\
         wait_observed,deadline,error_code,error_message,error_hint,fingerprint,first_failed_at,last_progress_at,created_at,\
         finished_at,read_again,skipped,producer,bytes",
    ),
    on(
        "checkpoints",
        "SELECT,INSERT,DELETE",
        "job_id,generation,stage,version,epoch,attempt,replica,started_at,finished_at",
    ),
    on(
        "attempts",
        "SELECT,INSERT,DELETE",
        "job_id,generation,stage,attempt,outcome,error_code,message,duration_ms,replica,epoch,at,fingerprint",
    ),
    on("job_inputs", ALL, "job_id,version,replaced_at"),
    on("samples", "SELECT,INSERT,DELETE", "at,replica,data"),
    on(
        "failure_groups",
        ALL,
        "fingerprint,pipeline,stage,error_code,sample,first_seen_at,first_version,last_seen_at,resolved_at,muted_until,owner,note",
    ),
    on(
        "campaigns",
        ALL,
        "id,action,filter,fingerprint,state,why,who,role,reason,per_second,stop_at_percent,duplicates_allowed,total,next_n,wave,\
         wave_from,wave_until,ramp,refused,good,bad,unknown,verdicts,created_at,next_at,finished_at",
    ),
    on(
        "campaign_items",
        ALL,
        "campaign,n,job_id,state,why,stage,acted_at",
    ),
    on(
        "effects",
        ALL,
        "job_id,key,generation,stage,target,class,state,epoch,maybe_done,unknowns,first_intent_at,intent_at,deadline_at,settled_at",
    ),
    on(
        "dead_letters",
        ALL,
        "id,code,detail,source,dedupe_key,message_id,correlation_id,routing_key,body_bytes,created_at,resolved_at,content_type,\
         content_encoding,app_id,resolution,resolved_by,resolved_reason,producer,kept_bytes,replay_wanted_at,replay_wanted_by,\
         replay_wanted_role,replay_wanted_reason,replay_next_at,replay_error,fixed_at,fixed_by",
    ),
    on(
        "announcements",
        ALL,
        "id,job_id,routing_key,correlation_id,publish_after,reply_only,created_at,tries,reply_tries",
    ),
    on(
        "audit_log",
        "SELECT,INSERT",
        "id,at,who,role,action,job_id,before,after,reason,login,address,request_id,token",
    ),
    on(
        "api_tokens",
        ALL,
        "id,name,role,source,organizations,created_by,created_at,expires_at,revoked_at,last_used_at",
    ),
    on("idempotency_keys", ALL, ""),
    on(
        "controls",
        ALL,
        "id,kind,scope,reason,who,created_at,expires_at,released_at,automatic,step,stepped_at,matcher",
    ),
    on("quota_grants", ALL, "holder,kind,replica,rows,bytes,until"),
    on(
        "releases",
        ALL,
        "cause,up_to,after_observed,after_id,begun_at,next_at",
    ),
    on(
        "producers",
        "SELECT",
        "name,sources,organizations,reply_queues,applications,created_at,changed_at",
    ),
    on("organizations", "SELECT", "id,slug,name"),
    on("projects", "SELECT", "id,organization_id,slug,name"),
    on("users", "SELECT", ""),
    on("user_emails", "SELECT", ""),
    on("project_members", "SELECT", "project_id,user_id"),
    on("teams", "SELECT", "id,organization_id,slug"),
    on("team_members", "SELECT", "team_id,user_id"),
    on("integrations", "SELECT", "id,account_id,account_name"),
    on(
        "subscriptions",
        "SELECT,DELETE",
        "id,integration_id,valid_until",
    ),
    on(
        "identities",
        "SELECT,UPDATE",
        "id,organization_id,name,token_expires_at,version,refreshing_until,refresh_refused_at,access_refused_at",
    ),
    on(
        "organization_integrations",
        "SELECT,UPDATE",
        "organization_id,integration_id,disabled,identity_id,assignee_inbound,assignee_outbound,status_inbound",
    ),
    on(
        "external_issues",
        "SELECT",
        "id,integration_id,work_item_id",
    ),
    on(
        "issue_groups",
        "SELECT,UPDATE",
        "id,project_id,short_id,title,status,team_id",
    ),
    on(
        "group_links",
        "SELECT,UPDATE",
        "group_id,external_issue_id,applied_rev,status_rev,applied_category",
    ),
    on(
        "group_assignees",
        "SELECT,INSERT,UPDATE",
        "group_id,user_id,decided_at,decided_by",
    ),
    on(
        "group_subscriptions",
        "SELECT,INSERT,DELETE",
        "group_id,user_id,reason,created_at",
    ),
    on(
        "activities",
        "SELECT,INSERT,DELETE",
        "id,group_id,kind,user_id,external_issue_id,rev,job_id,at",
    ),
    on(
        "group_history",
        "SELECT,INSERT,DELETE",
        "id,group_id,field,before,after,job_id,at",
    ),
    on(
        "destinations",
        "SELECT,UPDATE",
        "id,organization_id,name,kind,is_default,unknown_policy,disabled,previous_secret_until",
    ),
    on("seen_events", ALL, "integration_id,event_id,job_id,seen_at"),
];

/// Sequences that a worker draws ids from with `nextval`.
pub(super) const SEQUENCES: &[&str] = &["dead_letters_id_seq", "replicas_id_seq"];

/// Functions that run with the rights of their owner for a worker; each of them limits what it
/// does (V16). No other role may call them or any other function that runs with its owner's
/// rights.
pub(super) const FUNCTIONS: &[&str] = &[
    "drop_partition(text,text,timestamptz)",
    "make_partition(text,timestamptz,bigint)",
    "missing_partitions(timestamptz,integer)",
    "prune_audit(timestamptz,bigint)",
];

/// Returns the tables and the worker's privileges on them as two lists, for the parameters of a
/// statement.
pub(super) fn of_worker() -> (Vec<&'static str>, Vec<&'static str>) {
    TABLES
        .iter()
        .map(|rights| (rights.table, rights.worker))
        .unzip()
}
