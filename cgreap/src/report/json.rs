//! The JSON object about a target. `cgreap --help` describes it.

use std::path::Path;

use cgroup_reaper::{Outcome, ReapError, Survivor};
use serde_json::{Map, Value, json};

use crate::end::{End, Failure};
use crate::target::Place;

pub fn object(name: &Path, place: Option<&Place>, end: &End) -> Value {
    let mut object = Map::new();
    object.insert("path".to_owned(), lossy(name));
    if let Some(place) = place {
        object.insert("root".to_owned(), lossy(&place.root));
        object.insert("slice".to_owned(), lossy(&place.slice));
        object.insert("subsystems".to_owned(), place.subsystems.iter().map(|path| lossy(path)).collect());
    }
    object.insert("elapsed_us".to_owned(), json!(end.elapsed.as_micros() as u64));
    let (method, signalled, attempts) = match &end.result {
        Ok(reaped) => (reaped.method, reaped.signalled, reaped.attempts),
        Err(Failure::Reap(error)) => {
            error.effort().map_or((None, 0, 0), |effort| (effort.method, effort.signalled, effort.attempts))
        }
        Err(Failure::Refused(_)) => (None, 0, 0),
    };
    object.insert("method".to_owned(), json!(method.map(|method| method.to_string())));
    object.insert("signalled".to_owned(), json!(signalled));
    object.insert("attempts".to_owned(), json!(attempts));
    match &end.result {
        Ok(reaped) => drop(object.insert("outcome".to_owned(), json!(outcome(reaped.outcome)))),
        Err(failure) => {
            let mut error = Map::new();
            error.insert("kind".to_owned(), json!(failure.kind()));
            error.insert("message".to_owned(), json!(failure.to_string()));
            if let Failure::Reap(ReapError::TimedOut { survivors, .. }) = failure {
                error.insert("survivors".to_owned(), survivors.iter().map(survivor).collect());
            }
            object.insert("error".to_owned(), Value::Object(error));
        }
    }
    Value::Object(object)
}

fn outcome(outcome: Outcome) -> String {
    outcome.to_string().replace(' ', "-")
}

fn survivor(survivor: &Survivor) -> Value {
    json!({
        "pid": survivor.pid,
        "command": survivor.command,
        "state": survivor.state.map(String::from),
        "wait_channel": survivor.wait_channel,
        "frozen_by": survivor.frozen_by.as_deref().map(lossy),
        "kernel_thread": survivor.kernel_thread,
    })
}

fn lossy(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_describes_a_survivor() {
        let mut stuck = Survivor::default();
        stuck.pid = 42;
        stuck.command = "sleep".to_owned();
        stuck.state = Some('D');
        stuck.frozen_by = Some("/c/frozen".into());
        assert_eq!(
            survivor(&stuck),
            json!({
                "pid": 42, "command": "sleep", "state": "D", "wait_channel": "",
                "frozen_by": "/c/frozen", "kernel_thread": false,
            })
        );
    }

    #[test]
    fn the_outcomes_have_stable_names() {
        let names = [Outcome::Removed, Outcome::Emptied, Outcome::AlreadyGone].map(outcome);
        assert_eq!(names, ["removed", "emptied", "already-gone"]);
    }
}
