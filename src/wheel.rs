//! A hierarchical timing wheel: the deadlines of the entries of a slab.
//!
//! The wheel knows neither clock nor file, only ticks (`u64`) and slab keys. It has 11 levels of 64 slots, one
//! level for each group of six bits of a tick, so that every `u64` has its place and nothing ever wraps. A
//! deadline is filed relative to the *cursor*, the tick up to which the wheel has advanced: its level is the
//! highest group in which it differs from the cursor, its slot there is the value of that group. A slot of
//! level 0 is thus a single tick; a slot of level `n` is a span of `64^n` ticks, which is spread over the
//! levels below (*cascaded*) when the cursor enters it.
//!
//! What always holds between calls:
//!
//! - A filed deadline agrees with the cursor in all groups above its level and is greater in the group of its
//!   level. So every slot of a level lies before every slot of the levels above, and the first slot in time
//!   is the lowest occupied slot of the lowest occupied level: no rotation, no search.
//! - The one slot that does not lie after the cursor is the cursor's own on level 0. A deadline that has
//!   passed by the time it is scheduled goes there too, as if it were at the cursor. The cursor never leaves
//!   while something is in that slot.
//! - A slot is a circular doubly linked list threaded through `nodes`. It is empty exactly if its bit in
//!   `occupied` is clear; its `head` and `earliest` are meaningless then.
//! - No deadline in a slot is less than the slot's `earliest`, and on the levels above 0 `earliest` is within
//!   the slot's span. It is exact until a node is taken out of a slot that keeps others: `earliest` is then
//!   left as it is, because to find the true one would take a walk along the list. The walk is made once
//!   `earliest` has been reached, by cascading the slot. A cascade files each node on a lower level, so
//!   cascades come to an end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// Bits of a tick that one level resolves.
const BITS: u32 = 6;
/// Slots of a level: as many as an occupancy bitmap has bits.
const SLOTS: usize = 1 << BITS;
/// 11 × 6 bits cover the 64 bits of a tick.
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// Stands in for the slot number of a node that is in no slot.
const NOWHERE: u16 = u16::MAX;

/// The wheel's record of one slab key.
#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: u64,
    /// Neighbours in the slot's circular list; meaningless while `slot` is [`NOWHERE`].
    prev: u32,
    next: u32,
    /// The number of the node's slot, counted through all levels. It cannot be computed again later: the level
    /// depends on where the cursor was when the node was filed.
    slot: u16,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// First node of the list; its `prev` is the last one.
    head: u32,
    /// Lower bound of the deadlines in the slot.
    earliest: u64,
}

/// Deadlines of slab entries; see the [module](self).
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The tick that slots are relative to. Never greater than `now`, and less only until a `pop` returns
    /// `None`.
    cursor: u64,
    /// The latest tick that `pop` was called with.
    now: u64,
    /// For each level, which of its slots have a node.
    occupied: [u64; LEVELS],
    slots: Box<[Slot; LEVELS * SLOTS]>,
    /// Indexed by slab key.
    nodes: Vec<Node>,
}

impl Wheel {
    /// An empty wheel at tick 0.
    pub(crate) fn new() -> Self {
        Self {
            cursor: 0,
            now: 0,
            occupied: [0; LEVELS],
            slots: Box::new([Slot { head: 0, earliest: 0 }; LEVELS * SLOTS]),
            nodes: Vec::new(),
        }
    }

    /// Sets the deadline of `key`, in place of the one it may have.
    ///
    /// Allocates only if `key` is greater than all keys before. A key that does not fit into 32 bits is
    /// ignored: a slab would need more than 4 billion entries to hand it out.
    pub(crate) fn schedule(&mut self, key: usize, deadline: u64) {
        let Ok(link) = u32::try_from(key) else { return };
        if key >= self.nodes.len() {
            self.nodes.resize(key + 1, Node { deadline: 0, prev: 0, next: 0, slot: NOWHERE });
        }
        self.unlink(key);
        self.nodes[key].deadline = deadline;
        self.link(link);
    }

    /// Removes the deadline of `key`; `false` if it has none.
    pub(crate) fn cancel(&mut self, key: usize) -> bool {
        key < self.nodes.len() && self.unlink(key)
    }

    /// The tick at which [`pop`](Self::pop) next has something to do; `None` if nothing is scheduled.
    ///
    /// Returns a tick that is never later than the earliest deadline, and usually is that. After a key was removed it
    /// may be too early: then one `pop` at that tick returns `None`, and the next answer is exact.
    pub(crate) fn next(&self) -> Option<u64> {
        self.first().map(|slot| self.slots[slot].earliest)
    }

    /// Advances to `now` and takes out one key whose deadline is not after it; to be called until `None`.
    ///
    /// Keys come in the order of their deadlines. Keys scheduled after their deadline come first, in the order of
    /// scheduling. A `now` less than in an earlier call counts as the greatest one so far.
    pub(crate) fn pop(&mut self, now: u64) -> Option<usize> {
        self.now = self.now.max(now);
        while let Some(slot) = self.first() {
            let Slot { head, earliest } = self.slots[slot];
            let shift = (slot / SLOTS) as u32 * BITS;
            if earliest >> shift > self.now >> shift {
                break; // The slot's span has not begun, and all others are later.
            }
            // No deadline lies between, so the cursor can go to `earliest` in one step.
            self.cursor = self.cursor.max(earliest.min(self.now));
            if shift == 0 {
                let key = head as usize;
                self.unlink(key);
                return Some(key);
            }
            self.cascade(slot);
        }
        // The cursor keeps up even if nothing is due, or else deadlines would be filed ever more coarsely.
        self.cursor = self.now;
        None
    }

    /// The first occupied slot in time.
    fn first(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some(level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// Files the nodes of `slot`, which the cursor has just entered, on lower levels.
    fn cascade(&mut self, slot: usize) {
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        let head = self.slots[slot].head;
        let mut link = head;
        loop {
            // Read before `link` overwrites it. `link` puts the node into another slot, so the nodes still to
            // come stay intact.
            let next = self.nodes[link as usize].next;
            self.link(link);
            if next == head {
                return;
            }
            link = next;
        }
    }

    /// Puts a node that is in no slot at the end of the slot to which its deadline belongs.
    fn link(&mut self, link: u32) {
        let deadline = self.nodes[link as usize].deadline;
        let place = deadline.max(self.cursor);
        // `| 1`: a deadline equal to the cursor gives 0, which has no ilog2; it belongs to level 0.
        let level = ((place ^ self.cursor) | 1).ilog2() / BITS;
        let index = (place >> (level * BITS)) as usize % SLOTS;
        let (level, bit) = (level as usize, 1 << index);
        let number = level * SLOTS + index;

        let slot = &mut self.slots[number];
        let (prev, next) = if self.occupied[level] & bit == 0 {
            self.occupied[level] |= bit;
            *slot = Slot { head: link, earliest: deadline };
            (link, link)
        } else {
            slot.earliest = slot.earliest.min(deadline);
            (self.nodes[slot.head as usize].prev, slot.head)
        };
        self.nodes[link as usize] = Node { deadline, prev, next, slot: number as u16 };
        self.nodes[prev as usize].next = link;
        self.nodes[next as usize].prev = link;
    }

    /// Takes a node out of its slot; `false` if it is in none.
    fn unlink(&mut self, key: usize) -> bool {
        let Node { prev, next, slot, .. } = self.nodes[key];
        if slot == NOWHERE {
            return false;
        }
        self.nodes[key].slot = NOWHERE;
        let slot = usize::from(slot);
        if next as usize == key {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            return true;
        }
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        if self.slots[slot].head as usize == key {
            self.slots[slot].head = next;
        }
        true
    }
}

#[cfg(test)]
impl Wheel {
    fn len(&self) -> usize {
        self.nodes.iter().filter(|node| node.slot != NOWHERE).count()
    }

    fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    fn deadline(&self, key: usize) -> Option<u64> {
        self.nodes.get(key).filter(|node| node.slot != NOWHERE).map(|node| node.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A tick, absolute or relative to the greatest one so far.
    #[derive(Clone, Copy, Debug)]
    enum Tick {
        At(u64),
        Ahead(u64),
        Back(u64),
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Schedule(usize, Tick),
        Cancel(usize),
        /// One `pop`, which may leave due keys behind.
        Pop(Tick),
        /// `pop` until `None`.
        Advance(Tick),
        /// `pop` until `None` at the tick that `next` returns.
        Wake,
    }

    /// Amounts for every level with the same weight, and the edges of all levels.
    fn amount() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0..200_u64,
            4 => (any::<u64>(), 0..64_u32).prop_map(|(bits, shift)| bits >> shift),
            2 => (0..64_u32, 0..3_u64).prop_map(|(shift, near)| (1_u64 << shift) - 1 + near),
            2 => prop::sample::select(vec![0, 1, 62, 63, 64, 65, 4095, 4096, 4097, u64::MAX - 1, u64::MAX]),
        ]
    }

    fn deadline() -> impl Strategy<Value = Tick> {
        prop_oneof![
            2 => amount().prop_map(Tick::At),
            8 => amount().prop_map(Tick::Ahead),
            1 => (0..3_u64).prop_map(Tick::Back),
            1 => amount().prop_map(Tick::Back),
        ]
    }

    fn advance() -> impl Strategy<Value = Tick> {
        prop_oneof![
            6 => (0..200_u64).prop_map(Tick::Ahead),
            3 => (0..40_u32).prop_flat_map(|bits| 0..=1_u64 << bits).prop_map(Tick::Ahead),
            1 => amount().prop_map(Tick::Back),
            1 => amount().prop_map(Tick::At),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0..32_usize;
        prop_oneof![
            8 => (key.clone(), deadline()).prop_map(|(key, tick)| Op::Schedule(key, tick)),
            2 => key.prop_map(Op::Cancel),
            2 => advance().prop_map(Op::Pop),
            2 => advance().prop_map(Op::Advance),
            4 => Just(Op::Wake),
        ]
    }

    /// The wheel, and an ordered map that has to agree with it.
    struct Model {
        wheel: Wheel,
        now: u64,
        /// The tick at which the order of keys scheduled from now on starts.
        cursor: u64,
        /// For each key its deadline and its place in the order. All deadlines that had passed when they were
        /// scheduled have the same place.
        keys: BTreeMap<usize, (u64, u64)>,
        order: BTreeSet<(u64, usize)>,
        deadlines: BTreeSet<(u64, usize)>,
        /// Deadlines of keys that did not leave in order. Besides the earliest deadline, `next` may return only
        /// these, and only until they have been reached.
        ghosts: BTreeSet<u64>,
    }

    impl Model {
        fn new() -> Self {
            Self {
                wheel: Wheel::new(),
                now: 0,
                cursor: 0,
                keys: BTreeMap::new(),
                order: BTreeSet::new(),
                deadlines: BTreeSet::new(),
                ghosts: BTreeSet::new(),
            }
        }

        fn tick(&self, tick: Tick) -> u64 {
            match tick {
                Tick::At(tick) => tick,
                Tick::Ahead(ticks) => self.now.saturating_add(ticks),
                Tick::Back(ticks) => self.now.saturating_sub(ticks),
            }
        }

        fn forget(&mut self, key: usize) -> Option<(u64, u64)> {
            let (deadline, place) = self.keys.remove(&key)?;
            assert!(self.order.remove(&(place, key)));
            assert!(self.deadlines.remove(&(deadline, key)));
            Some((deadline, place))
        }

        fn schedule(&mut self, key: usize, deadline: u64) {
            if let Some((deadline, _)) = self.forget(key) {
                self.ghosts.insert(deadline);
            }
            let place = deadline.max(self.cursor);
            self.keys.insert(key, (deadline, place));
            self.order.insert((place, key));
            self.deadlines.insert((deadline, key));
            self.wheel.schedule(key, deadline);
        }

        fn cancel(&mut self, key: usize) {
            let gone = self.forget(key);
            self.ghosts.extend(gone.map(|(deadline, _)| deadline));
            assert_eq!(self.wheel.cancel(key), gone.is_some());
        }

        fn pop(&mut self, now: u64) -> Option<usize> {
            let early = self.wheel.next();
            let key = self.wheel.pop(now);
            self.now = self.now.max(now);
            let first = self.order.first().map(|&(place, _)| place);
            if let Some(key) = key {
                let (deadline, place) = self.forget(key).expect("a key that is not scheduled");
                assert_eq!(Some(place), first, "key {key} out of order");
                assert!(place <= self.now, "key {key} too early");
                self.cursor = place;
                if deadline < place {
                    self.ghosts.insert(deadline);
                }
            } else {
                assert!(first.is_none_or(|first| first > self.now), "a due key was kept");
                self.cursor = self.now;
                self.ghosts = self.ghosts.split_off(&self.now);
                self.ghosts.remove(&self.now);
                // A second `pop` at once returns nothing: a loop around `next` cannot spin.
                assert!(self.wheel.next().is_none_or(|next| next > self.now));
                if early.is_some_and(|early| early <= self.now) {
                    assert_eq!(self.wheel.next(), first, "still not exact after a wake-up for nothing");
                }
            }
            key
        }

        fn advance(&mut self, now: u64) {
            while self.pop(now).is_some() {
                self.check();
            }
        }

        fn apply(&mut self, op: Op) {
            match op {
                Op::Schedule(key, tick) => self.schedule(key, self.tick(tick)),
                Op::Cancel(key) => self.cancel(key),
                Op::Pop(tick) => drop(self.pop(self.tick(tick))),
                Op::Advance(tick) => self.advance(self.tick(tick)),
                Op::Wake => self.advance(self.wheel.next().unwrap_or(self.now)),
            }
            self.check();
        }

        /// Compares all visible state, then checks the invariants of the module's description.
        fn check(&self) {
            let wheel = &self.wheel;
            let earliest = self.deadlines.first().map(|&(deadline, _)| deadline);
            assert_eq!(wheel.len(), self.keys.len());
            assert_eq!(wheel.is_empty(), self.keys.is_empty());
            assert!(self.keys.iter().all(|(&key, &(deadline, _))| wheel.deadline(key) == Some(deadline)));
            assert_eq!(wheel.next().is_none(), earliest.is_none());
            if wheel.next() != earliest {
                assert!(wheel.next() < earliest, "next is later than the earliest deadline");
                assert!(wheel.next().is_some_and(|next| self.ghosts.contains(&next)), "next is no deadline");
            }

            assert_eq!(wheel.now, self.now);
            assert_eq!(wheel.cursor, self.cursor);
            let mut seen = 0;
            for slot in
                (0..LEVELS * SLOTS).filter(|slot| wheel.occupied[slot / SLOTS] >> (slot % SLOTS) & 1 == 1)
            {
                let shift = (slot / SLOTS) as u32 * BITS;
                let Slot { head, earliest } = wheel.slots[slot];
                let mut link = head;
                loop {
                    let node = wheel.nodes[link as usize];
                    let place = node.deadline.max(wheel.cursor) >> shift;
                    assert_eq!(usize::from(node.slot), slot);
                    assert_eq!(place as usize % SLOTS, slot % SLOTS);
                    assert_eq!(place >> BITS, wheel.cursor >> shift >> BITS);
                    assert!(shift == 0 || place > wheel.cursor >> shift);
                    assert!(earliest <= node.deadline && (shift == 0 || earliest >> shift == place));
                    assert_eq!(wheel.nodes[node.next as usize].prev, link);
                    seen += 1;
                    assert!(seen <= self.keys.len(), "a list has no end");
                    link = node.next;
                    if link == head {
                        break;
                    }
                }
            }
            assert_eq!(seen, self.keys.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_an_ordered_map(start in amount(), ops in prop::collection::vec(op(), 1..100)) {
            let mut model = Model::new();
            model.advance(start);
            for op in ops {
                model.apply(op);
            }
            // Each wake-up gets a key, or is the only wake-up for a key that left.
            let mut left = model.keys.len() + model.ghosts.len();
            while let Some(tick) = model.wheel.next() {
                prop_assert!(left > 0, "too many wake-ups");
                left -= 1;
                model.pop(tick);
                model.check();
            }
            prop_assert!(model.keys.is_empty());
        }

        #[test]
        fn sorts(start in any::<u64>(), deadlines in prop::collection::vec(amount(), 0..200)) {
            let mut wheel = Wheel::new();
            let start = start >> (start % 64);
            prop_assert_eq!(wheel.pop(start), None);
            let mut sorted: Vec<u64> = deadlines.iter().map(|ticks| start.saturating_add(*ticks)).collect();
            for (key, &deadline) in sorted.iter().enumerate() {
                wheel.schedule(key, deadline);
            }
            let unsorted = sorted.clone();
            sorted.sort_unstable();
            for deadline in sorted {
                // No key left out of order, so `next` is exact and each `pop` at its tick gets a key.
                prop_assert_eq!(wheel.next(), Some(deadline));
                prop_assert_eq!(wheel.pop(deadline).map(|key| unsorted[key]), Some(deadline));
            }
            prop_assert_eq!((wheel.next(), wheel.pop(u64::MAX)), (None, None));
        }
    }

    #[test]
    fn the_last_tick_is_a_tick_like_any_other() {
        let mut wheel = Wheel::new();
        wheel.schedule(0, u64::MAX);
        wheel.schedule(1, u64::MAX - 1);
        assert_eq!(wheel.next(), Some(u64::MAX - 1));
        assert_eq!(wheel.pop(u64::MAX - 2), None);
        assert_eq!(wheel.pop(u64::MAX - 1), Some(1));
        assert_eq!(wheel.pop(u64::MAX - 1), None);
        assert_eq!(wheel.next(), Some(u64::MAX));
        assert_eq!(wheel.pop(u64::MAX), Some(0));
        wheel.schedule(2, u64::MAX);
        wheel.schedule(3, 0);
        assert_eq!(wheel.next(), Some(0));
        let mut popped = [wheel.pop(u64::MAX), wheel.pop(u64::MAX)];
        popped.sort_unstable();
        assert_eq!(popped, [Some(2), Some(3)]);
        assert_eq!((wheel.pop(u64::MAX), wheel.next()), (None, None));
    }

    #[test]
    fn a_deadline_of_now_is_due() {
        for now in [0, 1, 63, 64, 4096, 1 << 60, u64::MAX] {
            let mut wheel = Wheel::new();
            assert_eq!(wheel.pop(now), None);
            wheel.schedule(7, now);
            assert_eq!(wheel.next(), Some(now));
            assert_eq!(wheel.pop(now), Some(7));
            assert_eq!((wheel.pop(now), wheel.next()), (None, None));
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_stands_still() {
        let mut wheel = Wheel::new();
        wheel.schedule(0, 10);
        wheel.schedule(1, 5000);
        wheel.schedule(2, 5001);
        assert_eq!(wheel.pop(5000), Some(0));
        assert_eq!(wheel.pop(3), Some(1), "5000 has been");
        assert_eq!(wheel.pop(3), None);
        assert_eq!(wheel.next(), Some(5001));
        wheel.schedule(3, 4);
        assert_eq!(wheel.next(), Some(4));
        assert_eq!(wheel.pop(4), Some(3));
        assert_eq!(wheel.pop(5001), Some(2));
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut wheel = Wheel::new();
        assert!(!wheel.cancel(3));
        wheel.schedule(3, 100);
        wheel.schedule(3, 200);
        assert_eq!((wheel.len(), wheel.deadline(3), wheel.next()), (1, Some(200), Some(200)));
        assert!(wheel.cancel(3));
        assert!(!wheel.cancel(3));
        assert!(!wheel.cancel(2), "below the highest key, but never scheduled");
        wheel.schedule(3, 300);
        assert_eq!(wheel.pop(299), None);
        assert_eq!(wheel.pop(300), Some(3));
        assert!(!wheel.cancel(3));
    }

    #[test]
    fn what_is_cancelled_is_gone() {
        let mut wheel = Wheel::new();
        for round in 0..1000 {
            for key in 0..100 {
                wheel.schedule(key, round * 30 + 30_000 + key as u64);
            }
            for key in 0..100 {
                assert!(wheel.cancel(key));
            }
            assert_eq!(wheel.next(), None);
            assert_eq!(wheel.pop(round * 30), None);
        }
        assert!(wheel.is_empty());
        assert_eq!(wheel.nodes.len(), 100, "grows with the highest key and nothing else");
    }

    #[test]
    fn a_cancelled_deadline_wakes_once_at_most() {
        let mut wheel = Wheel::new();
        wheel.schedule(0, 5000);
        wheel.schedule(1, 8000);
        assert!(wheel.cancel(0));
        assert_eq!(wheel.next(), Some(5000));
        assert_eq!(wheel.pop(5000), None);
        assert_eq!(wheel.next(), Some(8000));
        assert_eq!(wheel.pop(8000), Some(1));
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_key_beyond_any_slab_is_ignored() {
        let mut wheel = Wheel::new();
        wheel.schedule(1 << 32, 1);
        assert!(!wheel.cancel(1 << 32));
        assert_eq!((wheel.next(), wheel.nodes.len()), (None, 0));
    }

    #[test]
    fn a_key_beyond_all_that_were_scheduled_has_no_deadline() {
        let mut wheel = Wheel::new();
        assert!(!wheel.cancel(0));
        wheel.schedule(0, 1);
        assert!(!wheel.cancel(1));
    }

    /// 100 and 110 are in one slot of level 1 as seen from 0, and in two slots of level 0 as seen from 70.
    #[test]
    fn a_slot_that_has_begun_is_spread_before_more_is_filed_in_its_span() {
        let mut wheel = Wheel::new();
        wheel.schedule(0, 100);
        assert_eq!(wheel.pop(70), None);
        wheel.schedule(1, 110);
        assert_eq!(wheel.next(), Some(100));
        assert_eq!((wheel.pop(120), wheel.pop(120)), (Some(0), Some(1)));
    }
}
