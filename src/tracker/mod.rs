//! Postgres, the product's tables.

mod types;

pub use types::*;
