//! Header fields in one buffer, in the order and with the letters they came in.

use std::borrow::Cow;

use crate::http::syntax::is_token;

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

    fn line(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &bytes[start..start + self.name as usize + self.value as usize + 4]
    }

    fn is(self, name: &[u8], bytes: &[u8]) -> bool {
        self.name as usize == name.len() && self.name(bytes).eq_ignore_ascii_case(name)
    }
}

/// A field with its line as it is sent.
pub struct Line<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// `name: value` and the end of the line.
    pub bytes: &'a [u8],
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
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

    /// All fields in order, as they are sent.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.fields.iter().map(|f| Line { name: f.name(&self.bytes), value: f.value(&self.bytes), bytes: f.line(&self.bytes) })
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|f| f.is(name.as_bytes(), &self.bytes)).map(|f| f.value(&self.bytes))
    }

    /// The first value of this name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// All values of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(|f| f.is(name.as_bytes(), &self.bytes)).map(|f| f.value(&self.bytes))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.fields.iter().any(|f| f.is(name.as_bytes(), &self.bytes))
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

    /// Makes this the only field of that name: the first one takes the value, others go.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        if !is_token(name) {
            return;
        }
        let field = self.push(name, &clean(value.as_ref()));
        self.put(field);
    }

    /// Adds to the end of the value of the first field of that name; the others of that name go.
    pub fn extend(&mut self, name: &str, more: &[u8]) {
        let Some(before) = self.fields.iter().find(|f| f.is(name.as_bytes(), &self.bytes)).copied() else { return };
        let start = self.bytes.len();
        let from = before.start as usize;
        self.bytes.extend_from_within(from..from + (before.name + before.value) as usize + 2);
        self.bytes.extend_from_slice(&clean(more));
        self.bytes.extend_from_slice(b"\r\n");
        self.put(Field { start: start as u32, name: before.name, value: before.value + more.len() as u32 });
    }

    /// Removes all fields of that name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
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
        let mut places = self.fields.iter().enumerate().filter(|(_, f)| f.is(field.name(bytes), bytes)).map(|(at, _)| at);
        match (places.next(), places.next()) {
            (None, _) => self.fields.push(field),
            (Some(at), None) => self.fields[at] = field,
            (Some(first), Some(_)) => {
                self.fields[first] = field;
                let mut at = 0;
                self.fields.retain(|f| {
                    at += 1;
                    at - 1 <= first || !f.is(field.name(bytes), bytes)
                });
            }
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Field {
        let start = self.bytes.len() as u32;
        self.bytes.reserve(name.len() + value.len() + 4);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
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
        headers.extend("B", b"; more");
        headers.extend("D", b"nothing");
        let fields: Vec<_> = headers.lines().map(|line| String::from_utf8_lossy(line.bytes).into_owned()).collect();
        assert_eq!(fields, ["a: 6\r\n", "B: 2; more\r\n", "C: 4\r\n"]);
    }

    #[test]
    fn what_would_break_a_message_stays_outside() {
        let mut headers = Headers::new();
        headers.append("X Bad", "1");
        headers.append("X-Line\r\n", "1");
        headers.set("X-Good", "a\r\nInjected: 1\0");
        headers.extend("X-Good", b"\n");
        let fields: Vec<_> =
            headers.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
        assert_eq!(fields, ["X-Good=a  Injected: 1  "]);
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
