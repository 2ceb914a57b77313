//! Lets requests through by the address of the client.
//!
//! An address in `deny` is refused; with `allow` every other address that is not in it is refused too. Entries are addresses
//! or blocks (`10.0.0.0/8`), of IPv4 or IPv6; an IPv4 address that is written as IPv6 is the IPv4 address. The client's address
//! is the one after `trusted_ips` and `real_ip_header` were taken into account.
//!
//! # Scope
//! Global, route, service, consumer, consumer group.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | `status` (403) | the address is refused: `message`, or `IP address not allowed: <address>` |

use std::net::IpAddr;

use ipnet::IpNet;
use schema::types::IpOrCidr;
use schema::{Check, Record, Violations};
use serde::Deserialize;

use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply};

pub struct IpRestriction {
    allow: Option<Ranges>,
    deny: Ranges,
    status: u16,
    message: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Addresses and blocks that are let through.
    allow: Option<Vec<IpOrCidr>>,
    /// Addresses and blocks that are refused.
    deny: Option<Vec<IpOrCidr>>,
    /// Status of the answer; 403 when absent.
    status: Option<f64>,
    /// Message of the answer.
    message: Option<String>,
}

impl Plugin for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const PRIORITY: i32 = 990;
    const PHASES: Phases = Phases::ACCESS;
    const PROTOCOLS: &'static [&'static str] = &["http", "https", "tcp", "tls", "grpc", "grpcs"];
    const ALLOWED_PROTOCOLS: &'static [&'static str] = &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
    type Config = Config;

    fn checks() -> Vec<Check> {
        vec![Check::at_least_one_of(&["config.allow", "config.deny"])]
    }

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let status = config.status.map_or(403, |status| status as u16);
        Ok(Self {
            allow: config.allow.filter(|list| !list.is_empty()).map(|list| Ranges::new(&list)),
            deny: Ranges::new(config.deny.as_deref().unwrap_or_default()),
            status: if (200..=599).contains(&status) { status } else { 403 },
            message: config.message,
        })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        let address = x.client.ip;
        if !self.deny.contain(address) && self.allow.as_ref().is_none_or(|allow| allow.contain(address)) {
            return Ok(());
        }
        let message = self.message.clone().unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Err(Reply::error(self.status, message))
    }
}

/// A set of addresses: disjoint ranges in order, of each family.
#[derive(Debug)]
struct Ranges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn new(list: &[IpOrCidr]) -> Self {
        let nets: Vec<IpNet> = list.iter().filter_map(|text| net(text)).collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in IpNet::aggregate(&nets) {
            let list = if net.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            list.push((number(net.network()), number(net.broadcast())));
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4, v6 }
    }

    fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let address = number(address);
        let after = ranges.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
    }
}

fn net(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => text.parse().ok(),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};

    use super::*;
    use crate::plugin::testing::{exchange, message, plugin, refused, run};

    fn outcome(config: Value, address: &str) -> Result<(), (u16, String)> {
        let mut x = exchange("GET", "/", &[]);
        x.client.ip = address.parse().unwrap();
        run(plugin::<IpRestriction>(config).access(&mut x)).map_err(|reply| (reply.status, message(&reply).to_owned()))
    }

    fn passes(config: Value, address: &str) -> bool {
        outcome(config, address).is_ok()
    }

    #[test]
    fn lists() {
        let allow = || json!({"allow": ["127.0.0.1/32", "::1", "2001:db8::/32", "10.1.2.3/8"]});
        for (address, let_through) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("::1", true),
            ("2001:db8:1::5", true),
            ("2001:db9::", false),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("::ffff:127.0.0.1", true),
        ] {
            assert_eq!(passes(allow(), address), let_through, "{address}");
        }
        let both = || json!({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.0/30", "::ffff:127.0.0.9"]});
        for (address, let_through) in [("127.0.0.1", false), ("127.0.0.4", true), ("127.0.0.9", false), ("1.1.1.1", false)] {
            assert_eq!(passes(both(), address), let_through, "{address}");
        }
        assert!(passes(json!({"deny": ["10.0.0.0/8"]}), "127.0.0.1"));
        assert!(passes(json!({"allow": ["0.0.0.0/0"]}), "127.0.0.1") && !passes(json!({"allow": ["0.0.0.0/0"]}), "::1"));
    }

    #[test]
    fn answers() {
        let denied = || json!({"deny": ["127.0.0.1"]});
        assert_eq!(outcome(denied(), "127.0.0.1"), Err((403, "IP address not allowed: 127.0.0.1".to_owned())));
        let own = json!({"deny": ["127.0.0.1"], "status": 418, "message": "no"});
        assert_eq!(outcome(own, "127.0.0.1"), Err((418, "no".to_owned())));
        assert_eq!(outcome(json!({"deny": ["127.0.0.1"], "status": 1000}), "127.0.0.1").unwrap_err().0, 403);
    }

    #[test]
    fn bad_configurations() {
        let neither = "at least one of these fields must be non-empty: 'config.allow', 'config.deny'";
        assert_eq!(refused::<IpRestriction>(json!({})), json!({"@entity": [neither]}));
        assert_eq!(
            refused::<IpRestriction>(json!({"allow": ["1.2.3"]})),
            json!({"config": {"allow": ["invalid ip or cidr range: '1.2.3'"]}})
        );
    }
}
