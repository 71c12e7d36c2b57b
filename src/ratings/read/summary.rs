//! How a tenant's models and adapters are liked.

use serde::Serialize;
use sqlx::Row as _;
use tenantry_types::TenantId;

use super::{ReadError, Reader};

/// Of the normal distribution, for 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// What ratings that hold (superseded ones do not) say of one model and one
/// revision of its adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub tenant: String,
    /// `None`: the generations' own events are not kept here.
    pub model: Option<String>,
    pub base: Option<String>,
    pub revision: Option<Revision>,
    pub ratings: u64,
    /// Ratings with a thumb.
    pub thumbs: u64,
    /// The share of thumbs that are up, 0 to 1.
    pub thumbs_up: Option<f64>,
    pub thumbs_up_interval: Option<Interval>,
    /// Ratings with a score.
    pub scores: u64,
    pub mean_score: Option<f64>,
    /// Against the revision before, of the same model and adapter.
    pub change: Option<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revision {
    pub adapter: String,
    pub number: u32,
}

/// Within which a share is with 95 % confidence (Wilson, JASA 22, 1927).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Differences; `None` where one of the two has no such ratings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The revision compared with.
    pub since: u32,
    pub thumbs_up: Option<f64>,
    pub mean_score: Option<f64>,
}

// === impl Reader ===

impl Reader {
    /// Of one tenant or of all, by tenant, model, adapter and revision.
    pub async fn summary(&self, tenant: Option<&TenantId>) -> Result<Vec<Summary>, ReadError> {
        let rows = sqlx::query(
            "SELECT r.tenant, g.model, g.base, g.adapter, g.revision,
                    COUNT(*), COUNT(r.thumb), COALESCE(SUM(r.thumb), 0), COUNT(r.score), COALESCE(SUM(r.score), 0)
             FROM ratings AS r LEFT JOIN generations AS g ON g.id = r.generation AND g.tenant = r.tenant
             WHERE r.superseded = 0 AND (?1 IS NULL OR r.tenant = ?1)
             GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 4, 5, 3",
        )
        .bind(tenant.map(TenantId::as_str))
        .fetch_all(&self.log().pool)
        .await?;
        let mut summaries: Vec<Summary> = Vec::with_capacity(rows.len());
        for row in rows {
            let adapter: Option<String> = row.try_get(3)?;
            let number: Option<u32> = row.try_get(4)?;
            let (ratings, thumbs, up, scores, sum): (i64, i64, i64, i64, i64) =
                (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?, row.try_get(9)?);
            let mut summary = Summary {
                tenant: row.try_get(0)?,
                model: row.try_get(1)?,
                base: row.try_get(2)?,
                revision: adapter.zip(number).map(|(adapter, number)| Revision { adapter, number }),
                ratings: ratings.unsigned_abs(),
                thumbs: thumbs.unsigned_abs(),
                thumbs_up: (thumbs > 0).then(|| up as f64 / thumbs as f64),
                thumbs_up_interval: Interval::wilson(up.unsigned_abs(), thumbs.unsigned_abs()),
                scores: scores.unsigned_abs(),
                mean_score: (scores > 0).then(|| sum as f64 / scores as f64),
                change: None,
            };
            summary.change = summaries.last().and_then(|before| summary.since(before));
            summaries.push(summary);
        }
        Ok(summaries)
    }
}

// === impl Summary ===

impl Summary {
    fn since(&self, before: &Self) -> Option<Change> {
        let (now, then) = (self.revision.as_ref()?, before.revision.as_ref()?);
        let same = self.tenant == before.tenant && self.model == before.model && now.adapter == then.adapter;
        let difference = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        (same && now.number != then.number).then(|| Change {
            since: then.number,
            thumbs_up: difference(self.thumbs_up, before.thumbs_up),
            mean_score: difference(self.mean_score, before.mean_score),
        })
    }
}

// === impl Interval ===

impl Interval {
    /// Of `hits` in `all`; `None` of none.
    pub fn wilson(hits: u64, all: u64) -> Option<Self> {
        if all == 0 {
            return None;
        }
        let (n, share) = (all as f64, hits as f64 / all as f64);
        let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let (middle, scale) = (share + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
        // Where all are alike the end is exact, which rounding would not show.
        let low = if hits == 0 { 0.0 } else { ((middle - spread) / scale).max(0.0) };
        let high = if hits == all { 1.0 } else { ((middle + spread) / scale).min(1.0) };
        Some(Self { low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn intervals_are_wilsons() {
        // As in Newcombe, Statistics in Medicine 17, 1998, table I: 81/263, 15/148, 0/20, 1/29.
        for (hits, all, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let interval = Interval::wilson(hits, all).expect("some");
            assert!((interval.low - low).abs() < 5e-5 && (interval.high - high).abs() < 5e-5, "{interval:?}");
        }
        assert_eq!(Interval::wilson(0, 0), None);
        for all in 1..200 {
            assert_eq!(Interval::wilson(all, all).map(|it| it.high), Some(1.0), "{all}");
            assert_eq!(Interval::wilson(0, all).map(|it| it.low), Some(0.0), "{all}");
        }
    }

    proptest! {
        #[test]
        fn an_interval_holds_the_share(hits in 0_u64..1000, more in 0_u64..1000) {
            prop_assume!(hits + more > 0);
            let interval = Interval::wilson(hits, hits + more).expect("some");
            let share = hits as f64 / (hits + more) as f64;
            prop_assert!(0.0 <= interval.low && interval.low <= share + 1e-12);
            prop_assert!(share <= interval.high + 1e-12 && interval.high <= 1.0);
        }
    }
}
