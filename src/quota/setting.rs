//! Quotas as settings.

use super::{Amount, Amounts, Kind};

/// Default quotas of a producer. Open jobs and those for later are together fewer than the backlog
/// that pauses intake for all producers.
pub const PRODUCER_QUOTAS: &str =
    "open=50000/1GiB,later=50000/1GiB,waiting=100000/2GiB,dead_letters=10000/256MiB,keys=10000";
/// Default quotas of an organization. There are none for dead letters and cancels, which do not
/// name an organization.
pub const ORGANIZATION_QUOTAS: &str = "open=90000/2GiB,later=90000/2GiB,waiting=200000/4GiB";

const OF_PRODUCERS: &[Kind] = &Kind::ALL;
/// Kinds of quotas of an organization.
const OF_ORGANIZATIONS: &[Kind] = &[Kind::Open, Kind::Later, Kind::Waiting];

/// A setting that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected kind=rows/bytes, such as open=50000/1GiB, got `{part}`; use the kinds {kinds}, with commas between them"
)]
pub struct BadQuota {
    part: String,
    kinds: String,
}

fn words(kinds: &[Kind]) -> String {
    kinds
        .iter()
        .map(|kind| kind.word())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Parses the quotas of a producer: `kind=rows/bytes`, separated by commas. The bytes may have the
/// suffix KiB, MiB or GiB; without bytes, only rows are limited. A kind that is not given has the
/// quota of [`PRODUCER_QUOTAS`].
///
/// # Errors
/// [`BadQuota`] names the part that cannot be parsed.
pub fn producer_quotas(setting: &str) -> Result<Amounts, BadQuota> {
    parse(OF_PRODUCERS, PRODUCER_QUOTAS, setting)
}

/// Parses the quotas of an organization like [`producer_quotas`].
///
/// # Errors
/// Same as [`producer_quotas`].
pub fn organization_quotas(setting: &str) -> Result<Amounts, BadQuota> {
    parse(OF_ORGANIZATIONS, ORGANIZATION_QUOTAS, setting)
}

fn parse(kinds: &[Kind], default: &str, setting: &str) -> Result<Amounts, BadQuota> {
    let any = Amount::UNLIMITED;
    let mut quotas = Amounts {
        open: any,
        later: any,
        waiting: any,
        dead_letters: any,
        keys: any,
    };
    for part in default
        .split(',')
        .chain(setting.split(','))
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let parsed = parse_one(part).filter(|(kind, _)| kinds.contains(kind));
        let (kind, amount) = parsed.ok_or_else(|| BadQuota {
            part: part.to_owned(),
            kinds: words(kinds),
        })?;
        *quotas.of_mut(kind) = amount;
    }
    Ok(quotas)
}

fn parse_one(part: &str) -> Option<(Kind, Amount)> {
    let (word, amount) = part.split_once('=')?;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.word() == word.trim())?;
    let (rows, bytes) = match amount.split_once('/') {
        Some((rows, bytes)) => (rows, parse_bytes(bytes.trim())?),
        None => (amount, Amount::UNLIMITED.bytes),
    };
    let rows = rows
        .trim()
        .parse()
        .ok()
        .filter(|rows| *rows <= Amount::UNLIMITED.rows)?;
    Some((kind, Amount { rows, bytes }))
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes: u64 = number.trim().parse().ok()?;
    bytes
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= Amount::UNLIMITED.bytes)
}
