//! Requests a second: of a tenant, of one of its keys, and of an address that cannot show a key.

use super::rate;
use crate::http::problem::{Kind, Problem};
use http::{HeaderName, HeaderValue, header};
use reelyard_model::TenantId;
use reelyard_upload::pace::{Buckets, Rate, Refill};
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Tenants and keys that are told apart at a time, some 100 bytes each; those who were quiet for a while are forgotten.
const MOST_CALLERS: usize = 20_000;
/// The same for addresses that failed.
const MOST_ADDRESSES: usize = 50_000;
/// What may come at once, in seconds of the rate.
const BURST_SECONDS: u32 = 4;
const CREATION_BURST_SECONDS: u32 = 20;
/// Answers 401 to one address: somebody who mistypes, and a page that did not notice that its token expired. Keys have
/// 256 random bits and are not guessed; this keeps noise out of the log and work off the database.
const FAILURES: Rate = rate(2, 25);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Which key or token of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OneOf {
    /// A server without keys.
    Everybody,
    Key(uuid::Uuid),
    Token(Arc<str>),
}

/// What a caller's tenant may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    pub(crate) tenant: TenantId,
    /// Of the tenant, where the operator set it.
    pub(crate) requests_per_second: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Rates {
    requests_per_second: u32,
    creations: Rate,
    by_tenant: Mutex<Buckets<TenantId>>,
    by_caller: Mutex<Buckets<(TenantId, OneOf)>>,
    creations_by_tenant: Mutex<Buckets<TenantId>>,
    failures: Mutex<Buckets<IpAddr>>,
}

impl Rates {
    pub(super) fn new(requests_per_second: u32, creations_per_second: u32) -> Self {
        Self {
            requests_per_second,
            creations: rate(creations_per_second, CREATION_BURST_SECONDS),
            by_tenant: Mutex::new(Buckets::new(MOST_CALLERS)),
            by_caller: Mutex::new(Buckets::new(MOST_CALLERS)),
            creations_by_tenant: Mutex::new(Buckets::new(MOST_CALLERS)),
            failures: Mutex::new(Buckets::new(MOST_ADDRESSES)),
        }
    }

    /// Any request of somebody who showed a key or a token.
    pub(crate) fn request(&self, allowed: Allowed, one: OneOf, now_ms: u64) -> Result<(), Problem> {
        let per_second = allowed.requests_per_second.unwrap_or(self.requests_per_second);
        let whole = rate(per_second, BURST_SECONDS);
        // One key may have three quarters: with a key that runs wild the others of the tenant still get on.
        let share = rate((per_second / 4 * 3).max(1), BURST_SECONDS);
        open(&self.by_caller)
            .take((allowed.tenant, one), share, now_ms)
            .map_err(|refill| too_many("requests of one key", "key", share, refill))?;
        open(&self.by_tenant)
            .take(allowed.tenant, whole, now_ms)
            .map_err(|refill| too_many("requests of the tenant", "tenant", whole, refill))?;
        Ok(())
    }

    /// An upload is to be begun; the request itself was counted already.
    pub(crate) fn creation(&self, tenant: TenantId, now_ms: u64) -> Result<(), Problem> {
        open(&self.creations_by_tenant)
            .take(tenant, self.creations, now_ms)
            .map_err(|refill| too_many("uploads begun by the tenant", "creations", self.creations, refill))?;
        Ok(())
    }

    /// An answer 401 is due. Callers who can show a key are never held up by what others at their address do: only
    /// failures are counted, and only failures are refused.
    pub(crate) fn failure(&self, address: IpAddr, now_ms: u64) -> Result<(), Problem> {
        open(&self.failures).take(network_of(address), FAILURES, now_ms).map_err(|refill| {
            too_many("requests without a good key from this address", "failures", FAILURES, refill)
        })?;
        Ok(())
    }
}

/// What one party can be assumed to have: an IPv4 address, or an IPv6 network of 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// With the fields of draft-ietf-httpapi-ratelimit-headers-10.
fn too_many(what: &str, policy: &str, rate: Rate, refill: Refill) -> Problem {
    let wait = refill.wait_seconds();
    let detail = format!(
        "There are too many {what}: {} a second are allowed, {} at once. Wait {wait} s.",
        rate.per_second(),
        rate.burst()
    );
    let mut problem = Problem::new(Kind::TooManyRequests, detail)
        .with("retry_after_seconds", wait)
        .with_header(header::RETRY_AFTER, HeaderValue::from(wait));
    let fields = [
        (POLICY, format!("\"{policy}\";q={};w={}", rate.burst(), rate.fill_seconds())),
        (LIMIT, format!("\"{policy}\";r=0;t={wait}")),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            problem = problem.with_header(name, value);
        }
    }
    metrics::counter!("reelyard_http_rate_limited_total", "policy" => policy.to_owned()).increment(1);
    problem
}

fn open<Key>(buckets: &Mutex<Buckets<Key>>) -> MutexGuard<'_, Buckets<Key>> {
    // Nothing in there can panic half-way, so a poisoned map is a good map.
    buckets.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Allowed, OneOf, Rates, network_of};
    use crate::http::problem::Kind;
    use axum::response::IntoResponse;
    use reelyard_model::TenantId;
    use uuid::Uuid;

    const ALLOWED: Allowed = Allowed { tenant: TenantId::DEFAULT, requests_per_second: None };

    #[test]
    fn one_key_does_not_use_up_what_the_others_of_its_tenant_have() {
        let rates = Rates::new(4, 1);
        let [wild, other] = [1, 2].map(|number| OneOf::Key(Uuid::from_u128(number)));
        let passed = (0..100).filter(|_| rates.request(ALLOWED, wild.clone(), 0).is_ok()).count();
        assert_eq!(passed, 12);
        let passed = (0..100).filter(|_| rates.request(ALLOWED, other.clone(), 0).is_ok()).count();
        assert_eq!(passed, 4, "what the tenant has left");
    }

    #[test]
    fn a_tenant_s_own_limit_counts_and_another_tenant_is_not_touched() {
        let rates = Rates::new(1000, 1000);
        let limited = Allowed { requests_per_second: Some(1), ..ALLOWED };
        let passed = (0..100).filter(|_| rates.request(limited, OneOf::Everybody, 0).is_ok()).count();
        assert_eq!(passed, 4);
        let other = Allowed { tenant: TenantId::from_uuid(Uuid::from_u128(9)), ..ALLOWED };
        assert!(rates.request(other, OneOf::Everybody, 0).is_ok());
        assert!(rates.request(limited, OneOf::Everybody, 1000).is_ok());
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let rates = Rates::new(100, 1);
        let refused = (0..100).find_map(|_| rates.creation(TenantId::DEFAULT, 0).err()).unwrap();
        assert_eq!(refused.kind(), Kind::TooManyRequests);
        let response = refused.into_response();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 429);
        assert_eq!(header("retry-after"), "1");
        assert_eq!(header("ratelimit-policy"), "\"creations\";q=20;w=20");
        assert_eq!(header("ratelimit"), "\"creations\";r=0;t=1");
    }

    #[test]
    fn addresses_are_told_apart_as_far_as_one_party_has_them() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:aaaa::1"), network("2001:db8:1:2:bbbb::2"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
