//! Every call fails once, on the real kernel: small reaps on real cgroups, in which the k-th call of a kind fails with
//! each error that it can give, once, for 100 ms, or from then on; and in which no more than k descriptors can be open at
//! once.
//!
//! The result has to be true, in time, and nothing may be left frozen; a process in a sibling of the target is not
//! touched. `CGROUP_REAPER_INJECT=all` runs every case; a case by its name, `scenario:kind:k:error:mode`, is run alone and
//! shows its calls; the name of a scenario runs all of its cases. Without that, some cases of each scenario run.

mod event_loop;
mod faults;
mod judge;
mod kernel;
mod scenarios;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use self::event_loop::{Ending, reap};
use self::faults::{Fault, Kind, Mode};
use self::judge::{Case, bound};
use self::kernel::Failing;
use self::scenarios::{SCENARIOS, Scenario, Target};
use crate::common::{World, skip, subtree, test_name};

/// What a busy machine may add to any time.
const SLACK: Duration = Duration::from_millis(1500);

/// By then a reap whose fault lasts ends.
const DEADLINE: Duration = Duration::from_millis(1200);

/// Times that a case has to be late in a row.
const TRIES: usize = 3;

/// Cases at once. Most of them wait.
const WORKERS: usize = 12;

/// One case of so many is run where not all are asked for, and each with few descriptors. A prime, so that each kind, error and mode has its turn.
const STRIDE: usize = 29;

/// What is asked for.
enum Wanted {
    Some,
    All,
    Scenario(String),
    One(String, Fault),
}

impl Wanted {
    fn read() -> Wanted {
        let Ok(text) = std::env::var("CGROUP_REAPER_INJECT") else { return Wanted::Some };
        let wanted = match text.split_once(':') {
            _ if text == "all" => Wanted::All,
            None => Wanted::Scenario(text.clone()),
            Some((scenario, fault)) => match Fault::parse(fault) {
                Some(fault) => Wanted::One(scenario.into(), fault),
                None => panic!("CGROUP_REAPER_INJECT: no such case: {text}"),
            },
        };
        assert!(
            SCENARIOS.iter().any(|scenario| wanted.has(scenario)),
            "CGROUP_REAPER_INJECT: no such scenario: {text}"
        );
        wanted
    }

    fn has(&self, scenario: &Scenario) -> bool {
        match self {
            Wanted::Some | Wanted::All => true,
            Wanted::Scenario(name) | Wanted::One(name, _) => name == scenario.name,
        }
    }
}

/// A scenario's place on the machine, for one case after another.
struct Stage<'a> {
    scenario: &'a Scenario,
    world: World,
    count: usize,
}

/// What came of a case.
struct Played {
    problems: Vec<String>,
    /// It took too long, which may be the machine's fault, and nothing else is wrong.
    only_late: bool,
    ending: String,
    log: String,
    counts: [u32; Kind::ALL.len()],
}

impl<'a> Stage<'a> {
    fn new(scenario: &'a Scenario) -> Stage<'a> {
        Stage { scenario, world: World::new(&format!("inject-{}", scenario.name), scenario.layout), count: 0 }
    }

    /// Plays a case, several times if it takes too long: only what does so each time is the library's fault.
    fn play(&mut self, fault: Option<Fault>) -> Played {
        let mut played = self.play_once(fault);
        for _ in 1..TRIES {
            if !played.only_late {
                break;
            }
            played = self.play_once(fault);
        }
        played
    }

    /// Plays one case, and takes away what is left of it.
    fn play_once(&mut self, fault: Option<Fault>) -> Played {
        self.count += 1;
        let mut target = self.scenario.target(&self.world, &format!("t{}", self.count));
        let lasting = fault.is_some_and(|fault| fault.mode == Mode::Lasting);
        if lasting && target.reaper.deadline.is_none() {
            target.reaper = target.reaper.clone().deadline(DEADLINE);
        }
        let sys = Failing::new(fault, self.scenario.absent);
        let limit = bound(self.scenario, &target, fault);
        let (ending, spawned, over) = reap(&sys, &target.reaper, limit);
        let (record, open) = (sys.record(), sys.open_files());
        let scenario = self.scenario;
        let case = Case { scenario, target: &target, fault, ending: &ending, record: &record, spawned, over };
        let (mut problems, late) = (case.untruths(), case.late());
        if open > 0 {
            problems.push(format!("left open: {open} descriptors"));
        }
        self.world.canary.assert_alive();
        if let Err(problem) = self.clean_up(&target) {
            problems.push(problem);
        }
        let only_late = problems.is_empty() && late.is_some();
        problems.extend(late);
        Played {
            problems,
            only_late,
            ending: format!("{ending:?}"),
            log: record.tell(spawned, 400),
            counts: record.counts,
        }
    }

    /// Once nothing fails, the same reap succeeds, whatever the one before has left.
    fn clean_up(&self, target: &Target) -> Result<(), String> {
        if let Some(stuck) = &target.stuck {
            stuck.release();
        }
        // A freeze outside of the target, and one that could not be undone.
        for dir in target.dirs.iter().chain(&target.beside).flat_map(|dir| subtree(dir)) {
            for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if dir.join(file).exists() {
                    let _ = fs::write(dir.join(file), thawed);
                }
            }
        }
        let mut reaper = target.reaper.clone();
        (reaper.grace, reaper.linger, reaper.deadline, reaper.keep_dir) = (None, None, None, false);
        let (ending, ..) = reap(&Failing::new(None, self.scenario.absent), &reaper, Duration::from_secs(30));
        if !matches!(ending, Ending::Complete(Ok(_))) {
            return Err(format!("the next reap: {ending:?}"));
        }
        let stuck = target.stuck.iter().map(|stuck| &stuck.process);
        if !target.members.iter().chain(stuck).all(|member| member.ended(Duration::from_secs(30))) {
            return Err("a member lives after the next reap".into());
        }
        let storm = target.storm.iter().map(|storm| &storm.limit);
        for dir in target.beside.iter().chain(storm) {
            let _ = fs::remove_dir(dir);
        }
        Ok(())
    }
}

/// A failed case, by its name.
struct Failure {
    name: String,
    problem: String,
    ending: String,
}

#[test]
fn every_call_fails() {
    let wanted = Wanted::read();
    let mut scenarios = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| wanted.has(scenario)) {
        match scenario.need() {
            Ok(()) => scenarios.push(scenario),
            Err(reason) => skip(&format!("{} ({})", test_name!(), scenario.name), &reason),
        }
    }
    if let Wanted::One(name, fault) = &wanted {
        let Some(scenario) = scenarios.first() else { panic!("no scenario {name} here") };
        let played = Stage::new(scenario).play(Some(*fault));
        println!("{}{}", played.log, played.ending);
        assert!(played.problems.is_empty(), "{name}:{fault}: {:#?}", played.problems);
        return;
    }
    let mut cases: Vec<(&Scenario, Fault)> = Vec::new();
    for scenario in scenarios {
        let played = Stage::new(scenario).play(None);
        assert!(played.problems.is_empty(), "{}: {:#?}\n{}", scenario.name, played.problems, played.log);
        let faults = Fault::all(&played.counts, scenario.descriptors());
        println!("{}: {} cases", scenario.name, faults.len());
        cases.extend(faults.into_iter().map(|fault| (scenario, fault)));
    }
    if matches!(wanted, Wanted::Some) {
        let (limits, others): (Vec<_>, Vec<_>) =
            cases.into_iter().partition(|(_, fault)| fault.mode == Mode::Limit);
        cases = others.into_iter().step_by(STRIDE).chain(limits).collect();
    }
    let failures = run(&cases);
    assert!(failures.is_empty(), "{}", told(&failures, cases.len()));
}

/// Runs the cases, several at once, each of which is in groups of its own.
fn run(cases: &[(&Scenario, Fault)]) -> Vec<Failure> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut stage: Option<Stage<'_>> = None;
                while let Some((scenario, fault)) = cases.get(next.fetch_add(1, Relaxed)) {
                    let here = match stage.take_if(|stage| stage.scenario.name == scenario.name) {
                        Some(stage) => stage,
                        None => {
                            drop(stage.take());
                            Stage::new(scenario)
                        }
                    };
                    let here = stage.insert(here);
                    let played = here.play(Some(*fault));
                    if let Some(problem) = played.problems.into_iter().next() {
                        let name = format!("{}:{fault}", scenario.name);
                        println!("{name}: {problem}");
                        let failure = Failure { name, problem, ending: played.ending };
                        failures.lock().expect("no panic").push(failure);
                        // A fresh one, in which nothing is left of this case.
                        stage = None;
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no panic")
}

/// The failures, those together that are alike.
fn told(failures: &[Failure], cases: usize) -> String {
    let mut kinds: BTreeMap<String, Vec<&Failure>> = BTreeMap::new();
    for failure in failures {
        let mut words = failure.name.split(':');
        let (scenario, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let problem: String = failure.problem.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        kinds.entry(format!("{scenario}:{kind}: {problem}")).or_default().push(failure);
    }
    let mut text = format!("{} of {cases} cases failed\n", failures.len());
    for (kind, failures) in kinds {
        let first = failures[0];
        let _ = writeln!(text, "{} times {kind}\n    {}: {}", failures.len(), first.name, first.problem);
        let _ = writeln!(text, "    {:.500}", first.ending);
        let names: Vec<&str> = failures.iter().skip(1).take(40).map(|failure| &*failure.name).collect();
        let _ = writeln!(text, "    {}", names.join(" "));
    }
    text + "Each alone, with its calls: CGROUP_REAPER_INJECT=CASE cargo test --lib injection -- --nocapture"
}
