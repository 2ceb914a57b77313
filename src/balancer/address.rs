//! Addresses: what a request is sent to, with the state that outlives rings and configurations.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock::nanos;
use super::health::{Health, Limits, Outcome};

/// Names an address for as long as its state lives, for the list of those that a request has tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u32);

/// One address of a target, or one SRV record of it.
#[derive(Debug)]
pub struct Address {
    /// As health output shows it: an address, or the name in an SRV record.
    pub ip: Arc<str>,
    pub port: u16,
    pub weight: u32,
    /// Name of the target.
    pub target: Arc<str>,
    /// Where connections go; several for an SRV record whose target has several.
    pub ips: Box<[IpAddr]>,
    /// The name to resolve for each request, where the records said not to keep them.
    pub transient: bool,
    /// Name for the Host header, without a port.
    pub host: Arc<str>,
    plain_host: Arc<str>,
    tls_host: Arc<str>,
    pub vitals: Arc<Vitals>,
}

impl Address {
    pub fn new(ip: Arc<str>, port: u16, weight: u32, target: Arc<str>, ips: Box<[IpAddr]>, host: Arc<str>, vitals: Arc<Vitals>) -> Self {
        let with_port: Arc<str> = format!("{host}:{port}").into();
        let plain_host = if port == 80 { host.clone() } else { with_port.clone() };
        let tls_host = if port == 443 { host.clone() } else { with_port };
        Self { ip, port, weight, target, ips, transient: false, host, plain_host, tls_host, vitals }
    }

    pub fn id(&self) -> PeerId {
        self.vitals.id
    }

    /// The Host header, unless the route preserves the client's: with the port where it is not the scheme's own.
    pub fn host_header(&self, tls: bool) -> &str {
        if tls { &self.tls_host } else { &self.plain_host }
    }

    pub fn available(&self) -> bool {
        self.vitals.health().available()
    }

    /// The next address to connect to.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let ip = match &*self.ips {
            [ip] => *ip,
            ips => {
                let turn = self.vitals.turn.fetch_add(1, Ordering::Relaxed) as usize;
                *ips.get(turn % ips.len().max(1))?
            }
        };
        Some(SocketAddr::new(ip, self.port))
    }
}

/// What is known of an address from traffic and probes. Kept when rings are built anew.
#[derive(Debug)]
pub struct Vitals {
    pub id: PeerId,
    health: AtomicU64,
    connections: AtomicU32,
    turn: AtomicU32,
    /// Moving average of latency in seconds, as the bits of a float.
    latency: AtomicU64,
    /// When the average was last changed, in nanoseconds of the clock.
    touched: AtomicU64,
    /// Probes and their results.
    pub probes: ProbeCounts,
}

#[derive(Debug, Default)]
pub struct ProbeCounts {
    pub successes: AtomicU64,
    pub failures: AtomicU64,
}

/// Time in which the average forgets two thirds of what it knew.
const DECAY: f64 = 10.0;

impl Default for Vitals {
    fn default() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: PeerId(NEXT.fetch_add(1, Ordering::Relaxed)),
            health: AtomicU64::new(Health::default().pack()),
            connections: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            touched: AtomicU64::new(0),
            probes: ProbeCounts::default(),
        }
    }
}

impl Vitals {
    pub fn health(&self) -> Health {
        Health::unpack(self.health.load(Ordering::Acquire))
    }

    /// Takes an outcome into account; the health before and after it.
    pub fn report(&self, outcome: Outcome, limits: &Limits) -> (Health, Health) {
        let mut before = Health::unpack(self.health.load(Ordering::Acquire));
        loop {
            let after = before.after(outcome, limits);
            if after == before {
                return (before, after);
            }
            match self.health.compare_exchange_weak(before.pack(), after.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (before, after),
                Err(now) => before = Health::unpack(now),
            }
        }
    }

    /// Sets the state by hand; the health before.
    pub fn set(&self, healthy: bool) -> Health {
        Health::unpack(self.health.swap(Health::of(healthy).pack(), Ordering::AcqRel))
    }

    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The moving average of latency, in seconds, as it has faded by now.
    pub fn latency(&self, now: Instant) -> f64 {
        let known = f64::from_bits(self.latency.load(Ordering::Relaxed));
        known * self.fading(now)
    }

    /// Takes the latency of a try into account. Two at the same instant may lose one of them.
    pub fn observe(&self, latency: Duration, now: Instant) {
        let fading = self.fading(now);
        let known = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let average = known * fading + latency.as_secs_f64() * (1.0 - fading);
        self.latency.store(average.to_bits(), Ordering::Relaxed);
        self.touched.store(nanos(now), Ordering::Relaxed);
    }

    /// Starts the average at that of others, so that a new address is not flooded.
    pub fn start_at(&self, average: f64, now: Instant) {
        self.latency.store(average.to_bits(), Ordering::Relaxed);
        self.touched.store(nanos(now), Ordering::Relaxed);
    }

    fn fading(&self, now: Instant) -> f64 {
        let since = nanos(now).saturating_sub(self.touched.load(Ordering::Relaxed));
        (-(since as f64 / 1e9) / DECAY).exp()
    }
}

/// An address that was picked for a try, until it is dropped: meanwhile it counts as a connection.
#[derive(Debug)]
pub struct Peer {
    address: Arc<Address>,
    pub addr: SocketAddr,
    counted: bool,
}

impl Peer {
    pub(super) fn new(address: Arc<Address>, addr: SocketAddr, counted: bool) -> Self {
        if counted {
            address.vitals.connections.fetch_add(1, Ordering::Relaxed);
        }
        Self { address, addr, counted }
    }
}

impl Deref for Peer {
    type Target = Address;

    fn deref(&self) -> &Address {
        &self.address
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.counted {
            self.address.vitals.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Address, Vitals};

    #[test]
    fn host_headers_carry_a_port_that_is_not_the_schemes() {
        for (port, plain, tls) in [(80, "a.test", "a.test:80"), (443, "a.test:443", "a.test"), (9100, "a.test:9100", "a.test:9100")] {
            let address = Address::new("10.0.0.1".into(), port, 1, "a.test".into(), Box::new([]), "a.test".into(), Arc::default());
            assert_eq!((address.host_header(false), address.host_header(true)), (plain, tls));
        }
    }

    #[test]
    fn the_average_follows_and_fades() {
        let vitals = Vitals::default();
        let start = Instant::now();
        vitals.start_at(0.0, start);
        for second in 1..=60 {
            vitals.observe(Duration::from_millis(200), start + Duration::from_secs(second));
        }
        let at = start + Duration::from_secs(60);
        assert!((0.19..=0.2).contains(&vitals.latency(at)), "{}", vitals.latency(at));
        let later = vitals.latency(at + Duration::from_secs(10));
        assert!((later / vitals.latency(at) - (-1.0f64).exp()).abs() < 1e-6);
    }
}
