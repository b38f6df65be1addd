//! Answers of a vendor, changed, with every kind of status.

use super::http::HttpResponse;
use super::http_fault::Provider;
use crate::fuzz;

const STATUSES: [u16; 16] = [
    200, 201, 202, 203, 204, 302, 400, 401, 403, 404, 409, 410, 412, 429, 500, 503,
];
/// Longest text of a fault: it is stored with the job and shown.
const LONGEST: usize = 2_000;

/// Runs `check` on answers whose bodies are made of these. It returns the text of the fault that an
/// answer means, if it means one.
///
/// # Panics
/// `check` does, a fault has no text or a long one, or every answer means the same.
pub(super) fn answers(
    provider: &'static Provider,
    bodies: &[&[u8]],
    mut check: impl FnMut(HttpResponse) -> Option<String>,
) {
    let (mut faults, mut others) = (0_u64, 0_u64);
    let mut number = 0_usize;
    fuzz::run(provider.name, bodies, |body| {
        number += 1;
        let kind = if number.is_multiple_of(5) {
            "text/html"
        } else {
            "application/json"
        };
        let status = STATUSES[number % STATUSES.len()];
        match check(HttpResponse::made_up(provider, status, kind, body)) {
            Some(text) => {
                assert!(!text.is_empty() && text.len() <= LONGEST, "{text:?}");
                faults += 1;
            }
            None => others += 1,
        }
    });
    assert!(faults > 0 && others > 0, "{faults} faults, {others} others");
}
