//! Lets requests through by the groups that the consumer is in.
//!
//! Groups are those of the consumer's `acls`, with `include_consumer_groups` those of its consumer groups too, by name. Where
//! there is no consumer, or an anonymous one, groups that the authentication has from elsewhere (a directory, a session) are
//! used when there are any; with `always_use_authenticated_groups` they come first in any case. One group in `allow` is
//! enough; one in `deny` refuses. A consumer without groups passes `deny`.
//!
//! The upstream is told all groups by `X-Consumer-Groups`, or by `X-Authenticated-Groups` when they are from elsewhere, unless
//! `hide_groups_header`. What the client itself sends under these names is dropped.
//!
//! # Scope
//! Global, route, service.
//!
//! # Answers
//! | status | when |
//! |---|---|
//! | 401 | nobody has authenticated the client |
//! | 403 | the client is in no group of `allow`, or in one of `deny` |

use std::collections::HashSet;

use schema::{Check, Record, Violations};
use serde::Deserialize;

use crate::model::{Acl as AclRow, ConsumerGroup};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Reply, Scopes};

pub struct Acl {
    groups: HashSet<String, ahash::RandomState>,
    /// Whether the groups are those that are let through, not those that are refused.
    allow: bool,
    hide_groups_header: bool,
    always_use_authenticated_groups: bool,
    include_consumer_groups: bool,
}

#[derive(Clone, Debug, Deserialize, Record)]
pub struct Config {
    /// Groups that are let through.
    allow: Option<Vec<String>>,
    /// Groups that are refused.
    deny: Option<Vec<String>>,
    /// Does not tell the upstream the groups.
    #[field(default = false)]
    hide_groups_header: bool,
    /// Uses groups that the authentication has from elsewhere, when there are any, in place of the consumer's.
    #[field(default = false)]
    always_use_authenticated_groups: bool,
    /// Counts the names of the consumer's consumer groups as groups.
    #[field(sparse)]
    #[serde(default)]
    include_consumer_groups: Option<bool>,
}

impl Plugin for Acl {
    const NAME: &'static str = "acl";
    const PRIORITY: i32 = 950;
    const PHASES: Phases = Phases::ACCESS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;

    fn checks() -> Vec<Check> {
        let lists = &["config.allow", "config.deny"];
        vec![Check::only_one_of(lists), Check::at_least_one_of(lists)]
    }

    fn new(config: Config, _: &Env) -> Result<Self, Violations> {
        let allow = config.allow.unwrap_or_default();
        let deny = config.deny.unwrap_or_default();
        Ok(Self {
            allow: deny.is_empty(),
            groups: if deny.is_empty() { allow } else { deny }.into_iter().collect(),
            hide_groups_header: config.hide_groups_header,
            always_use_authenticated_groups: config.always_use_authenticated_groups,
            include_consumer_groups: config.include_consumer_groups.unwrap_or(false),
        })
    }

    async fn access(&self, x: &mut Exchange) -> Flow {
        x.request.headers.remove("x-consumer-groups");
        x.request.headers.remove("x-authenticated-groups");
        let (header, groups) = self.groups_of(x)?;
        if groups.iter().any(|group| self.groups.contains(group)) != self.allow {
            return Err(Reply::error(403, "You cannot consume this service"));
        }
        if !self.hide_groups_header {
            x.request.headers.append(header, groups.join(", "));
        }
        Ok(())
    }
}

impl Acl {
    /// The groups of the client, and the header that tells them.
    fn groups_of(&self, x: &mut Exchange) -> Result<(&'static str, Vec<String>), Reply> {
        let anonymous = x.authenticated.credential.is_none();
        let Some(consumer) = &x.authenticated.consumer else {
            return match x.authenticated.external_groups.clone() {
                Some(groups) => Ok(("X-Authenticated-Groups", groups)),
                None if anonymous => Err(Reply::error(401, "Unauthorized")),
                None => Err(Reply::error(403, "You cannot consume this service")),
            };
        };
        if let Some(groups) = &x.authenticated.external_groups
            && (anonymous || self.always_use_authenticated_groups)
        {
            return Ok(("X-Authenticated-Groups", groups.clone()));
        }
        let rows = x.world.children::<AclRow>("consumer", consumer.id);
        let mut groups: Vec<_> = rows.iter().map(|row| row.group.clone()).collect();
        if self.include_consumer_groups {
            let named = x.authenticated.groups.iter().filter_map(|id| x.world.get::<ConsumerGroup>(*id));
            groups.extend(named.map(|group| group.name.to_string()));
        }
        Ok(("X-Consumer-Groups", groups))
    }
}

#[cfg(test)]
mod tests {
    use schema::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::model::Consumer;
    use crate::plugin::exchange::Credential;
    use crate::plugin::testing::{Rows, exchange, plugin, refused, run, values};

    const BOB: &str = "c1f7cb2e-5d7c-4a43-8f2e-5a56b26d7b4b";
    const STAFF: &str = "7a0ed5f0-6b50-4c46-a1d5-0a4a3f2c1e11";

    /// Bob, who is in these groups.
    fn request(groups: &[&str]) -> Exchange {
        let mut rows = Rows::default()
            .with::<Consumer>(json!({"id": BOB, "username": "bob"}))
            .with::<ConsumerGroup>(json!({"id": STAFF, "name": "staff"}));
        for group in groups {
            rows = rows.with::<AclRow>(json!({"consumer": {"id": BOB}, "group": group}));
        }
        let mut x = exchange("GET", "/", &[("X-Consumer-Groups", "forged"), ("x-authenticated-groups", "forged")]);
        x.world = rows.world();
        x.authenticated.consumer = x.world.consumer("bob");
        x.authenticated.credential = Some(Credential { id: "1".to_owned(), consumer: None });
        x.authenticated.groups = vec![Uuid::try_parse(STAFF).unwrap()];
        x
    }

    /// The groups that the upstream is told, or the status of the answer.
    fn outcome(config: Value, x: &mut Exchange) -> Result<Vec<String>, u16> {
        run(plugin::<Acl>(config).access(x)).map_err(|reply| reply.status)?;
        let own = values(&x.request.headers, "x-consumer-groups").into_iter().map(|groups| format!("consumer: {groups}"));
        let external = values(&x.request.headers, "x-authenticated-groups").into_iter().map(|groups| format!("external: {groups}"));
        Ok(own.chain(external).collect())
    }

    #[test]
    fn groups_of_the_consumer() {
        let told = |text: &str| Ok(vec![text.to_owned()]);
        assert_eq!(outcome(json!({"allow": ["gold"]}), &mut request(&["gold", "x"])), told("consumer: gold, x"));
        assert_eq!(outcome(json!({"allow": ["gold"]}), &mut request(&["lead"])), Err(403));
        assert_eq!(outcome(json!({"allow": ["gold"]}), &mut request(&[])), Err(403));
        assert_eq!(outcome(json!({"deny": ["gold"]}), &mut request(&["gold", "x"])), Err(403));
        assert_eq!(outcome(json!({"deny": ["gold"]}), &mut request(&[])), told("consumer: "));
        assert_eq!(outcome(json!({"allow": ["gold"], "hide_groups_header": true}), &mut request(&["gold"])), Ok(vec![]));
        assert_eq!(outcome(json!({"allow": ["staff"]}), &mut request(&[])), Err(403));
        assert_eq!(outcome(json!({"allow": ["staff"], "include_consumer_groups": true}), &mut request(&["x"])), told("consumer: x, staff"));
    }

    #[test]
    fn groups_from_elsewhere() {
        let mut x = request(&["gold"]);
        x.authenticated.external_groups = Some(vec!["lead".to_owned()]);
        assert_eq!(outcome(json!({"allow": ["lead"]}), &mut x), Err(403));
        let always = json!({"allow": ["lead"], "always_use_authenticated_groups": true});
        assert_eq!(outcome(always, &mut x), Ok(vec!["external: lead".to_owned()]));
        x.authenticated.credential = None;
        assert_eq!(outcome(json!({"allow": ["lead"]}), &mut x), Ok(vec!["external: lead".to_owned()]));
        x.authenticated.consumer = None;
        assert_eq!(outcome(json!({"deny": ["lead"]}), &mut x), Err(403));
    }

    #[test]
    fn clients_that_nobody_has_authenticated() {
        for config in [json!({"allow": ["gold"]}), json!({"deny": ["gold"]})] {
            let mut x = request(&[]);
            x.authenticated.consumer = None;
            assert_eq!(outcome(config.clone(), &mut x), Err(403));
            x.authenticated.credential = None;
            assert_eq!(outcome(config, &mut x), Err(401));
        }
    }

    #[test]
    fn exactly_one_list() {
        let (one, some) = ("exactly one of these fields must be non-empty", "at least one of these fields must be non-empty");
        let texts = |texts: &[&str]| json!({"@entity": texts.iter().map(|text| format!("{text}: 'config.allow', 'config.deny'")).collect::<Vec<_>>()});
        assert_eq!(refused::<Acl>(json!({})), texts(&[one, some]));
        assert_eq!(refused::<Acl>(json!({"allow": []})), texts(&[one, some]));
        assert_eq!(refused::<Acl>(json!({"allow": ["a"], "deny": ["b"]})), texts(&[one]));
    }
}
