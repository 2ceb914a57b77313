//! Consumer groups: a group is shown with its consumers, and consumers enter and leave groups through `consumer_group_consumers`.

use schema::{EntitySchema, EntityType, Object};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::answer::{Answer, Outcome};
use crate::admin::call::{self, Call};
use crate::admin::entities::page;
use crate::admin::table::{Table, handler};
use crate::catalog::{Change, Key, Row};
use crate::model::{Consumer, ConsumerGroup, ConsumerGroupConsumer};

pub fn endpoints(table: &mut Table) {
    table.set("/consumer_groups/{consumer_groups}", "GET", handler(group));
    table.put(
        "/consumer_groups/{consumer_groups}/consumers",
        [
            ("GET", handler(|call| list(call, Side::Group))),
            ("POST", handler(|call| join(call, Side::Group))),
            ("DELETE", handler(|call| leave_all(call, Side::Group))),
        ],
    );
    table.put("/consumer_groups/{consumer_groups}/consumers/{consumers}", [("GET", handler(member)), ("DELETE", handler(leave))]);
    table.put(
        "/consumers/{consumers}/consumer_groups",
        [
            ("GET", handler(|call| list(call, Side::Consumer))),
            ("POST", handler(|call| join(call, Side::Consumer))),
            ("DELETE", handler(|call| leave_all(call, Side::Consumer))),
        ],
    );
    table.put("/consumers/{consumers}/consumer_groups/{consumer_groups}", [("GET", handler(member)), ("DELETE", handler(leave))]);
}

/// Which end of a membership stands in the path.
#[derive(Clone, Copy)]
enum Side {
    Group,
    Consumer,
}

impl Side {
    fn entity(self) -> &'static EntitySchema {
        match self {
            Self::Group => ConsumerGroup::entity(),
            Self::Consumer => Consumer::entity(),
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Group => "consumer_group",
            Self::Consumer => "consumer",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Group => Self::Consumer,
            Self::Consumer => Self::Group,
        }
    }

    /// The row that the path names.
    fn row(self, call: &Call) -> Result<&Row, Answer> {
        let key = call.key(self.entity())?;
        call.catalog.select(self.entity().name, &key, None).map(|row| &**row).ok_or_else(Answer::not_found)
    }
}

fn memberships() -> &'static EntitySchema {
    ConsumerGroupConsumer::entity()
}

/// The ends of memberships, on the other side.
fn others<'a>(call: &'a Call, side: Side, rows: impl Iterator<Item = &'a std::sync::Arc<Row>>) -> Vec<Value> {
    let end = |row: &Row| {
        let body = row.object();
        let id = body.get(side.other().field())?.get("id")?.as_str()?.parse().ok()?;
        call.catalog.get(side.other().entity().name, &id).map(|row| Value::Object(row.object()))
    };
    rows.filter_map(|row| end(row)).collect()
}

fn membership(call: &Call, group: Uuid, consumer: Uuid) -> Option<Uuid> {
    let key = json!({"consumer_group": {"id": group}, "consumer": {"id": consumer}});
    call.catalog.find_compound(memberships().name, key.as_object()?).map(|row| row.id)
}

async fn group(call: Call) -> Outcome {
    let row = Side::Group.row(&call)?;
    let consumers = others(&call, Side::Group, call.catalog.children(memberships().name, "consumer_group", row.id));
    let plugins: Vec<Object> = call.catalog.children("plugins", "consumer_group", row.id).map(|p| p.object()).collect();
    Ok(Answer::ok(&json!({"consumer_group": row.object(), "consumers": consumers, "plugins": plugins})))
}

/// Both as a page and under the entity's name, which clients of different age look for.
async fn list(call: Call, side: Side) -> Outcome {
    let row = side.row(&call)?;
    let rows = call.catalog.children_page(memberships().name, side.field(), row.id, &page::asked(&call)?);
    let found = others(&call, side, rows.rows.iter().copied());
    let path = format!("/{}/{}/{}", side.entity().path(), row.id, side.other().entity().path());
    let (next, offset) = page::next(&call, &path, rows.next).map_or((Value::Null, None), |(offset, link)| (link.into(), Some(offset)));
    let mut body = json!({"data": found, side.other().entity().name: found, "next": next});
    if let Some(offset) = offset {
        body["offset"] = offset.into();
    }
    Ok(Answer::ok(&body))
}

/// Adds the rows that the body names by id or by name: one, or a list.
async fn join(call: Call, side: Side) -> Outcome {
    let row = side.row(&call)?;
    let other = side.other();
    let name = match side {
        Side::Group => "consumer",
        Side::Consumer => "group",
    };
    let named: Vec<&str> = match call.member(name) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if named.is_empty() {
        return Err(Answer::message(400, format!("must provide {name}")));
    }
    let mut changes = Vec::new();
    let mut joined = Vec::new();
    for segment in named {
        let key = call::key(other.entity(), segment)?;
        let found = call.catalog.select(other.entity().name, &key, None);
        let found = found.ok_or_else(|| Answer::message(404, format!("{name} '{segment}' not found")))?;
        let (group, consumer) = match side {
            Side::Group => (row.id, found.id),
            Side::Consumer => (found.id, row.id),
        };
        if membership(&call, group, consumer).is_some() {
            let text = format!("Consumer '{consumer}' is already in consumer group '{group}'");
            return Err(Answer::message(409, text));
        }
        let input = json!({"consumer_group": {"id": group}, "consumer": {"id": consumer}});
        let input = input.as_object().cloned().unwrap_or_default();
        changes.push(Change::Create { entity: memberships(), input });
        joined.push(Value::Object(found.object()));
    }
    let body = json!({side.field(): row.object(), other.entity().name: joined});
    call.write(Change::All(changes)).await?;
    Ok(Answer::json(201, &body))
}

async fn member(call: Call) -> Outcome {
    let (group, consumer) = (Side::Group.row(&call)?, Side::Consumer.row(&call)?);
    membership(&call, group.id, consumer.id).ok_or_else(Answer::not_found)?;
    Ok(Answer::ok(&json!({"consumer_group": group.object(), "consumer": consumer.object()})))
}

async fn leave(call: Call) -> Outcome {
    let (group, consumer) = (Side::Group.row(&call)?, Side::Consumer.row(&call)?);
    let id = membership(&call, group.id, consumer.id).ok_or_else(Answer::not_found)?;
    call.write(Change::Delete { entity: memberships(), key: Key::Id(id), scope: None }).await?;
    Ok(Answer::empty(204))
}

async fn leave_all(call: Call, side: Side) -> Outcome {
    let row = side.row(&call)?;
    let remove = |row: &std::sync::Arc<Row>| Change::Delete { entity: memberships(), key: Key::Id(row.id), scope: None };
    let changes: Vec<Change> = call.catalog.children(memberships().name, side.field(), row.id).map(remove).collect();
    if !changes.is_empty() {
        call.write(Change::All(changes)).await?;
    }
    Ok(Answer::empty(204))
}
