//! Commands whose processes are hard to find or to kill, and how each of them ends under `cgreap run`.

use std::path::Path;

/// A command for `sh -c`.
#[derive(Debug, Clone)]
pub struct Hostile {
    pub name: &'static str,
    pub script: String,
    /// Options of `cgreap run`.
    pub options: Vec<String>,
    pub status: i32,
    /// Whether something is left when its main process ends.
    pub leaves: bool,
}

fn hostile(name: &'static str, script: impl Into<String>, status: i32) -> Hostile {
    Hostile { name, script: script.into(), options: Vec::new(), status, leaves: true }
}

impl Hostile {
    fn with(mut self, options: &[&str]) -> Hostile {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    fn leaves_nothing(mut self) -> Hostile {
        self.leaves = false;
        self
    }
}

/// The dozen. `program` is cgreap, `group` the cgroup that the command will be in, `storm` bounds a fork storm: the options
/// that do it, and the arguments where the storm has to bound itself. `until` is in milliseconds since boot.
pub fn dozen(program: &Path, group: &Path, is_v2: bool, storm: (&[&str], &str), until: u64) -> Vec<Hostile> {
    let (program, group_path) = (program.display(), group.display());
    let freeze = match is_v2 {
        true => format!("echo 1 > {group_path}/cgroup.freeze"),
        false => format!("echo FROZEN > {group_path}/freezer.state"),
    };
    let (storm_options, storm_arguments) = storm;
    vec![
        hostile("double fork with setsid", "(setsid sh -c 'sleep 300 & sleep 300' &); sleep 0.1; exit 3", 3),
        // busybox may have been built without it.
        hostile(
            "nohup",
            "h() { command -v nohup >/dev/null && exec nohup sleep 300; trap '' HUP; exec sleep 300; }; \
             h >/dev/null 2>&1 & sleep 0.3; exit 4",
            4,
        ),
        hostile(
            "fork storm",
            format!(
                "sleep 1 & p=$!; {program} __demo-process fork-storm --until {until} {storm_arguments} \
                 >/dev/null 2>&1 & wait $p; exit 5"
            ),
            5,
        )
        .with(storm_options),
        hostile("deaf to SIGTERM", "trap '' TERM; sleep 300 & sleep 0.1; exit 6", 6)
            .with(&["--grace", "TERM=200ms"]),
        hostile("stopped", "sleep 300 & kill -STOP $!; exit 7", 7),
        hostile("stops itself", "kill -STOP $$; exit 1", 124).with(&["--timeout", "300ms"]).leaves_nothing(),
        hostile("frozen by itself", format!("sleep 300 & {freeze}; exit 1"), 124)
            // Long enough for a slow machine to have frozen it by then.
            .with(&["--timeout", "3s"])
            .leaves_nothing(),
        hostile(
            "cgroups of its own",
            format!(
                "mkdir -p {group_path}/a/b && sh -c 'echo 0 > {group_path}/a/b/cgroup.procs && exec sleep 300' & sleep 0.3; exit 8"
            ),
            8,
        ),
        hostile(
            "a pid namespace",
            "unshare -rUpf sh -c 'setsid sleep 300 & sleep 300' & sleep 0.3; exit 9",
            9,
        ),
        hostile("a main process that exits at once", "sleep 300 & sleep 300 & exit 10", 10),
        hostile("exec of another program", "sleep 300 & exec sh -c 'exec sh -c \"exit 11\"'", 11),
        hostile("closes all descriptors", "exec <&- >&- 2>&-; (sleep 300 &); exit 12", 12),
        hostile(
            "cgreap run in cgreap run",
            format!("{program} run -q --parent {group_path} -- sh -c 'setsid sleep 300 & exit 13'"),
            13,
        )
        .leaves_nothing(),
    ]
}
