//! The parts of a page and their versions.

use axum::body::Bytes;
use data_encoding::HEXLOWER;
use maud::{Markup, html};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::console::pages::exact_time;

/// Begins a part in a page's text. Stored text cannot contain it, since quotes are escaped there.
const PART: &str = " data-part=\"";
/// Where a page states its versions.
const VERSIONS: &str = " data-versions=\"";
/// The part that shows when the page was made; it changes always, so it has no version.
const AS_OF: &str = "as-of";
/// Bytes of a version: a change that is missed by chance is shown with the next one.
const VERSION_BYTES: usize = 6;

/// The text of a page, beside the answer that contains it.
#[derive(Debug, Clone)]
pub(in crate::console) struct PageText(pub(in crate::console) Bytes);

/// Returns the versions of the parts in a page's text, as `name:version name:version`. A part
/// reaches to the next one. `render` is the id of this rendering, which does not count.
pub(in crate::console) fn versions(text: &str, render: &str) -> String {
    let parts = text.split(PART).skip(1);
    let named = parts.filter_map(|part| part.split_once('"'));
    let versions: Vec<String> = named
        .filter(|(name, _)| *name != AS_OF)
        .map(|(name, part)| format!("{name}:{}", version(&part.replace(render, ""))))
        .collect();
    versions.join(" ")
}

fn version(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text)[..VERSION_BYTES])
}

/// Returns whether a text has parts.
pub(in crate::console) fn has_parts(text: &str) -> bool {
    text.contains(PART)
}

/// Returns the versions that a page states; `None` if it has no parts.
pub(super) fn stated(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(VERSIONS)?;
    let (versions, _) = rest.split_once('"')?;
    (!versions.is_empty()).then_some(versions)
}

/// Returns the entity tag of a page with parts.
pub(in crate::console) fn tag(page: &str) -> Option<String> {
    Some(format!("W/\"{}\"", version(stated(page)?)))
}

/// Returns when the page was made.
pub(in crate::console) fn as_of() -> Markup {
    html! { footer data-part=(AS_OF) { "As of " (exact_time(OffsetDateTime::now_utc())) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_another_version_if_its_text_has_changed_and_not_for_another_rendering() {
        let page = |jobs: &str, render: &str, at: &str| {
            format!(
                "<main><h1>x</h1><section data-part=\"jobs\">{jobs}<input value=\"{render}-1\"></section>\
                 <section data-part=\"facts\">same</section><footer data-part=\"as-of\">{at}</footer></main>"
            )
        };
        let first = versions(&page("one", "r1", "10:00"), "r1");
        assert_eq!(first, versions(&page("one", "r2", "10:01"), "r2"));
        let second = versions(&page("two", "r3", "10:02"), "r3");
        let parts = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let (first, second) = (parts(&first), parts(&second));
        assert_eq!(first.len(), 2, "{first:?}");
        assert!(first[0].starts_with("jobs:") && first[1].starts_with("facts:"));
        assert_ne!(first[0], second[0]);
        assert_eq!(first[1], second[1]);
    }

    #[test]
    fn a_page_without_parts_has_no_tag() {
        assert_eq!(tag("<body data-versions=\"\"></body>"), None);
        assert_eq!(tag("<body></body>"), None);
        let tagged = tag("<body data-versions=\"a:1\"></body>").expect("a tag");
        assert!(tagged.starts_with("W/\""), "{tagged}");
    }
}
