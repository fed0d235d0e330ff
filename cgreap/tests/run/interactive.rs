//! Interactive programs on a terminal, which behave as without cgreap: an editor and a prompt. The shell with job control
//! is in the tests beside this.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::*;
use crate::place::{Kind, Place};
use crate::terminal::{Terminal, tmux};

/// Need: this program, which has to know this option.
fn program(name: &str, option: &str) -> Result<(), String> {
    match Command::new(name).arg(option).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!("no {name}")),
    }
}

/// Plainly, and by `cgreap run`: what both do is the same.
const BOTH: [&str; 2] = ["", "run -- "];

#[test]
fn vim_edits_stops_and_goes_on() {
    require!(v2(), tmux(), program("vim", "--version"));
    for run in BOTH {
        let sandbox = Sandbox::new(test_name!());
        let place = Place::new(&sandbox, Kind::V2);
        let file = sandbox.scratch().join("text");
        fs::write(&file, "one\n").expect("write");
        let terminal = Terminal::new(&place);
        // No settings, no files of its own.
        let vim = format!("{run}vim -N -u NONE -i NONE -n");
        terminal.line(&format!("clear; {vim} {}; echo status $?", file.display()));
        terminal.expect("one\n~");
        terminal.letters("Otwo");
        // Ctrl-C discards what is typed about the same time.
        terminal.expect("two\none\n~");
        terminal.expect("-- INSERT --");
        // Ends the insertion, and not vim.
        terminal.key("C-c");
        eventually("the insertion ends", || !terminal.screen().contains("INSERT"));
        terminal.line(":set laststatus=2");
        terminal.expect("[+]");
        terminal.key("C-z");
        terminal.expect("Stopped");
        terminal.line("echo $((1200 + 34))");
        terminal.expect("1234");
        terminal.line("clear; fg; echo status $?");
        terminal.expect("two\none\n~");
        terminal.line(":wq");
        terminal.expect("status 0");
        assert_eq!(fs::read_to_string(&file).expect("read"), "two\none\n");
        terminal.line(&format!("clear; {vim}; echo status $?"));
        terminal.expect("VIM - Vi IMproved");
        terminal.line(":cquit 3");
        terminal.expect("status 3");
        terminal.close(&place);
    }
}

#[test]
fn a_python_prompt_is_interrupted_stops_and_goes_on() {
    require!(v2(), tmux(), program("python3", "--version"));
    for run in BOTH {
        let sandbox = Sandbox::new(test_name!());
        let place = Place::new(&sandbox, Kind::V2);
        let terminal = Terminal::new(&place);
        terminal.line("export PYTHON_BASIC_REPL=1");
        // -s, -S: without what the machine and the user have installed.
        terminal.line(&format!("clear; {run}python3 -q -s -S -i -c 'a = 1200'; echo status $?"));
        terminal.expect(">>>");
        terminal.line("print('loops'); exec('while True: pass')");
        terminal.expect("\nloops");
        terminal.key("C-c");
        terminal.expect("KeyboardInterrupt\n>>>");
        terminal.line("a + 34");
        terminal.expect("\n1234\n>>>");
        terminal.key("C-z");
        terminal.expect("Stopped");
        terminal.line("clear; fg; echo status $?");
        // The shell shows the job. What is typed before belongs to the shell.
        terminal.expect_one_of(&["\"$@\"", "python3 -q"]);
        eventually("it is continued", || !place.some_is_stopped());
        terminal.line("a + 44");
        terminal.expect("\n1244\n");
        // An interrupt at the prompt.
        terminal.key("C-c");
        terminal.expect("KeyboardInterrupt\n>>>");
        terminal.line("import sys; sys.exit(7)");
        terminal.expect("status 7");
        terminal.close(&place);
    }
}

#[test]
fn once_the_command_has_ended_an_interrupt_kills_what_is_left() {
    require!(v2(), tmux());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    let terminal = Terminal::new(&place);
    for option in ["--linger 10m", "--grace TERM=10m"] {
        // What a shell without job control starts in the background ignores SIGINT.
        let script = "trap \"\" TERM; sleep 300 & echo $((1200 + 34))";
        terminal.line(&format!("clear; run {option} -- sh -c '{script}'"));
        terminal.expect("1234");
        eventually("the command ends", || !place.living().iter().any(|line| line.contains(": sh -c ")));
        // It is the command's until cgreap has seen that it has ended.
        eventually("the interrupt is cgreap's", || {
            terminal.key("C-c");
            thread::sleep(Duration::from_millis(200));
            terminal.screen().contains("ready>")
        });
        terminal.line("echo status $?");
        terminal.expect("status 130");
        eventually("it is killed", || !place.living().iter().any(|line| line.ends_with(": sleep 300 ")));
    }
    terminal.close(&place);
}
