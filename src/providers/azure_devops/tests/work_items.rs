//! Tests of reading and changing work items.

use super::*;

#[tokio::test]
async fn missing_work_items_are_omitted_and_unreadable_ones_are_returned_separately() {
    let mut stateless = item(3);
    stateless["fields"]["System.State"] = Value::Null;
    let first =
        json(&value!({"count": 5, "value": [item(1), null, item(2), stateless, {"rev": 1}]}));
    let (azure, server) = azure(vec![first]);
    let WorkItems { items, unreadable } = work_items(&azure, &[1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!(
        unreadable.iter().map(|one| one.id).collect::<Vec<_>>(),
        [Some(3), None]
    );
    assert!(
        unreadable[0].why.contains("expected a string"),
        "{unreadable:?}"
    );
    assert_eq!(items.iter().map(|item| item.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(items[0].assigned_to.email(), Some("someone@example.com"));
    assert_eq!(items[0].changed_by.as_deref(), Some("CORP\\other"));
    assert_eq!(items[0].changed_date, datetime!(2026-01-02 03:04:05.67 UTC));
    let body = server.received()[0].json();
    assert_eq!(
        (&body["ids"], &body["errorPolicy"]),
        (&value!([1, 2, 3, 4, 5]), &value!("omit"))
    );
    assert_eq!(
        targets(&server)[0],
        "POST /fabrikam/_apis/wit/workitemsbatch?api-version=7.1"
    );
}

#[tokio::test]
async fn states_have_categories_and_a_new_category_is_other() {
    let names = [
        "Proposed",
        "InProgress",
        "Resolved",
        "Completed",
        "Removed",
        "Paused",
    ];
    let list: Vec<Value> = names
        .iter()
        .map(|name| value!({"name": name, "color": "b2b2b2", "category": name}))
        .collect();
    let (azure, server) = azure(vec![json(&value!({"count": 6, "value": list}))]);
    let categories = states(&azure, "My Project", "User Story").await.unwrap();
    let done: Vec<&str> = names
        .into_iter()
        .filter(|name| categories[*name].is_done())
        .collect();
    assert_eq!(done, ["Resolved", "Completed"]);
    assert_eq!(categories["Paused"], StateCategory::Other);
    let target =
        "GET /fabrikam/My%20Project/_apis/wit/workitemtypes/User%20Story/states?api-version=7.1";
    assert_eq!(targets(&server), [target]);
}

#[tokio::test]
async fn an_assignment_tests_the_revision_first() {
    let (azure, server) = azure(vec![
        json(&value!({"id": 7, "rev": 5})),
        json(&value!({"id": 7, "rev": 6})),
    ]);
    assert_eq!(
        assign(&azure, 4, Some("someone@example.com"))
            .await
            .unwrap(),
        5
    );
    assert_eq!(assign(&azure, 5, None).await.unwrap(), 6);
    let patch = |rev, name| value!([{"op": "test", "path": "/rev", "value": rev}, {"op": "add", "path": "/fields/System.AssignedTo", "value": name}]);
    let received = server.received();
    assert_eq!(received[0].json(), patch(4, "someone@example.com"));
    assert_eq!(received[1].json(), patch(5, ""));
    assert_eq!(
        received[0].header("content-type"),
        Some("application/json-patch+json")
    );
    assert_eq!(
        targets(&server)[0],
        "PATCH /fabrikam/_apis/wit/workitems/7?api-version=7.1"
    );
}

#[tokio::test]
async fn every_answer_about_a_changed_revision_is_a_conflict_and_no_other_is() {
    let moved = r#"{"message": "VS403351: Test Operation for path /rev failed"}"#;
    let overtaken = r#"{"typeKey": "WorkItemRevisionMismatchException", "message": "TF26071: changed by someone else"}"#;
    for answer in [
        reply(412, "", ""),
        reply(400, "", moved),
        reply(409, "", moved),
        reply(409, "", overtaken),
        reply(400, "", overtaken),
        reply(409, "", r#"{"message": "another conflict"}"#),
    ] {
        let fault = assign(&azure(vec![answer]).0, 4, None).await.unwrap_err();
        assert!(matches!(fault, AzureDevOpsFault::RevisionMoved(_)));
        assert_eq!(
            (fault.class(), fault.certainty()),
            (Class::Conflict, Certainty::NotDone)
        );
    }
    for (answer, code, certainty) in [
        (
            reply(400, "", "TF401320: Rule Error"),
            "azure_devops.refused",
            Certainty::NotDone,
        ),
        (
            reply(404, "", "no such account"),
            "azure_devops.not_found",
            Certainty::NotDone,
        ),
        (
            reply(503, "", moved),
            "azure_devops.server_error",
            Certainty::Unknown,
        ),
        (
            Reply::Lose,
            "azure_devops.connection_lost",
            Certainty::Unknown,
        ),
        (
            json(&value!({"id": 7})),
            "azure_devops.malformed_answer",
            Certainty::Unknown,
        ),
    ] {
        let fault = assign(&azure(vec![answer]).0, 4, None).await.unwrap_err();
        assert_eq!((fault.code(), fault.certainty()), (code, certainty));
    }
}

#[tokio::test]
async fn a_work_item_that_is_gone_is_a_conflict() {
    let gone = r#"{"typeKey": "WorkItemUnauthorizedAccessException", "message": "TF401232: Work item 7 does not exist"}"#;
    let fault = assign(&azure(vec![reply(404, "", gone)]).0, 4, None)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.class()),
        ("azure_devops.work_item_gone", Class::Conflict)
    );
    assert_eq!(fault.certainty(), Certainty::NotDone);
}

#[tokio::test]
async fn an_answer_to_a_batch_is_limited_in_size_and_unused_fields_are_skipped() {
    async fn read(body: &str) -> [Result<usize, AzureDevOpsFault>; 3] {
        let (azure, _server) = azure((0..3).map(|_| reply(200, "", body)).collect());
        [
            search(&azure, &SearchQuery::default(), 10)
                .await
                .map(|ids| ids.len()),
            work_items(&azure, &[1]).await.map(|read| read.items.len()),
            find_user(&azure, &["x@example.com"])
                .await
                .map(|found| usize::from(found != FoundUser::Nobody)),
        ]
    }
    let room = BATCH_BODY_BYTES - 100;
    for result in read(&format!(
        r#"{{"value": [], "results": [], "more": "{}"}}"#,
        "x".repeat(BATCH_BODY_BYTES)
    ))
    .await
    {
        let fault = result.unwrap_err();
        assert_eq!(
            (fault.code(), fault.class()),
            ("azure_devops.answer_too_large", Class::Permanent)
        );
    }
    let ignored = format!(
        r#"{{"more": [{}0], "value": [null], "results": []}}"#,
        "0,".repeat(room / 2)
    );
    for result in read(&ignored).await {
        assert_eq!(result.unwrap(), 0);
    }
    let nonsense = format!("[{}0]", "0,".repeat(1000));
    let [searched, items, users] = read(&nonsense).await;
    for result in [searched, users] {
        assert_eq!(result.unwrap_err().code(), "azure_devops.malformed_answer");
    }
    assert_eq!(items.unwrap(), 0, "each entry is skipped by itself");
}
