//! The page of the console's API, from the table of its routes.

use std::fmt::Write;

use crate::cli::output::markdown_cell;
use crate::console::{Route, all};

/// A row for each route of the API.
pub(super) fn page() -> String {
    let mut page = "# API\n\nPrinted by `dispatch reference api`. The console (`dispatch console`) serves these paths below `/api/v1`; \
        a request needs `Authorization: Bearer TOKEN` (`dispatch tokens create`). `/api/v1/openapi.json` has the OpenAPI 3.1 document \
        with the types of all bodies. Errors are problem details (RFC 9457) with `code` and `hint`. A change needs a `reason`; \
        `Idempotency-Key` makes it safe to repeat for a day, and `If-Match` with the `ETag` of a job refuses it with 412 if the job \
        has moved on. A parameter with `(several)` may be given several times; one of its values is enough.\n\n\
        | method | path | role | what it does | query |\n|---|---|---|---|---|\n"
        .to_owned();
    for route in all().filter(|route| route.is_in_api()) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | `{}` | {} | {} | {} |",
            route.method,
            route.path,
            route.least().map_or("", crate::store::Role::word),
            markdown_cell(route.about),
            parameters(route)
        );
    }
    page
}

fn parameters(route: &Route) -> String {
    let one = |parameter: &crate::console::Parameter| {
        let several = if parameter.is_several {
            " (several)"
        } else {
            ""
        };
        let about = markdown_cell(parameter.about);
        format!("`{}`{several}: {about}", parameter.name)
    };
    let all: Vec<String> = route.parameters.iter().map(one).collect();
    all.join("; ")
}
