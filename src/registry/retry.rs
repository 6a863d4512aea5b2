//! What is worth another try, and how long to wait before it.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A registry that asks for more patience than this is not waited for.
const LONGEST_REQUESTED_DELAY: Duration = Duration::from_secs(120);

/// How often and how patiently a failed exchange is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// How often something is tried in all, at least once.
    pub attempts: u32,
    /// The wait before the second try; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait, unless the registry asks for more.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 6,
            first_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(20),
        }
    }
}

/// Counts failures and sleeps between tries.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    pub fn new(policy: RetryPolicy) -> Backoff {
        Backoff {
            policy,
            failures: 0,
        }
    }

    /// Forgets earlier failures, since there was progress.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Sleeps until the next try is due, for at least `requested`. Returns false where
    /// there is to be none: the budget is used up, or the registry asks for too long a wait.
    pub fn wait(&mut self, requested: Option<Duration>) -> bool {
        let Some(delay) = self.next_delay(requested) else {
            return false;
        };
        std::thread::sleep(delay);
        true
    }

    fn next_delay(&mut self, requested: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            return None;
        }
        let requested = requested.unwrap_or_default();
        if requested > LONGEST_REQUESTED_DELAY {
            return None;
        }
        let doublings = (self.failures - 1).min(16);
        let delay = self.policy.first_delay.saturating_mul(1 << doublings);
        let delay = delay.min(self.policy.max_delay);
        // Jitter keeps parallel downloads that were cut together from returning together.
        Some(delay.mul_f64(0.5 + 0.5 * random_fraction()).max(requested))
    }
}

/// Returns a number in 0..1. The standard library seeds its hash maps at random, which is
/// random enough to spread retries and spares a dependency.
fn random_fraction() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Returns the wait that a `Retry-After` header asks for, in seconds or until a date.
/// See <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(value)
        .ok()?;
    let date = Duration::from_secs(u64::try_from(date.as_second()).ok()?);
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(100),
        max_delay: Duration::from_millis(150),
    };

    #[test]
    fn delays_grow_with_jitter_up_to_the_limit_and_end() {
        let mut backoff = Backoff::new(POLICY);
        let first = backoff.next_delay(None).unwrap();
        assert!((50..=100).contains(&first.as_millis()), "{first:?}");
        for _ in 0..2 {
            let next = backoff.next_delay(None).unwrap();
            assert!((75..=150).contains(&next.as_millis()), "{next:?}");
        }
        assert_eq!(backoff.next_delay(None), None);
        backoff.reset();
        assert!(backoff.next_delay(None).is_some());
    }

    #[test]
    fn the_registrys_wish_is_the_least_wait_but_no_hours() {
        let mut backoff = Backoff::new(POLICY);
        let wish = Duration::from_secs(7);
        assert_eq!(backoff.next_delay(Some(wish)), Some(wish));
        assert_eq!(backoff.next_delay(Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        let parse = |text| parse_retry_after(text, now);
        assert_eq!(parse(" 12 "), Some(Duration::from_secs(12)));
        // 2015-10-21 07:28:00 UTC is the given instant.
        assert_eq!(
            parse("Wed, 21 Oct 2015 07:28:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(parse("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse("soon"), None);
        assert_eq!(parse("-1"), None);
    }
}
