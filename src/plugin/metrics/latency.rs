//! The histograms of the latencies of a route, in the numbers of one cell: for each, its buckets, what is above the last, and
//! the sum.

use super::series::Cell;
use crate::plugin::record::Latencies;

/// Upper bounds in milliseconds of what the gateway takes.
const KONG: &[u64] = &[1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000];
/// Of what the upstream takes, and of the whole.
const UPSTREAM: &[u64] = &[25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000];

/// One histogram.
pub struct Latency {
    /// `request`, `kong`, `upstream`
    pub kind: &'static str,
    pub help: &'static str,
    pub bounds: &'static [u64],
    /// Where its numbers begin.
    start: usize,
}

/// The histograms, in the order of their names.
pub static LATENCIES: [Latency; 3] = [
    Latency { kind: "kong", help: "Latency added by Kong and enabled plugins for each service/route in Kong", bounds: KONG, start: 0 },
    Latency {
        kind: "request",
        help: "Total latency incurred during requests for each service/route in Kong",
        bounds: UPSTREAM,
        start: KONG.len() + 2,
    },
    Latency {
        kind: "upstream",
        help: "Latency added by upstream response for each service/route in Kong",
        bounds: UPSTREAM,
        start: KONG.len() + UPSTREAM.len() + 4,
    },
];

/// How many numbers they are.
pub const WIDTH: usize = KONG.len() + 2 * UPSTREAM.len() + 6;

impl Latency {
    fn observe(&self, cell: &Cell, milliseconds: u64) {
        cell.add(self.start + self.bounds.partition_point(|bound| *bound < milliseconds), 1);
        cell.add(self.start + self.bounds.len() + 1, milliseconds);
    }

    /// Counts of the buckets, the last above all bounds, and the sum.
    pub fn of<'n>(&self, numbers: &'n [u64]) -> (&'n [u64], u64) {
        let end = self.start + self.bounds.len() + 1;
        (numbers.get(self.start..end).unwrap_or_default(), numbers.get(end).copied().unwrap_or_default())
    }
}

/// Counts a request; what the upstream took only where one was asked.
pub fn observe(cell: &Cell, latencies: &Latencies) {
    let [kong, request, upstream] = &LATENCIES;
    kong.observe(cell, latencies.kong);
    request.observe(cell, latencies.request);
    if let Ok(proxy) = u64::try_from(latencies.proxy) {
        upstream.observe(cell, proxy);
    }
}
