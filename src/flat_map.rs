//! A persistent hash map whose values know their keys: a clone costs nothing and keeps its version, a change copies one of
//! about √n parts, and a look-up of a random key reads one line of memory before the value's own.
//!
//! Maps of many entries are read at random, and then what counts is how much of them the processor's caches lack. A tree of
//! nodes costs a miss for each level and one for the key; here the slots of a part are one array, the hash beside the value
//! says whether it is worth looking at, and the key is where the value has it.

use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use ahash::RandomState;

/// A value that can tell whether a key is its own.
pub trait Keyed<K: ?Sized> {
    fn has_key(&self, key: &K) -> bool;
}

/// See the [module](self).
pub struct FlatMap<V> {
    /// As many as a power of two, or none; all have as many slots, a power of two as well.
    parts: Arc<[Part<V>]>,
    len: usize,
}

type Part<V> = Arc<[Slot<V>]>;

/// Where a value is put: as near as there is room behind the slot that its hash names, without a gap.
#[derive(Clone)]
#[repr(C)]
struct Slot<V> {
    hash: u64,
    value: Option<V>,
}

/// The one hasher of all maps: strangers who ask for keys do not know it.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Slots of a map that has the fewest, and of a part where there are several.
const FEWEST: usize = 4;
const OF_A_PART: usize = 64;

impl<V> Clone for FlatMap<V> {
    fn clone(&self) -> Self {
        Self { parts: Arc::clone(&self.parts), len: self.len }
    }
}

impl<V> Default for FlatMap<V> {
    fn default() -> Self {
        Self { parts: Arc::new([]), len: 0 }
    }
}

impl<V> FlatMap<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value whose key this is.
    pub fn get<K: Hash + ?Sized>(&self, key: &K) -> Option<&V>
    where
        V: Keyed<K>,
    {
        let (part, slot) = self.place(key)?;
        self.parts[part][slot].value.as_ref()
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.parts.iter().flat_map(|part| part.iter()).filter_map(|slot| slot.value.as_ref())
    }

    /// Part and slot of the value whose key this is.
    fn place<K: Hash + ?Sized>(&self, key: &K) -> Option<(usize, usize)>
    where
        V: Keyed<K>,
    {
        if self.len == 0 {
            return None;
        }
        let hash = hash(key);
        let part = self.part(hash);
        let slot = find(&self.parts[part], hash, |value| value.has_key(key)).ok()?;
        Some((part, slot))
    }

    /// The place of the part in which values with this hash are: its upper half decides, the lower one within the part.
    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.parts.len() - 1)
    }

    fn slots(&self) -> usize {
        self.parts.first().map_or(0, |part| part.len() * self.parts.len())
    }
}

impl<V: Clone> FlatMap<V> {
    /// The value whose key this is, to change what of it is not the key.
    pub fn get_mut<K: Hash + ?Sized>(&mut self, key: &K) -> Option<&mut V>
    where
        V: Keyed<K>,
    {
        let (part, slot) = self.place(key)?;
        self.part_mut(part)[slot].value.as_mut()
    }

    /// Puts a value under its key, and gives back what was there.
    pub fn insert<K: Hash + ?Sized>(&mut self, key: &K, value: V) -> Option<V>
    where
        V: Keyed<K>,
    {
        // five eighths full: longer ways to an empty slot would cost more than the memory
        if (self.len + 1) * 8 > self.slots() * 5 {
            self.resize((self.slots() * 2).max(FEWEST));
        }
        let hash = hash(key);
        loop {
            let at = self.part(hash);
            match find(&self.parts[at], hash, |value| value.has_key(key)) {
                Ok(found) => return self.part_mut(at)[found].value.replace(value),
                Err(Some(empty)) => {
                    self.part_mut(at)[empty] = Slot { hash, value: Some(value) };
                    self.len += 1;
                    return None;
                }
                // chance has filled this part before the others
                Err(None) => self.resize(self.slots() * 2),
            }
        }
    }

    /// Takes out the value whose key this is.
    pub fn remove<K: Hash + ?Sized>(&mut self, key: &K) -> Option<V>
    where
        V: Keyed<K>,
    {
        let (part, slot) = self.place(key)?;
        let part = self.part_mut(part);
        let removed = part[slot].value.take();
        close_gap(part, slot);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len * 8 < self.slots() && self.slots() > FEWEST {
            self.resize(self.slots() / 2);
        }
        removed
    }

    fn part_mut(&mut self, at: usize) -> &mut [Slot<V>] {
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts)[at])
    }

    /// Puts all values into as many slots, or more where chance wants it.
    fn resize(&mut self, slots: usize) {
        let parts = parts_of(slots);
        let size = slots / parts;
        let mut next: Vec<Vec<Slot<V>>> = (0..parts).map(|_| vec![Slot { hash: 0, value: None }; size]).collect();
        for slot in self.parts.iter().flat_map(|part| part.iter()).filter(|slot| slot.value.is_some()) {
            let part = &mut next[(slot.hash >> 32) as usize & (parts - 1)];
            // what is in one map is not in it twice
            let Err(Some(empty)) = find(part, slot.hash, |_| false) else { return self.resize(slots * 2) };
            part[empty] = slot.clone();
        }
        self.parts = next.into_iter().map(Arc::from).collect();
    }
}

fn hash<K: Hash + ?Sized>(key: &K) -> u64 {
    HASHER.hash_one(key)
}

/// How many parts a map of so many slots has: about the root of them, so that a change copies about as many slots as parts.
fn parts_of(slots: usize) -> usize {
    let bits = slots.trailing_zeros();
    let most = bits.saturating_sub(OF_A_PART.trailing_zeros());
    1 << most.min(bits / 2)
}

/// The slot of the value with this hash that is meant; where there is none, the slot where it would be put, if there is room.
fn find<V>(part: &[Slot<V>], hash: u64, meant: impl Fn(&V) -> bool) -> Result<usize, Option<usize>> {
    let mask = part.len() - 1;
    for step in 0..part.len() {
        let at = (hash as usize).wrapping_add(step) & mask;
        match &part[at].value {
            None => return Err(Some(at)),
            Some(value) if part[at].hash == hash && meant(value) => return Ok(at),
            Some(_) => {}
        }
    }
    Err(None)
}

/// Moves values back into an empty slot, as far as their hashes let them, so that none stands behind a gap.
fn close_gap<V>(part: &mut [Slot<V>], mut gap: usize) {
    let mask = part.len() - 1;
    let mut at = gap;
    for _ in 1..part.len() {
        at = (at + 1) & mask;
        if part[at].value.is_none() {
            return;
        }
        let way = |from: usize| at.wrapping_sub(from) & mask;
        if way(part[at].hash as usize) >= way(gap) {
            part.swap(gap, at);
            gap = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{FlatMap, Keyed};

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(u32, u32);

    impl Keyed<u32> for Pair {
        fn has_key(&self, key: &u32) -> bool {
            self.0 == *key
        }
    }

    fn same(map: &FlatMap<Pair>, model: &HashMap<u32, u32>) {
        assert_eq!(map.len(), model.len());
        assert_eq!(map.values().map(|pair| (pair.0, pair.1)).collect::<HashMap<_, _>>(), *model);
        for key in 0..600 {
            assert_eq!(map.get(&key).map(|pair| pair.1), model.get(&key).copied(), "{key}");
        }
    }

    #[test]
    fn it_does_what_a_map_does_and_keeps_its_versions() {
        for seed in 0..8 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut map, mut model) = (FlatMap::default(), HashMap::new());
            let mut versions = Vec::new();
            // keys are few, so that it grows full and empty again
            for (keys, puts) in [(40, 0.9), (500, 0.9), (500, 0.1), (600, 0.6), (600, 0.0)] {
                for step in 0..2_000 {
                    let (key, value) = (random.random_range(0..keys), random.random());
                    if random.random_bool(puts) {
                        assert_eq!(map.insert(&key, Pair(key, value)).map(|pair| pair.1), model.insert(key, value));
                    } else {
                        assert_eq!(map.remove(&key).map(|pair| pair.1), model.remove(&key));
                    }
                    if step % 400 == 0 {
                        versions.push((map.clone(), model.clone()));
                    }
                }
                same(&map, &model);
            }
            versions.iter().for_each(|(map, model)| same(map, model));
        }
    }

    #[test]
    fn a_change_copies_one_part() {
        let mut map = FlatMap::default();
        for key in 0..10_000u32 {
            map.insert(&key, Pair(key, 0));
        }
        let before = map.clone();
        map.insert(&77, Pair(77, 1));
        let copied = before.parts.iter().zip(map.parts.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert!(map.parts.len() >= 64 && map.parts[0].len() >= 64, "{} of {}", map.parts.len(), map.parts[0].len());
    }

    #[test]
    fn an_emptied_map_holds_nothing() {
        let mut map = FlatMap::default();
        for key in 0..1_000u32 {
            map.insert(&key, Pair(key, 0));
        }
        for key in 0..1_000u32 {
            map.remove(&key);
            assert!(map.len() * 16 >= map.slots() || map.slots() <= super::FEWEST, "{} in {} slots", map.len(), map.slots());
        }
        assert_eq!(map.slots(), 0);
    }
}
