//! Pages of rows, by id and by tag.

use std::sync::Arc;

use uuid::Uuid;

use super::table::{Table, tags};
use super::{Catalog, Row};

/// Which page of a collection.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Id of the first row, or the place where it would stand.
    pub from: Uuid,
    /// Greatest number of rows.
    pub size: usize,
    pub tags: Option<TagFilter>,
}

impl Page {
    /// The page of `size` rows from an id on.
    pub fn new(from: Uuid, size: usize) -> Self {
        Self { from, size, tags: None }
    }

    pub fn tagged(mut self, tags: TagFilter) -> Self {
        self.tags = Some(tags);
        self
    }
}

/// Which tags a row must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    /// `?tags=a,b`
    All(Vec<String>),
    /// `?tags=a/b`
    Any(Vec<String>),
}

/// A page of rows in the order of their ids.
#[derive(Default)]
pub struct Rows<'a> {
    pub rows: Vec<&'a Arc<Row>>,
    /// Id of the first row of the next page.
    pub next: Option<Uuid>,
}

/// One line of `/tags`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tagged {
    pub tag: Arc<str>,
    pub entity_id: Uuid,
    pub entity_name: &'static str,
}

impl Catalog {
    /// A page of a collection.
    pub fn page(&self, entity: &str, page: &Page) -> Rows<'_> {
        let Some(table) = self.table(entity) else { return Rows::default() };
        match &page.tags {
            None => fill(table.from(page.from), page.size),
            Some(filter) => {
                let ids = Matches { table, filter: Filter::new(filter), at: Some(page.from) };
                fill(ids.filter_map(|id| table.get(&id)), page.size)
            }
        }
    }

    /// A page of the rows whose foreign key `field` is `parent`.
    pub fn children_page(&self, entity: &str, field: &str, parent: Uuid, page: &Page) -> Rows<'_> {
        let Some(table) = self.table(entity) else { return Rows::default() };
        let rows = table.children(field, parent, page.from);
        match &page.tags {
            None => fill(rows, page.size),
            Some(filter) => fill(rows.filter(|row| filter.admits(row)), page.size),
        }
    }

    /// A page of all tags of all entities in the order of tag and id, from a place on (included), or of one tag.
    pub fn tagged(&self, only: Option<&str>, from: Option<&Tagged>, size: usize) -> (Vec<Tagged>, Option<Tagged>) {
        let start = match (only, from) {
            (_, Some(from)) => (from.tag.clone(), from.entity_id),
            (Some(tag), None) => (Arc::from(tag), Uuid::nil()),
            (None, None) => (Arc::from(""), Uuid::nil()),
        };
        let mut lines = Vec::new();
        for table in self.tables() {
            let of_table = table.tags.range(start.clone()..).take_while(|(tag, _)| only.is_none_or(|only| only == &**tag));
            let live = of_table.filter(|(_, id)| table.get(id).is_some());
            let line = |(tag, id): &(Arc<str>, Uuid)| Tagged { tag: tag.clone(), entity_id: *id, entity_name: table.schema.name };
            lines.extend(live.take(size + 1).map(line));
        }
        lines.sort_unstable();
        lines.retain(|line| from.is_none_or(|from| line >= from));
        let next = lines.get(size).cloned();
        lines.truncate(size);
        (lines, next)
    }
}

fn fill<'a>(mut rows: impl Iterator<Item = &'a Arc<Row>>, size: usize) -> Rows<'a> {
    let page: Vec<_> = rows.by_ref().take(size).collect();
    Rows { rows: page, next: rows.next().map(|row| row.id) }
}

impl TagFilter {
    /// Whether a row has the tags.
    pub fn admits(&self, row: &Row) -> bool {
        let body = row.object();
        let has = |tag: &String| tags(&body).any(|t| t == tag);
        match self {
            Self::All(wanted) => wanted.iter().all(has),
            Self::Any(wanted) => wanted.iter().any(has),
        }
    }
}

struct Filter {
    tags: Vec<Arc<str>>,
    all: bool,
}

impl Filter {
    fn new(filter: &TagFilter) -> Self {
        let (tags, all) = match filter {
            TagFilter::All(tags) => (tags, true),
            TagFilter::Any(tags) => (tags, false),
        };
        Self { tags: tags.iter().map(|tag| Arc::from(tag.as_str())).collect(), all }
    }
}

/// Ids of rows that have the tags, in order. Leaps from candidate to candidate through the tags' indexes, so that its cost
/// follows the page and not the table.
struct Matches<'a> {
    table: &'a Table,
    filter: Filter,
    at: Option<Uuid>,
}

impl Iterator for Matches<'_> {
    type Item = Uuid;

    fn next(&mut self) -> Option<Uuid> {
        let mut at = self.at?;
        let first = |tag: &Arc<str>, at: Uuid| self.table.with_tag(tag, at).next();
        let found = if self.filter.all {
            let mut agreed = 0;
            let mut tags = self.filter.tags.iter().cycle();
            loop {
                let Some(next) = tags.next().and_then(|tag| first(tag, at)) else { break None };
                agreed = if next == at { agreed + 1 } else { 1 };
                at = next;
                if agreed >= self.filter.tags.len() {
                    break Some(at);
                }
            }
        } else {
            self.filter.tags.iter().filter_map(|tag| first(tag, at)).min()
        };
        self.at = found.and_then(|id| id.as_u128().checked_add(1)).map(Uuid::from_u128);
        found
    }
}
