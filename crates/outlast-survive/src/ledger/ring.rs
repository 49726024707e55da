//! Bytes in the order in which they came, in one piece of memory that is used over and over.
//!
//! Tasks kept as they are hold some allocations each, which come back oldest first: an allocator has no warm one for the
//! next task then, and every enqueue pays for it. Kept as bytes they cost one copy.

use std::collections::VecDeque;
use std::ops::Range;

/// Where bytes are, counted from the first that ever came.
pub(super) type Place = Range<u64>;

#[derive(Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    /// The place of the first byte that is still here.
    begin: u64,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Place {
        let begin = self.begin + self.bytes.len() as u64;
        self.bytes.extend(bytes);
        begin..begin + bytes.len() as u64
    }

    /// Lets go of everything up to the end of a place.
    pub(super) fn drop_to(&mut self, place: &Place) {
        let gone = self.at(place.end);
        self.bytes.drain(..gone);
        self.begin += gone as u64;
    }

    /// The bytes of a place, as far as they are here.
    pub(super) fn read(&self, place: &Place) -> Vec<u8> {
        self.bytes.range(self.at(place.start)..self.at(place.end)).copied().collect()
    }

    fn at(&self, place: u64) -> usize {
        let behind = usize::try_from(place.saturating_sub(self.begin)).unwrap_or(usize::MAX);
        behind.min(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_there_is_read_however_often_the_memory_was_used() {
        let mut ring = Ring::default();
        let mut places = VecDeque::new();
        for n in 0..100u8 {
            places.push_back((ring.push(&vec![n; usize::from(n % 7)]), n));
            if places.len() > 5
                && let Some((oldest, _)) = places.pop_front()
            {
                ring.drop_to(&oldest);
                assert!(ring.read(&oldest).is_empty());
            }
            for (place, n) in &places {
                assert_eq!(ring.read(place), vec![*n; usize::from(n % 7)]);
            }
        }
        assert!(ring.len() < 5 * 7);
    }
}
