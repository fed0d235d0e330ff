//! Ctrl-C, Ctrl-\\ and Ctrl-Z, also while the command is in another process group than cgreap, to which the terminal sends nothing.

use std::fs;

use crate::common::*;
use crate::place::{Kind, Place};
use crate::terminal::{Terminal, tmux};

/// They make a process group of their own. The second one leaves the session too.
const COMMANDS: [&str; 2] = ["timeout 300 sleep 299", "setsid sleep 299"];

fn sleeper(place: &Place<'_>) -> Option<i32> {
    place.living().into_iter().find_map(|line| line.strip_suffix(": sleep 299 ")?.parse().ok())
}

#[test]
fn an_interrupt_ends_a_command_in_a_process_group_of_its_own() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    for command in COMMANDS {
        for key in ["C-c", "C-\\"] {
            terminal.line(&format!("clear; run -- {command}"));
            eventually("it sleeps", || sleeper(&place).is_some());
            terminal.key(key);
            eventually("it ends", || sleeper(&place).is_none());
            terminal.expect("ready>");
        }
    }
    terminal.close(&place);
}

#[test]
fn an_interrupt_ends_a_loop_of_the_shell() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    for command in ["sleep 299", COMMANDS[0]] {
        terminal.line(&format!("clear; for i in 1 2 3; do echo round $i; run -- {command}; done"));
        eventually("it sleeps", || sleeper(&place).is_some());
        terminal.key("C-c");
        // Not another round.
        terminal.expect("ready>");
        terminal.line("echo status $?");
        terminal.expect("status 130");
    }
    terminal.close(&place);
}

#[test]
fn a_command_in_a_process_group_of_its_own_stops_and_goes_on() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    for command in COMMANDS {
        terminal.line(&format!("clear; run -- {command}"));
        eventually("it sleeps", || sleeper(&place).is_some());
        let sleeper = sleeper(&place).expect("just found");
        terminal.key("C-z");
        terminal.expect("Stopped");
        assert_eq!(state_of(sleeper), Some('T'), "{command}");
        terminal.line("clear; fg");
        eventually("it is continued", || state_of(sleeper) != Some('T'));
        terminal.key("C-c");
        eventually("it ends", || !place.living().iter().any(|line| line.contains("sleep 299")));
        terminal.expect("ready>");
    }
    terminal.close(&place);
}

#[test]
fn without_a_shell_that_could_continue_it_a_command_goes_on() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let (program, parent) = (place.program(), place.parent.display());
    for command in ["timeout 300", "setsid"] {
        let terminal = Terminal::new(&place);
        // The leader of the session, whose process group is orphaned.
        let run = format!("exec {} run --parent {parent}", program.display());
        let script = "trap \"echo continued\" CONT; echo ready; while :; do sleep 0.1; done";
        terminal.line(&format!("clear; {run} -- {command} sh -c '{script}'"));
        terminal.expect("ready\n");
        terminal.key("C-z");
        terminal.expect("continued\n");
        assert!(!place.some_is_stopped(), "{command}");
        terminal.key("C-c");
        terminal.close(&place);
    }
}

#[test]
fn a_command_that_was_continued_is_not_taken_for_stopped() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    terminal.line("clear; run -- sh -c 'trap \"\" TSTP; exec cat'; echo status $?");
    eventually("it reads", || place.living().iter().any(|line| line.ends_with(": cat ")));
    let cat = place.living().into_iter().find_map(|line| line.strip_suffix(": cat ")?.parse().ok());
    let cat = cat.expect("it reads");
    for (number, is_stopped) in [(libc::SIGSTOP, true), (libc::SIGCONT, false)] {
        kill(cat, number).expect("kill");
        eventually("it obeys", || (state_of(cat) == Some('T')) == is_stopped);
    }
    // The command ignores it, and cgreap does not stop alone.
    terminal.key("C-z");
    terminal.line("one");
    terminal.expect("one\none");
    assert!(!place.some_is_stopped());
    terminal.key("C-d");
    terminal.expect("\nstatus 0");
    terminal.close(&place);
}

/// A shell waits for a job until all of it has stopped: also a script around cgreap, and what reads its output.
#[test]
fn a_command_that_suspends_itself_stops_the_job() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    let script = place.sandbox.scratch().join("suspend");
    for suspend in [
        // In the process group of cgreap, as ssh and tmux do it.
        "kill -TSTP $$",
        // In one of its own, as shells do it.
        "exec timeout 300 sh -c 'kill -STOP $PPID; sleep 0.2'",
    ] {
        fs::write(&script, suspend).expect("a script");
        let command = format!("run -- sh {}", script.display());
        for job in [command.clone(), format!("{command} | cat"), format!("bash -c '{command}'")] {
            terminal.line(&format!("export -f run; clear; {job}"));
            terminal.expect("Stopped");
            terminal.line("clear; fg >/dev/null; echo status $?");
            terminal.expect("status 0");
        }
    }
    terminal.close(&place);
}

#[test]
fn the_terminal_of_a_shell_that_was_killed_is_given_back() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    // A shell without job control does not take the terminal back itself.
    let script = "run --timeout 1s --grace TERM=100ms -- env PS1=inner bash --norc --noprofile -i; read x; echo got $x";
    terminal.line(&format!("export -f run; clear; echo; bash -c '{script}'"));
    terminal.expect("\ninner");
    eventually("cgreap ends", || !place.living().iter().any(|line| line.contains(" run --parent ")));
    terminal.line("text");
    terminal.expect("got text");
    terminal.close(&place);
}
