//! ★ The table of everything that the console answers. From it are made: the router (`serve`), the
//! OpenAPI document (`openapi`), and the tests of permissions.

use axum::http::Method;
use axum::response::Response;
use futures_util::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};

use super::call::Call;
use super::problem::Problem;
use super::{api, live, pages};
use crate::store::{Action, Role};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a token.
    Everybody,
    /// A token of this role or of one that may do more. A token that is limited to organizations
    /// or to a source is accepted if `is_scoped`: the route then shows only those.
    From {
        /// The role.
        role: Role,
        /// Whether the route keeps to the organizations and the source of the token.
        is_scoped: bool,
    },
}

/// Answers a request.
pub(super) type Handler = fn(Call) -> BoxFuture<'static, Result<Response, Problem>>;

/// Adds a type's schema to a document.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it may be given several times; a row then has one of the values.
    pub is_several: bool,
}

/// One row of the table.
pub struct Route {
    /// The name, `operationId` in the OpenAPI document.
    pub name: &'static str,
    /// The method.
    pub method: Method,
    /// The path, of the page and, below `/api/v1`, of the API.
    pub path: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Who may use it.
    pub access: Access,
    /// The word in the audit log; `None` if it only reads.
    pub action: Option<Action>,
    /// The parameters of the query.
    pub parameters: &'static [Parameter],
    /// The type of the body of a request.
    pub(super) input: Option<SchemaOf>,
    /// The type of the body of the API's answer.
    pub(super) output: SchemaOf,
    /// The media type of the API's answer.
    pub media_type: &'static str,
    /// Answers for the API; `None` if it has only a page.
    pub(super) api: Option<Handler>,
    /// Answers for a person; `None` if there is no page.
    pub(super) page: Option<Handler>,
}

impl Route {
    /// Returns whether programs can use it.
    #[must_use]
    pub const fn is_in_api(&self) -> bool {
        self.api.is_some()
    }

    /// Returns whether people can use it.
    #[must_use]
    pub const fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Returns the role that may do least of those that may use it.
    #[must_use]
    pub fn least(&self) -> Option<Role> {
        match (self.access, self.action) {
            (Access::Everybody, _) => None,
            (Access::From { .. }, Some(action)) => Some(Role::least(action)),
            (Access::From { role, .. }, None) => Some(role),
        }
    }

    /// Returns whether a token of this role may use it.
    #[must_use]
    pub fn permits(&self, role: Role) -> bool {
        match (self.access, self.action) {
            (Access::Everybody, _) => true,
            (Access::From { role: least, .. }, None) => rank(role) >= rank(least),
            (Access::From { .. }, Some(action)) => role.may(action),
        }
    }
}

fn rank(role: Role) -> usize {
    let found = Role::OF_TOKENS.iter().position(|one| *one == role);
    found.unwrap_or(0)
}

/// Makes a handler of an asynchronous function.
macro_rules! handler {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}
pub(super) use handler;

/// Declares a route that reads: for everybody who may read everything, or for `$access`; for people
/// too, if it names a page. `several` marks a parameter that may be given several times.
macro_rules! reads {
    ($name:literal, $($rest:tt)*) => {
        crate::console::routes::reads!(for crate::console::routes::VIEWER; $name, $($rest)*)
    };
    (for $access:expr; $name:literal, $path:literal, $about:literal, [$($parameter:literal $($several:ident)?: $means:literal),* $(,)?], $output:ty, $api:path $(, $page:path)?) => {
        Route {
            name: $name,
            method: axum::http::Method::GET,
            path: $path,
            about: $about,
            access: $access,
            action: None,
            parameters: &[$(crate::console::routes::Parameter {
                name: $parameter,
                about: $means,
                is_several: !stringify!($($several)?).is_empty(),
            }),*],
            input: None,
            output: crate::console::routes::schema::<$output>,
            media_type: crate::console::routes::JSON,
            api: Some(crate::console::routes::handler!($api)),
            page: {
                let page: Option<crate::console::routes::Handler> = None;
                $(let page: Option<crate::console::routes::Handler> = {
                    let _ = page;
                    Some(crate::console::routes::handler!($page))
                };)?
                page
            },
        }
    };
}
pub(super) use reads;

/// Declares a route that changes something: by JSON, and by the form of a page, which leads to
/// `$then` afterwards, or is answered by the page that is named. With `json METHOD;` it is only for
/// programs, with `form;` only for the form of a page.
macro_rules! acts {
    ($name:literal, $path:literal, $about:literal, $action:ident, $is_scoped:literal, $input:ty => $output:ty, $act:path, $then:expr) => {
        crate::console::routes::acts!(row POST, Some(crate::console::routes::by_json!($act)), Some(crate::console::routes::by_form!($output, $act, $then));
            $name, $path, $about, $action, $is_scoped, $input => $output)
    };
    (by $page:expr; $name:literal, $path:literal, $about:literal, $action:ident, $is_scoped:literal, $input:ty => $output:ty, $act:path) => {
        crate::console::routes::acts!(row POST, Some(crate::console::routes::by_json!($act)), Some($page);
            $name, $path, $about, $action, $is_scoped, $input => $output)
    };
    (json $method:ident; $name:literal, $path:literal, $about:literal, $action:ident, $is_scoped:literal, $input:ty => $output:ty, $act:path) => {
        crate::console::routes::acts!(row $method, Some(crate::console::routes::by_json!($act)), None;
            $name, $path, $about, $action, $is_scoped, $input => $output)
    };
    (form; $name:literal, $path:literal, $about:literal, $action:ident, $is_scoped:literal, $input:ty => $output:ty, $act:path, $then:expr) => {
        crate::console::routes::acts!(row POST, None, Some(crate::console::routes::by_form!($output, $act, $then));
            $name, $path, $about, $action, $is_scoped, $input => $output)
    };
    (row $method:ident, $api:expr, $page:expr; $name:literal, $path:literal, $about:literal, $action:ident, $is_scoped:literal, $input:ty => $output:ty) => {
        Route {
            name: $name,
            method: axum::http::Method::$method,
            path: $path,
            about: $about,
            access: crate::console::routes::Access::From {
                role: crate::store::Role::Operator,
                is_scoped: $is_scoped,
            },
            action: Some(crate::store::Action::$action),
            parameters: &[],
            input: Some(crate::console::routes::schema::<$input>),
            output: crate::console::routes::schema::<$output>,
            media_type: crate::console::routes::JSON,
            api: $api,
            page: $page,
        }
    };
}
pub(super) use acts;

/// Makes a handler that answers an action with JSON.
macro_rules! by_json {
    ($act:path) => {
        |call| Box::pin(async move { crate::console::answer::json(&$act(&call).await?) })
    };
}
pub(super) use by_json;

/// Makes a handler that answers an action with the page to see next.
macro_rules! by_form {
    ($output:ty, $act:path, $then:expr) => {
        |call| {
            Box::pin(async move {
                let answer = $act(&call).await?;
                let then: fn(&crate::console::call::Call, &$output) -> String = $then;
                Ok(crate::console::answer::see_other(&then(&call, &answer)))
            })
        }
    };
}
pub(super) use by_form;

/// Everybody who may read everything.
pub(super) const VIEWER: Access = Access::From {
    role: Role::Viewer,
    is_scoped: false,
};

/// Returns the schema of a type.
pub(super) fn schema<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub(super) const JSON: &str = "application/json";
/// A JSON document on each line; the schema of a route's answer is that of a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Every row of the table.
static ROUTES: &[&[Route]] = &[
    api::jobs::ROUTES,
    api::job_actions::ROUTES,
    api::job_data::ROUTES,
    api::overview::ROUTES,
    api::fleet::ROUTES,
    api::alerts::ROUTES,
    api::groups::ROUTES,
    api::campaigns::ROUTES,
    api::exports::ROUTES,
    api::controls::ROUTES,
    api::kill_switch::ROUTES,
    api::dead_letters::ROUTES,
    api::account::ROUTES,
    live::ROUTES,
    pages::ROUTES,
];

/// Returns every row of the table.
pub fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().copied().flatten()
}
