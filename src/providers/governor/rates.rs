//! Rate limits of destinations, and the token bucket that enforces them. Pure: time is an
//! argument.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::providers::http_fault::Provider;
use crate::providers::providers;

/// The default rate limits, in the form of the setting.
static DEFAULT_RATES: LazyLock<String> = LazyLock::new(|| {
    let one = |provider: &Provider| Some(format!("{}={}", provider.name, provider.rate?));
    providers().filter_map(one).collect::<Vec<_>>().join(",")
});

/// Returns the default rate limits of all providers, in the form of the setting.
#[must_use]
pub fn default_rates() -> &'static str {
    &DEFAULT_RATES
}

/// The longest period of a rate limit, in seconds.
const LONGEST_PERIOD: u64 = 3600;
/// The largest number of calls of a rate limit.
const MOST_CALLS: u32 = 1_000_000;

/// The number of calls to one destination in a period. All of them may come in one burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: u32,
    per: Duration,
}

/// A setting that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected provider=calls/seconds, separated by commas (such as discord=5/5), got `{0}`")]
pub struct BadRate(String);

/// The rate limit of each provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates(BTreeMap<String, Rate>);

impl Rates {
    /// Parses `provider=calls/seconds`, separated by commas. A provider that is not named has its
    /// rate of [`default_rates`].
    ///
    /// # Errors
    /// [`BadRate`] with the part that cannot be parsed.
    pub fn parse(setting: &str) -> Result<Self, BadRate> {
        let parts = default_rates()
            .split(',')
            .chain(setting.split(','))
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let rate = |part: &str| parse_one(part).ok_or_else(|| BadRate(part.to_owned()));
        Ok(Self(parts.map(rate).collect::<Result<_, _>>()?))
    }

    pub(super) fn of(&self, provider: &str) -> Rate {
        self.0.get(provider).copied().unwrap_or(Rate::OF_ANY_OTHER)
    }
}

fn parse_one(part: &str) -> Option<(String, Rate)> {
    let (provider, rate) = part.split_once('=')?;
    let (calls, seconds) = rate.split_once('/')?;
    let (calls, seconds) = (calls.trim().parse().ok()?, seconds.trim().parse().ok()?);
    let is_right = (1..=MOST_CALLS).contains(&calls)
        && (1..=LONGEST_PERIOD).contains(&seconds)
        && !provider.trim().is_empty();
    is_right.then(|| (provider.trim().to_owned(), Rate::new(calls, seconds)))
}

impl Rate {
    /// The rate limit of a provider that neither the setting nor the defaults name.
    pub const OF_ANY_OTHER: Self = Self::new(50, 1);

    /// Returns the rate limit of `calls` in `seconds`.
    #[must_use]
    pub const fn new(calls: u32, seconds: u64) -> Self {
        Self {
            calls,
            per: Duration::from_secs(seconds),
        }
    }

    fn per_second(self) -> f64 {
        f64::from(self.calls) / self.per.as_secs_f64()
    }

    /// Returns how long a bucket takes to gain this many tokens.
    pub(super) fn time_for(self, tokens: u32) -> Duration {
        Duration::from_secs_f64(f64::from(tokens.min(self.calls)) / self.per_second())
    }
}

impl fmt::Display for Rate {
    /// Writes the form of the setting: `calls/seconds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.calls, self.per.as_secs())
    }
}

/// A token bucket: full at first, one token per call, refilled at the rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: f64::from(rate.calls),
            at: now,
        }
    }

    /// Returns the time until a token is available, or zero if one is.
    pub(super) fn until_token(&mut self, rate: Rate, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second();
        self.tokens = (self.tokens + gained).min(f64::from(rate.calls));
        self.at = self.at.max(now);
        // Rounding may leave slightly less than a whole token.
        if self.tokens > 1.0 - 1e-6 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second())
        }
    }

    /// Takes a token that [`Bucket::until_token`] has found available.
    pub(super) fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::providers::channel::CHANNELS;

    #[test]
    fn every_channel_and_every_other_provider_has_a_rate_of_its_own() {
        let mut kinds: Vec<_> = CHANNELS.iter().map(|kind| kind.name()).collect();
        kinds.extend(["azure_devops", "discord_interaction"]);
        kinds.sort_unstable();
        let rates = Rates::parse("").unwrap();
        assert_eq!(
            rates.0.keys().map(String::as_str).collect::<Vec<_>>(),
            kinds
        );
    }

    #[test]
    fn a_setting_replaces_only_the_rates_that_it_names() {
        let rates = Rates::parse("discord = 50/1, pigeon=1/60").unwrap();
        assert_eq!(
            rates.of("discord"),
            Rate {
                calls: 50,
                per: Duration::from_secs(1)
            }
        );
        assert_eq!(
            rates.of("pigeon"),
            Rate {
                calls: 1,
                per: Duration::from_secs(60)
            }
        );
        assert_eq!(rates.of("slack"), Rates::parse("").unwrap().of("slack"));
        assert_eq!(rates.of("drum"), Rate::OF_ANY_OTHER);
        for wrong in [
            "discord",
            "discord=5",
            "=5/5",
            "discord=0/5",
            "discord=5/0",
            "discord=5/x",
            "discord=-1/5",
            "discord=5/9999",
        ] {
            let error = Rates::parse(wrong).unwrap_err().to_string();
            assert!(
                error.contains(wrong) && error.contains("discord=5/5"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_full_bucket_allows_a_burst_and_then_one_call_at_a_time() {
        let rate = Rate {
            calls: 5,
            per: Duration::from_secs(5),
        };
        let mut now = Instant::now();
        let mut bucket = Bucket::full(rate, now);
        for _ in 0..5 {
            assert_eq!(bucket.until_token(rate, now), Duration::ZERO);
            bucket.take();
        }
        assert_eq!(bucket.until_token(rate, now).as_millis(), 1000);
        now += rate.time_for(1);
        assert_eq!(bucket.until_token(rate, now), Duration::ZERO);
        bucket.take();
        assert!(bucket.until_token(rate, now) > Duration::ZERO);
        assert_eq!(
            (rate.time_for(4), rate.time_for(50)),
            (Duration::from_secs(4), Duration::from_secs(5))
        );
    }

    proptest! {
        #[test]
        fn no_more_calls_than_burst_and_rate_allow_go_out(
            calls in 1..40u32,
            seconds in 1..20u64,
            gaps in proptest::collection::vec(0..3000u64, 1..300)
        ) {
            let rate = Rate { calls, per: Duration::from_secs(seconds) };
            let start = Instant::now();
            let (mut now, mut bucket, mut taken) = (start, Bucket::full(rate, start), 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                let wait = bucket.until_token(rate, now);
                if wait.is_zero() {
                    bucket.take();
                    taken += 1;
                } else {
                    prop_assert!(wait <= rate.time_for(1) + Duration::from_millis(1));
                }
                let most = f64::from(calls) + (now - start).as_secs_f64() * rate.per_second();
                prop_assert!(f64::from(taken) <= most + 1e-3, "{} calls, {} allowed", taken, most);
            }
        }
    }
}
