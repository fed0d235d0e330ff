//! The contenders of each case.

use std::io;

use cgroup_reaper::KillMethod;

use super::bare::{Hear, V1, V2};
use super::contender::{Contenders, Family, Ours};
use super::groups::Place;
use super::original::Original;

pub fn ours_v2() -> io::Result<Ours> {
    Ours::new("ours v2", Family::V2, Place::V2, KillMethod::Auto)
}

pub fn ours_pidfd() -> io::Result<Ours> {
    Ours::new("ours v1 pidfd (cpu)", Family::Pidfd, Place::Plain, KillMethod::Auto)
}

pub fn ours_freezer() -> io::Result<Ours> {
    Ours::new("ours v1 freezer", Family::Freezer, Place::Freezer, KillMethod::Freezer)
}

fn original() -> Original {
    Original::new("original 10 to 10 000 ms", true, 10, 10_000)
}

fn original_fast() -> Original {
    Original::new("original 1 to 1 ms", true, 1, 1)
}

pub fn for_one() -> io::Result<Contenders> {
    let (plain, freezer) = (Place::Plain, Place::Freezer);
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.nested("ours v2, nested in another epoll")?),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, POLLPRI", Hear::Poll)?),
        Box::new(V2::new("bare v2, EPOLLPRI armed after", Hear::EpollAfter)?),
        Box::new(V2::new("bare v2, inotify", Hear::Inotify)?),
        Box::new(V2::new("bare v2, pidfds", Hear::Pidfds)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), poll", plain, true)?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", plain, false)?),
        Box::new(Ours::new("ours v1 pidfd (freezer)", Family::Pidfd, freezer, KillMethod::Auto)?),
        Box::new(V1::pidfd("bare v1 pidfd (freezer), poll", freezer, true)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare v1 freezer", false)?),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
        Box::new(original()),
        Box::new(original_fast()),
        Box::new(Original::new("original 10 to 10 000 ms, no freezer", false, 10, 10_000)),
    ])
}

pub fn for_many() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.nested("ours v2, nested in another epoll")?),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, EPOLLPRI armed after", Hear::EpollAfter)?),
        Box::new(V2::new("bare v2, inotify", Hear::Inotify)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare v1 freezer", false)?),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
        Box::new(original()),
        Box::new(original_fast()),
    ])
}

/// For cases that need thousands of processes for each contender.
pub fn for_most() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, EPOLLPRI armed after", Hear::EpollAfter)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", Place::Plain, false)?),
    ])
}

pub fn for_fresh() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(V2::new("bare v2, pidfds", Hear::Pidfds)?),
    ])
}

pub fn for_waiting() -> io::Result<Contenders> {
    Ok(vec![Box::new(ours_v2()?), Box::new(ours_pidfd()?), Box::new(original())])
}

/// Bare loops as they are driven by a loop with other work: notified by its epoll.
pub fn for_calls() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(ours_v2()?.with_helper("ours v2, helper thread")),
        Box::new(ours_v2()?.without_budget("ours v2, no budget")),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(ours_pidfd()?),
        Box::new(ours_pidfd()?.without_budget("ours v1 pidfd (cpu), no budget")),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(ours_freezer()?.without_budget("ours v1 freezer, no budget")),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
    ])
}

pub fn for_counts() -> io::Result<Contenders> {
    Ok(vec![
        Box::new(ours_v2()?),
        Box::new(V2::new("bare v2, EPOLLPRI armed before", Hear::EpollBefore)?),
        Box::new(ours_pidfd()?),
        Box::new(V1::pidfd("bare v1 pidfd (cpu), epoll", Place::Plain, false)?),
        Box::new(ours_freezer()?),
        Box::new(V1::freezer("bare v1 freezer, yielding", true)?),
        Box::new(original()),
    ])
}
