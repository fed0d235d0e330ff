//! Tests of the machine, with a kernel of fixed answers and a clock that jumps from wake-up to wake-up.

use std::time::Duration;

use super::*;
use crate::reaper::Signal;

const MS: Duration = Duration::from_millis(1);
const ZERO: Span = Span::ZERO;
const ZERO_TIME: Duration = Duration::ZERO;
const TICK: Input = Input::TimerFired { lag: ZERO };
const POPULATED: Checked = populated(Change::None, ExitNotice::Delayed);
const FRESH: Checked = populated(Change::Joined, ExitNotice::Delayed);
const EMPTY: Checked = Checked::Empty { replaced: false };
const TERM: Action = Action::Signal(Signal::TERM, Members::Running);
const KILLED: Attempt =
    Attempt { signalled: 0, method: Some(UsedMethod::Pidfd), reach: Reach::All, notice: ExitNotice::Delayed };

const fn populated(change: Change, notice: ExitNotice) -> Checked {
    Checked::Populated(Population { change, is_partial: false, notice })
}

fn at(since_start: Duration) -> Instant {
    Instant::after_start(since_start)
}

fn reaper() -> Reaper {
    Reaper::at("/x")
}

/// A kernel of fixed answers, and a clock that jumps from wake-up to wake-up.
struct Rig {
    machine: Machine,
    now: Duration,
    check: Checked,
    kill: Attempt,
    freeze: Froze,
    frozen_in_part: bool,
    thaw: Thawed,
    /// Whether a thaw that fails is that of our own freeze.
    ours_left: bool,
    rest_of_thaw: Thawed,
    external: Thawed,
    removal: Removed,
    /// The actions except checks, and their times.
    done: Vec<(u128, Action)>,
    checks: Vec<u128>,
}

impl Rig {
    fn new(reaper: &Reaper) -> Rig {
        Rig {
            machine: Machine::new(reaper, at(Duration::ZERO), true, reaper.keep_dir),
            now: Duration::ZERO,
            check: POPULATED,
            kill: KILLED,
            freeze: Froze::Frozen,
            frozen_in_part: false,
            thaw: Thawed::All,
            ours_left: true,
            rest_of_thaw: Thawed::All,
            external: Thawed::All,
            removal: Removed::All,
            done: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Feeds a wake-up and all answers. Returns the time of the next timer, or the end.
    fn wake(&mut self, mut input: Input) -> Result<Duration, End> {
        for _ in 0..20 {
            let action = self.machine.step(at(self.now), input);
            match action {
                Action::Check(_) => self.checks.push(self.now.as_millis()),
                _ => self.done.push((self.now.as_millis(), action)),
            }
            input = match action {
                Action::Check(_) => Input::Checked(self.check),
                Action::Kill(_) => Input::Killed(self.kill),
                Action::Signal(..) => Input::Signalled(self.kill),
                Action::Freeze => Input::Froze { froze: self.freeze, ours_left: self.frozen_in_part },
                Action::Thaw(_) => {
                    let fails = matches!(self.thaw, Thawed::Denied | Thawed::Failed);
                    let ours_left = self.ours_left && fails && self.machine.has_frozen();
                    Input::Thawed { thawed: self.thaw, ours_left }
                }
                Action::ContinueThaw => Input::Thawed { thawed: self.rest_of_thaw, ours_left: false },
                Action::ThawExternal => Input::ThawedExternal(self.external),
                Action::Remove => Input::Removed(self.removal),
                Action::Wait(until) => return Ok(until.since_start()),
                Action::Yield => return Ok(self.now),
                Action::Finish(end) => return Err(end),
            };
        }
        panic!("no end to the actions: {:?}", self.done);
    }

    /// Runs the timers that are due until the time `until`.
    fn run(&mut self, until: Duration) -> Option<End> {
        let mut input = Input::Spawned;
        if !self.checks.is_empty() {
            input = TICK;
        }
        for _ in 0..20_000 {
            match self.wake(input) {
                Err(end) => return Some(end),
                Ok(next) if next > until => return None,
                Ok(next) => {
                    self.now = self.now.max(next);
                    input = TICK;
                }
            }
        }
        panic!("it wakes again and again at {:?}", self.now);
    }

    fn times(&self, wanted: impl Fn(&Action) -> bool) -> Vec<u128> {
        self.done.iter().filter(|(_, action)| wanted(action)).map(|(at, _)| *at).collect()
    }

    fn kills(&self) -> Vec<u128> {
        self.times(|action| matches!(action, Action::Kill(_)))
    }
}

#[test]
fn a_target_that_never_dies_sees_the_original_waits() {
    let mut rig = Rig::new(&reaper());
    assert_eq!(rig.run(60_000 * MS), None);
    assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 3410, 13410, 23410, 33410, 43410, 53410]);
    // Probes follow the first attempt only; later every wake-up is an attempt.
    assert_eq!(rig.checks[..8], [0, 1, 3, 7, 10, 50, 210, 850]);
    assert_eq!(rig.checks.len(), rig.kills().len() + 3);
}

/// A write by a helper thread is asked about at each notification, rarely without one, and counts as one
/// attempt.
#[test]
fn an_attempt_that_is_under_way_is_finished() {
    let mut rig = Rig::new(&reaper());
    rig.kill = Attempt { method: None, reach: Reach::UnderWay, ..KILLED };
    assert_eq!(rig.run(60_000 * MS), None);
    assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 3410, 13410, 23410, 33410, 43410, 53410]);
    assert_eq!((rig.machine.attempts(), rig.machine.used()), (0, None));
    rig.kill = Attempt { method: Some(UsedMethod::CgroupKill), ..KILLED };
    assert!(rig.wake(Input::Notified).is_ok());
    assert_eq!((rig.machine.attempts(), rig.machine.used()), (1, Some(UsedMethod::CgroupKill)));
    rig.check = EMPTY;
    assert_eq!(rig.wake(Input::Notified), Err(End::Done(Outcome::Removed)));
}

/// A write by a helper thread that never returns does not delay the end of the reap, by any method.
#[test]
fn an_attempt_that_stays_under_way_holds_up_no_end() {
    for method in [KillMethod::Auto, KillMethod::CgroupKill] {
        let mut rig = Rig::new(&reaper().method(method).deadline(500 * MS));
        rig.kill = Attempt { method: None, reach: Reach::UnderWay, ..KILLED };
        assert_eq!(rig.run(2000 * MS), Some(End::TimedOut), "{method}");
        assert!(rig.now <= 600 * MS, "{method}: {:?}", rig.now);
        let mut rig = Rig::new(&reaper().method(method));
        rig.kill = Attempt { method: None, reach: Reach::UnderWay, ..KILLED };
        assert_eq!(rig.run(20 * MS), None);
        assert_eq!(rig.wake(Input::Cancelled), Err(End::Cancelled));
    }
}

/// Members that a helper thread has killed all exit after that: the next attempt waits for four times as long as the write
/// took, and later attempts wait as usual. Members that are signalled in steps exit meanwhile.
#[test]
fn an_attempt_by_a_helper_is_waited_for() {
    for (reach, kills) in
        [(Reach::UnderWay, [0, 100, 500, 540, 700]), (Reach::Unfinished, [0, 100, 110, 150, 310])]
    {
        let mut rig = Rig::new(&reaper());
        rig.kill = Attempt { method: None, reach, ..KILLED };
        assert!(rig.wake(Input::Spawned).is_ok());
        rig.now = 100 * MS;
        rig.kill = Attempt { method: Some(UsedMethod::CgroupKill), ..KILLED };
        assert_eq!(rig.run(700 * MS), None);
        assert_eq!(rig.kills()[..5], kills, "{reach:?}");
    }
}

/// If descriptors are short, a reap that waits for long loses its watch.
#[test]
fn a_reap_that_waits_for_long_is_patient() {
    let mut rig = Rig::new(&reaper());
    assert!(!rig.machine.is_patient());
    assert_eq!(rig.run(3409 * MS), None);
    assert!(!rig.machine.is_patient());
    assert_eq!(rig.run(3410 * MS), None);
    assert!(rig.machine.is_patient(), "the waits are the longest now");
    for waits in [reaper().when_empty(), reaper().linger(MS)] {
        assert!(Rig::new(&waits).machine.is_patient());
    }
    assert!(!Rig::new(&reaper().grace(Signal::TERM, MS)).machine.is_patient());
}

/// The memory of members that outlive three attempts is released.
#[test]
fn members_that_outlive_three_attempts_are_stubborn() {
    let mut rig = Rig::new(&reaper());
    assert_eq!(rig.run(209 * MS), None);
    assert_eq!((rig.machine.attempts(), rig.machine.is_stubborn()), (3, false));
    assert_eq!(rig.run(210 * MS), None);
    assert_eq!((rig.machine.attempts(), rig.machine.is_stubborn()), (4, true));
    assert!(rig.wake(Input::Cancelled).is_err());
    assert!(!rig.machine.is_stubborn(), "it has ended");
}

/// If an external freeze holds members, every attempt looks for it, so that the freeze can time out.
#[test]
fn external_freezes_are_looked_for_seldom_at_the_slowest_pace() {
    let asked = |thaw| {
        let mut rig = Rig::new(&reaper().freeze_timeout(1000 * reaper().max_wait));
        rig.thaw = thaw;
        rig.run(110_000 * MS);
        rig.times(|action| matches!(action, Action::ThawExternal))
    };
    // From 3 410 ms on, at the longest wait, only every fourth attempt looks for external freezes.
    assert_eq!(asked(Thawed::All), [210, 850, 23410, 63410, 103410]);
    let held = asked(Thawed::HeldFromOutside);
    assert_eq!(held[..6], [210, 850, 3410, 13410, 23410, 33410]);
    assert_eq!(held.len(), 13);
}

#[test]
fn an_attempt_follows_a_check_that_found_members() {
    let mut rig = Rig::new(&reaper());
    rig.run(1000 * MS);
    for kill in rig.kills() {
        assert!(rig.checks.contains(&kill));
    }
    rig.check = EMPTY;
    let before = rig.kills().len();
    rig.now = 5000 * MS;
    assert_eq!(rig.wake(TICK), Err(End::Done(Outcome::Removed)));
    assert_eq!(rig.kills().len(), before);
}

#[test]
fn waits_at_their_limits_neither_wrap_nor_spin() {
    for (min, max) in [(MS, MS), (MS, Duration::MAX), (Duration::MAX, Duration::MAX)] {
        let mut rig = Rig::new(&reaper().min_wait(min).max_wait(max).freeze_timeout(Duration::MAX));
        let mut last = Duration::ZERO;
        let mut input = Input::Spawned;
        for _ in 0..200 {
            let next = rig.wake(input).unwrap();
            assert!(next > last || next == at(Duration::MAX).since_start());
            (last, rig.now, input) = (next, next, TICK);
        }
    }
}

#[test]
fn exits_start_the_backoff_over() {
    let mut rig = Rig::new(&reaper());
    rig.run(849 * MS);
    rig.check = populated(Change::Fewer, ExitNotice::Delayed);
    rig.now = 850 * MS;
    rig.wake(TICK).unwrap();
    rig.check = POPULATED;
    rig.now = 860 * MS;
    rig.run(1100 * MS);
    assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 860, 900, 1060]);
}

#[test]
fn notifications_do_not_prompt_another_attempt_by_themselves() {
    let mut rig = Rig::new(&reaper());
    rig.wake(Input::Spawned).unwrap();
    for _ in 0..100 {
        rig.wake(Input::Notified).unwrap();
    }
    assert_eq!(rig.kills(), [0]);
    assert_eq!(rig.checks.len(), 101);
}

#[test]
fn new_members_are_killed_at_once_and_then_frozen_but_not_without_end() {
    let mut rig = Rig::new(&reaper());
    rig.wake(Input::Spawned).unwrap();
    rig.check = FRESH;
    for _ in 0..100 {
        rig.wake(Input::Notified).unwrap();
    }
    assert_eq!(rig.kills().len(), 1 + usize::from(pace::PROMPTED));
    assert!(rig.machine.freezes_first());
    let freezes = rig.times(|action| *action == Action::Freeze);
    assert_eq!(freezes.len(), rig.kills().len() - usize::from(STORM));
    // Each freeze is followed by its kill and its thaw.
    assert!(!rig.machine.has_frozen());
    rig.now = 10 * MS;
    rig.wake(TICK).unwrap();
    rig.wake(Input::Notified).unwrap();
    assert_eq!(rig.kills().len(), 3 + usize::from(pace::PROMPTED));
}

#[test]
fn without_a_freezer_a_fork_storm_is_signalled_again() {
    let mut rig = Rig::new(&reaper());
    rig.freeze = Froze::Unavailable;
    rig.check = FRESH;
    rig.wake(Input::Spawned).unwrap();
    for _ in 0..6 {
        rig.wake(Input::Notified).unwrap();
    }
    assert_eq!(rig.kills().len(), 7);
    assert_eq!(rig.times(|action| *action == Action::Freeze).len(), 1);
}

#[test]
fn a_freezer_attempt_freezes_kills_and_thaws_in_one_chain() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    rig.wake(Input::Spawned).unwrap();
    let actions: Vec<Action> = rig.done.iter().map(|(_, action)| *action).collect();
    assert_eq!(
        actions[..3],
        [Action::Freeze, Action::Kill(KillBy::Signals(Members::Frozen)), Action::Thaw(ThawScope::All)]
    );
    assert_eq!(rig.machine.used(), Some(UsedMethod::Freezer));
    assert!(!rig.machine.has_frozen());
}

#[test]
fn a_freeze_that_times_out_is_killed_thawed_and_tried_again() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(100 * MS));
    rig.freeze = Froze::Freezing;
    // Without pidfds, it is not safe to signal members that are not frozen.
    rig.kill = Attempt { reach: Reach::Unsafe, method: None, ..KILLED };
    rig.run(99 * MS);
    assert!((50..=64).contains(&rig.kills()[0]), "tried when the freeze has stalled");
    assert!(rig.machine.has_frozen());
    assert!(!rig.done.iter().any(|(_, action)| *action == Action::Thaw(ThawScope::All)));
    rig.done.clear();
    rig.run(100 * MS);
    assert_eq!(rig.kills().last(), Some(&100));
    let thaws = rig.times(|action| matches!(action, Action::Thaw(_)));
    assert_eq!(thaws, [100]);
    assert!(!rig.machine.has_frozen());
    // The time is measured by the clock, not by a sum of waits, so event-loop lag counts in full.
    rig.now = 200 * MS;
    rig.run(200 * MS);
    rig.now = 1000 * MS;
    rig.wake(TICK).unwrap();
    assert_eq!(rig.kills().last(), Some(&1000));
}

/// A member that execs, or is uninterruptible, keeps a freeze from completing.
#[test]
fn members_are_signalled_when_a_freeze_stalls() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    rig.freeze = Froze::Freezing;
    rig.run(300 * MS);
    let thaws = rig.times(|action| *action == Action::Thaw(ThawScope::All));
    assert!((50..100).contains(&rig.kills()[0]), "{:?}", rig.kills());
    assert_eq!(thaws[..2], rig.kills()[..2], "and it is thawed, and frozen again");
}

#[test]
fn nothing_ends_while_it_is_frozen_by_us() {
    for end in ["cancel", "deadline", "replaced", "gone"] {
        let mut rig =
            Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS).freeze_timeout(Duration::MAX));
        rig.freeze = Froze::Freezing;
        rig.wake(Input::Spawned).unwrap();
        assert!(rig.machine.has_frozen());
        let result = match end {
            "cancel" => rig.wake(Input::Cancelled),
            "deadline" => {
                rig.run(50 * MS);
                assert_eq!((rig.kills(), rig.machine.has_frozen()), (vec![50], false));
                rig.run(1000 * MS).map_or(Ok(rig.now), Err)
            }
            "replaced" => {
                rig.check = Checked::Replaced;
                rig.wake(Input::Notified)
            }
            _ => {
                rig.check = Checked::Gone;
                rig.wake(Input::Notified)
            }
        };
        assert!(result.is_err());
        assert!(!rig.machine.has_frozen(), "{end}");
        let thaws = rig.times(|action| *action == Action::Thaw(ThawScope::All));
        assert_eq!(thaws.len(), 1, "{end}");
        // At the deadline SIGKILL is still sent, at a cancel it is not.
        assert_eq!(rig.kills().is_empty(), end != "deadline");
    }
}

#[test]
fn a_failed_thaw_is_retried_before_the_end() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(Duration::MAX));
    rig.freeze = Froze::Freezing;
    rig.wake(Input::Spawned).unwrap();
    rig.thaw = Thawed::Failed;
    let next = rig.wake(Input::Cancelled).unwrap();
    assert!(next > rig.now && rig.machine.has_frozen());
    // A notification or a second cancel does not change this.
    assert!(rig.wake(Input::Notified).is_ok());
    assert!(rig.wake(Input::Cancelled).is_ok());
    rig.thaw = Thawed::All;
    rig.now = next;
    assert_eq!(rig.wake(TICK), Err(End::Cancelled));
    assert!(!rig.machine.has_frozen());
}

#[test]
fn a_thaw_that_keeps_failing_delays_the_end_by_ten_seconds() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS));
    rig.freeze = Froze::Freezing;
    rig.thaw = Thawed::Failed;
    assert_eq!(rig.run(9_000 * MS), None);
    assert_eq!(rig.run(60_000 * MS), Some(End::TimedOut));
    assert!((10_050 * MS..=10_130 * MS).contains(&rig.now), "{:?}", rig.now);
}

#[test]
fn the_first_end_is_the_end() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS));
    rig.thaw = Thawed::Failed;
    assert_eq!(rig.run(60 * MS), None);
    assert!(rig.machine.has_frozen() && rig.wake(Input::Cancelled).is_ok());
    rig.thaw = Thawed::All;
    assert_eq!(rig.wake(TICK), Err(End::TimedOut));
}

/// A cancel while the target is thawed for the last time: a process that has joined meanwhile is not killed.
#[test]
fn a_cancel_amid_the_last_thaw_is_heeded() {
    for thaw in [Thawed::Unfinished, Thawed::Failed] {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).keep_dir());
        rig.freeze = Froze::Freezing;
        rig.run(5 * MS);
        (rig.check, rig.thaw, rig.rest_of_thaw) = (EMPTY, thaw, thaw);
        assert!(rig.wake(Input::Notified).is_ok());
        let kills = rig.kills();
        rig.check = POPULATED;
        let cancelled = rig.wake(Input::Cancelled);
        (rig.thaw, rig.rest_of_thaw) = (Thawed::All, Thawed::All);
        // Where our own freeze is undone, nothing is left to be done.
        assert_eq!(cancelled.and_then(|_| rig.wake(TICK)), Err(End::Cancelled), "{thaw:?}");
        assert_eq!(rig.kills(), kills);
    }
}

#[test]
fn an_ancestor_may_hold_the_target_for_the_freeze_timeout() {
    let mut rig = Rig::new(&reaper().freeze_timeout(1000 * MS));
    rig.thaw = Thawed::HeldFromOutside;
    assert_eq!(rig.run(999 * MS), None);
    assert_eq!(rig.run(60_000 * MS), Some(End::FrozenByAncestor));
    let mut rig = Rig::new(&reaper().freeze_timeout(1000 * MS));
    rig.thaw = Thawed::HeldFromOutside;
    rig.run(999 * MS);
    rig.thaw = Thawed::All;
    assert_eq!(rig.run(60_000 * MS), None);
}

/// A passing error in between does not restart the time.
#[test]
fn an_external_freeze_may_hold_the_target_for_the_freeze_timeout() {
    let mut rig = Rig::new(&reaper().freeze_timeout(1000 * MS));
    rig.external = Thawed::HeldFromOutside;
    assert_eq!(rig.run(300 * MS), None);
    rig.external = Thawed::Failed;
    assert_eq!(rig.run(900 * MS), None);
    rig.external = Thawed::HeldFromOutside;
    assert_eq!(rig.run(60_000 * MS), Some(End::FrozenByAncestor));
    assert_eq!(rig.now, 1210 * MS, "by a timer, not at an attempt");
}

/// A look for external freezes that fails has waits of its own, and is made again at the slowest pace too.
#[test]
fn a_look_for_external_freezes_that_fails_delays_no_end() {
    let mut rig = Rig::new(&reaper());
    rig.external = Thawed::Failed;
    assert_eq!(rig.run(20_000 * MS), None);
    let looks = rig.times(|action| matches!(action, Action::ThawExternal));
    assert_eq!(looks[..6], [210, 220, 240, 280, 360, 440]);
    assert_eq!(looks.len(), 6 + (20_000 - 440) / 80);
    rig.kill.reach = Reach::Denied;
    assert_eq!(rig.run(60_000 * MS), Some(End::Denied));
    assert!(rig.now < 21_000 * MS, "{:?}", rig.now);
}

/// Members that `cgroup.kill` has reached and that may not be signalled are waited for as long as others, and sent SIGKILL once
/// more at the deadline.
#[test]
fn members_that_cgroup_kill_has_covered_are_waited_for() {
    let covered = Attempt { method: Some(UsedMethod::CgroupKill), reach: Reach::Covered, ..KILLED };
    let mut rig = Rig::new(&reaper().deadline(40_000 * MS));
    rig.kill = covered;
    assert_eq!(rig.run(39_999 * MS), None);
    assert_eq!(rig.kills(), [0, 10, 50, 210, 850, 3410, 13410, 23410, 33410]);
    assert!(!rig.machine.is_failing());
    assert_eq!(rig.run(60_000 * MS), Some(End::TimedOut));
    assert_eq!(rig.kills()[9], 40_000);
}

/// That a freeze of another party may not be thawed does not count for a freeze of ours.
#[test]
fn the_thaw_of_our_freeze_has_refusals_of_its_own() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(5000 * MS));
    (rig.thaw, rig.ours_left) = (Thawed::Denied, false);
    assert_eq!(rig.run(2000 * MS), None);
    rig.ours_left = true;
    assert_eq!(rig.run(2800 * MS), None);
    assert_eq!(rig.run(4000 * MS), Some(End::Denied));
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).freeze_timeout(5000 * MS));
    (rig.thaw, rig.ours_left) = (Thawed::Denied, false);
    rig.run(2000 * MS);
    rig.ours_left = true;
    rig.run(2100 * MS);
    assert!(rig.wake(Input::Cancelled).is_ok(), "the thaw is made again before the end");
}

/// A thaw of ours that is made again looks for no freezes of other parties, so it does not tell that there are none.
#[test]
fn the_thaw_of_our_freeze_does_not_settle_that_of_others() {
    let mut machine = Machine::new(&reaper(), at(ZERO_TIME), true, false);
    machine.phase = Phase::Killing;
    machine.retries.external_thaw_failed(at(ZERO_TIME), true);
    machine.pending = Pending::Thawing(AfterThaw::Check, None);
    let thawed = Input::Thawed { thawed: Thawed::All, ours_left: false };
    assert_eq!(machine.step(at(MS), thawed), Action::Check(Detail::Members));
    assert!(machine.retries.is_external_thaw_failing());
    machine.pending = Pending::Thawing(AfterThaw::WaitAfterExternal(Thawed::All), None);
    machine.step(at(MS), thawed);
    assert!(!machine.retries.is_external_thaw_failing());
}

/// Beyond `freeze_timeout`, such a freeze is retried by timer, not at each notification.
#[test]
fn a_freeze_that_may_not_be_thawed_does_not_make_every_check_an_attempt() {
    let mut rig = Rig::new(&reaper().freeze_timeout(ZERO_TIME));
    rig.thaw = Thawed::Denied;
    rig.run(200 * MS);
    let kills = rig.kills().len();
    for _ in 0..20 {
        rig.wake(Input::Notified).unwrap();
    }
    assert!(rig.kills().len() <= kills + 1, "{:?}", rig.kills());
}

/// A freeze that may not be thawed ends no reap at its first refusal, however short the caller's patience is.
#[test]
fn an_external_freeze_that_may_not_be_thawed_is_refused_for_good_at_last() {
    for freeze_timeout in [ZERO_TIME, 5000 * MS] {
        let mut rig = Rig::new(&reaper().freeze_timeout(freeze_timeout));
        rig.thaw = Thawed::Denied;
        assert_eq!(rig.run(freeze_timeout.max(850 * MS) - MS), None);
        assert_eq!(rig.run(60_000 * MS), Some(End::Denied));
        assert!(rig.now <= freeze_timeout.max(850 * MS) + 80 * MS, "{:?}", rig.now);
    }
    let mut rig = Rig::new(&reaper().freeze_timeout(ZERO_TIME));
    rig.thaw = Thawed::Denied;
    rig.run(400 * MS);
    rig.thaw = Thawed::All;
    assert_eq!(rig.run(60_000 * MS), None);
}

#[test]
fn an_error_is_never_empty_and_refusals_end_the_reap() {
    let mut rig = Rig::new(&reaper());
    rig.check = Checked::Unknown(Failure::Passing);
    assert_eq!(rig.run(120_000 * MS), None);
    assert_eq!(rig.times(|action| *action == Action::Remove), []);
    let mut rig = Rig::new(&reaper());
    rig.check = Checked::Unknown(Failure::Denied);
    assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
    assert_eq!(rig.checks[..6], [0, 10, 30, 70, 150, 230]);
    assert_eq!(rig.checks.last(), Some(&870));
    let mut rig = Rig::new(&reaper());
    rig.kill.reach = Reach::Denied;
    assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
    let mut rig = Rig::new(&reaper());
    rig.check = EMPTY;
    rig.removal = Removed::Denied;
    assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
}

#[test]
fn a_busy_directory_is_tried_again_by_timer() {
    let mut rig = Rig::new(&reaper());
    rig.check = EMPTY;
    rig.removal = Removed::Busy;
    assert_eq!(rig.run(900 * MS), None);
    assert_eq!(rig.times(|action| *action == Action::Remove), [0, 1, 3, 7, 10, 50, 210, 850]);
    assert_eq!(rig.kills(), []);
}

#[test]
fn unsafe_signals_wait_for_a_freeze_or_are_refused() {
    let mut rig = Rig::new(&reaper());
    rig.kill = Attempt { reach: Reach::Unsafe, method: None, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.times(|action| *action == Action::Freeze), [0]);
    let mut rig = Rig::new(&reaper());
    rig.kill = Attempt { reach: Reach::Unsafe, method: None, ..KILLED };
    rig.freeze = Froze::Unavailable;
    assert_eq!(rig.run(120_000 * MS), Some(End::Denied));
}

#[test]
fn the_grace_signal_comes_first_and_sigkill_after_the_period() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
    rig.run(99 * MS);
    assert_eq!(rig.times(|action| *action == TERM), [0]);
    assert_eq!(rig.kills(), []);
    // The thaw lets frozen members act on the signal.
    assert_eq!(rig.times(|action| *action == Action::Thaw(ThawScope::All)), [0]);
    rig.now = 100 * MS;
    rig.run(300 * MS);
    assert_eq!(rig.kills(), [100, 110, 150]);
}

/// The attempts, signals and freezes of a rig.
fn touched(rig: &Rig) -> Vec<Action> {
    let passive = |action: &Action| matches!(action, Action::Wait(_) | Action::Remove | Action::Finish(_));
    rig.done.iter().map(|(_, action)| *action).filter(|action| !passive(action)).collect()
}

#[test]
fn a_reap_when_empty_sends_nothing_and_checks_by_the_backoff() {
    // On v1 every member is new in each check, because none was signalled.
    for check in [POPULATED, FRESH, populated(Change::Joined, ExitNotice::None)] {
        let mut rig = Rig::new(&reaper().when_empty().grace(Signal::TERM, MS).linger(MS));
        rig.check = check;
        assert_eq!(rig.run(60_000 * MS), None);
        for _ in 0..20 {
            rig.wake(Input::Notified).unwrap();
        }
        assert_eq!(touched(&rig), []);
        assert_eq!(rig.checks[..8], [0, 10, 50, 210, 850, 3410, 13410, 23410], "{check:?}");
        rig.check = EMPTY;
        assert_eq!(rig.wake(Input::Notified), Err(End::Done(Outcome::Removed)));
        assert_eq!((rig.machine.attempts(), touched(&rig)), (0, vec![]));
    }
}

/// Where no pidfd can be watched, the exit of one member is the best sign that others exit.
#[test]
fn a_reap_when_empty_checks_soon_after_an_exit() {
    let mut rig = Rig::new(&reaper().when_empty());
    rig.run(4000 * MS);
    rig.check = populated(Change::JoinedAndFewer, ExitNotice::None);
    rig.now = 4000 * MS;
    assert_eq!(rig.wake(Input::Notified), Ok(4010 * MS));
}

#[test]
fn a_reap_when_empty_times_out_without_a_signal() {
    for check in [POPULATED, FRESH, Checked::Unknown(Failure::Passing), Checked::Unfinished] {
        let mut rig = Rig::new(&reaper().when_empty().deadline(100 * MS));
        if check == Checked::Unfinished {
            rig.run(99 * MS);
            rig.now = 100 * MS;
        }
        rig.check = check;
        assert_eq!(rig.run(200 * MS), Some(End::TimedOut), "{check:?}");
        assert_eq!((rig.now, touched(&rig)), (100 * MS, vec![]));
    }
}

/// A directory that is in use is removed later. Members that join until then are not signalled either.
#[test]
fn a_reap_when_empty_leaves_new_members_of_an_empty_target_alone() {
    let mut rig = Rig::new(&reaper().when_empty());
    (rig.check, rig.removal) = (EMPTY, Removed::Busy);
    rig.run(20 * MS);
    rig.check = FRESH;
    rig.now = 20 * MS;
    rig.wake(Input::Notified).unwrap();
    rig.run(30_000 * MS);
    assert_eq!(touched(&rig), []);
    (rig.check, rig.removal) = (EMPTY, Removed::All);
    assert_eq!(rig.run(45_000 * MS), Some(End::Done(Outcome::Removed)));
}

#[test]
fn linger_grace_and_sigkill_follow_one_another() {
    let mut rig = Rig::new(&reaper().linger(100 * MS).grace(Signal::TERM, 50 * MS));
    rig.check = FRESH;
    rig.run(99 * MS);
    assert_eq!(touched(&rig), []);
    rig.now = 100 * MS;
    rig.run(149 * MS);
    assert_eq!(touched(&rig), [TERM, Action::Thaw(ThawScope::All)]);
    assert_eq!(rig.times(|action| *action == TERM), [100]);
    rig.now = 150 * MS;
    rig.run(155 * MS);
    assert_eq!(rig.kills()[0], 150);
    // Without a grace period.
    let mut rig = Rig::new(&reaper().linger(100 * MS));
    rig.run(200 * MS);
    assert_eq!((rig.kills()[0], touched(&rig)[0]), (100, Action::Kill(KillBy::Cheapest)));
    // A linger of zero.
    let mut rig = Rig::new(&reaper().linger(Duration::ZERO));
    rig.run(MS);
    assert_eq!(rig.kills(), [0]);
    // A linger that exceeds the range of the clock.
    let mut rig = Rig::new(&reaper().linger(Duration::MAX).grace(Signal::TERM, Duration::MAX));
    assert_eq!(rig.run(1_000_000 * MS), None);
    assert_eq!(touched(&rig), []);
}

/// Event-loop lag does not shorten the time that the members have to act on the signal.
#[test]
fn the_grace_period_begins_when_the_linger_is_seen_to_be_over() {
    let mut rig = Rig::new(&reaper().linger(100 * MS).grace(Signal::TERM, 50 * MS));
    rig.run(99 * MS);
    rig.now = 500 * MS;
    rig.run(549 * MS);
    assert_eq!((rig.times(|action| *action == TERM), rig.kills()), (vec![500], vec![]));
    rig.now = 550 * MS;
    rig.run(550 * MS);
    assert_eq!(rig.kills(), [550]);
    // A check that fails then does not lengthen this time.
    let mut rig = Rig::new(&reaper().linger(100 * MS).grace(Signal::TERM, 50 * MS));
    rig.run(99 * MS);
    rig.check = Checked::Unknown(Failure::Passing);
    rig.run(140 * MS);
    rig.check = POPULATED;
    rig.run(149 * MS);
    rig.now = 150 * MS;
    rig.run(150 * MS);
    assert_eq!((rig.times(|action| *action == TERM).len(), rig.kills()), (1, vec![150]));
}

#[test]
fn a_deadline_cuts_linger_and_grace_short() {
    let mut rig = Rig::new(&reaper().linger(100 * MS).grace(Signal::TERM, 50 * MS).deadline(30 * MS));
    assert_eq!(rig.run(1000 * MS), Some(End::TimedOut));
    assert_eq!((rig.kills()[0], rig.times(|action| *action == TERM), rig.now), (30, vec![], 125 * MS));
    let mut rig = Rig::new(&reaper().linger(100 * MS).grace(Signal::TERM, 50 * MS).deadline(130 * MS));
    assert_eq!(rig.run(1000 * MS), Some(End::TimedOut));
    assert_eq!((rig.kills()[0], rig.times(|action| *action == TERM)), (130, vec![100]));
}

#[test]
fn kill_now_ends_every_wait_for_the_members() {
    let hour = 3_600_000 * MS;
    let patient = || reaper().min_wait(hour).max_wait(hour);
    for reaper in [
        patient().when_empty(),
        patient().linger(hour),
        patient().linger(hour).grace(Signal::TERM, hour),
        patient().grace(Signal::TERM, hour),
    ] {
        let mut rig = Rig::new(&reaper);
        rig.run(20 * MS);
        assert_eq!(rig.kills(), []);
        rig.now = 20 * MS;
        let terms = rig.times(|action| *action == TERM).len();
        for _ in 0..3 {
            rig.wake(Input::KillNow).unwrap();
        }
        assert_eq!((rig.kills(), rig.times(|action| *action == TERM).len()), (vec![20], terms), "{reaper:?}");
        // From then on it is an ordinary reap.
        rig.check = FRESH;
        rig.wake(Input::Notified).unwrap();
        assert_eq!(rig.kills(), [20, 20]);
        // The request came before the entry existed.
        let mut rig = Rig::new(&reaper);
        rig.wake(Input::KillNow).unwrap();
        assert_eq!(rig.kills(), [0]);
    }
}

#[test]
fn kill_now_ends_a_first_signal_that_is_not_sent_to_all_yet() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS));
    rig.kill.reach = Reach::Unfinished;
    rig.wake(Input::Spawned).unwrap();
    rig.kill.reach = Reach::All;
    rig.wake(Input::KillNow).unwrap();
    rig.wake(Input::Resumed).unwrap();
    assert_eq!((rig.kills(), rig.times(|action| *action == TERM)), (vec![0], vec![0]));
}

#[test]
fn kill_now_does_not_hasten_attempts_nor_prevent_an_end() {
    let mut rig = Rig::new(&reaper());
    rig.run(60 * MS);
    rig.now = 60 * MS;
    for _ in 0..5 {
        rig.wake(Input::KillNow).unwrap();
    }
    assert_eq!(rig.kills(), [0, 10, 50]);
    // The request comes while the end waits for a thaw.
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    (rig.freeze, rig.thaw) = (Froze::Freezing, Thawed::Failed);
    rig.wake(Input::Spawned).unwrap();
    rig.wake(Input::Cancelled).unwrap();
    rig.wake(Input::KillNow).unwrap();
    rig.thaw = Thawed::All;
    assert_eq!(rig.wake(Input::Resumed), Err(End::Cancelled));
    assert_eq!(rig.kills(), []);
}

#[test]
fn an_unfinished_attempt_continues_after_a_yield() {
    let mut rig = Rig::new(&reaper());
    rig.kill.reach = Reach::Unfinished;
    assert_eq!(rig.wake(Input::Spawned), Ok(Duration::ZERO));
    assert_eq!(rig.wake(TICK), Ok(Duration::ZERO));
    assert_eq!(rig.checks.len(), 1);
    assert_eq!(rig.machine.attempts(), 0);
    rig.kill.reach = Reach::All;
    rig.wake(TICK).unwrap();
    assert_eq!(rig.machine.attempts(), 1);
}

#[test]
fn the_deadline_is_kept_in_every_state() {
    for (check, freeze, removal) in [
        (POPULATED, Froze::Frozen, Removed::Busy),
        (POPULATED, Froze::Freezing, Removed::Busy),
        (POPULATED, Froze::Unavailable, Removed::Busy),
        (FRESH, Froze::Freezing, Removed::Busy),
        (Checked::Unknown(Failure::Passing), Froze::Frozen, Removed::Busy),
        (EMPTY, Froze::Frozen, Removed::Busy),
    ] {
        for method in [KillMethod::Auto, KillMethod::Freezer, KillMethod::Pidfd] {
            let mut rig = Rig::new(&reaper().method(method).deadline(100 * MS));
            (rig.check, rig.freeze, rig.removal) = (check, freeze, removal);
            assert_eq!(rig.run(200 * MS), Some(End::TimedOut), "{check:?} {freeze:?} {method}");
            assert!((100 * MS..=195 * MS).contains(&rig.now));
        }
    }
}

#[test]
fn sigkill_is_sent_at_the_deadline_to_members_that_had_none() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS).deadline(50 * MS));
    assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
    // The members have some time to exit.
    assert_eq!((rig.now, rig.kills()[0]), (145 * MS, 50));
    // SIGKILL is not sent again after a complete attempt by signals.
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
    assert_eq!((rig.now, rig.kills()), (50 * MS, vec![0, 10]));
    // `cgroup.kill` alone does not reach all members.
    let mut rig = Rig::new(&reaper().deadline(5 * MS));
    rig.kill.method = Some(UsedMethod::CgroupKill);
    assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
    assert_eq!(rig.kills()[..2], [0, 5]);
    assert_eq!(rig.times(|action| matches!(action, Action::Kill(KillBy::CgroupKillAndSignals { .. })))[0], 5);
    // It does not tell which members joined after it either.
    let mut rig = Rig::new(&reaper().method(KillMethod::CgroupKill).deadline(5 * MS));
    rig.kill.method = Some(UsedMethod::CgroupKill);
    assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
    assert_eq!(rig.kills()[..2], [0, 5]);
}

#[test]
fn members_killed_by_cgroup_kill_are_not_listed_before_the_fourth_attempt() {
    let mut rig = Rig::new(&reaper());
    rig.kill.method = Some(UsedMethod::CgroupKill);
    rig.run(210 * MS);
    let kill = |at, by| (at, Action::Kill(by));
    let thaw = |at| (at, Action::Thaw(ThawScope::V1));
    let early = [0, 10, 50].into_iter().flat_map(|at| [kill(at, KillBy::Cheapest), thaw(at)]);
    let expected: Vec<_> = early
        .chain([
            kill(210, KillBy::CgroupKillAndSignals { last: false }),
            (210, Action::ThawExternal),
            thaw(210),
        ])
        .collect();
    rig.done.retain(|(_, action)| !matches!(action, Action::Wait(_)));
    assert_eq!(rig.done, expected);
    // The members are not listed before that either.
    let mut rig = Rig::new(&reaper());
    rig.kill.method = Some(UsedMethod::CgroupKill);
    assert_eq!(rig.machine.step(at(Duration::ZERO), Input::Spawned), Action::Check(Detail::Members));
    rig.wake(Input::Checked(POPULATED)).unwrap();
    assert_eq!(rig.machine.step(at(MS), Input::Notified), Action::Check(Detail::Populated));
}

#[test]
fn event_loop_lag_is_not_taken_for_members_that_do_not_exit() {
    let lag = |lag: u32| Input::TimerFired { lag: (lag * MS).into() };
    for (method, reach, kills) in [
        (UsedMethod::CgroupKill, Reach::All, vec![0, 446, 486]),
        (UsedMethod::Pidfd, Reach::All, vec![0, 446, 486]),
        // Some members were not signalled.
        (UsedMethod::Pidfd, Reach::Failed, vec![0, 90, 110, 150, 230, 310, 390, 470]),
    ] {
        let mut rig = Rig::new(&reaper());
        rig.kill = Attempt { method: Some(method), reach, ..KILLED };
        rig.wake(Input::Spawned).unwrap();
        rig.now = 90 * MS;
        rig.now = rig.wake(lag(89)).unwrap();
        rig.run(490 * MS);
        assert_eq!(rig.kills(), kills, "{method:?}");
    }
    // Members that have outlived three attempts are not expected to exit, at any lag.
    let mut rig = Rig::new(&reaper());
    assert_eq!(rig.run(50 * MS), None);
    rig.now = 600 * MS;
    rig.wake(lag(390)).unwrap();
    assert_eq!(rig.kills(), [0, 10, 50, 600]);
    // The probes are less frequent too.
    let mut rig = Rig::new(&reaper());
    rig.wake(Input::Spawned).unwrap();
    rig.now = 21 * MS;
    rig.now = rig.wake(lag(20)).unwrap();
    rig.run(101 * MS);
    assert_eq!(rig.checks, [0, 21, 41, 81, 101]);
    // The wait stays the same if the loop lags only with other entries.
    let mut rig = Rig::new(&reaper());
    rig.wake(Input::Spawned).unwrap();
    rig.now = 5 * MS;
    rig.now = rig.wake(lag(20)).unwrap();
    rig.run(100 * MS);
    assert_eq!(rig.kills(), [0, 85]);
    // The wait is prolonged once for each attempt, however much the loop lags.
    let mut rig = Rig::new(&reaper());
    rig.kill.method = Some(UsedMethod::CgroupKill);
    rig.wake(Input::Spawned).unwrap();
    for (at, by) in [(100, 90), (600, 140), (1000, 360), (3000, 560)] {
        rig.now = at * MS;
        rig.wake(lag(by)).unwrap();
    }
    assert_eq!(rig.kills(), [0, 600, 3000]);
    // It is prolonged to `max_wait` at most.
    let mut rig = Rig::new(&reaper().max_wait(20 * MS));
    rig.kill.method = Some(UsedMethod::CgroupKill);
    rig.wake(Input::Spawned).unwrap();
    rig.now = 100 * MS;
    rig.now = rig.wake(lag(90)).unwrap();
    rig.run(120 * MS);
    assert_eq!(rig.kills(), [0, 120]);
    // Where a check has failed, members may have been missed: the wait stays the same.
    let mut rig = Rig::new(&reaper());
    rig.now = rig.wake(Input::Spawned).unwrap();
    rig.check = Checked::Unknown(Failure::Passing);
    rig.wake(TICK).unwrap();
    (rig.now, rig.check) = (90 * MS, POPULATED);
    rig.wake(lag(80)).unwrap();
    assert_eq!(rig.kills(), [0, 90]);
    // New members are killed at once.
    let mut rig = Rig::new(&reaper());
    rig.wake(Input::Spawned).unwrap();
    rig.now = 100 * MS;
    rig.check = FRESH;
    rig.wake(lag(90)).unwrap();
    assert_eq!(rig.kills(), [0, 100]);
}

/// A check that fails once, at the end of the grace period, does not delay SIGKILL by a wait of the backoff.
#[test]
fn a_failed_check_at_the_end_of_the_grace_delays_sigkill_by_a_retry() {
    for (min, max) in [(1, 10), (10, 10_000), (3_600_000, 7_200_000)] {
        let mut rig =
            Rig::new(&reaper().grace(Signal::TERM, 4000 * MS).min_wait(min * MS).max_wait(max * MS));
        rig.run(3999 * MS);
        rig.check = Checked::Unknown(Failure::Passing);
        rig.run(4200 * MS);
        (rig.now, rig.check) = (4200 * MS, POPULATED);
        rig.run(4300 * MS);
        assert!((4200..=4300).contains(&rig.kills()[0]), "{min} {max}: {:?}", rig.kills());
    }
}

/// A failed attempt is retried soon, whatever the waits of the pace are.
#[test]
fn a_failed_attempt_is_made_again_soon() {
    let mut rig = Rig::new(&reaper().min_wait(3_600_000 * MS).max_wait(3_600_000 * MS));
    rig.kill = Attempt { reach: Reach::Failed, method: None, ..KILLED };
    rig.run(500 * MS);
    rig.kill = KILLED;
    rig.run(10_000 * MS);
    assert_eq!(rig.kills(), [0, 10, 30, 70, 150, 230, 310, 390, 470, 550]);
}

/// A failed attempt is retried soon also if some members exit meanwhile.
#[test]
fn an_exit_does_not_make_up_for_a_failed_attempt() {
    let mut rig = Rig::new(&reaper().min_wait(3_600_000 * MS).max_wait(3_600_000 * MS));
    rig.kill = Attempt { reach: Reach::Failed, method: None, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    (rig.kill, rig.check) = (KILLED, populated(Change::Fewer, ExitNotice::Prompt));
    rig.now = 5 * MS;
    rig.wake(Input::Notified).unwrap();
    rig.check = POPULATED;
    rig.run(100 * MS);
    assert_eq!(rig.kills(), [0, 10]);
}

/// A failed thaw is retried soon too, and a freeze is given up in time even if every check fails.
#[test]
fn a_freeze_ends_in_time_whatever_fails_meanwhile() {
    let reaper = reaper().method(KillMethod::Freezer).min_wait(3_600_000 * MS).max_wait(3_600_000 * MS);
    let mut rig = Rig::new(&reaper.freeze_timeout(1000 * MS));
    rig.freeze = Froze::Freezing;
    rig.wake(Input::Spawned).unwrap();
    rig.check = Checked::Unknown(Failure::Passing);
    rig.kill = Attempt { reach: Reach::Failed, method: None, ..KILLED };
    rig.run(999 * MS);
    assert!(rig.machine.has_frozen());
    rig.thaw = Thawed::Failed;
    rig.run(3000 * MS);
    assert!(rig.machine.has_frozen());
    rig.thaw = Thawed::All;
    rig.run(3100 * MS);
    assert!(!rig.machine.has_frozen());
    let thaws = rig.times(|action| *action == Action::Thaw(ThawScope::All));
    assert!(thaws[0] <= 1080 && thaws.windows(2).all(|pair| pair[1] - pair[0] <= 80), "{thaws:?}");
}

/// A removal that fails by an error is retried soon. If a directory is in use, the removal is backed off.
#[test]
fn a_failed_removal_is_made_again_soon() {
    let mut rig = Rig::new(&reaper().min_wait(3_600_000 * MS).max_wait(3_600_000 * MS));
    (rig.check, rig.removal) = (EMPTY, Removed::Failed);
    rig.run(500 * MS);
    rig.removal = Removed::All;
    assert_eq!(rig.run(550 * MS), Some(End::Done(Outcome::Removed)));
}

/// If a target was empty and could not be removed, all members that it has later are new, whether or not they were
/// listed.
#[test]
fn members_that_join_an_empty_target_are_killed_at_once() {
    let hour = 3_600_000 * MS;
    let busy = |reaper: &Reaper| {
        let mut rig = Rig::new(&reaper.clone().min_wait(hour).max_wait(hour));
        (rig.check, rig.removal) = (EMPTY, Removed::Busy);
        rig.run(20 * MS);
        assert_eq!(rig.kills(), []);
        rig.check = POPULATED;
        rig
    };
    let mut rig = busy(&reaper());
    rig.now = 20 * MS;
    rig.wake(Input::Notified).unwrap();
    assert_eq!(rig.kills(), [20]);
    let mut rig = busy(&reaper().deadline(100 * MS));
    rig.now = 100 * MS;
    rig.wake(TICK).unwrap();
    assert_eq!(rig.kills(), [100]);
}

/// If attempts are refused for good, the last one is made even if it cannot find out all that it needs to know.
#[test]
fn the_last_attempt_is_made_after_refusals() {
    for ladder in [Ladder::Direct { storm: 0 }, Ladder::FreezeFirst] {
        let mut rig = Rig::new(&reaper());
        rig.machine.ladder = ladder;
        rig.kill = Attempt { reach: Reach::Denied, method: None, ..KILLED };
        assert_eq!(rig.run(2000 * MS), Some(End::Denied));
        let last = |action: &Action| *action == Action::Kill(KillBy::CgroupKillAndSignals { last: true });
        assert_eq!(rig.times(last).len(), 1, "{ladder:?}");
        assert_eq!(rig.times(last).first(), rig.kills().last());
        assert!(!rig.machine.has_frozen());
    }
}

/// Once a grace signal that failed at first was sent, the reap is not failing any more.
#[test]
fn a_grace_signal_that_was_sent_at_last_is_no_failure() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 3_600_000 * MS).min_wait(3_600_000 * MS));
    rig.kill = Attempt { reach: Reach::Failed, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    assert!(rig.machine.is_failing());
    rig.kill = KILLED;
    rig.run(1000 * MS);
    assert!(!rig.machine.is_failing());
}

/// A thaw that failed after the grace signal is retried soon, so that members that other parties froze can act on the
/// signal. Then the reap is not failing any more.
#[test]
fn a_thaw_that_failed_after_the_grace_signal_is_made_again() {
    let hour = 3_600_000 * MS;
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, hour).min_wait(hour).max_wait(hour));
    rig.thaw = Thawed::Failed;
    rig.run(200 * MS);
    let thaws = rig.times(|action| *action == Action::Thaw(ThawScope::All));
    assert_eq!(thaws, [0, 10, 30, 70, 150]);
    assert!(rig.machine.is_failing());
    rig.thaw = Thawed::All;
    rig.run(1000 * MS);
    assert!(!rig.machine.is_failing());
    assert_eq!(rig.times(|action| *action == Action::Thaw(ThawScope::All)).len(), thaws.len() + 1);
    assert_eq!(rig.times(|action| *action == TERM), [0], "the signal is sent once");
}

/// A call that failed before the grace signal was sent is not retried after it.
#[test]
fn a_freeze_that_failed_before_the_grace_signal_is_no_failure_after_it() {
    let hour = 3_600_000 * MS;
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, hour).min_wait(hour).max_wait(hour));
    (rig.kill, rig.freeze) = (Attempt { reach: Reach::Unsafe, ..KILLED }, Froze::Failed);
    rig.wake(Input::Spawned).unwrap();
    assert!(rig.machine.is_failing());
    rig.kill = KILLED;
    rig.run(1000 * MS);
    assert_eq!(rig.times(|action| *action == TERM).len(), 2);
    assert!(!rig.machine.is_failing());
}

/// A removal that takes several steps goes on after the deadline, but no longer than `LAST_WAIT`.
#[test]
fn a_removal_may_end_shortly_after_the_deadline() {
    let mut rig = Rig::new(&reaper().deadline(10 * MS));
    (rig.check, rig.removal) = (EMPTY, Removed::Unfinished);
    rig.wake(Input::Spawned).unwrap();
    let checks = rig.checks.len();
    for now in [10, 50, 104] {
        rig.now = now * MS;
        assert_eq!(rig.wake(Input::Resumed), Ok(rig.now));
    }
    assert_eq!(rig.checks.len(), checks, "the removal continues where it stopped");
    rig.now = 105 * MS;
    assert_eq!(rig.wake(Input::Resumed), Err(End::TimedOut));
    assert_eq!(rig.kills(), []);
}

/// A reap that only waits has nothing to finish after its deadline.
#[test]
fn a_removal_when_empty_ends_at_the_deadline() {
    let mut rig = Rig::new(&reaper().when_empty().deadline(10 * MS));
    (rig.check, rig.removal) = (EMPTY, Removed::Unfinished);
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    rig.now = 10 * MS;
    assert_eq!(rig.wake(Input::Resumed), Err(End::TimedOut));
}

/// A fork storm in a target for which neither a freeze nor SIGKILL is allowed.
#[test]
fn a_target_that_may_be_neither_frozen_nor_killed_is_denied() {
    let mut rig = Rig::new(&reaper());
    rig.machine.ladder = Ladder::FreezeFirst;
    rig.freeze = Froze::Denied;
    rig.kill = Attempt { reach: Reach::Denied, ..rig.kill };
    assert_eq!(rig.run(10_000 * MS), Some(End::Denied));
    assert!(rig.now >= 850 * MS, "{:?}", rig.now);
}

/// A notification that comes amid an attempt is not lost, however long the next wait is.
#[test]
fn a_notification_amid_an_attempt_prompts_a_check_after_it() {
    let mut rig = Rig::new(&reaper().min_wait(10_000 * MS).max_wait(10_000 * MS));
    rig.kill = Attempt { reach: Reach::Unfinished, notice: ExitNotice::Prompt, ..rig.kill };
    rig.wake(Input::Spawned).unwrap();
    rig.wake(Input::Notified).unwrap();
    rig.kill.reach = Reach::All;
    let checks = rig.checks.len();
    rig.check = EMPTY;
    assert_eq!(rig.wake(Input::Resumed), Err(End::Done(Outcome::Removed)));
    assert_eq!(rig.checks.len(), checks + 1);
}

/// If members join an empty target whose removal fails, the failed removal is not retried.
#[test]
fn a_removal_that_failed_does_not_keep_the_grace_busy() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS));
    rig.run(5 * MS);
    (rig.now, rig.check, rig.removal) = (5 * MS, EMPTY, Removed::Denied);
    rig.wake(Input::Notified).unwrap();
    rig.run(14 * MS);
    rig.check = FRESH;
    let before = rig.checks.len();
    assert_eq!(rig.run(999 * MS), None);
    assert!(rig.checks.len() - before < 100, "{} checks", rig.checks.len() - before);
}

/// Members that were sent SIGKILL at the deadline have some time to exit.
#[test]
fn a_target_that_the_deadline_kills_is_removed() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS).deadline(1000 * MS));
    rig.run(1000 * MS);
    assert_eq!(rig.kills(), [1000]);
    rig.check = EMPTY;
    rig.now = 1001 * MS;
    assert_eq!(rig.wake(Input::Notified), Err(End::Done(Outcome::Removed)));
}

/// No pidfd is watched any more: the member that could have been watched has exited too.
#[test]
fn exits_that_nothing_notifies_of_are_probed_for() {
    let mut rig = Rig::new(&reaper());
    rig.kill.notice = ExitNotice::Prompt;
    rig.run(5 * MS);
    rig.check = populated(Change::Fewer, ExitNotice::None);
    rig.now = 5 * MS;
    rig.now = rig.wake(Input::Notified).unwrap();
    rig.check = populated(Change::None, ExitNotice::None);
    rig.run(10 * MS);
    assert_eq!(rig.checks, [0, 5, 6, 8, 10]);
}

/// If exits are notified at once, no probe is due between the attempts.
#[test]
fn probes_cover_for_delayed_notifications_only() {
    for (notice, checks) in [(ExitNotice::Delayed, vec![0, 1, 3, 7, 10]), (ExitNotice::Prompt, vec![0, 10])] {
        let mut rig = Rig::new(&reaper());
        rig.kill.notice = notice;
        rig.run(10 * MS);
        assert_eq!(rig.checks, checks);
    }
}

#[test]
fn a_grace_signal_that_failed_is_sent_again_and_one_that_arrived_is_not() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
    rig.kill = Attempt { reach: Reach::Failed, method: None, ..KILLED };
    rig.run(9 * MS);
    rig.kill = KILLED;
    rig.now = 10 * MS;
    rig.run(99 * MS);
    assert_eq!(rig.times(|action| *action == TERM), [0, 10]);
    assert_eq!(rig.kills(), []);
}

#[test]
fn checks_go_on_in_the_grace_period_without_notifications() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 60_000 * MS));
    rig.run(1000 * MS);
    assert_eq!(rig.checks, [0, 1, 3, 7, 10, 50, 210, 850]);
    assert_eq!(rig.kills(), []);
}

#[test]
fn a_grace_signal_that_is_unsafe_is_sent_to_frozen_members() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 100 * MS));
    rig.kill = Attempt { reach: Reach::Unsafe, method: None, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    let actions: Vec<Action> = rig.done.iter().map(|(_, action)| *action).collect();
    let frozen = Action::Signal(Signal::TERM, Members::Frozen);
    assert_eq!(actions[..4], [TERM, Action::Freeze, frozen, Action::Thaw(ThawScope::All)]);
    assert!(!rig.machine.has_frozen());
}

#[test]
fn refusals_end_the_reap_after_some_time_and_not_while_members_exit() {
    let mut rig = Rig::new(&reaper());
    rig.kill.reach = Reach::Denied;
    rig.wake(Input::Spawned).unwrap();
    for _ in 0..20 {
        assert!(rig.wake(Input::Notified).is_ok());
    }
    assert_eq!(rig.run(849 * MS), None);
    assert_eq!(rig.run(870 * MS), Some(End::Denied));
    let mut rig = Rig::new(&reaper());
    rig.kill.reach = Reach::Denied;
    rig.check = populated(Change::Fewer, ExitNotice::Delayed);
    assert_eq!(rig.run(10_000 * MS), None);
}

#[test]
fn members_in_the_place_of_exited_ones_do_not_wait_out_the_backoff() {
    let mut rig = Rig::new(&reaper());
    rig.run(1000 * MS);
    rig.now = 1000 * MS;
    rig.check = populated(Change::Fewer, ExitNotice::Delayed);
    assert_eq!(rig.wake(Input::Notified), Ok(1010 * MS));
}

#[test]
fn the_worst_of_several_thaws_counts() {
    assert!(Thawed::All < Thawed::HeldFromOutside && Thawed::HeldFromOutside < Thawed::Denied);
    assert!(Thawed::Denied < Thawed::Failed);
}

#[test]
fn an_attempt_that_the_deadline_interrupts_is_completed() {
    let mut rig = Rig::new(&reaper().deadline(10 * MS));
    rig.kill.reach = Reach::Unfinished;
    assert_eq!(rig.wake(Input::Spawned), Ok(Duration::ZERO));
    rig.now = 10 * MS;
    // The check that finds that the deadline has passed, and a part of the attempt.
    assert_eq!(rig.wake(Input::Resumed), Ok(rig.now));
    assert_eq!((rig.checks.len(), rig.kills().len()), (2, 2));
    assert_eq!(rig.wake(Input::Resumed), Ok(rig.now));
    // A notification in between prompts no check, and does not end the attempt.
    assert_eq!(rig.wake(Input::Notified), Ok(rig.now));
    assert_eq!((rig.checks.len(), rig.kills().len()), (2, 4));
    rig.kill.reach = Reach::All;
    rig.wake(Input::Resumed).unwrap();
    assert_eq!(rig.kills().len(), 5);
    assert_eq!(rig.run(200 * MS), Some(End::TimedOut));
}

#[test]
fn the_effort_adds_up() {
    let mut rig = Rig::new(&reaper());
    rig.kill.signalled = 3;
    rig.wake(Input::Spawned).unwrap();
    assert!(!rig.machine.freezes_first());
    rig.now = 10 * MS;
    rig.wake(TICK).unwrap();
    assert_eq!((rig.machine.signalled(), rig.machine.attempts()), (6, 2));
    assert_eq!(rig.machine.used(), Some(UsedMethod::Pidfd));
}

#[test]
fn an_entry_is_small() {
    assert!(size_of::<Machine>() <= 320, "{}", size_of::<Machine>());
}

/// A thaw of several steps may end after the time of a retry. The attempt is made then, and not after the next wait.
#[test]
fn a_retry_that_becomes_due_amid_a_thaw_is_made() {
    let mut rig = Rig::new(&reaper().min_wait(3_000 * MS));
    (rig.kill, rig.thaw) = (Attempt { reach: Reach::Failed, ..KILLED }, Thawed::Unfinished);
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    (rig.kill, rig.thaw, rig.now) = (KILLED, Thawed::All, 10 * MS);
    assert!(rig.wake(Input::Resumed).is_ok());
    assert_eq!(rig.kills(), [0, 10]);
}

/// At the deadline too, a removal that takes several steps is made of a target that is thawed.
#[test]
fn an_empty_target_is_not_left_frozen_at_the_deadline() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(20 * MS));
    rig.freeze = Froze::Freezing;
    rig.kill = Attempt { reach: Reach::Unsafe, ..KILLED };
    rig.run(21 * MS);
    (rig.check, rig.removal, rig.freeze, rig.now) = (EMPTY, Removed::Unfinished, Froze::Frozen, 22 * MS);
    let before = rig.done.len();
    assert!(rig.wake(Input::Notified).is_ok());
    assert_eq!(rig.done[before..before + 2], [(22, Action::Remove), (22, Action::Thaw(ThawScope::All))]);
}

/// A target that has become empty in mid-freeze, and cannot be removed yet, is thawed at once.
#[test]
fn an_empty_target_is_not_left_frozen() {
    for removal in [Removed::Busy, Removed::Denied, Removed::Failed, Removed::Unfinished] {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
        rig.freeze = Froze::Freezing;
        rig.run(5 * MS);
        assert_eq!(rig.times(|action| matches!(action, Action::Thaw(_))), []);
        (rig.check, rig.removal) = (EMPTY, removal);
        let _ = rig.wake(Input::Notified);
        let thaws = rig.times(|action| matches!(action, Action::Thaw(_)));
        assert!(!thaws.is_empty(), "{removal:?}");
    }
}

/// Sending the signal may take longer than the grace period lasts.
#[test]
fn a_grace_period_that_is_over_when_the_signal_was_sent_ends_at_once() {
    let reaper = reaper().min_wait(10_000 * MS).grace(Signal::TERM, 300 * MS);
    let mut machine = Machine::new(&reaper, at(ZERO_TIME), true, false);
    machine.step(at(ZERO_TIME), Input::Spawned);
    assert_eq!(machine.step(at(ZERO_TIME), Input::Checked(FRESH)), TERM);
    let late = at(400 * MS);
    assert_eq!(machine.step(late, Input::Signalled(KILLED)), Action::Thaw(ThawScope::All));
    let thawed = Input::Thawed { thawed: Thawed::All, ours_left: false };
    assert_eq!(machine.step(late, thawed), Action::Check(Detail::Members));
    assert!(matches!(machine.step(late, Input::Checked(POPULATED)), Action::Kill(_)));
}

/// A thaw of several steps continues at once where it stopped, and the action that is to follow it is made.
#[test]
fn a_thaw_of_several_steps_is_finished() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    (rig.thaw, rig.rest_of_thaw) = (Thawed::Unfinished, Thawed::Unfinished);
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    for _ in 0..3 {
        rig.done.clear();
        // No check is made in between.
        assert_eq!((rig.wake(Input::Resumed), rig.checks.len()), (Ok(ZERO_TIME), 1));
        assert_eq!(rig.done, [(0, Action::ContinueThaw), (0, Action::Yield)]);
    }
    rig.rest_of_thaw = Thawed::All;
    assert!(rig.wake(Input::Resumed).unwrap() > ZERO_TIME);
    assert!(!rig.machine.has_frozen());
    // The same holds after the deadline, and at the end of the reap.
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    rig.thaw = Thawed::Unfinished;
    rig.freeze = Froze::Freezing;
    assert!(rig.wake(Input::Spawned).is_ok());
    assert_eq!(rig.wake(Input::Cancelled), Ok(ZERO_TIME));
    assert_eq!(rig.wake(Input::Resumed), Err(End::Cancelled));
    assert_eq!(rig.done.last(), Some(&(0, Action::Finish(End::Cancelled))));
}

/// SIGKILL does not wait for the rest of a thaw, when the grace period ends or is ended.
#[test]
fn a_thaw_of_several_steps_does_not_hold_up_sigkill() {
    for (input, now) in [(Input::KillNow, 10 * MS), (Input::Resumed, 300 * MS), (TICK, 300 * MS)] {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 300 * MS));
        (rig.thaw, rig.rest_of_thaw) = (Thawed::Unfinished, Thawed::Unfinished);
        assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
        assert_eq!((rig.wake(Input::Resumed), rig.kills()), (Ok(ZERO_TIME), vec![]));
        rig.now = now;
        assert!(rig.wake(input).is_ok());
        assert_eq!(rig.kills(), [rig.now.as_millis()], "{input:?}");
    }
}

/// An ancestor that holds the target in the grace period does not end the reap before SIGKILL was sent.
#[test]
fn an_ancestor_that_is_frozen_in_the_grace_period_spares_no_member() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 300 * MS).freeze_timeout(ZERO_TIME));
    rig.thaw = Thawed::HeldFromOutside;
    assert_eq!(rig.run(60_000 * MS), Some(End::FrozenByAncestor));
    assert_eq!(rig.kills(), [300]);
}

fn signalled(reach: Reach) -> Input {
    Input::Signalled(Attempt { reach, ..KILLED })
}

/// A machine that has frozen the target, to send the grace signal.
fn frozen_for_the_signal() -> Machine {
    let reaper = reaper().grace(Signal::TERM, 300 * MS);
    let mut machine = Machine::new(&reaper, at(ZERO_TIME), true, false);
    machine.step(at(ZERO_TIME), Input::Spawned);
    assert_eq!(machine.step(at(ZERO_TIME), Input::Checked(FRESH)), TERM);
    assert_eq!(machine.step(at(ZERO_TIME), signalled(Reach::Unsafe)), Action::Freeze);
    let froze = Input::Froze { froze: Froze::Frozen, ours_left: true };
    assert!(matches!(machine.step(at(ZERO_TIME), froze), Action::Signal(..)));
    machine
}

/// A thaw under way is not begun again before SIGKILL is sent.
#[test]
fn a_thaw_of_the_rest_does_not_come_before_sigkill() {
    for ours_left in [false, true] {
        let mut machine = frozen_for_the_signal();
        assert_eq!(machine.step(at(ZERO_TIME), signalled(Reach::All)), Action::Thaw(ThawScope::All));
        let thawed = Input::Thawed { thawed: Thawed::Unfinished, ours_left };
        assert_eq!(machine.step(at(ZERO_TIME), thawed), Action::Yield);
        assert!(matches!(machine.step(at(MS), Input::KillNow), Action::Check(_)));
        assert!(matches!(machine.step(at(MS), Input::Checked(POPULATED)), Action::Kill(_)));
    }
}

/// Members that were frozen for the grace signal do not stay so while checks fail.
#[test]
fn checks_that_fail_after_a_signal_leave_nothing_frozen() {
    let mut machine = frozen_for_the_signal();
    assert_eq!(machine.step(at(ZERO_TIME), signalled(Reach::Unfinished)), Action::Yield);
    assert!(matches!(machine.step(at(MS), Input::KillNow), Action::Check(_)));
    let failed = Input::Checked(Checked::Unknown(Failure::Passing));
    assert_eq!(machine.step(at(MS), failed), Action::Thaw(ThawScope::All));
}

/// The result for external freezes is remembered while the target's own thaw takes several steps.
#[test]
fn a_thaw_of_several_steps_does_not_hide_an_external_freeze() {
    let mut rig = Rig::new(&reaper().freeze_timeout(100 * MS));
    (rig.thaw, rig.external) = (Thawed::Unfinished, Thawed::HeldFromOutside);
    assert_eq!(rig.run(60_000 * MS), Some(End::FrozenByAncestor));
}

/// If the search for the caller before a freeze takes several steps, the freeze begins after it, without a
/// check in between.
#[test]
fn a_freeze_of_several_steps_is_finished() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    rig.freeze = Froze::Unfinished;
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    assert_eq!(rig.wake(Input::Resumed), Ok(ZERO_TIME));
    assert!(rig.kills().is_empty());
    rig.freeze = Froze::Frozen;
    assert!(rig.wake(Input::Resumed).is_ok());
    assert_eq!((rig.checks.len(), rig.kills().len()), (1, 1));
    // At the deadline the search is not waited for.
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(5 * MS));
    rig.freeze = Froze::Unfinished;
    assert!(rig.wake(Input::Spawned).is_ok());
    rig.now = 5 * MS;
    assert!(rig.wake(Input::Resumed).is_ok());
    assert_eq!(rig.kills(), [5]);
}

/// As long as members exit, and none has joined since all were sent SIGKILL, the target is not frozen again.
#[test]
fn members_that_exit_are_not_frozen_again() {
    let freezes = |rig: &Rig| rig.times(|action| *action == Action::Freeze).len();
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    assert!(rig.wake(Input::Spawned).is_ok());
    rig.check = populated(Change::Fewer, ExitNotice::Prompt);
    assert_eq!(rig.run(200 * MS), None);
    assert!(rig.kills().len() > 5);
    assert_eq!(freezes(&rig), 1);
    // If members have joined, it is frozen.
    rig.check = populated(Change::JoinedAndFewer, ExitNotice::Prompt);
    rig.now += 20 * MS;
    assert!(rig.wake(TICK).is_ok());
    assert_eq!(freezes(&rig), 2);
    // If the members do not exit, it is frozen too.
    rig.check = POPULATED;
    assert_eq!(rig.run(rig.now + 1000 * MS), None);
    assert!(freezes(&rig) > 3);
}

/// The state that an earlier step of a check has read may have changed since.
#[test]
fn a_notification_amid_a_check_is_followed_by_another() {
    for (begins, goes_on, checks) in
        [(TICK, Input::Notified, 2), (TICK, Input::Resumed, 1), (Input::Notified, Input::Resumed, 1)]
    {
        let mut rig = Rig::new(&reaper());
        rig.wake(Input::Spawned).unwrap();
        rig.now = MS;
        rig.check = Checked::Unfinished;
        assert_eq!(rig.wake(begins), Ok(MS));
        rig.check = POPULATED;
        let before = rig.checks.len();
        rig.wake(goes_on).unwrap();
        assert_eq!(rig.checks.len() - before, checks, "{begins:?}, {goes_on:?}");
    }
}

/// Members may have joined since the check, unless the thaw followed it at once.
#[test]
fn what_was_empty_before_a_last_thaw_in_steps_is_checked_again() {
    for joined in [true, false] {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).keep_dir());
        rig.freeze = Froze::Freezing;
        rig.wake(Input::Spawned).unwrap();
        (rig.check, rig.thaw) = (EMPTY, Thawed::Unfinished);
        assert!(rig.wake(Input::Notified).is_ok());
        rig.check = if joined { FRESH } else { EMPTY };
        (rig.freeze, rig.thaw) = (Froze::Frozen, Thawed::All);
        let result = rig.wake(Input::Resumed);
        assert_eq!(result.err(), (!joined).then_some(End::Done(Outcome::Emptied)));
        assert_eq!(rig.kills().len(), usize::from(joined));
    }
}

/// In the grace period, too; a process that has joined has the rest of it.
#[test]
fn what_joins_during_a_thaw_in_the_grace_has_the_grace() {
    for thaw in [Thawed::All, Thawed::Unfinished, Thawed::Failed] {
        for joined in [true, false] {
            let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS).keep_dir());
            rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
            rig.freeze = Froze::Freezing;
            rig.wake(Input::Spawned).unwrap();
            (rig.check, rig.thaw) = (EMPTY, thaw);
            let empty = rig.wake(Input::Notified);
            rig.kill = KILLED;
            rig.check = if joined { FRESH } else { EMPTY };
            (rig.freeze, rig.thaw) = (Froze::Frozen, Thawed::All);
            let end = empty.err().or_else(|| {
                rig.now = 200 * MS;
                rig.wake(if thaw == Thawed::Unfinished { Input::Resumed } else { TICK }).err()
            });
            let ends = !joined || thaw == Thawed::All;
            assert_eq!(end, ends.then_some(End::Done(Outcome::Emptied)), "{thaw:?}, {joined}");
            assert_eq!(rig.kills(), [0; 0], "{thaw:?}, {joined}");
        }
    }
}

/// A thaw that keeps failing, or takes many steps, holds up neither the deadline nor the end.
#[test]
fn a_thaw_of_an_empty_target_in_the_grace_has_an_end() {
    for (thaw, deadline) in [
        (Thawed::Failed, true),
        (Thawed::Failed, false),
        (Thawed::Unfinished, true),
        (Thawed::Unfinished, false),
    ] {
        let mut reaper = reaper().grace(Signal::TERM, 1000 * MS).keep_dir();
        if deadline {
            reaper = reaper.deadline(500 * MS);
        }
        let mut rig = Rig::new(&reaper);
        rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
        rig.freeze = Froze::Freezing;
        rig.wake(Input::Spawned).unwrap();
        (rig.check, rig.thaw, rig.rest_of_thaw) = (EMPTY, thaw, Thawed::Unfinished);
        let mut woken = rig.wake(Input::Notified);
        while let (Ok(next), true) = (woken, rig.done.len() < 1000) {
            if thaw == Thawed::Unfinished {
                // Each step takes its time, and the last one ends.
                rig.now += 10 * MS;
                rig.rest_of_thaw = if rig.now < 1500 * MS { Thawed::Unfinished } else { Thawed::All };
                woken = rig.wake(Input::Resumed);
            } else {
                rig.now = rig.now.max(next);
                woken = rig.wake(TICK);
            }
        }
        let expected = if thaw == Thawed::Failed { End::Denied } else { End::Done(Outcome::Emptied) };
        assert_eq!(woken, Err(expected), "{thaw:?}, {deadline}");
        assert!(rig.now <= 12_000 * MS, "{thaw:?}, {deadline}: {:?}", rig.now);
    }
}

/// This holds however many notifications come meanwhile.
#[test]
fn a_grace_signal_that_failed_is_sent_again_after_a_wait() {
    for reach in [Reach::Failed, Reach::Denied] {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS));
        rig.kill = Attempt { method: None, reach, ..KILLED };
        rig.wake(Input::Spawned).unwrap();
        (0..5).for_each(|_| _ = rig.wake(Input::Notified).unwrap());
        assert_eq!(rig.times(|action| *action == TERM), [0], "{reach:?}");
        rig.run(200 * MS);
        assert!(rig.times(|action| *action == TERM).len() > 1, "{reach:?}");
    }
}

/// A freeze that the grace signal waits for continues.
#[test]
fn a_freeze_for_the_grace_signal_goes_on() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
    rig.freeze = Froze::Freezing;
    rig.wake(Input::Spawned).unwrap();
    rig.wake(Input::Notified).unwrap();
    assert_eq!(touched(&rig), [TERM, Action::Freeze, Action::Freeze]);
}

/// The last attempt, after earlier ones were refused, is completed.
#[test]
fn a_last_attempt_in_steps_is_finished() {
    let mut rig = Rig::new(&reaper());
    let denied = Attempt { method: None, reach: Reach::Denied, ..KILLED };
    let last = Action::Kill(KillBy::CgroupKillAndSignals { last: true });
    let mut action = rig.machine.step(at(ZERO_TIME), Input::Spawned);
    for wakes in 0.. {
        let now = at(100 * wakes * MS);
        while !matches!(action, Action::Wait(_)) && action != last {
            action = rig.machine.step(
                now,
                match action {
                    Action::Check(_) => Input::Checked(POPULATED),
                    Action::Kill(_) => Input::Killed(denied),
                    Action::ThawExternal => Input::ThawedExternal(Thawed::All),
                    _ => Input::Thawed { thawed: Thawed::All, ours_left: false },
                },
            );
        }
        if action == last {
            break;
        }
        assert!(wakes < 100, "it does not end");
        action = rig.machine.step(at(100 * (wakes + 1) * MS), TICK);
    }
    let end = at(20_000 * MS);
    let part = Attempt { reach: Reach::Unfinished, ..denied };
    assert_eq!(rig.machine.step(end, Input::Killed(part)), Action::Yield);
    assert_eq!(rig.machine.step(end, Input::Resumed), last);
}

/// At the deadline the members are listed, whatever action was under way.
#[test]
fn a_deadline_begins_with_a_check() {
    let deadline = at(50 * MS);
    let members = Action::Check(Detail::Members);
    let grace = reaper().grace(Signal::TERM, 1000 * MS).deadline(50 * MS);
    let mut rig = Rig::new(&grace);
    rig.kill = Attempt { reach: Reach::Unfinished, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.machine.step(deadline, Input::Resumed), members, "amid the grace signal");
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.thaw = Thawed::Unfinished;
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.machine.step(deadline, Input::Resumed), members, "amid a thaw");
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.kill = Attempt { method: Some(UsedMethod::CgroupKill), ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.machine.step(at(49 * MS), TICK), Action::Check(Detail::Populated));
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.kill = Attempt { method: Some(UsedMethod::CgroupKill), ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.machine.step(deadline, TICK), members);
}

/// A thaw that failed, and is then denied for directories that other parties froze, is not retried again and
/// again in the grace period.
#[test]
fn a_thaw_that_is_denied_after_a_failure_does_not_spin() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 5000 * MS));
    rig.thaw = Thawed::Failed;
    assert_eq!(rig.wake(Input::Spawned), Ok(10 * MS));
    rig.thaw = Thawed::Denied;
    assert_eq!(rig.run(4000 * MS), None);
    assert!(rig.checks.len() < 20, "{:?}", rig.checks);
}

/// A directory that was frozen before the freeze of another was refused is thawed, whatever follows.
#[test]
fn a_freeze_that_is_refused_in_part_is_undone() {
    for method in [KillMethod::Auto, KillMethod::Freezer] {
        for froze in [Froze::Denied, Froze::Unavailable] {
            let mut rig = Rig::new(&reaper().method(method));
            rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
            (rig.freeze, rig.frozen_in_part) = (froze, true);
            rig.wake(Input::Spawned).unwrap();
            assert!(!rig.machine.has_frozen(), "{method}: {froze:?}");
            assert!(rig.done.contains(&(0, Action::Thaw(ThawScope::All))), "{method}: {froze:?}");
        }
    }
}

/// If sending the grace signal takes many steps, it ends with the grace period. An attempt of many steps ends with the last
/// wait.
#[test]
fn steps_do_not_outlast_the_time_that_they_have() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 50 * MS));
    rig.kill.reach = Reach::Unfinished;
    for now in [0, 49] {
        rig.now = now * MS;
        assert_eq!(rig.wake(if now == 0 { Input::Spawned } else { Input::Resumed }), Ok(now * MS));
    }
    assert!(rig.kills().is_empty());
    rig.now = 50 * MS;
    assert_eq!(rig.wake(Input::Resumed), Ok(50 * MS));
    assert_eq!(rig.kills(), [50]);
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    (rig.kill.reach, rig.now) = (Reach::Unfinished, 50 * MS);
    assert_eq!(rig.wake(Input::Spawned), Ok(50 * MS));
    let checks = rig.checks.len();
    rig.now = 145 * MS;
    assert!(rig.wake(Input::Resumed).is_ok());
    assert!(rig.checks.len() > checks);
    rig.kill.reach = Reach::All;
    assert_eq!(rig.wake(Input::Resumed), Err(End::TimedOut));
}

/// If the last attempt comes before a check, the check is made after it: the target may have been empty.
#[test]
fn a_check_that_the_deadline_cuts_off_is_made_after_the_attempt() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS).deadline(50 * MS));
    rig.wake(Input::Spawned).unwrap();
    let now = at(50 * MS);
    assert_eq!(rig.machine.step(now, Input::Notified), Action::Check(Detail::Members));
    assert!(matches!(rig.machine.step(now, Input::Checked(Checked::Unfinished)), Action::Kill(_)));
    assert!(matches!(rig.machine.step(now, Input::Killed(KILLED)), Action::Thaw(_)));
    let thawed = Input::Thawed { thawed: Thawed::All, ours_left: false };
    assert_eq!(rig.machine.step(now, thawed), Action::Check(Detail::Members));
}

/// The notification that a helper thread's call has ended may come amid the steps of the attempt that began it.
#[test]
fn an_answer_amid_an_attempt_is_not_waited_for() {
    let mut rig = Rig::new(&reaper().min_wait(3600 * 1000 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unfinished, ..KILLED };
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    rig.kill.reach = Reach::UnderWay;
    assert!(rig.wake(Input::Notified).is_ok());
    assert_eq!(rig.kills(), [0, 0, 0], "begun, finished, and asked once more");
}

/// That notification may also have been of an exit: a check finds this out.
#[test]
fn an_exit_amid_an_attempt_that_is_made_again_prompts_a_check() {
    let mut rig = Rig::new(&reaper().min_wait(3600 * 1000 * MS));
    let begun = Attempt { method: None, reach: Reach::Unfinished, ..KILLED };
    rig.kill = begun;
    assert_eq!(rig.wake(Input::Spawned), Ok(ZERO_TIME));
    let now = at(MS);
    let mut answer = |input| rig.machine.step(now, input);
    assert!(matches!(answer(Input::Notified), Action::Kill(_)));
    let under_way = Attempt { method: None, reach: Reach::UnderWay, ..KILLED };
    assert!(matches!(answer(Input::Killed(under_way)), Action::Kill(_)));
    assert_eq!(answer(Input::Killed(begun)), Action::Yield);
    assert!(matches!(answer(Input::Resumed), Action::Kill(_)));
    assert!(matches!(answer(Input::Killed(KILLED)), Action::Thaw(_)));
    let thawed = Input::Thawed { thawed: Thawed::All, ours_left: false };
    assert_eq!(answer(thawed), Action::Check(Detail::Members));
}

/// If only a freeze makes SIGKILL safe, a freeze that is not complete at once is waited for at the deadline too, whether it
/// began before or after the deadline.
#[test]
fn a_freeze_at_the_deadline_is_waited_for() {
    for begun_before in [false, true] {
        let reaper = reaper().method(KillMethod::Freezer).deadline(100 * MS);
        let mut rig = Rig::new(&if begun_before { reaper } else { reaper.linger(200 * MS) });
        rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
        rig.freeze = Froze::Freezing;
        assert_eq!(rig.run(100 * MS), None);
        assert!(rig.machine.freezer.is_in_use(), "{begun_before}");
        let kills = rig.kills().len();
        assert_eq!(rig.run(110 * MS), None);
        assert_eq!(rig.kills().len(), kills, "{begun_before}: while it goes on");
        assert!(rig.machine.freezer.is_in_use(), "{begun_before}");
        (rig.kill, rig.freeze) = (KILLED, Froze::Frozen);
        assert_eq!(rig.run(190 * MS), None);
        let frozen = Action::Kill(KillBy::Signals(Members::Frozen));
        assert_eq!(rig.done.iter().filter(|(_, action)| *action == frozen).count(), 1, "{:?}", rig.done);
        assert_eq!(rig.machine.sigkill, Sigkill::Sent);
    }
}

/// `TimedOut` says that SIGKILL was sent to all members.
#[test]
fn a_cancel_amid_the_last_attempt_is_no_deadline() {
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unfinished, ..KILLED };
    assert!(rig.wake(Input::Spawned).is_ok());
    while !matches!(rig.machine.phase, Phase::Ending(_)) {
        rig.now += 20 * MS;
        assert!(rig.wake(Input::Resumed).is_ok());
    }
    assert_eq!(rig.wake(Input::Cancelled), Err(End::Cancelled));
}

/// A freeze whose time ends amid an attempt of several steps is undone at once, however long the pace is.
#[test]
fn a_freeze_that_is_overdue_after_an_attempt_is_undone() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).min_wait(3600 * 1000 * MS));
    rig.wake(Input::Spawned).unwrap();
    (rig.check, rig.freeze) = (FRESH, Froze::Freezing);
    (rig.kill.method, rig.kill.reach) = (None, Reach::Unfinished);
    let began = rig.wake(Input::Notified).unwrap();
    rig.now = began + 100 * MS;
    assert_eq!(rig.wake(TICK), Ok(rig.now), "amid the attempt");
    rig.kill.reach = Reach::Unsafe;
    rig.now = began + reaper().freeze_timeout;
    assert!(rig.machine.has_frozen());
    assert!(rig.wake(Input::Resumed).is_ok());
    assert!(!rig.machine.has_frozen());
}

/// If the deadline passes amid a check, the check has `LAST_WAIT` to end, unless there are known members that were not
/// sent SIGKILL.
#[test]
fn a_check_in_steps_ends_soon_after_the_deadline() {
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.wake(Input::Spawned).unwrap();
    rig.check = Checked::Unfinished;
    for now in [50, 100, 144] {
        rig.now = now * MS;
        assert_eq!(rig.wake(Input::Resumed), Ok(now * MS));
    }
    rig.now = 145 * MS;
    assert_eq!((rig.wake(Input::Resumed), rig.kills()), (Err(End::TimedOut), vec![0]));
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Failed, ..KILLED };
    rig.wake(Input::Spawned).unwrap();
    (rig.check, rig.now) = (Checked::Unfinished, 50 * MS);
    assert!(rig.wake(TICK).is_ok());
    assert_eq!(rig.kills().last(), Some(&50));
}

/// Among members that could not be listed at the deadline, there may be some that were not sent SIGKILL.
#[test]
fn members_that_the_check_at_the_deadline_does_not_know_are_killed() {
    let partial = Population { change: Change::None, is_partial: true, notice: ExitNotice::Delayed };
    for check in [Checked::Populated(partial), Checked::Unknown(Failure::Passing), POPULATED] {
        let mut rig = Rig::new(&reaper().deadline(50 * MS));
        rig.wake(Input::Spawned).unwrap();
        (rig.check, rig.now) = (check, 50 * MS);
        let end = rig.wake(TICK);
        assert_eq!(end.is_err(), check == POPULATED, "{check:?}");
        assert_eq!(rig.kills().contains(&50), check != POPULATED, "{check:?}");
    }
}

/// An attempt that fails at the deadline is retried by timer, not at each notification, and a last time at the
/// end.
#[test]
fn a_kill_that_fails_at_the_deadline_is_tried_again() {
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Failed, ..KILLED };
    assert_eq!(rig.run(50 * MS), None);
    let before = rig.kills().len();
    assert_eq!(rig.kills().last(), Some(&50));
    (0..5).for_each(|_| _ = rig.wake(Input::Notified).unwrap());
    assert_eq!(rig.kills().len(), before);
    assert_eq!(rig.run(1000 * MS), Some(End::TimedOut));
    assert_eq!(rig.kills().last(), Some(&145));
}

/// While the end waits for a thaw after the deadline, members that were not sent SIGKILL are sent it.
#[test]
fn an_end_that_waits_for_a_thaw_kills_at_a_deadline_only() {
    for cancelled in [true, false] {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer).deadline(50 * MS));
        rig.freeze = Froze::Freezing;
        rig.wake(Input::Spawned).unwrap();
        rig.thaw = Thawed::Failed;
        rig.kill = Attempt { method: None, reach: Reach::Failed, ..KILLED };
        if cancelled {
            rig.wake(Input::Cancelled).unwrap();
        } else {
            assert_eq!(rig.run(145 * MS), None);
        }
        let before = rig.kills().len();
        rig.now = 1000 * MS;
        assert!(rig.wake(TICK).is_ok());
        assert_eq!(rig.kills().len() > before, !cancelled);
    }
}

/// From the third attempt by `cgroup.kill` on the members are listed when something changes.
#[test]
fn members_are_listed_after_three_attempts_by_cgroup_kill() {
    for (until, detail) in [(49, Detail::Populated), (50, Detail::Members)] {
        let mut rig = Rig::new(&reaper());
        rig.kill = Attempt { method: Some(UsedMethod::CgroupKill), ..KILLED };
        assert_eq!(rig.run(until * MS), None);
        assert_eq!(rig.machine.step(at(until * MS), Input::Notified), Action::Check(detail), "{until}");
    }
}

/// If the removal fails at the deadline, members may have joined since the check. They are killed. If there are none, the
/// reap does not wait.
#[test]
fn members_that_joined_before_a_late_removal_are_killed() {
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    rig.wake(Input::Spawned).unwrap();
    (rig.check, rig.removal, rig.now) = (EMPTY, Removed::Unfinished, 40 * MS);
    assert!(rig.wake(Input::Notified).is_ok());
    (rig.check, rig.removal, rig.now) = (FRESH, Removed::Busy, 50 * MS);
    assert_eq!(rig.wake(Input::Resumed), Ok(145 * MS));
    assert_eq!(rig.kills(), [0, 50]);
    let mut rig = Rig::new(&reaper().deadline(50 * MS));
    (rig.check, rig.removal) = (EMPTY, Removed::Busy);
    assert_eq!(rig.run(1000 * MS), Some(End::TimedOut));
    assert!(rig.now <= 145 * MS && rig.kills().is_empty());
}

/// The same, if the deadline passes between two steps of the removal.
#[test]
fn members_that_joined_amid_a_removal_at_the_deadline_are_killed() {
    let mut rig = Rig::new(&reaper().deadline(60 * MS));
    assert_eq!(rig.run(49 * MS), None);
    (rig.check, rig.removal, rig.now) = (EMPTY, Removed::Unfinished, 50 * MS);
    assert_eq!(rig.wake(TICK), Ok(50 * MS));
    rig.now = 60 * MS;
    assert_eq!(rig.wake(Input::Resumed), Ok(60 * MS), "the removal continues");
    (rig.check, rig.removal) = (FRESH, Removed::Busy);
    rig.now = rig.wake(Input::Resumed).unwrap();
    rig.wake(TICK).unwrap();
    assert_eq!(rig.kills(), [0, 10, 61]);
}

/// Members cannot be signalled safely, and every freeze fails. After `freeze_timeout` attempts are made without a freeze. That they
/// are unsafe is no refusal: they may be safe in the next freeze.
#[test]
fn a_freeze_that_fails_for_long_holds_up_no_attempt() {
    let mut rig = Rig::new(&reaper().freeze_timeout(70 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
    rig.freeze = Froze::Failed;
    assert_eq!(rig.run(5000 * MS), None);
    assert_eq!(rig.kills()[..2], [0, 70]);
    assert!(rig.kills().len() > 10);
    assert_eq!(rig.times(|action| *action == Action::Freeze)[..4], [0, 10, 30, 70]);
    // The same where each freeze takes too long.
    let mut rig = Rig::new(&reaper().freeze_timeout(70 * MS).max_wait(50 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
    rig.freeze = Froze::Freezing;
    assert_eq!(rig.run(5000 * MS), None);
    assert!(rig.times(|action| *action == Action::Freeze).len() > 20);
}

/// In the grace period no freeze that fails is followed by SIGKILL.
#[test]
fn a_freeze_that_fails_in_the_grace_is_followed_by_no_sigkill() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS).freeze_timeout(10 * MS));
    rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
    rig.freeze = Froze::Failed;
    assert_eq!(rig.run(999 * MS), None);
    assert!(rig.kills().is_empty());
    assert_eq!(rig.run(1200 * MS), None);
    assert!(rig.kills()[0] >= 1000);
}

/// A freeze that is given up at once, in the grace period, is undone, however often that fails.
#[test]
fn a_freeze_that_is_given_up_in_the_grace_is_undone() {
    let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS).freeze_timeout(ZERO_TIME));
    rig.kill = Attempt { method: None, reach: Reach::Unsafe, ..KILLED };
    (rig.freeze, rig.thaw) = (Froze::Freezing, Thawed::Failed);
    rig.wake(Input::Spawned).unwrap();
    assert!(rig.machine.has_frozen());
    rig.thaw = Thawed::All;
    rig.run(100 * MS);
    assert!(!rig.machine.has_frozen());
}

/// A freeze that is refused has frozen nothing, unless some directory is frozen.
#[test]
fn a_refused_freeze_is_undone_where_a_directory_is_frozen() {
    for in_part in [false, true] {
        let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
        (rig.freeze, rig.frozen_in_part) = (Froze::Denied, in_part);
        rig.wake(Input::Spawned).unwrap();
        let thaws = rig.times(|action| matches!(action, Action::Thaw(_)));
        assert_eq!(!thaws.is_empty(), in_part);
    }
}

/// The signal of the grace period is sent again only if no member was sent it.
#[test]
fn a_grace_signal_that_some_members_may_not_be_sent_is_sent_once() {
    for (method, sent) in [(Some(UsedMethod::Pidfd), 1), (None, 4)] {
        let mut rig = Rig::new(&reaper().grace(Signal::TERM, 1000 * MS));
        rig.kill = Attempt { method, reach: Reach::Denied, signalled: 1, notice: ExitNotice::Delayed };
        assert_eq!(rig.run(80 * MS), None);
        assert_eq!(rig.times(|action| *action == TERM).len(), sent, "{method:?}");
    }
}

/// The members are about to change after an attempt that found new ones, too.
#[test]
fn an_attempt_that_signalled_new_members_is_followed_by_probes() {
    for (signalled, checks) in [(1, [10, 11, 13, 17]), (0, [10, 50, 210, 850])] {
        let mut rig = Rig::new(&reaper());
        rig.run(9 * MS);
        rig.kill.signalled = signalled;
        rig.run(900 * MS);
        let after = rig.checks.iter().position(|at| *at == 10).expect("the second attempt");
        assert_eq!(rig.checks[after..][..4], checks, "{signalled}");
    }
}

/// Our own freezes are undone when a thaw goes on in the next step, unless one could not be.
#[test]
fn nothing_is_frozen_by_us_while_a_thaw_goes_on() {
    let mut rig = Rig::new(&reaper().method(KillMethod::Freezer));
    rig.thaw = Thawed::Unfinished;
    rig.wake(Input::Spawned).unwrap();
    assert_eq!(rig.times(|action| *action == Action::Freeze), [0]);
    assert!(!rig.machine.has_frozen());
}

/// While our own freeze cannot be undone, the freezes of other parties end no reap, however long they last.
#[test]
fn no_reap_ends_as_frozen_by_others_while_it_is_frozen_by_us() {
    for ours_left in [true, false] {
        let mut machine = Machine::new(&reaper(), at(ZERO_TIME), true, false);
        (machine.phase, machine.freezer) = (Phase::Killing, Freezer::ThawDue { failing_since: None });
        machine.held_since = Some(at(ZERO_TIME));
        machine.pending = Pending::Thawing(AfterThaw::WaitAfterExternal(Thawed::HeldFromOutside), None);
        let thawed = if ours_left { Thawed::Failed } else { Thawed::All };
        let action = machine.step(at(20_000 * MS), Input::Thawed { thawed, ours_left });
        let is_end = action == Action::Finish(End::FrozenByAncestor);
        assert_eq!((is_end, matches!(action, Action::Wait(_))), (!ours_left, ours_left), "{action:?}");
    }
}

#[test]
fn a_freeze_of_ours_is_checked_until_its_end_and_undone() {
    let mut freezer = Freezer::Thawed;
    assert_eq!((freezer.thaw_failed(at(MS)), freezer), (None, Freezer::Thawed));
    freezer.freezing(at(ZERO_TIME));
    let next = |now: Duration| freezer.next(at(now), Span::from(70 * MS));
    assert_eq!([next(ZERO_TIME), next(69 * MS), next(70 * MS)], [Some(at(MS)), Some(at(70 * MS)), None]);
    freezer = Freezer::Frozen;
    assert_eq!([freezer.thaw_failed(at(MS)), freezer.thaw_failed(at(2 * MS))], [Some(at(MS)); 2]);
}
