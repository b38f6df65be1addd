//! Runs a function on many inputs that are made of good ones: bytes are changed, removed, doubled,
//! replaced by tokens or taken from another input. A run is repeated by its seed.
//!
//! `DISPATCH_FUZZ_INPUTS` sets the number of inputs of each target, `DISPATCH_TEST_SEED` the seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::config;

/// Inputs of each target if the setting is absent.
const INPUTS: u64 = 200_000;
/// With fewer, a target might not meet what it looks for.
const FEWEST: u64 = 1_000;
/// Most changes of one input.
const CHANGES: u32 = 6;
/// Longest input. A decoder's limits have tests of their own.
const LONGEST: usize = 4_096;

/// What decoders treat in a special way: JSON, numbers at limits, text that is no UTF-8, escapes,
/// signs of queries and addresses.
const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"-1",
    b"0",
    b"1e999",
    b"-0.0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551616",
    b"1.5",
    b"%00",
    b"%",
    b"&",
    b"=",
    b"+",
    b"*",
    b".*",
    b"since:",
    b"2026-02-30T25:61:00Z",
    b"9999-12-31T23:59:59-23:59",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"https://[::1]:0/..",
    b"\r\n",
    b"\xf0\x9f\x98\x80",
];

/// Runs `check` on inputs made of the corpus, which it gets first.
///
/// # Panics
/// `check` does; the seed, the number and the input are printed before.
pub(crate) fn run(target: &str, corpus: &[&[u8]], mut check: impl FnMut(&[u8])) {
    let inputs = config::fuzz_inputs().unwrap_or(INPUTS).max(FEWEST);
    let seed = config::test_seed().unwrap_or_else(rand::random);
    let mut random = SmallRng::seed_from_u64(seed);
    for number in 0..inputs {
        let known = usize::try_from(number).ok().and_then(|at| corpus.get(at));
        let input = known.map_or_else(|| changed(corpus, &mut random), |known| known.to_vec());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            let shown = input.escape_ascii();
            eprintln!("{target}: input {number} of DISPATCH_TEST_SEED={seed} fails: b\"{shown}\"");
            resume_unwind(panic);
        }
    }
}

/// Returns an input of the corpus with some changes.
fn changed(corpus: &[&[u8]], random: &mut SmallRng) -> Vec<u8> {
    let mut input = pick(corpus, random).to_vec();
    for _ in 0..random.random_range(1..=CHANGES) {
        change(&mut input, corpus, random);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[&[u8]], random: &mut SmallRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(0..=8)).min(input.len());
    match random.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => drop(input.drain(at..end)),
        3 => {
            let doubled = input[at..end].to_vec();
            input.splice(at..at, doubled);
        }
        4 => input.truncate(at),
        5 => {
            let other = pick(corpus, random);
            let from = random.random_range(0..=other.len());
            let until = (from + random.random_range(0..=64)).min(other.len());
            input.splice(at..end, other[from..until].iter().copied());
        }
        _ => {
            let token = pick(TOKENS, random);
            input.splice(at..end, token.iter().copied());
        }
    }
}

fn pick<'a>(of: &[&'a [u8]], random: &mut SmallRng) -> &'a [u8] {
    of[random.random_range(0..of.len())]
}

#[test]
fn a_fault_that_needs_two_changes_is_found_and_its_input_is_repeated_by_the_seed() {
    let mut random = SmallRng::seed_from_u64(7);
    let corpus: &[&[u8]] = &[br#"{"since":"2026-01-01"}"#, b"a=b&c=d"];
    let first: Vec<Vec<u8>> = (0..50_000).map(|_| changed(corpus, &mut random)).collect();
    let mut again = SmallRng::seed_from_u64(7);
    assert!(
        first
            .iter()
            .all(|input| *input == changed(corpus, &mut again))
    );
    let has = |input: &[u8], part: &[u8]| input.windows(part.len()).any(|window| window == part);
    let is_found = |parts: &[&[u8]]| {
        first
            .iter()
            .any(|input| parts.iter().all(|part| has(input, part)))
    };
    assert!(
        is_found(&[b"since", b"\\ud800", b"1e999"]),
        "tokens and other inputs"
    );
    assert!(first.iter().any(Vec::is_empty), "nothing");
    assert!(
        first
            .iter()
            .any(|input| std::str::from_utf8(input).is_err()),
        "no UTF-8"
    );
}
