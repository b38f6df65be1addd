//! A JSON document as a page shows it, with the field at fault marked.

use maud::{Markup, html};
use serde_json::Value;

use crate::escape::Escaped;

/// A line of the document.
struct Line {
    indent: usize,
    text: String,
    is_at_fault: bool,
}

/// Returns a document, its field at this path marked. The document is bounded by its maker.
pub(super) fn tree(document: &Value, at_fault: Option<&str>) -> Markup {
    let mut lines = Vec::new();
    write(document, String::new(), "", 0, "", &mut lines);
    for (line, path) in &mut lines {
        line.is_at_fault = at_fault == Some(path.as_str());
    }
    html! {
        pre.json {
            @for (line, _) in &lines {
                (" ".repeat(line.indent * 2))
                @if line.is_at_fault { mark { (line.text) } " ← here" } @else { (line.text) }
                "\n"
            }
        }
    }
}

/// Writes a value with its path, as the decoder of messages names paths: `search.text`,
/// `events[0].payload`.
fn write(
    value: &Value,
    path: String,
    key: &str,
    indent: usize,
    comma: &str,
    lines: &mut Vec<(Line, String)>,
) {
    let name = if key.is_empty() {
        String::new()
    } else {
        format!("{}: ", quoted(key))
    };
    let line = |text: String| Line {
        indent,
        text,
        is_at_fault: false,
    };
    let inner: Vec<(String, &str, &Value)> = match value {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            let field = |(key, value)| (format!("{path}{dot}{key}"), String::as_str(key), value);
            fields.iter().map(field).collect()
        }
        Value::Array(items) => {
            let item = |(at, value)| (format!("{path}[{at}]"), "", value);
            items.iter().enumerate().map(item).collect()
        }
        Value::String(text) => {
            let text = format!("{name}{}{comma}", quoted(text));
            return lines.push((line(text), path));
        }
        plain => return lines.push((line(format!("{name}{plain}{comma}")), path)),
    };
    let (open, close) = if value.is_object() {
        ("{", "}")
    } else {
        ("[", "]")
    };
    if inner.is_empty() {
        return lines.push((line(format!("{name}{open}{close}{comma}")), path));
    }
    lines.push((line(format!("{name}{open}")), path));
    let last = inner.len() - 1;
    for (at, (path, key, value)) in inner.into_iter().enumerate() {
        let comma = if at == last { "" } else { "," };
        write(value, path, key, indent + 1, comma, lines);
    }
    // The end of a value has no path: its beginning is marked.
    lines.push((line(format!("{close}{comma}")), String::from("\n")));
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", Escaped(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_at_fault_is_marked_and_nothing_else() {
        let document = json!({"events": [{"payload": {"a.b": "<script>"}}, {}], "x": "\u{1b}[2J"});
        let shown = tree(&document, Some("events[0].payload.a.b")).into_string();
        assert_eq!(shown.matches("<mark>").count(), 1);
        assert!(
            shown.contains("<mark>&quot;a.b&quot;: &quot;&lt;script&gt;&quot;</mark>"),
            "{shown}"
        );
        assert!(shown.contains(r"\u{1b}[2J"), "{shown}");
        let whole = tree(&document, Some("events[1]")).into_string();
        assert!(whole.contains("<mark>{}</mark>"), "{whole}");
        assert!(!tree(&document, None).into_string().contains("<mark>"));
    }
}
