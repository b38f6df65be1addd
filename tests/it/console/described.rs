//! Random requests made from the served OpenAPI document, valid and not: none fails the console, and
//! every answer has the shape that the document states.

use dispatch_worker::config;
use dispatch_worker::store::Role;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::waiting_job;
use crate::support::{TestWorld, WorkerOptions};

/// Requests for each method of each path.
const REQUESTS: usize = 12;
/// How deep a generated value is nested.
const DEPTH: usize = 4;
/// Texts that programs get wrong.
const TEXTS: [&str; 12] = [
    "",
    " ",
    "0",
    "-1",
    "99999999999999999999",
    "a",
    "<script>alert(1)</script>",
    "'; DROP TABLE jobs; --",
    "\u{0}",
    "%00%ff",
    "e\u{301}\u{202e}\u{1f4a3}",
    "2026-02-30T25:00:00Z",
];

/// Makes values for a schema of the document.
struct Made<'a> {
    document: &'a Value,
    random: StdRng,
}

impl Made<'_> {
    fn text(&mut self) -> String {
        if self.random.random_bool(0.05) {
            return "x".repeat(5000);
        }
        (*TEXTS.choose(&mut self.random).expect("texts")).to_owned()
    }

    /// Returns a value of the schema; now and then, and below a depth, another one.
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth == 0 || self.random.random_bool(0.1) {
            let wrong = [
                Value::Null,
                json!(-1),
                json!(1.5),
                json!([]),
                json!({}),
                json!("x"),
            ];
            return wrong.choose(&mut self.random).expect("values").clone();
        }
        if let Some(name) = schema["$ref"].as_str() {
            let pointer = name.trim_start_matches('#');
            let target = self.document.pointer(pointer).expect("the schema exists");
            return self.value(&target.clone(), depth);
        }
        for word in ["oneOf", "anyOf", "allOf"] {
            if let Some(one) = schema[word]
                .as_array()
                .and_then(|all| all.choose(&mut self.random))
            {
                return self.value(&one.clone(), depth - 1);
            }
        }
        for word in ["enum", "const"] {
            match &schema[word] {
                Value::Array(all) => return all.choose(&mut self.random).expect("values").clone(),
                Value::Null => {}
                one => return one.clone(),
            }
        }
        self.of_type(schema, depth)
    }

    fn of_type(&mut self, schema: &Value, depth: usize) -> Value {
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.choose(&mut self.random).cloned().unwrap_or_default(),
            kind => kind.clone(),
        };
        match kind.as_str().unwrap_or("object") {
            "string" => Value::from(self.text()),
            "integer" => json!(self.random.random_range(-2..=200_i64)),
            "number" => json!(self.random.random_range(-1.0..=2.0_f64)),
            "boolean" => json!(self.random.random_bool(0.5)),
            "array" => (0..self.random.random_range(0..3))
                .map(|_| self.value(&schema["items"], depth - 1))
                .collect(),
            "null" => Value::Null,
            _ => self.object(schema, depth),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut fields = Map::new();
        for (name, of) in schema["properties"].as_object().into_iter().flatten() {
            if self.random.random_bool(0.8) {
                fields.insert(name.clone(), self.value(of, depth - 1));
            }
        }
        if self.random.random_bool(0.05) {
            fields.insert("unexpected".to_owned(), json!(1));
        }
        Value::Object(fields)
    }

    /// Returns the path and the query of a request, with these real values for its variables.
    fn address(&mut self, path: &str, method: &Value, real: &[(&str, String)]) -> String {
        let mut address = path.to_owned();
        let mut query = Vec::new();
        for parameter in method["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let variable = format!("{{{name}}}");
            if address.contains(&variable) {
                let known = real
                    .iter()
                    .find(|(of, _)| *of == name)
                    .map(|(_, value)| value);
                let value = match known {
                    Some(value) if self.random.random_bool(0.8) => value.clone(),
                    _ => self.text(),
                };
                let value = percent_encoding::utf8_percent_encode(
                    &value,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                address = address.replace(&variable, &value.to_string());
            } else if self.random.random_bool(0.3) {
                let given = match self.value(&parameter["schema"], DEPTH) {
                    Value::Array(several) => several,
                    one => vec![one],
                };
                query.extend(given.into_iter().map(|value| {
                    let text = value.as_str().map(str::to_owned);
                    (name.to_owned(), text.unwrap_or_else(|| value.to_string()))
                }));
            }
        }
        let query = serde_urlencoded::to_string(query).expect("texts");
        format!("{address}?{query}")
    }
}

/// Returns what is wrong with an answer, by the document's part about its method.
fn wrong(
    document: &Value,
    method: &Value,
    status: StatusCode,
    media: &str,
    body: &[u8],
) -> Option<String> {
    if status.is_server_error() {
        return Some(format!("{status}: {}", String::from_utf8_lossy(body)));
    }
    let schema = if status.is_success() {
        let content = method["responses"]["200"]["content"].as_object();
        content
            .and_then(|types| types.get(media))
            .map(|of| of.get("x-item-schema").unwrap_or(&of["schema"]).clone())
    } else {
        (media == "application/problem+json")
            .then(|| json!({"$ref": "#/components/schemas/Problem"}))
    };
    let Some(schema) = schema else {
        return Some(format!("{status}: the document has no `{media}`"));
    };
    let schema = json!({"allOf": [schema], "components": document["components"]});
    let validator = jsonschema::validator_for(&schema).expect("a valid schema");
    let is_lines = media == "application/x-ndjson";
    let documents = body.split(|byte| is_lines && *byte == b'\n');
    documents
        .filter(|document| !(is_lines && document.is_empty()))
        .find_map(|document| {
            let value: Value = match serde_json::from_slice(document) {
                Ok(value) => value,
                Err(error) => return Some(format!("{status}: {error}")),
            };
            let errors = validator.iter_errors(&value);
            let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
            (!errors.is_empty()).then(|| format!("{status}: {errors:?} in {value}"))
        })
}

#[tokio::test]
async fn random_requests_made_from_the_document_never_fail_the_console() {
    let seed = config::test_seed().unwrap_or_else(rand::random);
    eprintln!("DISPATCH_TEST_SEED={seed}");
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let document = console
        .json(
            &world.token(Role::Viewer, "reader", &[]).await,
            "/openapi.json",
        )
        .await;
    let random = StdRng::seed_from_u64(seed);
    let mut made = Made {
        document: &document,
        random,
    };
    let real = [
        ("id", job.id.to_string()),
        ("number", "1".to_owned()),
        ("fingerprint", "f-1".to_owned()),
    ];
    let (mut problems, mut successes) = (Vec::new(), 0);
    let paths = document["paths"].as_object().expect("paths");
    for (at, (path, methods)) in paths.iter().enumerate() {
        // Each path has a token of its own, so that the limit of requests is not what is tested.
        let token = world.token(Role::Admin, &format!("ann-{at}"), &[]).await;
        for (name, method) in methods.as_object().expect("methods") {
            if method["responses"]["200"]["content"]["text/event-stream"].is_object() {
                continue;
            }
            for _ in 0..REQUESTS {
                let address = made.address(path, method, &real);
                let verb: Method = name.to_uppercase().parse().expect("a method");
                let mut request = console.request(verb, &address).bearer_auth(&token);
                let schema = &method["requestBody"]["content"]["application/json"]["schema"];
                let body = made.value(schema, DEPTH);
                if schema.is_object() {
                    request = request.json(&body);
                }
                let answer = request.send().await.expect("the console answers");
                let status = answer.status();
                let media = answer
                    .headers()
                    .get("content-type")
                    .and_then(|value| value.to_str().ok());
                let media = media.unwrap_or_default().to_owned();
                let bytes = answer.bytes().await.expect("a body");
                successes += usize::from(status.is_success());
                if let Some(wrong) = wrong(&document, method, status, &media, &bytes) {
                    problems.push(format!("{name} {address} {body}: {wrong}"));
                }
            }
        }
    }
    assert!(
        problems.is_empty(),
        "with DISPATCH_TEST_SEED={seed}:\n{}",
        problems.join("\n")
    );
    assert!(successes > paths.len(), "{successes} requests succeeded");
}
