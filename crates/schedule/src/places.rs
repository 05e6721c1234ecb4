//! Whether the free slots can take one more task of a kind, whatever was promised before; and who takes which at last.
//!
//! Slots differ in the kinds they take, so giving a slot away too early can leave another one idle: with a slot for
//! probe and encode and one for encode only, an encode task must go to the second when a probe waits. Nothing is
//! given away while deciding. Instead Hall's theorem says whether promised tasks still fit: for every set of kinds,
//! the tasks promised of them must not outnumber the slots that take any of them. Five kinds have 31 such sets.
//! Promising the first in line that still fits then fills as many slots as any order could (the sets of tasks that fit
//! are the independent sets of a transversal matroid).

use crate::Slots;
use reelyard_model::work::TaskKind;
use std::cmp::Reverse;

const KINDS: usize = TaskKind::ALL.len();
const SETS: usize = 1 << KINDS;

const fn bit(kind: TaskKind) -> usize {
    1 << kind as usize
}

/// Slots that can still be promised, for each set of kinds.
pub(crate) struct Places {
    room: [u64; SETS],
}

impl Places {
    pub(crate) fn of(slots: &[Slots]) -> Self {
        let mut room = [0; SETS];
        for group in slots {
            let takes = group.kinds.iter().fold(0, |set, &kind| set | bit(kind));
            for (set, room) in room.iter_mut().enumerate() {
                if set & takes != 0 {
                    *room += u64::from(group.free);
                }
            }
        }
        Self { room }
    }

    /// Once false it stays false: promises are not taken back.
    pub(crate) fn fits(&self, kind: TaskKind) -> bool {
        self.room.iter().enumerate().all(|(set, &room)| set & bit(kind) == 0 || room > 0)
    }

    /// Only after [`Self::fits`].
    pub(crate) fn promise(&mut self, kind: TaskKind) {
        for (set, room) in self.room.iter_mut().enumerate() {
            if set & bit(kind) != 0 {
                *room = room.saturating_sub(1);
            }
        }
    }

    pub(crate) fn any_left(&self) -> bool {
        TaskKind::ALL.into_iter().any(|kind| self.fits(kind))
    }
}

/// Which entry of `slots` gets which task: for each kind in `tasks` its index. Spreads them over the entries, the
/// emptiest first, and fills as many as can be. A task that finds no place (which does not happen to what
/// [`crate::picks`] named, with the same slots) gets `None`.
pub fn deal(tasks: &[TaskKind], slots: &[Slots]) -> Vec<Option<usize>> {
    let mut hands: Vec<Hand> =
        slots.iter().map(|group| Hand { takes: &group.kinds, free: group.free, has: Vec::new() }).collect();
    for (task, &kind) in tasks.iter().enumerate() {
        let mut asked = vec![false; hands.len()];
        seat(task, kind, tasks, &mut hands, &mut asked);
    }
    let mut dealt = vec![None; tasks.len()];
    for (group, hand) in hands.iter().enumerate() {
        for &task in &hand.has {
            dealt[task] = Some(group);
        }
    }
    dealt
}

struct Hand<'a> {
    takes: &'a [TaskKind],
    free: u32,
    has: Vec<usize>,
}

/// An augmenting path: where nobody is free, one of another kind that sits in a fitting slot is asked to move over.
fn seat(task: usize, kind: TaskKind, tasks: &[TaskKind], hands: &mut [Hand], asked: &mut [bool]) -> bool {
    // The emptiest machine works fastest, and the chunks of one video come to lie on as many as there are.
    let free = (0..hands.len())
        .filter(|&at| hands[at].free > 0 && hands[at].takes.contains(&kind))
        .max_by_key(|&at| (hands[at].free, Reverse(at)));
    if let Some(at) = free {
        hands[at].free -= 1;
        hands[at].has.push(task);
        return true;
    }
    for at in 0..hands.len() {
        if asked[at] || !hands[at].takes.contains(&kind) {
            continue;
        }
        asked[at] = true;
        for other in TaskKind::ALL.into_iter().filter(|&other| other != kind) {
            let Some(place) = hands[at].has.iter().position(|&sits| tasks[sits] == other) else { continue };
            let sits = hands[at].has[place];
            if seat(sits, other, tasks, hands, asked) {
                // The other moved over; its old place is at the same index still, for hands only grow at their ends.
                hands[at].has[place] = task;
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Places, deal};
    use crate::Slots;
    use reelyard_model::work::TaskKind::{self, Audio, Encode, Probe, Publish, Stills};

    fn slots(groups: &[(&[TaskKind], u32)]) -> Vec<Slots> {
        groups.iter().map(|&(kinds, free)| Slots { kinds: kinds.to_vec(), free }).collect()
    }

    #[test]
    fn an_encode_task_leaves_the_slot_that_alone_takes_probes() {
        let slots = slots(&[(&[Probe, Encode], 1), (&[Encode], 1)]);
        let mut places = Places::of(&slots);
        places.promise(Encode);
        assert!(places.fits(Encode) && places.fits(Probe), "either, but one of them only");
        places.promise(Probe);
        assert!(!places.any_left());
        assert_eq!(deal(&[Encode, Probe], &slots), [Some(1), Some(0)]);
    }

    #[test]
    fn tasks_are_spread_over_workers_the_emptiest_first() {
        let slots = slots(&[(&[Encode], 2), (&[Encode], 4), (&[Encode, Probe], 4)]);
        let dealt = deal(&[Encode; 6], &slots);
        assert_eq!(dealt, [1, 2, 1, 2, 0, 1].map(Some));
    }

    #[test]
    fn a_chain_of_moves_makes_room() {
        let slots = slots(&[(&[Audio, Encode], 1), (&[Encode, Stills], 1), (&[Stills, Probe], 1)]);
        assert_eq!(deal(&[Encode, Stills, Audio], &slots), [Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn what_nobody_takes_gets_no_place() {
        let slots = slots(&[(&[Encode], 2), (&[], 5)]);
        assert!(!Places::of(&slots).fits(Publish));
        assert_eq!(deal(&[Publish, Encode, Encode, Encode], &slots), [None, Some(0), Some(0), None]);
    }
}
