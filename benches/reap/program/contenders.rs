//! The contenders of each case.

use std::io;

use cgroup_reaper::KillMethod;

use super::bare::{Hear, V1, V2};
use super::contender::{Contenders, Family, Ours};
use super::groups::Place;
use super::timer_paced::TimerPaced;

pub fn ours_v2() -> io::Result<Ours> {
    Ours::new("this library, v2", Family::V2, Place::V2, KillMethod::Auto)
}

pub fn ours_pidfd() -> io::Result<Ours> {
    Ours::new("this library, v1 by pidfd (cpu)", Family::Pidfd, Place::Plain, KillMethod::Auto)
}

pub fn ours_freezer() -> io::Result<Ours> {
    Ours::new("this library, v1 freezer", Family::Freezer, Place::Freezer, KillMethod::Freezer)
}

fn timer_paced() -> TimerPaced {
    TimerPaced::new("timer-paced algorithm, 10 ms to 10 s", true, 10, 10_000)
}

fn timer_paced_fast() -> TimerPaced {
    TimerPaced::new("timer-paced algorithm, each 1 ms", true, 1, 1)
}

pub fn for_one() -> io::Result<Contenders> {
    let (plain, freezer) = (Place::Plain, Place::Freezer);
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.nested("this library, v2, in another epoll")?),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(V2::new("bare loop v2, POLLPRI", Hear::Poll)?),
        Box::new(V2::new("bare loop v2, EPOLLPRI after the kill", Hear::EpollAfter)?),
        Box::new(V2::new("bare loop v2, inotify", Hear::Inotify)?),
        Box::new(V2::new("bare loop v2, pidfds", Hear::Pidfds)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu), poll", plain, true)?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu)", plain, false)?),
        Box::new(Ours::new("this library, v1 by pidfd (freezer)", Family::Pidfd, freezer, KillMethod::Auto)?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (freezer), poll", freezer, true)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare loop v1 freezer, spinning", false)?),
        Box::new(V1::freezer("bare loop v1 freezer", true)?),
        Box::new(timer_paced()),
        Box::new(timer_paced_fast()),
        Box::new(TimerPaced::new("timer-paced algorithm, no freezer", false, 10, 10_000)),
    ])
}

pub fn for_many() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.nested("this library, v2, in another epoll")?),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(V2::new("bare loop v2, EPOLLPRI after the kill", Hear::EpollAfter)?),
        Box::new(V2::new("bare loop v2, inotify", Hear::Inotify)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu)", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare loop v1 freezer, spinning", false)?),
        Box::new(V1::freezer("bare loop v1 freezer", true)?),
        Box::new(timer_paced()),
        Box::new(timer_paced_fast()),
    ])
}

/// For cases that need thousands of processes for each contender.
pub fn for_most() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(V2::new("bare loop v2, EPOLLPRI after the kill", Hear::EpollAfter)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu)", Place::Plain, false)?),
    ])
}

pub fn for_fresh() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(V2::new("bare loop v2, pidfds", Hear::Pidfds)?),
    ])
}

pub fn for_waiting() -> io::Result<Contenders> {
    Ok(vec![Box::new(ours_v2()?), Box::new(ours_pidfd()?), Box::new(timer_paced())])
}

/// Bare loops as they are driven by a loop with other work: notified by its epoll.
pub fn for_calls() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.with_helper("this library, v2, helper thread")),
        Box::new(ours_v2()?.without_budget("this library, v2, no budget")),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(ours_pidfd()?),
        Box::new(ours_pidfd()?.without_budget("this library, v1 by pidfd (cpu), no budget")),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu)", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(ours_freezer()?.without_budget("this library, v1 freezer, no budget")),
        Box::new(V1::freezer("bare loop v1 freezer", true)?),
    ])
}

pub fn for_counts() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare loop v2, EPOLLPRI", Hear::EpollBefore)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare loop v1 by pidfd (cpu)", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare loop v1 freezer", true)?),
        Box::new(timer_paced()),
    ])
}
