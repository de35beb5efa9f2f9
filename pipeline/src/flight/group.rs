//! Epochs that several consumers share: each batch goes to one of them.
//!
//! Consumers take numbers in advance, to have batches made; a number is given for good only when its batch is ready to go, to the first who
//! claims it. Once no number is fresh, those that others have taken and not claimed are taken a second time: so neither a slow consumer nor
//! a dead one holds up the end of an epoch, and none is lost or given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::Status;

use super::ticket::{Group, Ticket};

/// Most epochs of groups that are remembered; the least recently joined goes first.
const REMEMBERED: usize = 256;
/// Most names in a group.
const MOST_MEMBERS: usize = 1024;

/// All shared epochs of a server.
#[derive(Debug, Default)]
pub(super) struct Groups {
    epochs: Mutex<BTreeMap<(String, u64), Shared>>,
}

/// One shared epoch.
#[derive(Debug)]
struct Shared {
    /// What all its consumers must ask for.
    wanted: String,
    batches: usize,
    /// The first number that nobody has taken.
    fresh: usize,
    /// Numbers that were taken and are still to be claimed.
    unclaimed: BTreeSet<usize>,
    members: BTreeMap<String, Member>,
    /// Grows with each joining, anywhere.
    joined: u64,
}

/// What a consumer of a name was given.
#[derive(Debug, Default)]
struct Member {
    /// Which of its streams is the present one.
    stream: u64,
    given: Vec<usize>,
}

/// One consumer's stream.
#[derive(Debug)]
pub(super) struct Seat {
    groups: Arc<Groups>,
    key: (String, u64),
    member: String,
    stream: u64,
}

impl Groups {
    /// A place in the group of this ticket.
    ///
    /// # Errors
    /// When the group reads something else in this epoch.
    pub(super) fn join(groups: &Arc<Self>, ticket: &Ticket, group: &Group, batches: usize) -> Result<Seat, Status> {
        let key = (group.name.clone(), ticket.epoch);
        let wanted = serde_json::json!([ticket.dataset, ticket.loader]).to_string();
        let mut epochs = groups.lock();
        let joined = epochs.values().map(|shared| shared.joined).max().unwrap_or(0) + 1;
        let first = ticket.start.min(batches);
        let shared = epochs.entry(key.clone()).or_insert_with(|| Shared {
            wanted: wanted.clone(),
            batches,
            fresh: first,
            unclaimed: BTreeSet::new(),
            members: BTreeMap::new(),
            joined,
        });
        if shared.wanted != wanted {
            return Err(Status::failed_precondition(format!("the group {:?} reads something else in this epoch", group.name)));
        }
        if shared.members.len() >= MOST_MEMBERS && !shared.members.contains_key(&group.member) {
            return Err(Status::resource_exhausted(format!("the group {:?} has {MOST_MEMBERS} members, which is the most", group.name)));
        }
        shared.joined = joined;
        let member = shared.members.entry(group.member.clone()).or_default();
        member.stream += 1;
        if !group.member.is_empty() {
            // What was on its way after the last that arrived did not.
            let kept = group.received.and_then(|last| member.given.iter().position(|&number| number == last)).map_or(0, |at| at + 1);
            shared.unclaimed.extend(member.given.drain(kept..));
        }
        let seat = Seat { groups: Arc::clone(groups), key, member: group.member.clone(), stream: member.stream };
        if epochs.len() > REMEMBERED
            && let Some(oldest) = epochs.iter().min_by_key(|(_, shared)| shared.joined).map(|(key, _)| key.clone())
        {
            epochs.remove(&oldest);
        }
        Ok(seat)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, u64), Shared>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A number to make a batch of, none of `mine`; `None` when all are claimed, or taken by this stream.
    pub(super) fn take(&self, mine: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut epochs = self.groups.lock();
        let shared = epochs.get_mut(&self.key)?;
        if shared.fresh < shared.batches {
            shared.fresh += 1;
            shared.unclaimed.insert(shared.fresh - 1);
            return Some(shared.fresh - 1);
        }
        shared.unclaimed.iter().copied().find(|&number| !mine(number))
    }

    /// Whether the group still is: enough others have been joined since, and this epoch is forgotten.
    pub(super) fn is_remembered(&self) -> bool {
        self.groups.lock().contains_key(&self.key)
    }

    /// Whether batch `number` is this consumer's; if so, nobody else's.
    pub(super) fn claim(&self, number: usize) -> bool {
        let mut epochs = self.groups.lock();
        let Some(shared) = epochs.get_mut(&self.key) else { return false };
        let Some(member) = shared.members.get_mut(&self.member) else { return false };
        // A stream whose consumer has come back on another one has nobody at its end.
        if !self.member.is_empty() && member.stream != self.stream || !shared.unclaimed.remove(&number) {
            return false;
        }
        if !self.member.is_empty() {
            member.given.push(number);
        }
        true
    }
}
