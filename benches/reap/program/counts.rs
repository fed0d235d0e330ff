//! The system calls, allocations, memory and descriptors of a reap. Counted, not timed.

use std::fs;
use std::io;

use super::contender::{Contender, Ours};
use super::groups::Group;
use super::{Bench, alloc, contenders, sys};

/// How much longer the names of some groups are than of the others, to tell what of an entry's memory is paths.
const LONGER: usize = 100;

impl Bench<'_> {
    pub(super) fn counts(&mut self) -> io::Result<()> {
        let many = [10, 100, 1000][self.options.depth as usize];
        println!("\n### Counts: of one reap, and a reap of {many} at once, one process each\n");
        println!("| {:<40} | system calls | at once | allocations | at once |", "");
        println!("|{:-<42}|-------------:|--------:|------------:|--------:|", "");
        for index in 0..contenders::for_counts()?.len() {
            let contender = &contenders::for_counts()?[index];
            let name = contender.card().name;
            if self.options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let (Some(one), Some(all)) = (self.count(index, 1)?, self.count(index, many)?) else { continue };
            println!("| {name:<40} | {:>12.1} | {:>7.1} | {:>11.1} | {:>7.1} |", one.0, all.0, one.1, all.1);
        }
        println!("\n| {:<40} | bytes of heap | of it paths | descriptors |", "An entry while it waits");
        println!("|{:-<42}|--------------:|------------:|------------:|", "");
        let entrants = [contenders::ours_v2, contenders::ours_pidfd, contenders::ours_freezer];
        for entrant in entrants {
            self.size(entrant, many)?;
        }
        Ok(())
    }

    /// System calls and allocations of a reap, where `count` groups are reaped at once, after a first one.
    fn count(&mut self, index: usize, count: usize) -> io::Result<Option<(f64, f64)>> {
        let place = contenders::for_counts()?[index].card().place;
        let Some(base) = self.bases.get(place) else { return Ok(None) };
        let mut lots = Vec::new();
        // Two lots for the system calls, two for the allocations, each time the first to warm up.
        for size in [1, count, count, count] {
            let groups = self.member_maker.groups(base, size)?;
            self.member_maker.populate(&groups, 1, false)?;
            lots.push(groups);
        }
        std::thread::sleep(super::REST);

        sys::keep_children();
        // In a process of its own, for it is traced; by a contender of its own, for an epoll is shared by fork.
        let child = sys::fork(|| {
            let counted = || -> io::Result<()> {
                let contender = &mut contenders::for_counts()?[index];
                sys::be_traced()?;
                reap(contender, &lots[0])?;
                contender.prepare(&lots[1]);
                sys::mark();
                contender.reap(&lots[1])?;
                sys::mark();
                Ok(())
            };
            i32::from(counted().is_err())
        })?;
        let calls = sys::count_calls(child)?;
        sys::ignore_children();
        let Some(calls) = calls else {
            return Err(io::Error::other("a reap that is traced failed"));
        };

        let contender = &mut contenders::for_counts()?[index];
        reap(contender, &lots[2])?;
        contender.prepare(&lots[3]);
        let before = alloc::calls();
        contender.reap(&lots[3])?;
        let allocations = alloc::calls() - before;
        Ok(Some((calls as f64 / count as f64, allocations as f64 / count as f64)))
    }

    /// What an entry holds between its spawn and its end.
    fn size(&mut self, new: fn() -> io::Result<Ours>, count: usize) -> io::Result<()> {
        let card = *new()?.card();
        let Some(base) = self.bases.get(card.place) else { return Ok(()) };
        let (mut sizes, mut descriptors) = (Vec::new(), 0.0);
        for prefix in ["g".to_owned(), "g".repeat(LONGER + 1)] {
            let groups = self.member_maker.named(base, count, &prefix)?;
            self.member_maker.populate(&groups, 1, false)?;
            std::thread::sleep(super::REST);
            // A new one each time: an old one would reuse its memory.
            let mut ours = new()?;
            ours.prepare(&groups[..1]);
            ours.spawn()?;
            ours.finish()?;
            ours.prepare(&groups[1..]);
            let mut handles = Vec::with_capacity(count);
            let (bytes, open) = (alloc::bytes(), open_files()?);
            handles.append(&mut ours.spawn()?);
            let each = |now: u64, before: u64| (now as f64 - before as f64) / (count - 1) as f64;
            // The reapers with their paths belong to the caller, and were allocated before.
            let path = groups[1].path.as_bytes().len() as f64;
            sizes.push((each(alloc::bytes(), bytes), path));
            descriptors = each(open_files()?, open);
            ours.finish()?;
        }
        let paths = (sizes[1].0 - sizes[0].0) / LONGER as f64 * sizes[0].1;
        println!("| {:<40} | {:>13.0} | {paths:>11.0} | {descriptors:>11.1} |", card.name, sizes[0].0);
        let work = format!("{}: bytes of a waiting entry, paths aside", card.name);
        self.report.at_most(work, sizes[0].0 - paths, 512.0, "");
        Ok(())
    }
}

fn reap(contender: &mut Box<dyn Contender>, groups: &[Group]) -> io::Result<()> {
    contender.prepare(groups);
    contender.reap(groups).map(drop)
}

fn open_files() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64)
}
