//! The list of the product's sealed columns.

use super::destinations::{PREVIOUS_SECRET, SECRET};
use super::identities::{ACCESS_TOKEN, REFRESH_TOKEN};
use crate::secrets::{RowId, SealedColumn};

/// The product's sealed columns.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::plain("identities", ACCESS_TOKEN, RowId::Number),
    SealedColumn::plain("identities", REFRESH_TOKEN, RowId::Number),
    SealedColumn::plain("destinations", SECRET, RowId::Number),
    SealedColumn::plain("destinations", PREVIOUS_SECRET, RowId::Number),
];
