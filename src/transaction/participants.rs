//! [`Participants`]: the shards of a block in [`ShardId`] order. A sorted list: it has one entry nearly always, and its
//! room stays from one statement to the next.

use super::Participant;
use crate::topology::ShardId;

/// Shards and their parts.
#[derive(Debug, Default)]
pub(super) struct Participants {
    entries: Vec<(ShardId, Participant)>,
}

impl Participants {
    fn place(&self, shard: ShardId) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&shard, |(shard, _)| *shard)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains_key(&self, shard: &ShardId) -> bool {
        self.place(*shard).is_ok()
    }

    pub(super) fn get(&self, shard: &ShardId) -> Option<&Participant> {
        let place = self.place(*shard).ok()?;
        Some(&self.entries[place].1)
    }

    pub(super) fn get_mut(&mut self, shard: &ShardId) -> Option<&mut Participant> {
        let place = self.place(*shard).ok()?;
        Some(&mut self.entries[place].1)
    }

    /// Adds a shard; gives the part that it had.
    pub(super) fn insert(&mut self, shard: ShardId, part: Participant) -> Option<Participant> {
        match self.place(shard) {
            Ok(place) => Some(std::mem::replace(&mut self.entries[place].1, part)),
            Err(place) => {
                self.entries.insert(place, (shard, part));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, shard: &ShardId) -> Option<Participant> {
        let place = self.place(*shard).ok()?;
        Some(self.entries.remove(place).1)
    }

    pub(super) fn pop_first(&mut self) -> Option<(ShardId, Participant)> {
        (!self.entries.is_empty()).then(|| self.entries.remove(0))
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Takes all; the room for them stays.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Participant> + '_ {
        self.entries.drain(..).map(|(_, part)| part)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ShardId> {
        self.entries.iter().map(|(shard, _)| shard)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ShardId, &Participant)> {
        self.entries.iter().map(|(shard, part)| (shard, part))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&ShardId, &mut Participant)> {
        self.entries.iter_mut().map(|(shard, part)| (&*shard, part))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Participant> {
        self.entries.iter_mut().map(|(_, part)| part)
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = Participant> {
        self.entries.into_iter().map(|(_, part)| part)
    }
}

impl IntoIterator for Participants {
    type Item = (ShardId, Participant);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl FromIterator<(ShardId, Participant)> for Participants {
    fn from_iter<I: IntoIterator<Item = (ShardId, Participant)>>(entries: I) -> Self {
        let mut participants = Self::default();
        for (shard, part) in entries {
            participants.insert(shard, part);
        }
        participants
    }
}
