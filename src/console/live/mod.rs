//! Live pages. A page is made of parts, `<section data-part="…">`, and states the version of each.
//! `/events` looks at the page again while somebody reads it and says which versions have changed;
//! the page's script then reads the page and replaces those parts. A page that was read before is
//! shown again, as of then, while Postgres is not available.

mod events;
mod parts;
mod snapshots;
mod streams;

pub(super) use events::ROUTES;
pub(super) use parts::{PageText, as_of, has_parts, tag, versions};
pub(super) use snapshots::{Snapshots, key as snapshot_key};
pub(super) use streams::Streams;
