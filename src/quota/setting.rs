//! Quotas as an operator sets them.

use super::{Amount, Amounts, Kind};

/// Quotas of a producer, where the setting says nothing else. Open jobs and those for later are together fewer than the backlog that
/// stops intake for everybody.
pub const PRODUCER_QUOTAS: &str = "open=50000/1GiB,later=50000/1GiB,waiting=100000/2GiB,dead_letters=10000/256MiB,keys=10000";
/// Quotas of an organization, likewise. It is not said by a dead letter and by a cancel whose they are.
pub const ORGANIZATION_QUOTAS: &str = "open=90000/2GiB,later=90000/2GiB,waiting=200000/4GiB";

/// Kinds that a producer has quotas of.
const OF_PRODUCERS: &[Kind] = &Kind::ALL;
/// Kinds that an organization has quotas of.
const OF_ORGANIZATIONS: &[Kind] = &[Kind::Open, Kind::Later, Kind::Waiting];

/// A setting that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected kind=rows/bytes, such as open=50000/1GiB, got `{part}`; use the kinds {kinds}, with commas between them")]
pub struct BadQuota {
    part: String,
    kinds: String,
}

fn words(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(", ")
}

/// Quotas of a producer: `kind=rows/bytes`, separated by commas, the bytes with KiB, MiB or GiB behind them or none of these;
/// without bytes, rows alone count. What is not named has [`PRODUCER_QUOTAS`].
///
/// # Errors
/// [`BadQuota`] names the part that cannot be understood.
pub fn producer_quotas(setting: &str) -> Result<Amounts, BadQuota> {
    parse(OF_PRODUCERS, PRODUCER_QUOTAS, setting)
}

/// As [`producer_quotas`], of an organization.
///
/// # Errors
/// As [`producer_quotas`].
pub fn organization_quotas(setting: &str) -> Result<Amounts, BadQuota> {
    parse(OF_ORGANIZATIONS, ORGANIZATION_QUOTAS, setting)
}

fn parse(kinds: &[Kind], default: &str, setting: &str) -> Result<Amounts, BadQuota> {
    let any = Amount::UNLIMITED;
    let mut quotas = Amounts { open: any, later: any, waiting: any, dead_letters: any, keys: any };
    for part in default.split(',').chain(setting.split(',')).map(str::trim).filter(|part| !part.is_empty()) {
        let parsed = parse_one(part).filter(|(kind, _)| kinds.contains(kind));
        let (kind, amount) = parsed.ok_or_else(|| BadQuota { part: part.to_owned(), kinds: words(kinds) })?;
        *quotas.of_mut(kind) = amount;
    }
    Ok(quotas)
}

fn parse_one(part: &str) -> Option<(Kind, Amount)> {
    let (word, amount) = part.split_once('=')?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word.trim())?;
    let (rows, bytes) = match amount.split_once('/') {
        Some((rows, bytes)) => (rows, parse_bytes(bytes.trim())?),
        None => (amount, Amount::UNLIMITED.bytes),
    };
    let rows = rows.trim().parse().ok().filter(|rows| *rows <= Amount::UNLIMITED.rows)?;
    Some((kind, Amount { rows, bytes }))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes: u64 = number.trim().parse().ok()?;
    bytes.checked_mul(1 << shift).filter(|bytes| *bytes <= Amount::UNLIMITED.bytes)
}
