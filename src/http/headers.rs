//! Header fields in one buffer, in the order and with the letters they came in.

/// Header fields of a message.
///
/// All names and values stand in one buffer that is kept from message to message, so that reading, forwarding and
/// changing a head allocates nothing once the buffer has grown. Names are compared without regard to case.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    value: Span,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
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
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
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
        self.fields.iter().map(|f| (f.name.of(&self.bytes), f.value.of(&self.bytes)))
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let wanted = name.as_bytes();
        self.iter().find(|(n, _)| n.len() == wanted.len() && n.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    /// The first value of this name, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// All values of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let wanted = name.as_bytes();
        self.iter().filter(move |(n, _)| n.len() == wanted.len() && n.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field at the end, whether or not there is one of that name.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let field = Field { name: self.push(name.as_ref()), value: self.push(value.as_ref()) };
        self.fields.push(field);
    }

    /// Makes this the only field of that name: the first one takes the value, others go.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        let value = self.push(value.as_ref());
        let bytes = &self.bytes;
        let mut found = false;
        self.fields.retain_mut(|f| {
            if f.name.len as usize != name.len() || !f.name.of(bytes).eq_ignore_ascii_case(name) {
                return true;
            }
            f.value = value;
            !std::mem::replace(&mut found, true)
        });
        if !found {
            let name = self.push(name);
            self.fields.push(Field { name, value });
        }
    }

    /// Removes all fields of that name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.fields.len();
        self.retain(|n, _| !n.eq_ignore_ascii_case(name.as_bytes()));
        self.fields.len() != before
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields.retain(|f| keep(f.name.of(bytes), f.value.of(bytes)));
    }

    fn push(&mut self, part: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(part);
        Span { start, len: part.len() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::Headers;

    #[test]
    fn names_are_compared_without_case_and_keep_theirs() {
        let mut headers = Headers::new();
        headers.append("Host", "a.test");
        headers.append("X-A", "1");
        headers.append("x-a", "2");
        assert_eq!(headers.get("HOST"), Some(&b"a.test"[..]));
        assert_eq!(headers.get_all("x-A").count(), 2);
        headers.set("X-a", "3");
        assert_eq!(
            headers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>(),
            [(b"Host".to_vec(), b"a.test".to_vec()), (b"X-A".to_vec(), b"3".to_vec())]
        );
        assert!(headers.remove("x-a"));
        assert!(!headers.remove("x-a"));
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn copies_take_the_place_of_what_was_there() {
        let (mut one, mut other) = (Headers::new(), Headers::new());
        one.append("X-Old", "1");
        other.append("X-New", "2");
        other.shrink_to_fit();
        one.copy_from(&other);
        assert_eq!((one.len(), one.get_str("x-new")), (1, Some("2")));
        assert_eq!(other.memory(), "X-New2".len() + 16);
    }
}
