//! The OpenAPI 3.1 document (<https://spec.openapis.org/oas/v3.1.1>), made from the table of routes
//! and from the types of bodies.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Body;
use super::routes::{NDJSON, Route, all};
use super::serve::API;

/// Returns the document.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in all().filter(|route| route.is_in_api()) {
        let path = format!("{API}{}", route.path);
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        operations[method] = operation(route, &mut generator);
    }
    let problem = Body::json_schema(&mut generator);
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".to_owned(), problem.to_value());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "dispatch", "version": env!("CARGO_PKG_VERSION")},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = in_path(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.parameters.iter().map(|parameter| {
        let schema = if parameter.is_several {
            json!({"type": "array", "items": {"type": "string"}})
        } else {
            json!({"type": "string"})
        };
        json!({"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema})
    }));
    let output = (route.output)(generator);
    let content = if route.media_type == NDJSON {
        // OpenAPI 3.2 has `itemSchema` for this.
        json!({"schema": {"type": "string"}, "x-item-schema": output})
    } else {
        json!({"schema": output})
    };
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The answer",
                "content": {route.media_type: content},
            },
            "default": {
                "description": "A problem",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "x-role": route.least().map_or("everybody", crate::store::Role::word),
    });
    if let Some(action) = route.action {
        operation["x-audit-action"] = json!(action.word());
    }
    if let Some(input) = route.input {
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": input(generator)}},
        });
    }
    operation
}

/// Returns the names of a path's parts.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
