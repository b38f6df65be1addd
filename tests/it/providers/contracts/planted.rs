//! Tests of the comparison with the table: valid requests, and requests with one deviation each.

use dispatch_worker::devkit::simulator::witness::Entry;
use serde_json::{Value, json};

use super::breaches;

const PATCH: &str = "application/json-patch+json";
const JSON: &str = "application/json; charset=utf-8";
const FORM: &str = "application/x-www-form-urlencoded";
const NONE: &str = "";

/// A request, its media type, its shape, and a part of the expected report; `None` for a valid
/// request.
type Row = (&'static str, &'static str, Value, Option<&'static str>);

#[test]
fn a_request_outside_the_table_is_reported_and_a_valid_one_is_not() {
    let none = |target, right| (target, NONE, Value::Null, right);
    let rows = [
        none("GET /_apis/profile/profiles/me?api-version=7.1", None),
        none(
            "HEAD /_apis/profile/profiles/me?api-version=7.1",
            Some("no row"),
        ),
        none(
            "OPTIONS /_apis/profile/profiles/me?api-version=7.1",
            Some("no row"),
        ),
        none(
            "DELETE /contoso/_apis/wit/workitems/17?api-version=7.1",
            Some("no row"),
        ),
        none("GET /_apis/accounts?memberId=m&api-version=7.1", None),
        none(
            "GET /_apis/accounts?api-version=7.1",
            Some("requires `memberId`"),
        ),
        none(
            "GET /_apis/accounts?memberId=m&memberId=n&api-version=7.1",
            Some("`memberId` twice"),
        ),
        none(
            "GET /contoso/_apis/graph/users?api-version=7.1-preview.1",
            None,
        ),
        none(
            "GET /contoso/_apis/graph/users?api-version=7.1",
            Some("7.1-preview.1"),
        ),
        (
            "GET /_apis/profile/profiles/me?api-version=7.1",
            JSON,
            json!({}),
            Some("no body"),
        ),
        none("POST /webhook/keyed", Some("media type")),
        ("POST /webhook/keyed", JSON, Value::Null, Some("not JSON")),
    ];
    expect(
        rows.into_iter()
            .chain(of_patches())
            .chain(of_searches())
            .chain(of_discord())
            .chain(of_slack_and_teams())
            .chain(of_google_chat())
            .chain(of_others()),
    );
}

fn of_patches() -> Vec<Row> {
    let item = "PATCH /contoso/_apis/wit/workitems/17?api-version=7.1";
    let patch = |value: &str| json!([{"op": "string", "path": "string", "value": value}]);
    vec![
        (item, PATCH, patch("integer"), None),
        (
            "PATCH /contoso/Web/_apis/wit/workitems/17?api-version=7.1",
            PATCH,
            patch("string"),
            None,
        ),
        (
            "PATCH /a/b/c/_apis/wit/workitems/17?api-version=7.1",
            PATCH,
            patch("string"),
            Some("no row"),
        ),
        (
            "PUT /contoso/_apis/wit/workitems/17?api-version=7.1",
            PATCH,
            patch("string"),
            Some("no row"),
        ),
        (
            "PATCH /contoso/_apis/wit/workitems/17",
            PATCH,
            patch("string"),
            Some("api-version=7.1"),
        ),
        (
            "PATCH /contoso/_apis/wit/workitems/17?api-version=7.0",
            PATCH,
            patch("string"),
            Some("api-version=7.1"),
        ),
        (
            "PATCH /contoso/_apis/wit/workitems/17?api-version=7.1&dryRun=1",
            PATCH,
            patch("string"),
            Some("dryRun"),
        ),
        (item, JSON, patch("string"), Some("json-patch")),
        (
            item,
            PATCH,
            patch("boolean"),
            Some("`body[].value` is one of"),
        ),
        (item, PATCH, json!([]), Some("is empty")),
        (item, PATCH, json!({}), Some("`body` is an array")),
        (
            item,
            PATCH,
            json!([{"op": "string"}]),
            Some("`body[].path` is missing"),
        ),
    ]
}

fn of_searches() -> Vec<Row> {
    let batch = "POST /contoso/_apis/wit/workitemsbatch?api-version=7.1";
    let search = "POST /contoso/Web/_apis/search/workitemsearchresults?api-version=7.1";
    let of_ids = |ids: Value| json!({"ids": ids, "fields": ["string"], "errorPolicy": "string"});
    let filtered = |filters: Value| {
        let (text, number) = ("string", "integer");
        json!({"searchText": text, "$skip": number, "$top": number, "includeFacets": "boolean", "filters": filters})
    };
    vec![
        (batch, JSON, of_ids(json!(["integer"])), None),
        (
            batch,
            JSON,
            of_ids(json!("string")),
            Some("`body.ids` is an array"),
        ),
        (
            batch,
            JSON,
            of_ids(json!(["integer", "string"])),
            Some("`body.ids[]` is one of"),
        ),
        (
            batch,
            JSON,
            json!({"ids": ["integer"]}),
            Some("`body.fields` is missing"),
        ),
        (
            search,
            JSON,
            filtered(json!({"System.State": ["string"]})),
            None,
        ),
        (
            search,
            JSON,
            filtered(json!({"System.State": "string"})),
            Some("`body.filters.System.State` is an array"),
        ),
        (
            search,
            JSON,
            filtered(json!("string")),
            Some("`body.filters` is an object"),
        ),
    ]
}

fn of_discord() -> Vec<Row> {
    let (bot, webhook) = (
        "POST /api/v10/channels/1/messages",
        "POST /api/webhooks/1/***?wait=true",
    );
    let text = |parse: Value| json!({"content": "string", "flags": "integer", "allowed_mentions": {"parse": parse}});
    let keyed = |nonce: &str| {
        let mut message = text(json!([]));
        message["nonce"] = json!(nonce);
        message["enforce_nonce"] = json!("boolean");
        message
    };
    vec![
        (bot, JSON, keyed("string"), None),
        (bot, JSON, keyed("integer"), Some("`body.nonce` is one of")),
        (bot, JSON, text(json!([])), Some("`body.nonce` is missing")),
        (
            bot,
            JSON,
            json!({"text": "string"}),
            Some("`body.content` is missing"),
        ),
        (
            "POST /api/v9/channels/1/messages",
            JSON,
            keyed("string"),
            Some("no row"),
        ),
        (
            "POST /api/channels/1/messages",
            JSON,
            keyed("string"),
            Some("no row"),
        ),
        (webhook, JSON, text(json!([])), None),
        (
            webhook,
            JSON,
            text(json!(["integer"])),
            Some("`body.allowed_mentions.parse[]` is one of"),
        ),
        (
            webhook,
            JSON,
            json!({"content": "string", "flags": "integer", "allowed_mentions": {}}),
            Some("parse` is missing"),
        ),
        (webhook, JSON, keyed("string"), Some("no property `body.")),
        (
            "PATCH /api/v10/webhooks/1/***/messages/@original",
            JSON,
            text(json!([])),
            None,
        ),
        (
            "PATCH /api/v10/webhooks/1/***/messages/7?wait=true",
            JSON,
            text(json!([])),
            Some("`wait`"),
        ),
    ]
}

fn of_slack_and_teams() -> Vec<Row> {
    let (slack, teams) = (
        "POST /slack/api/chat.postMessage",
        "POST /teams/flow?sig=***",
    );
    let said = |channel: &str| {
        let mut message = json!({"channel": channel, "text": "string", "parse": "string"});
        for name in ["mrkdwn", "link_names", "unfurl_links", "unfurl_media"] {
            message[name] = json!("boolean");
        }
        message
    };
    let card = |url: &str| json!({"type": "string", "attachments": [{"contentType": "string", "contentUrl": url, "content": {"body": []}}]});
    vec![
        (slack, JSON, said("string"), None),
        (
            slack,
            JSON,
            said("integer"),
            Some("`body.channel` is one of"),
        ),
        (
            slack,
            JSON,
            json!({"text": "string"}),
            Some("`body.channel` is missing"),
        ),
        (slack, FORM, said("string"), Some("media type")),
        (teams, JSON, card("null"), None),
        (
            teams,
            JSON,
            card("string"),
            Some("`body.attachments[].contentUrl` is one of"),
        ),
        (
            "POST /teams/flow",
            JSON,
            card("null"),
            Some("requires `sig`"),
        ),
    ]
}

fn of_google_chat() -> Vec<Row> {
    let text = || json!({"text": "string"});
    vec![
        (
            "POST /google_chat/v1/spaces/AAAA/messages?key=***&token=***&requestId=k1",
            JSON,
            text(),
            None,
        ),
        (
            "POST /google_chat/v1/spaces/AAAA/messages?key=***&token=***",
            JSON,
            text(),
            Some("requires `requestId`"),
        ),
        (
            "POST /google_chat/v1/spaces/AAAA/messages?token=***&requestId=k1",
            JSON,
            text(),
            Some("requires `key`"),
        ),
        (
            "POST /google_chat/v1/spaces/AAAA/messages?key=***&token=***&requestId=k1&messageId=m",
            JSON,
            text(),
            Some("no query parameter `messageId`"),
        ),
    ]
}

fn of_others() -> Vec<Row> {
    let (webhook, token) = (
        "POST /webhook/keyed",
        "POST /organizations/oauth2/v2.0/token",
    );
    let event = |details: Value| json!({"type": "string", "data": {"title": "string", "lines": ["string"], "details": details}});
    let grant = |names: &[&str]| {
        names
            .iter()
            .map(|name| ((*name).to_owned(), json!("string")))
            .collect::<Value>()
    };
    let all = [
        "grant_type",
        "client_id",
        "client_secret",
        "refresh_token",
        "scope",
    ];
    vec![
        (webhook, JSON, event(json!("null")), None),
        (
            webhook,
            JSON,
            event(json!({"work_item": "integer", "any": ["string"]})),
            None,
        ),
        (
            webhook,
            JSON,
            json!({"type": "string"}),
            Some("`body.data` is missing"),
        ),
        (
            webhook,
            JSON,
            json!({"type": "string", "data": {"title": "string", "lines": "string"}}),
            Some("details` is missing"),
        ),
        (token, FORM, grant(&all), None),
        (
            token,
            FORM,
            grant(&all[..4]),
            Some("`body.scope` is missing"),
        ),
        (
            token,
            FORM,
            grant(&[&all[..], &["password"]].concat()),
            Some("no property `body.password`"),
        ),
        (token, JSON, grant(&all), Some("form")),
    ]
}

fn expect(rows: impl Iterator<Item = Row>) {
    for (target, media, shape, right) in rows {
        let reported = breaches(&[entry("webhook", target, media, &shape)]).concat();
        let is_right = right.map_or(reported.is_empty(), |part| reported.contains(part));
        assert!(
            is_right,
            "{target} {media} {shape}: expected {right:?}, got {reported:?}"
        );
    }
}

#[test]
fn mail_in_the_witness_log_is_not_compared_with_http_requests() {
    assert_eq!(
        breaches(&[entry("email", "DATA /smtp", NONE, &Value::Null)]),
        Vec::<String>::new()
    );
    assert_eq!(
        breaches(&[entry("azure_devops", "DATA /smtp", NONE, &Value::Null)]).len(),
        1
    );
}

fn entry(provider: &str, target: &str, media: &str, shape: &Value) -> Entry {
    let (method, target) = target.split_once(' ').expect("a method and a target");
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    serde_json::from_value(json!({
        "seq": 1, "at": "2026-01-01T00:00:00Z", "provider": provider, "method": method, "path": path, "query": query,
        "content_type": Some(media).filter(|media| !media.is_empty()), "key": null, "body_sha256": "", "body_shape": shape,
        "status": 200, "effect": true, "subject": null, "fault": null, "detail": null
    }))
    .expect("an entry")
}
