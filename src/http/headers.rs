//! Header fields in one buffer, in the order and with the letters they came in.

use std::borrow::Cow;
use std::ops::Range;

use crate::http::syntax::{is_token, same};

/// Header fields of a message.
///
/// All fields stand in one buffer as they stand on the wire, so that reading, forwarding and changing a head allocates nothing
/// once the buffer has grown, and a field is sent on by one copy. Names are compared without regard to case.
///
/// A field that could break a message cannot get in: one whose name is no token is left out, and line ends and NUL in values
/// become spaces, whoever put them there (a template of a plugin may have taken a value from what a client sent).
#[derive(Clone, Debug, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// The [`mark`]s of all names that are or were among the fields: what has none of them need not be searched for.
    marks: u64,
}

/// One of 64 bits for a name, the same for all its spellings.
#[inline]
fn mark(name: &[u8]) -> u64 {
    let [first, .., last] = name else { return 1 };
    // the letters that names begin and end with, without their case; weighed so that names which are often asked for share no
    // bit with ones that are often there
    let (first, last) = (usize::from(*first | 0x20), usize::from(*last | 0x20));
    1 << ((name.len() + 47 * first + 63 * last) % 64)
}

/// `name: value` and the end of the line, from `start` on.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: u32,
    name: u32,
    value: u32,
}

impl Field {
    fn name(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &bytes[start..start + self.name as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize + self.name as usize + 2;
        &bytes[start..start + self.value as usize]
    }

    /// Where the line stands.
    fn place(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.name as usize + self.value as usize + 4
    }

    #[inline]
    fn is(self, name: &[u8], bytes: &[u8]) -> bool {
        self.name as usize == name.len() && same(self.name(bytes), name)
    }
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.marks = 0;
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// At most as many bytes as all fields take on the wire.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Becomes a copy of other fields, in the memory at hand.
    pub fn copy_from(&mut self, other: &Self) {
        self.clear();
        self.bytes.extend_from_slice(&other.bytes);
        self.fields.extend_from_slice(&other.fields);
        self.marks = other.marks;
    }

    /// Gives back memory that is not in use, for fields that are to be kept for long.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.fields.shrink_to_fit();
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|f| (f.name(&self.bytes), f.value(&self.bytes)))
    }

    /// Writes the fields for which `keep(name, value)` holds as they are sent; what stands together is written at once.
    pub fn write<'a>(&'a self, out: &mut Vec<u8>, mut keep: impl FnMut(&'a [u8], &'a [u8]) -> bool) {
        let (mut start, mut end) = (0, 0);
        for field in &self.fields {
            if !keep(field.name(&self.bytes), field.value(&self.bytes)) {
                continue;
            }
            let line = field.place();
            if line.start != end {
                out.extend_from_slice(&self.bytes[start..end]);
                start = line.start;
            }
            end = line.end;
        }
        out.extend_from_slice(&self.bytes[start..end]);
    }

    /// The fields among which those of this name are.
    #[inline]
    fn candidates(&self, name: &str) -> &[Field] {
        if self.marks & mark(name.as_bytes()) == 0 { &[] } else { &self.fields }
    }

    /// The first value of this name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.candidates(name).iter().find(|f| f.is(name.as_bytes(), &self.bytes)).map(|f| f.value(&self.bytes))
    }

    /// The first value of this name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// All values of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.candidates(name).iter().filter(|f| f.is(name.as_bytes(), &self.bytes)).map(|f| f.value(&self.bytes))
    }

    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        self.candidates(name).iter().any(|f| f.is(name.as_bytes(), &self.bytes))
    }

    /// Adds a field at the end, whether or not there is one of that name.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        if is_token(name.as_ref()) {
            self.append_checked(name.as_ref(), &clean(value.as_ref()));
        }
    }

    /// The same for a name that is known to be a token, and a value that is known to have no control characters.
    pub fn append_checked(&mut self, name: &[u8], value: &[u8]) {
        let field = self.push(name, value);
        self.fields.push(field);
    }

    /// The same for a line as it is sent: `name: value` and CR LF, of which the first `name` bytes are the name.
    pub fn append_line(&mut self, line: &[u8], name: usize) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(line);
        self.marks |= mark(&line[..name]);
        self.fields.push(Field { start, name: name as u32, value: (line.len() - name - 4) as u32 });
    }

    /// Makes this the only field of that name: the first one takes the value, others go.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        if is_token(name.as_ref()) {
            self.set_checked(name.as_ref(), &clean(value.as_ref()));
        }
    }

    /// The same for a name that is known to be a token, and a value that is known to have no control characters.
    pub fn set_checked(&mut self, name: &[u8], value: &[u8]) {
        let known = self.marks;
        let field = self.push(name, value);
        if known == self.marks { self.put(field) } else { self.fields.push(field) }
    }

    /// Adds to the end of the value of the first field of that name, if `when(value)` holds; the others of that name go then.
    /// `more` is known to have no control characters.
    pub fn extend_checked(&mut self, name: &str, more: &[u8], when: impl FnOnce(&[u8]) -> bool) {
        let Some(at) = self.candidates(name).iter().position(|f| f.is(name.as_bytes(), &self.bytes)) else { return };
        let before = self.fields[at];
        if !when(before.value(&self.bytes)) {
            return;
        }
        let start = self.bytes.len() as u32;
        let line = before.place();
        self.bytes.extend_from_within(line.start..line.end - 2);
        self.bytes.extend_from_slice(more);
        self.bytes.extend_from_slice(b"\r\n");
        self.replace(at, Field { start, name: before.name, value: before.value + more.len() as u32 });
    }

    /// Removes all fields of that name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        if self.candidates(name).is_empty() {
            return false;
        }
        let before = self.fields.len();
        let bytes = &self.bytes;
        self.fields.retain(|f| !f.is(name.as_bytes(), bytes));
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields.retain(|f| keep(f.name(bytes), f.value(bytes)));
    }

    /// Puts a field that stands in the buffer in the place of the first one of its name, and removes the others.
    fn put(&mut self, field: Field) {
        let bytes = &self.bytes;
        let name = field.name(bytes);
        match self.fields.iter().position(|f| f.is(name, bytes)) {
            Some(first) => self.replace(first, field),
            None => self.fields.push(field),
        }
    }

    /// Puts a field in the place of the first one of its name, which is known, and removes the others.
    fn replace(&mut self, first: usize, field: Field) {
        let bytes = &self.bytes;
        let name = field.name(bytes);
        self.fields[first] = field;
        if self.fields[first + 1..].iter().any(|f| f.is(name, bytes)) {
            let mut at = 0;
            self.fields.retain(|f| {
                at += 1;
                at - 1 <= first || !f.is(name, bytes)
            });
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Field {
        let start = self.bytes.len() as u32;
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.marks |= mark(name);
        Field { start, name: name.len() as u32, value: value.len() as u32 }
    }
}

/// A value without line ends and NUL.
fn clean(value: &[u8]) -> Cow<'_, [u8]> {
    let bad = |b: &u8| matches!(b, b'\r' | b'\n' | 0);
    // without a short cut, so that it is done many bytes at a time
    match value.iter().fold(false, |any, b| any | bad(b)) {
        false => Cow::Borrowed(value),
        true => Cow::Owned(value.iter().map(|b| if bad(b) { b' ' } else { *b }).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::Headers;

    #[test]
    fn names_are_compared_without_case() {
        let mut headers = Headers::new();
        headers.append("Host", "a.test");
        headers.append("X-A", "1");
        headers.append("x-a", "2");
        assert_eq!(headers.get("HOST"), Some(&b"a.test"[..]));
        assert_eq!(headers.get_all("x-A").count(), 2);
        headers.set("X-a", "3");
        assert_eq!(
            headers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>(),
            [(b"Host".to_vec(), b"a.test".to_vec()), (b"X-a".to_vec(), b"3".to_vec())]
        );
        assert!(headers.remove("x-a"));
        assert!(!headers.remove("x-a"));
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn of_several_fields_one_is_left_in_the_place_of_the_first() {
        let mut headers = Headers::new();
        for (name, value) in [("A", "1"), ("B", "2"), ("a", "3"), ("C", "4"), ("A", "5")] {
            headers.append(name, value);
        }
        headers.set("a", "6");
        headers.extend_checked("B", b"; more", |value| value == b"2");
        headers.extend_checked("C", b"nothing", |value| value == b"2");
        headers.extend_checked("D", b"nothing", |_| true);
        let written = |keep: fn(&[u8]) -> bool| {
            let mut out = Vec::new();
            headers.write(&mut out, |name, _| keep(name));
            String::from_utf8(out).expect("text")
        };
        assert_eq!(written(|_| true), "a: 6\r\nB: 2; more\r\nC: 4\r\n");
        assert_eq!(written(|name| name != b"B"), "a: 6\r\nC: 4\r\n");
        assert_eq!(written(|name| name == b"B"), "B: 2; more\r\n");
        assert_eq!(written(|_| false), "");
    }

    #[test]
    fn what_would_break_a_message_stays_outside() {
        let mut headers = Headers::new();
        headers.append("X Bad", "1");
        headers.append("X-Line\r\n", "1");
        headers.set("X-Good", "a\r\nInjected: 1\0");
        let fields: Vec<_> =
            headers.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
        assert_eq!(fields, ["X-Good=a  Injected: 1 "]);
    }

    #[test]
    fn names_that_share_a_mark_are_told_apart() {
        let mut headers = Headers::new();
        let names: Vec<String> = (0..100).map(|n| format!("X-{n:03}-Name")).collect();
        for name in names.iter().step_by(2) {
            headers.set(name, name);
        }
        for (at, name) in names.iter().enumerate() {
            assert_eq!(headers.get_str(&name.to_lowercase()), (at % 2 == 0).then_some(name.as_str()));
            assert_eq!(headers.contains(name), at % 2 == 0);
            headers.set(name, "new");
            assert_eq!(headers.get_all(name).collect::<Vec<_>>(), [b"new"]);
        }
        assert_eq!(headers.len(), names.len());
        assert!(names.iter().all(|name| headers.remove(name)) && headers.is_empty());
    }

    #[test]
    fn lines_are_taken_as_they_stand() {
        let mut headers = Headers::new();
        headers.append_line(b"X-A: b\r\n", 3);
        headers.append_line(b"Empty: \r\n", 5);
        assert_eq!((headers.get_str("x-a"), headers.get_str("empty")), (Some("b"), Some("")));
        let mut out = Vec::new();
        headers.write(&mut out, |_, _| true);
        assert_eq!(out, b"X-A: b\r\nEmpty: \r\n");
    }

    #[test]
    fn copies_take_the_place_of_what_was_there() {
        let (mut one, mut other) = (Headers::new(), Headers::new());
        one.append("X-Old", "1");
        other.append("X-New", "2");
        other.shrink_to_fit();
        one.copy_from(&other);
        assert_eq!((one.len(), one.get_str("x-new")), (1, Some("2")));
        assert_eq!(other.memory(), "X-New: 2\r\n".len() + size_of::<super::Field>());
    }
}
