//! Tests of searches: for work items, and for users.

use super::*;

#[tokio::test]
async fn a_search_is_paged_and_returns_each_work_item_once_in_order() {
    let (azure, server) = azure(vec![hits((1..=200).rev(), 202), hits([1, 300], 202)]);
    let query = SearchQuery {
        text: "x".into(),
        states: vec!["New".into()],
        ..SearchQuery::default()
    };
    let ids = search(&azure, &query, 1000).await.unwrap();
    assert_eq!(ids, (1..=200).rev().chain([300]).collect::<Vec<_>>());
    let bodies: Vec<Value> = server.received().iter().map(Received::json).collect();
    let page = |skip| {
        let filters = value!({"System.State": ["New"]});
        value!({"searchText": "x", "$skip": skip, "$top": 200, "filters": filters, "includeFacets": false})
    };
    assert_eq!(bodies, [page(0), page(200)]);
    assert_eq!(
        targets(&server)[0],
        "POST /fabrikam/_apis/search/workitemsearchresults?api-version=7.1"
    );
}

#[tokio::test]
async fn a_search_stops_at_its_limit_and_keeps_a_project_one_segment() {
    let (azure, server) = azure(vec![hits([5, 6, 7], 900)]);
    let query = SearchQuery {
        text: "x".into(),
        project: Some("Ä b/c".into()),
        ..SearchQuery::default()
    };
    assert_eq!(search(&azure, &query, 2).await.unwrap(), [5, 6]);
    assert_eq!(server.received()[0].json()["$top"], 2);
    assert!(
        targets(&server)[0].starts_with("POST /fabrikam/%C3%84%20b%2Fc/_apis/search/"),
        "{:?}",
        targets(&server)
    );
}

#[tokio::test]
async fn a_search_that_is_still_indexing_is_transient() {
    let (azure, _server) = azure(vec![json(
        &value!({"count": 0, "infoCode": 2, "results": []}),
    )]);
    let fault = search(&azure, &SearchQuery::default(), 10)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.class()),
        (
            "azure_devops.search_not_ready",
            Class::Transient { retry_after: None }
        )
    );
}

#[tokio::test]
async fn a_user_is_found_on_a_later_page_regardless_of_case_and_remembered() {
    let other = value!({"descriptor": "aad.1", "principalName": "a@example.com", "mailAddress": null, "displayName": "A"});
    let user = value!({"descriptor": "aad.2", "principalName": "P@corp", "mailAddress": "Some.One@Example.com"});
    let nameless = value!({"descriptor": null});
    let first = reply(
        200,
        "x-ms-continuationtoken: n/2=\r\n",
        &value!({"count": 2, "value": [other, nameless]}).to_string(),
    );
    let (azure, server) = azure(vec![first, json(&value!({"count": 1, "value": [user]}))]);
    let found = find_user(&azure, &["x@example.com", "some.one@example.COM"])
        .await
        .unwrap();
    let FoundUser::One(one) = &found else {
        panic!("{found:?}")
    };
    assert_eq!(
        (one.descriptor.as_str(), one.principal_name.as_str()),
        ("aad.2", "P@corp")
    );
    let search = |emails: [&str; 2]| UsersSearch::new(&emails.map(str::to_owned)).unwrap();
    azure.remember_user(
        1,
        "fabrikam",
        &search(["x@example.com", "some.one@example.COM"]),
        &found,
    );
    let again = search(["some.one@example.com", "X@example.com "]);
    assert_eq!(azure.known_user(1, "Fabrikam", &again), Some(found));
    assert_eq!(azure.known_user(1, "contoso", &again), None);
    assert_eq!(
        azure.known_user(2, "Fabrikam", &again),
        None,
        "another tenant does not see it"
    );
    let page = "GET /fabrikam/_apis/graph/users?api-version=7.1-preview.1";
    assert_eq!(
        targets(&server),
        [
            page.to_owned(),
            format!("{page}&continuationToken=n%2F2%3D")
        ]
    );
}

#[tokio::test]
async fn the_number_of_pages_is_limited() {
    let page = || reply(200, "x-ms-continuationtoken: again\r\n", r#"{"value": []}"#);
    let (azure, server) = azure((0..=graph::PAGES).map(|_| page()).collect());
    let fault = find_user(&azure, &["x@example.com"]).await.unwrap_err();
    assert_eq!(fault.code(), "azure_devops.too_many_users");
    assert_eq!(server.received().len(), graph::PAGES);
}

#[test]
fn there_is_no_search_without_an_address() {
    assert_eq!(UsersSearch::new(&[" ".to_owned()]), None);
}

#[tokio::test]
async fn a_search_result_may_have_its_id_as_text_or_number() {
    let results = value!([{"fields": {"system.id": "5", "system.title": ["x"]}, "hits": [{}]}, {"fields": {"System.Id": 6}}]);
    let (azure, _server) = azure(vec![
        json(&value!({"count": 2, "results": results})),
        json(&value!({"results": [{"fields": {}}]})),
    ]);
    assert_eq!(
        search(&azure, &SearchQuery::default(), 10).await.unwrap(),
        [5, 6]
    );
    let fault = search(&azure, &SearchQuery::default(), 10)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.to_string().contains("system.id")),
        ("azure_devops.malformed_answer", true)
    );
}
