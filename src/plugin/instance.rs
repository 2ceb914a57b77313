//! A configured plugin behind one object-safe face, and what is known of a plugin without a configuration.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use schema::{Check, Chosen, Field, Record, RecordType, Violations};
use serde_json::Value;

use crate::plugin::panics::{guard, guard_sync};
use crate::plugin::{Env, Exchange, Flow, Phases, Plugin, Scopes};

/// What is known of a plugin without a configuration: one row of the table in `plugins/mod.rs`.
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub name: &'static str,
    pub priority: i32,
    pub phases: Phases,
    pub scopes: Scopes,
    pub changes_body: bool,
    pub protocols: &'static [&'static str],
    pub allowed_protocols: &'static [&'static str],
    pub config: fn() -> &'static Record,
    pub checks: fn() -> Vec<Check>,
    build: fn(Value, &Env) -> Result<Arc<dyn Hooks>, Violations>,
}

impl Descriptor {
    pub const fn of<P: Plugin>() -> Self {
        Self {
            name: P::NAME,
            priority: P::PRIORITY,
            phases: P::PHASES,
            scopes: P::SCOPES,
            changes_body: P::CHANGES_BODY,
            protocols: P::PROTOCOLS,
            allowed_protocols: P::ALLOWED_PROTOCOLS,
            config: <P::Config as RecordType>::record,
            checks: P::checks,
            build: build::<P>,
        }
    }

    /// What a row of this plugin has beyond the general schema of plugin rows.
    pub fn chosen(&self) -> Chosen {
        let null = |name| Field::foreign("").named(name).nullable().equals(Value::Null);
        let mut fields = Vec::new();
        for (allowed, name, parent) in [
            (self.scopes.route, "route", "routes"),
            (self.scopes.service, "service", "services"),
            (self.scopes.consumer, "consumer", "consumers"),
            (self.scopes.consumer_group, "consumer_group", "consumer_groups"),
        ] {
            if !allowed {
                let field = null(name).parent(parent).cascade();
                fields.push(if name == "consumer_group" { field.sparse() } else { field });
            }
        }
        let protocols = <schema::types::Set<String> as schema::FieldType>::field().named("protocols");
        fields.push(protocols.default(self.protocols.into()).elements(|e| e.one_of(self.allowed_protocols)));
        Chosen { config: Some((self.config)()), fields, checks: (self.checks)() }
    }

    /// Builds an instance from a validated configuration.
    pub fn instance(&'static self, config: Value, env: &Env) -> Result<Instance, Violations> {
        Ok(Instance { descriptor: self, id: env.id, hooks: (self.build)(config, env)? })
    }
}

fn build<P: Plugin>(config: Value, env: &Env) -> Result<Arc<dyn Hooks>, Violations> {
    let config = schema::read(<P::Config as RecordType>::record(), config).map_err(|e| Violations::entity(e.to_string()))?;
    Ok(Arc::new(P::new(config, env)?))
}

/// A configured plugin.
#[derive(Clone)]
pub struct Instance {
    pub descriptor: &'static Descriptor,
    /// Id of the plugin row.
    pub id: uuid::Uuid,
    hooks: Arc<dyn Hooks>,
}

impl Instance {
    pub async fn rewrite(&self, x: &mut Exchange) -> Flow {
        guard(self.descriptor.name, self.hooks.rewrite(x)).await
    }

    pub async fn access(&self, x: &mut Exchange) -> Flow {
        guard(self.descriptor.name, self.hooks.access(x)).await
    }

    pub fn header_filter(&self, x: &mut Exchange) {
        guard_sync(self.descriptor.name, || self.hooks.header_filter(x));
    }

    pub fn body_filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool) {
        guard_sync(self.descriptor.name, || self.hooks.body_filter(x, chunk, last));
    }

    pub fn log(&self, x: &mut Exchange) {
        guard_sync(self.descriptor.name, || self.hooks.log(x));
    }
}

type Hook<'a> = Pin<Box<dyn Future<Output = Flow> + 'a>>;

/// [`Plugin`] without its associated items, so that instances of all plugins stand in one list.
trait Hooks: Send + Sync {
    fn rewrite<'a>(&'a self, x: &'a mut Exchange) -> Hook<'a>;
    fn access<'a>(&'a self, x: &'a mut Exchange) -> Hook<'a>;
    fn header_filter(&self, x: &mut Exchange);
    fn body_filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool);
    fn log(&self, x: &mut Exchange);
}

impl<P: Plugin> Hooks for P {
    fn rewrite<'a>(&'a self, x: &'a mut Exchange) -> Hook<'a> {
        Box::pin(Plugin::rewrite(self, x))
    }

    fn access<'a>(&'a self, x: &'a mut Exchange) -> Hook<'a> {
        Box::pin(Plugin::access(self, x))
    }

    fn header_filter(&self, x: &mut Exchange) {
        Plugin::header_filter(self, x);
    }

    fn body_filter(&self, x: &mut Exchange, chunk: &mut Bytes, last: bool) {
        Plugin::body_filter(self, x, chunk, last);
    }

    fn log(&self, x: &mut Exchange) {
        Plugin::log(self, x);
    }
}
