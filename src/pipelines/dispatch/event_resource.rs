//! Parses the work item's id and revision from the `resource` of an event.
//!
//! A subscription determines how much of the resource is sent. With minimal details, the resource
//! contains only `id` and `url`, and the `id` of an update is the number of the update; only `url`
//! then contains the work item's id. Source: Microsoft, "Web Hooks", "Resource details to send"
//! (<https://learn.microsoft.com/azure/devops/service-hooks/services/webhooks>).
//!
//! `url` is never called. It is a hint like the rest of the body, and only numbers are taken from
//! it.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The fields that identify the work item, each as an arbitrary JSON value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    work_item_id: Value,
    #[serde(default)]
    rev: Value,
    #[serde(default)]
    revision: Option<Box<RawValue>>,
    #[serde(default)]
    url: Value,
}

#[derive(Default, Deserialize)]
struct Revision {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    rev: Value,
}

/// Returns the work item's id and revision. The `workItemId` of an update is 0 in test
/// notifications.
pub(super) fn work_item(is_update: bool, resource: &RawValue) -> Option<(i64, Option<i64>)> {
    let resource: Resource = serde_json::from_str(resource.get()).ok()?;
    let revision = resource
        .revision
        .and_then(|revision| serde_json::from_str(revision.get()).ok());
    let revision: Revision = revision.unwrap_or_default();
    let (id_in_url, rev_in_url) = resource.url.as_str().and_then(named_in).unzip();
    let id = if is_update {
        number(&resource.work_item_id).or_else(|| number(&revision.id))
    } else {
        number(&resource.id)
    };
    let rev = number(&resource.rev)
        .or_else(|| number(&revision.rev))
        .or(rev_in_url.flatten());
    Some((id.or(id_in_url)?, rev))
}

/// Parses an id or a revision. Some relays write numbers as strings, or with a fraction (`17.0`).
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64()?.to_string().parse().ok())
            .filter(is_right),
        Value::String(text) => digits(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn digits(text: &str) -> Option<i64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| is_plain && is_right(number))
}

/// Checks an id or a revision: both are positive 32-bit numbers, and Azure DevOps refuses a whole
/// batch for any other id.
fn is_right(number: &i64) -> bool {
    (1..=i64::from(i32::MAX)).contains(number)
}

/// Parses the id after the last `workItems` or `recyclebin` of a URL, and the revision if
/// `/revisions/N` follows. An organization or a project may have the same name, but precedes them
/// in the URL.
fn named_in(url: &str) -> Option<(i64, Option<i64>)> {
    let path = url.split(['?', '#']).next()?;
    let mut segments = path.split('/');
    let mut found = None;
    while let Some(segment) = segments.next() {
        if !["workItems", "recyclebin"]
            .iter()
            .any(|name| segment.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let mut behind = segments.clone();
        let Some(id) = behind.next().and_then(digits) else {
            continue;
        };
        let says_revision = behind
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("revisions"));
        found = Some((id, behind.next().filter(|_| says_revision).and_then(digits)));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(is_update: bool, resource: &Value) -> Option<(i64, Option<i64>)> {
        work_item(
            is_update,
            &RawValue::from_string(resource.to_string()).unwrap(),
        )
    }

    fn at(path: &str) -> Value {
        json!({ "id": 3, "url": format!("https://dev.azure.com/acc/{path}") })
    }

    #[test]
    fn an_update_names_its_work_item_first_then_its_revision_s_then_its_url_s() {
        let mut resource = at("_apis/wit/workItems/19/updates/3");
        assert_eq!(found(true, &resource), Some((19, None)));
        resource["revision"] = json!({ "id": 18, "rev": 7 });
        assert_eq!(found(true, &resource), Some((18, Some(7))));
        resource["workItemId"] = json!(17);
        resource["rev"] = json!(8);
        assert_eq!(found(true, &resource), Some((17, Some(8))));
        resource["workItemId"] = json!(0);
        assert_eq!(found(true, &resource), Some((18, Some(8))));
    }

    #[test]
    fn another_event_names_its_work_item_first_then_its_url_s() {
        assert_eq!(found(false, &at("_apis/wit/workItems/19")), Some((3, None)));
        for id in [
            json!(null),
            json!(0),
            json!(-1),
            json!("x"),
            json!(i64::from(i32::MAX) + 1),
        ] {
            let mut resource = at("_apis/wit/recyclebin/19");
            resource["id"] = id;
            assert_eq!(found(false, &resource), Some((19, None)), "{resource}");
        }
        assert_eq!(found(false, &json!({ "workItemId": 17 })), None);
    }

    #[test]
    fn numbers_count_in_every_form_that_relays_write_them_in() {
        let resource = json!({ "workItemId": "17", "rev": "3" });
        assert_eq!(found(true, &resource), Some((17, Some(3))));
        let resource = json!({ "revision": { "id": "17", "rev": "3" } });
        assert_eq!(found(true, &resource), Some((17, Some(3))));
        assert_eq!(
            found(false, &json!({ "id": 17.0, "rev": 3e0 })),
            Some((17, Some(3)))
        );
        assert_eq!(
            found(false, &json!({ "id": "2147483647" })),
            Some((2_147_483_647, None))
        );
        for id in [
            "",
            "0",
            "-17",
            "+17",
            " 17",
            "17.0",
            "1e1",
            "２",
            "2147483648",
            "99999999999999999999",
        ] {
            assert_eq!(found(false, &json!({ "id": id })), None, "{id:?}");
        }
        for id in [
            json!(17.5),
            json!(1e300),
            json!(true),
            json!([17]),
            json!({ "id": 17 }),
        ] {
            assert_eq!(found(false, &json!({ "id": id })), None, "{id}");
        }
    }

    #[test]
    fn a_minimal_body_is_found_by_every_form_of_its_url() {
        let rows = [
            ("_apis/wit/workItems/17/updates/3", None),
            ("_apis/wit/workItems/17/revisions/3", Some(3)),
            ("_apis/wit/workItems/17", None),
            ("_apis/wit/workItems/17/", None),
            ("_apis/wit/workItems/17?api-version=7.1", None),
            ("_apis/wit/workItems/17/revisions/3?$expand=all#x", Some(3)),
            ("_apis/wit/workItems/17/revisions", None),
            ("_apis/wit/workItems/17/revisions/x", None),
            ("7f0c-project/_apis/wit/workItems/17/updates/3", None),
            ("My%20Project/_apis/wit/workitems/17/Revisions/3", Some(3)),
            ("_apis/wit/WORKITEMS/17/updates/3", None),
            ("_apis/wit/recyclebin/17", None),
            ("_apis/wit/recycleBin/17?api-version=7.1", None),
            ("workItems/_apis/wit/workItems/17", None),
            ("workItems/5/_apis/wit/workItems/17", None),
        ];
        for (path, rev) in rows {
            assert_eq!(found(true, &at(path)), Some((17, rev)), "{path}");
        }
    }

    #[test]
    fn a_url_without_a_work_item_names_none() {
        let rows = [
            "",
            "_apis/wit/workItems",
            "_apis/wit/workItems/",
            "_apis/wit/workItems/x/updates/3",
            "_apis/wit/workItems/0/updates/3",
            "_apis/wit/workItems/2147483648",
            "_apis/wit/workItems?id=17",
            "_apis/wit/workItems#/17",
            "_apis/wit/updates/17",
            "_apis/wit/myworkItems/17",
        ];
        for path in rows {
            assert_eq!(found(true, &at(path)), None, "{path}");
        }
        for url in [json!(17), json!(null), json!(["workItems/17"])] {
            assert_eq!(found(true, &json!({ "id": 3, "url": url })), None, "{url}");
        }
    }

    #[test]
    fn nonsense_in_one_field_leaves_the_others_as_they_are() {
        for revision in [
            json!("x"),
            json!(7),
            json!([1]),
            json!({ "id": {}, "rev": [] }),
        ] {
            let resource = json!({ "workItemId": 17, "rev": {}, "revision": revision, "url": {} });
            assert_eq!(found(true, &resource), Some((17, None)), "{resource}");
        }
        for resource in [json!(null), json!("x"), json!(7), json!([]), json!({})] {
            assert_eq!(found(true, &resource), None, "{resource}");
        }
    }

    proptest! {
        #[test]
        fn any_url_gives_a_right_id_or_none(url in "\\PC*", parts in proptest::collection::vec(
            "workItems|WORKITEMS|recyclebin|revisions|updates|[0-9]{0,12}|-1|\\?|#|[^/]{0,3}", 0..12,
        )) {
            for url in [url, parts.join("/")] {
                if let Some((id, rev)) = named_in(&url) {
                    prop_assert!(is_right(&id) && rev.as_ref().is_none_or(is_right), "{}", url);
                    prop_assert!(url.contains(&id.to_string()), "{} is not in {}", id, url);
                }
            }
        }
    }
}
