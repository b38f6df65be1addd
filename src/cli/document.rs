//! Documents that a command takes from a file or stdin, and what a change of one changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use super::output::{plain, say};
use crate::message::MESSAGE_LIMIT;
use crate::operations::PathChange;

/// Reads a file or stdin of at most the size of a message.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(MESSAGE_LIMIT).unwrap_or(u64::MAX) + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(limit).read_to_string(&mut text)
    }
    .with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() > MESSAGE_LIMIT {
        bail!("expected at most {MESSAGE_LIMIT} bytes, got more");
    }
    Ok(text)
}

/// Prints what differs, a line for each path.
pub(super) fn say_diff(diff: &[PathChange]) {
    let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
    for change in diff {
        say(&format!(
            "{}: {} → {}",
            plain(&change.path),
            text(&change.before),
            text(&change.after)
        ));
    }
}
