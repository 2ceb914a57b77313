//! Change -> plan: what a change does to which rows, or why it is refused.
//!
//! A plan is worked out on a clone of the catalog, so that its later steps see the earlier ones and nothing else does.

use std::sync::Arc;

use schema::{Context, EntitySchema, Object, Value, Violations, json, validate};
use uuid::Uuid;

use super::{Catalog, Change, Edit, Key, Outcome, Plan, Row, Scope, WriteError, Written, row, table};
use crate::model;

/// Greatest `ttl`, in seconds.
const LONGEST_TTL: f64 = 100_000_000.0;

impl Catalog {
    /// Works out a change. Pure: the catalog stays as it is, the plan holds the next version.
    pub fn plan(&self, change: Change, context: &Context) -> Result<Plan, WriteError> {
        let mut draft = Draft { catalog: self.clone(), edits: Vec::new(), context };
        let outcome = draft.make(change)?;
        let Draft { catalog: next, edits, .. } = draft;
        #[cfg(debug_assertions)]
        next.check_edits(&edits);
        Ok(Plan { edits, outcome, next })
    }
}

impl Plan {
    /// What the Admin API is told, once the plan is in effect.
    pub fn written(&self) -> Written {
        match &self.outcome {
            Outcome::Nothing => Written::default(),
            Outcome::Created(row) => Written { shown: Some(self.next.shown(row)), created: true },
            Outcome::Updated(row) => Written { shown: Some(self.next.shown(row)), created: false },
        }
    }
}

/// A version in the making.
pub(super) struct Draft<'a> {
    pub catalog: Catalog,
    pub edits: Vec<Edit>,
    pub context: &'a Context<'a>,
}

impl Draft<'_> {
    fn make(&mut self, change: Change) -> Result<Outcome, WriteError> {
        match change {
            Change::Create { entity, input } => self.create(entity, input).map(Outcome::Created),
            Change::Upsert { entity, key, scope, input } => self.upsert(entity, key, scope, input),
            Change::Update { entity, key, scope, input } => self.update(entity, key, scope, input).map(Outcome::Updated),
            Change::Delete { entity, key, scope } => {
                if let Some(id) = self.catalog.select(entity.name, &key, scope).map(|row| row.id) {
                    self.delete(entity, id)?;
                }
                Ok(Outcome::Nothing)
            }
            Change::All(changes) => {
                changes.into_iter().try_for_each(|change| self.make(change).map(drop))?;
                Ok(Outcome::Nothing)
            }
            Change::Import(rows) => self.import(rows).map(|()| Outcome::Nothing),
            Change::Replace(rows) => self.replace(rows).map(|()| Outcome::Nothing),
            Change::Sweep => {
                let now = row::now();
                let ended = self.catalog.ended(now);
                ended.into_iter().for_each(|(entity, id)| self.remove(entity, id));
                Ok(Outcome::Nothing)
            }
        }
    }

    fn create(&mut self, entity: &'static EntitySchema, mut input: Object) -> Result<Arc<Row>, WriteError> {
        self.resolve_parents(entity, &mut input)?;
        let names = self.asked_snis(entity, None, &input)?;
        let extras = Extras::take(entity, &mut input);
        let body = extras.check(validate::insert(entity, input, self.context))?;
        let id = id_of(&body)?;
        if self.catalog.get(entity.name, &id).is_some() {
            return Err(WriteError::primary_key_violation(id));
        }
        self.finish(entity, id, body, extras.end(None), names)
    }

    fn upsert(&mut self, entity: &'static EntitySchema, key: Key, scope: Option<Scope>, mut input: Object) -> Result<Outcome, WriteError> {
        key.check(entity)?;
        let existing = self.catalog.select(entity.name, &key, scope).cloned();
        let id = match (&key, &existing) {
            (Key::Id(id), None) if self.catalog.get(entity.name, id).is_some() => return Err(WriteError::not_found(*id)),
            (Key::Id(id), _) => Some(*id),
            (Key::Unique { field, value }, existing) => {
                input.insert((*field).to_owned(), value.clone().into());
                existing.as_ref().map(|row| row.id)
            }
        };
        if let Some(id) = id {
            input.insert("id".to_owned(), id.to_string().into());
        }
        self.resolve_parents(entity, &mut input)?;
        let names = self.asked_snis(entity, id, &input)?;
        let extras = Extras::take(entity, &mut input);
        let body = extras.check(validate::upsert(entity, input, self.context))?;
        let id = id_of(&body)?;
        let row = self.finish(entity, id, body, extras.end(None), names)?;
        Ok(if existing.is_some() { Outcome::Updated(row) } else { Outcome::Created(row) })
    }

    fn update(&mut self, entity: &'static EntitySchema, key: Key, scope: Option<Scope>, mut input: Object) -> Result<Arc<Row>, WriteError> {
        key.check(entity)?;
        let Some(existing) = self.catalog.select(entity.name, &key, scope).cloned() else {
            return Err(match &key {
                Key::Id(id) => WriteError::not_found(*id),
                Key::Unique { field, value } => WriteError::not_found_by(field, value),
            });
        };
        self.resolve_parents(entity, &mut input)?;
        input.remove("id");
        let names = self.asked_snis(entity, Some(existing.id), &input)?;
        let extras = Extras::take(entity, &mut input);
        let body = extras.check(validate::update(entity, input, &existing.object(), self.context))?;
        self.finish(entity, existing.id, body, extras.end(existing.expires()), names)
    }

    /// Puts a validated row in place, with the SNIs that a certificate asks for.
    fn finish(
        &mut self,
        entity: &'static EntitySchema,
        id: Uuid,
        mut body: Object,
        end: Option<u64>,
        snis: Option<Vec<String>>,
    ) -> Result<Arc<Row>, WriteError> {
        entity.record.fields.iter().filter(|f| f.transient).for_each(|f| drop(body.remove(f.name)));
        if entity.name == "plugins" {
            self.check_plugin_protocols(&body)?;
        }
        self.check_unique(entity, id, &body)?;
        self.check_parents(entity, &body)?;
        let row = Arc::new(Row::new(entity, id, &body).expiring(end));
        self.put(row.clone());
        if let Some(names) = snis {
            self.set_snis(id, names)?;
        }
        Ok(row)
    }

    pub fn put(&mut self, row: Arc<Row>) {
        self.catalog.insert(row.clone());
        self.edits.push(Edit::Put(row));
    }

    pub fn remove(&mut self, entity: &'static EntitySchema, id: Uuid) {
        self.catalog.remove(entity, &id);
        self.edits.push(Edit::Remove(entity, id));
    }

    /// Refuses values that another row has.
    fn check_unique(&self, entity: &'static EntitySchema, id: Uuid, body: &Object) -> Result<(), WriteError> {
        for field in self.catalog.unique_fields(entity.name) {
            let Some(value) = body.get(field).filter(|value| !value.is_null()) else { continue };
            let text = table::text(value).unwrap_or_default();
            if self.catalog.find(entity.name, field, &text).is_some_and(|other| other.id != id) {
                return Err(WriteError::unique_violation(Object::from_iter([(field.to_owned(), value.clone())])));
            }
        }
        if self.catalog.find_compound(entity.name, body).is_some_and(|other| other.id != id) {
            let value = |field: &&str| ((*field).to_owned(), body.get(*field).cloned().unwrap_or_default());
            let mut fields: Object = entity.cache_key.iter().map(value).collect();
            if fields.get("consumer_group").is_some_and(Value::is_null) {
                // Kong's text is of an edition without groups.
                fields.remove("consumer_group");
            }
            return Err(WriteError::unique_violation(fields));
        }
        Ok(())
    }

    /// Refuses foreign keys whose parents are not there.
    fn check_parents(&self, entity: &'static EntitySchema, body: &Object) -> Result<(), WriteError> {
        for (field, parent) in entity.record.foreign_keys() {
            if let Some(id) = table::parent(body, field.name)
                && self.catalog.get(parent, &id).is_none()
            {
                return Err(WriteError::no_parent(field.name, id, parent));
            }
        }
        Ok(())
    }

    /// Turns `{"service": {"name": "x"}}` into `{"service": {"id": ...}}`.
    fn resolve_parents(&self, entity: &'static EntitySchema, input: &mut Object) -> Result<(), WriteError> {
        let mut failed = Object::new();
        for (field, parent) in entity.record.foreign_keys() {
            let Some(Value::Object(given)) = input.get(field.name) else { continue };
            let Some(parent) = model::entity(parent).filter(|_| given.get("id").is_none_or(Value::is_null)) else { continue };
            let mut texts = Object::new();
            let mut found = None;
            for unique in self.catalog.unique_fields(parent.name) {
                let Some(value) = given.get(unique).filter(|value| !value.is_null()) else { continue };
                let text = table::text(value).unwrap_or_default();
                found = self.catalog.find(parent.name, unique, &text);
                if found.is_some() {
                    break;
                }
                texts.insert(unique.to_owned(), WriteError::unresolved_text(parent.name, unique, value).into());
            }
            match found {
                Some(row) => drop(input.insert(field.name.to_owned(), json!({"id": row.id.to_string()}))),
                None if texts.is_empty() => {}
                None => drop(failed.insert(field.name.to_owned(), texts.into())),
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(WriteError::unresolved(failed)) }
    }

    /// A plugin must share a protocol with its route, or with a route of its service.
    fn check_plugin_protocols(&self, body: &Object) -> Result<(), WriteError> {
        let protocols = |body: &Object| -> Vec<String> {
            let list = body.get("protocols").and_then(Value::as_array);
            list.into_iter().flatten().filter_map(table::text).collect()
        };
        let own = protocols(body);
        let shares = |route: &Arc<Row>| protocols(&route.object()).iter().any(|protocol| own.contains(protocol));
        let refused = |text: &str| Err(WriteError::schema_violation(Violations::field("protocols", text)));
        if let Some(route) = table::parent(body, "route") {
            if self.catalog.get("routes", &route).is_some_and(|route| !shares(route)) {
                return refused("must match the associated route's protocols");
            }
        } else if let Some(service) = table::parent(body, "service") {
            let mut routes = self.catalog.children("routes", "service", service).peekable();
            if routes.peek().is_some() && !routes.any(shares) {
                return refused("must match the protocols of at least one route pointing to this Plugin's service");
            }
        }
        Ok(())
    }

    /// The names that a certificate asks for, unless one is named twice, cannot be a name, or belongs to another certificate.
    /// Kong looks at them before it looks at the rest.
    fn asked_snis(&self, entity: &EntitySchema, certificate: Option<Uuid>, input: &Object) -> Result<Option<Vec<String>>, WriteError> {
        let Some(Value::Array(names)) = input.get("snis").filter(|_| entity.name == "certificates") else { return Ok(None) };
        let refused = |text: String| Err(WriteError::schema_violation(Violations::field("snis", text)));
        let field = model::entity("snis").and_then(|snis| snis.record.get("name"));
        let mut wanted: Vec<String> = Vec::new();
        for name in names.iter().filter_map(Value::as_str) {
            if wanted.iter().any(|other| other == name) {
                return refused(format!("{name} is duplicated"));
            }
            if let Some(Err(text)) = field.map(|field| validate::value(field, &name.into())) {
                return Err(WriteError::invalid_unique("name", &text));
            }
            if let Some(sni) = self.catalog.find("snis", "name", name) {
                let owner = table::parent(&sni.object(), "certificate");
                if owner != certificate {
                    let owner = owner.unwrap_or_default();
                    return refused(format!("{name} already associated with existing certificate '{owner}'"));
                }
            }
            wanted.push(name.to_owned());
        }
        Ok(Some(wanted))
    }

    /// Makes the SNIs of a certificate these and no others.
    fn set_snis(&mut self, certificate: Uuid, names: Vec<String>) -> Result<(), WriteError> {
        let Some(entity) = model::entity("snis") else { return Ok(()) };
        let name = |sni: &Arc<Row>| sni.object().get("name").and_then(table::text).unwrap_or_default();
        let present: Vec<_> = self.catalog.children("snis", "certificate", certificate).map(|sni| (sni.id, name(sni))).collect();
        for (id, _) in present.iter().filter(|(_, name)| !names.contains(name)) {
            self.remove(entity, *id);
        }
        for name in names.into_iter().filter(|name| !present.iter().any(|(_, there)| there == name)) {
            let input = json!({"name": name, "certificate": {"id": certificate.to_string()}});
            self.create(entity, input.as_object().cloned().unwrap_or_default())?;
        }
        Ok(())
    }

    /// Puts complete rows in, then checks them among all others.
    fn import(&mut self, rows: Vec<Arc<Row>>) -> Result<(), WriteError> {
        // The rows' former values first, so that two rows may change names with each other.
        rows.iter().for_each(|row| self.catalog.remove(row.schema, &row.id));
        for row in &rows {
            self.check_unique(row.schema, row.id, &row.indexed())?;
            self.put(row.clone());
        }
        rows.iter().filter(|row| row.has_parents()).try_for_each(|row| self.check_parents(row.schema, &row.indexed()))
    }

    /// Makes the catalog hold these rows and no others. Rows that are there in the same form stay.
    fn replace(&mut self, rows: Vec<Arc<Row>>) -> Result<(), WriteError> {
        let wanted = Catalog::of(rows.iter().cloned());
        let gone: Vec<_> = self.catalog.tables().flat_map(|t| t.rows.values().map(|row| (t.schema, row.id))).collect();
        for (entity, id) in gone {
            if wanted.get(entity.name, &id).is_none() {
                self.remove(entity, id);
            }
        }
        let same = |row: &Arc<Row>| {
            let there = self.catalog.get(row.schema.name, &row.id);
            there.is_some_and(|there| there.says_the_same(row))
        };
        let changed: Vec<_> = rows.into_iter().filter(|row| !same(row)).collect();
        self.import(changed)
    }
}

/// What the input says beside the entity's own fields: `ttl`.
struct Extras {
    /// Seconds; `None` when the input does not say.
    ttl: Option<Value>,
}

impl Extras {
    fn take(entity: &EntitySchema, input: &mut Object) -> Self {
        Self { ttl: if entity.ttl { input.remove("ttl") } else { None } }
    }

    /// Adds what is wrong with the extras to what is wrong with the rest.
    fn check(&self, rest: Result<Object, Violations>) -> Result<Object, WriteError> {
        let wrong = match &self.ttl {
            None | Some(Value::Null) => None,
            Some(Value::Number(n)) if n.as_f64().is_some_and(|n| (0.0..=LONGEST_TTL).contains(&n)) => None,
            Some(Value::Number(_)) => Some("value should be between 0 and 100000000"),
            Some(_) => Some("expected a number"),
        };
        let Some(text) = wrong else { return rest.map_err(WriteError::schema_violation) };
        let mut violations = rest.err().unwrap_or_default();
        violations.merge(Violations::field("ttl", text));
        Err(WriteError::schema_violation(violations))
    }

    /// When the row ends: never with 0 or null, as before when the input does not say.
    fn end(&self, before: Option<u64>) -> Option<u64> {
        match &self.ttl {
            None => before,
            Some(ttl) => ttl.as_f64().filter(|ttl| *ttl > 0.0).map(|ttl| row::now() + (ttl * 1000.0) as u64),
        }
    }
}

fn id_of(body: &Object) -> Result<Uuid, WriteError> {
    let id = body.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok());
    id.ok_or_else(WriteError::invalid_primary_key)
}

impl Key {
    /// Refuses a value in a path that its field could never hold.
    pub fn check(&self, entity: &EntitySchema) -> Result<(), WriteError> {
        let Self::Unique { field, value } = self else { return Ok(()) };
        let Some(declared) = entity.record.get(field) else { return Ok(()) };
        validate::value(declared, &Value::String(value.clone())).map_err(|text| WriteError::invalid_unique(field, &text))
    }
}

#[cfg(test)]
mod tests;
