//! Signals that the command sends to its process group, in which cgreap is too, and those that cgreap passes on.

use crate::common::*;
use crate::place::{Kind, Place, before_exec, output, signal, start};
use crate::{NO_OPTIONS, await_line, default_signals};

#[test]
fn what_the_command_sends_to_its_process_group_is_no_order_to_cgreap() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for name in ["TERM", "INT", "QUIT", "HUP"] {
        for (script, status) in [
            (format!("trap '' {name}; kill -{name} 0; sleep 0.1; kill -{name} 0; exit 3"), 3),
            // The last act of many scripts.
            (format!("trap 'trap \"\" {name}; kill -{name} 0' EXIT; sleep 300 & exit 4"), 4),
        ] {
            let mut command = place.command(&["-q"], &["sh", "-c", &script]);
            before_exec(&mut command, default_signals);
            // A process group of its own: it is not the tests' that gets the signal.
            let run = output(start(std::os::unix::process::CommandExt::process_group(&mut command, 0)));
            assert_eq!((run.status, &*run.out, &*run.err), (Some(status), "", ""), "{script}");
        }
    }
    // By another process of the command it is one, as is what comes to cgreap alone from a process group of its own.
    for script in ["(exec sh -c 'kill $1' sh $PPID); sleep 300", "exec setsid sh -c 'kill $PPID; sleep 300'"]
    {
        assert_eq!(place.sh(&NO_OPTIONS, script).signal, Some(libc::SIGTERM), "{script}");
    }
    place.assert_nothing_left("signals");
}

#[test]
fn user_signals_are_passed_on() {
    require!(v2());
    let sandbox = Sandbox::new(test_name!());
    let place = Place::new(&sandbox, Kind::V2);
    for (name, number) in [("USR1", libc::SIGUSR1), ("USR2", libc::SIGUSR2)] {
        let script = format!("trap 'echo got; exit 3' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child = start(&mut place.command(&["-q"], &["sh", "-c", &script]));
        await_line(&mut child);
        signal(&child, number);
        let run = output(child);
        assert_eq!((run.status, &*run.out, &*run.err), (Some(3), "got\n", ""), "{name}");
        // A command without a handler dies of it, as it would without cgreap.
        let mut child = start(&mut place.command(&["-q"], &["sh", "-c", "echo ready; exec sleep 300"]));
        await_line(&mut child);
        signal(&child, number);
        assert_eq!(output(child).signal, Some(number), "{name}");
    }
    // Once, if the command has sent it to its process group itself.
    let script = "trap 'echo got' USR1; kill -USR1 0; sleep 0.2; exit 3";
    let mut command = place.command(&NO_OPTIONS, &["sh", "-c", script]);
    let run = output(start(std::os::unix::process::CommandExt::process_group(&mut command, 0)));
    assert_eq!((run.status, &*run.out, &*run.err), (Some(3), "got\n", ""));
    place.assert_nothing_left("user signals");
}
