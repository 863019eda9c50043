//! Bytes per second, per tenant and signal: token buckets.
//!
//! A request larger than the burst passes when the bucket is full, and leaves it in debt: a batch that can never pass would be
//! sent again for ever.

use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use triptych_model::{Signal, TenantId};

/// Most buckets kept. A full bucket is the same as none, so those go first.
const BUCKETS_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at_ns: i64,
    /// When it will be full again, as far as is known.
    full_at_ns: i64,
}

#[derive(Debug, Default)]
pub struct RateLimiter(Mutex<HashMap<(TenantId, Signal), Bucket>>);

impl RateLimiter {
    /// Takes `bytes`, or says how long to wait. `rate` of this process in bytes per second, 0: no limit; `burst` 0: as much as the rate.
    pub fn take(
        &self,
        tenant: &TenantId,
        signal: Signal,
        bytes: u64,
        (rate, burst): (u64, u64),
        now_ns: i64,
    ) -> Result<(), Duration> {
        if rate == 0 {
            return Ok(());
        }
        let (rate, burst) = (rate as f64, if burst == 0 { rate } else { burst } as f64);
        let mut buckets = self.0.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&(tenant.clone(), signal)) {
            buckets.retain(|_, bucket| bucket.full_at_ns > now_ns);
            if buckets.len() >= BUCKETS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry((tenant.clone(), signal)).or_insert(Bucket {
            tokens: burst,
            at_ns: now_ns,
            full_at_ns: now_ns,
        });
        let passed_s = now_ns.saturating_sub(bucket.at_ns).max(0) as f64 / 1e9;
        bucket.tokens = (bucket.tokens + passed_s * rate).min(burst);
        bucket.at_ns = bucket.at_ns.max(now_ns);
        let bytes = bytes as f64;
        let wanted = bytes.min(burst);
        let taken = if bucket.tokens >= wanted {
            bucket.tokens -= bytes;
            Ok(())
        } else {
            Err(Duration::from_secs_f64(((wanted - bucket.tokens) / rate).clamp(0.001, 3600.0)))
        };
        let fill_s = (burst - bucket.tokens) / rate;
        bucket.full_at_ns = bucket.at_ns.saturating_add((fill_s * 1e9) as i64);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn buckets_fill_and_empty() {
        let limiter = RateLimiter::default();
        let tenant = TenantId::single();
        let take = |bytes, now| limiter.take(&tenant, Signal::Logs, bytes, (100, 200), now);
        assert_eq!(take(200, 0), Ok(()));
        assert_eq!(take(50, 0), Err(Duration::from_millis(500)));
        assert_eq!(take(50, S / 2), Ok(()));
        // Larger than the burst: passes when full, then the debt is paid back.
        assert!(take(1000, S).is_err());
        assert_eq!(take(1000, 10 * S), Ok(()));
        assert_eq!(take(1, 17 * S), Err(Duration::from_millis(1010)));
        assert_eq!(take(1, 19 * S), Ok(()));
        // Other signals and tenants are not touched, no rate means no limit.
        assert!(limiter.take(&tenant, Signal::Traces, 200, (100, 0), 0).is_ok());
        assert_eq!(limiter.take(&tenant, Signal::Logs, u64::MAX, (0, 0), 0), Ok(()));
    }

    #[test]
    fn tenants_are_bounded() {
        let limiter = RateLimiter::default();
        let take = |i: usize, bytes, now| {
            let tenant = TenantId::new(&format!("t{i}")).unwrap();
            limiter.take(&tenant, Signal::Logs, bytes, (100, 100), now)
        };
        for i in 0..BUCKETS_MAX {
            take(i, 100, 0).unwrap();
        }
        assert!(take(BUCKETS_MAX, 1, 0).is_err(), "all buckets are in use");
        assert!(take(BUCKETS_MAX, 1, 2 * S).is_ok(), "full ones are forgotten");
        assert_eq!(limiter.0.lock().len(), 1);
    }
}
