//! What the entries tell the loop that embeds them.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::kernel::{CPU, Features, MOUNTS, Nature, ROOTS, Sim, World};
use super::reactors::EventLoop;
use super::scenes::{begin, entries, run};
use crate::entries::Entries;
use crate::handle::{Asked, ReapHandle};
use crate::outcome::{Completed, ReapError};
use crate::reaper::Reaper;

/// Reaps with these tags, each of a group whose member cannot exit.
fn reaps(tags: &[u64]) -> (Sim, Entries<Sim>, Vec<ReapHandle>) {
    let mut world = World::new(fastrand::Rng::with_seed(0), Features::of(Features::LEVELS - 1));
    for tag in 0..tags.len() {
        let group = world.mkdir(ROOTS[CPU], &tag.to_string());
        let mut groups = world.processes[0].groups;
        groups[CPU] = group;
        world.add_process(groups, Nature { stuck: true, ..Nature::default() }, None);
    }
    let sim = Sim(Rc::new(RefCell::new(world)));
    let mut entries = entries(&sim);
    let event_loop = EventLoop::new(&sim);
    let reaper = |(number, &tag): (usize, &u64)| Reaper::at(path(number)).tag(tag);
    let handles =
        tags.iter().enumerate().map(|each| begin(&mut entries, reaper(each), &event_loop)).collect();
    (sim, entries, handles)
}

fn path(number: usize) -> PathBuf {
    PathBuf::from(MOUNTS[CPU]).join(number.to_string())
}

#[test]
fn reaps_under_way_are_listed_and_asked_by_tag() {
    let (sim, mut entries, handles) = reaps(&[7, 7, 8]);
    let mut pending: Vec<_> = entries.pending().map(|reap| (reap.path.to_path_buf(), reap.tag)).collect();
    pending.sort();
    assert_eq!(pending, [(path(0), Some(7)), (path(1), Some(7)), (path(2), Some(8))]);
    assert!(!entries.has_completed());
    let mut event_loop = EventLoop::new(&sim);
    let mut commands = Vec::new();
    assert_eq!(entries.ask(|tag| tag == Some(7), Asked::Cancel, |command| commands.push(command)), 2);
    assert_eq!(entries.ask(|tag| tag == Some(9), Asked::Cancel, |_| panic!("nobody is asked")), 0);
    event_loop.commands.extend(commands);
    event_loop.turn(&mut entries, Vec::new());
    drop(handles);
    assert!(entries.has_completed());
    for _ in 0..2 {
        let ended = entries.take_completed();
        assert!(
            matches!(ended, Some(Completed { tag: 7, result: Err(ReapError::Cancelled { .. }), .. })),
            "{ended:?}"
        );
    }
    assert!(!entries.has_completed() && entries.len() == 1);
    run(&sim, &mut entries);
}

/// The time of a call is over when its budget is, and never where it has none.
#[test]
fn a_call_has_the_time_that_it_was_given() {
    let (sim, mut entries, _handles) = reaps(&[]);
    for (budget, after) in
        [(Some(Duration::ZERO), Duration::ZERO), (Some(Duration::from_millis(5)), Duration::from_millis(5))]
    {
        assert!(entries.limit(budget).is_set());
        assert_eq!(entries.is_out_of_time(), budget == Some(Duration::ZERO));
        let now = sim.0.borrow().now;
        sim.0.borrow_mut().advance(now + after);
        assert!(entries.is_out_of_time());
    }
    assert!(!entries.limit(None).is_set());
    assert!(!entries.is_out_of_time());
}
