//! The JSON object about a target. `cgreap --help` describes it.

use std::path::Path;

use cgroup_reaper::Effort;
use serde_json::{Map, Value, json};

use crate::end::{End, Failure};
use crate::target::Place;

pub fn object(index: usize, name: &Path, place: Option<&Place>, end: &End) -> Value {
    let mut object = match &end.result {
        Ok(reaped) => fields(json!(reaped)),
        Err(failure) => {
            let mut error = match failure {
                Failure::Reap(error) => fields(json!(error)),
                Failure::NotStarted | Failure::Missing => {
                    fields(json!({"kind": failure.kind(), "message": failure.to_string()}))
                }
            };
            // Beside the error, where that of a success is.
            let effort = error.remove("effort").unwrap_or_else(|| json!(Effort::default()));
            let mut object = fields(effort);
            object.insert("error".to_owned(), Value::Object(error));
            object
        }
    };
    object.insert("elapsed_us".to_owned(), json!(end.elapsed.as_micros() as u64));
    object.insert("index".to_owned(), json!(index));
    object.insert("path".to_owned(), lossy(name));
    if let Some(place) = place {
        object.insert("root".to_owned(), lossy(&place.root));
        object.insert("slice".to_owned(), lossy(&place.slice));
        object.insert("subsystems".to_owned(), place.subsystems.iter().map(|path| lossy(path)).collect());
    }
    Value::Object(object)
}

/// The fields of an object.
fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn lossy(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use cgroup_reaper::{Act, Outcome, ReapError, Reaped, Survivor, UsedMethod};

    use super::*;

    fn told(result: Result<Reaped, Failure>) -> Value {
        object(3, Path::new("name"), None, &End { result, elapsed: Duration::from_micros(1234) })
    }

    #[test]
    fn a_target_that_was_reaped() {
        let mut reaped = Reaped::new(Outcome::AlreadyGone);
        reaped.method = Some(UsedMethod::CgroupKill);
        (reaped.signalled, reaped.attempts) = (1, 2);
        let expected = json!({
            "index": 3, "path": "name", "outcome": "already-gone", "method": "cgroup.kill", "signalled": 1, "attempts": 2,
            "released": 0, "elapsed_us": 1234,
        });
        assert_eq!(told(Ok(reaped)), expected);
    }

    #[test]
    fn a_reap_that_failed() {
        let mut stuck = Survivor::new(42);
        stuck.command = "sleep".to_owned();
        stuck.state = Some('D');
        stuck.frozen_by = Some("/c/frozen".into());
        let mut error = ReapError::timed_out("/c/a", vec![stuck]);
        if let ReapError::TimedOut { effort, .. } = &mut error {
            effort.attempts = 3;
        }
        let expected = json!({
            "index": 3, "path": "name", "method": null, "signalled": 0, "attempts": 3, "released": 0,
            "elapsed_us": 1234,
            "error": {
                "kind": "timed-out",
                "message": "/c/a: not reaped in time: pid 42 sleep state D frozen by /c/frozen",
                "path": "/c/a",
                "survivors": [{
                    "pid": 42, "command": "sleep", "state": "D", "wait_channel": "",
                    "frozen_by": "/c/frozen", "kernel_thread": false,
                }],
            },
        });
        assert_eq!(told(Err(Failure::Reap(error))), expected);

        let source = io::Error::from_raw_os_error(libc::EACCES);
        let error = ReapError::denied("/c/a", Act::Freeze, "/c/a/cgroup.freeze", source);
        let told = told(Err(Failure::Reap(error)));
        assert_eq!((&told["error"]["act"], &told["error"]["errno"]), (&json!("freeze"), &json!(13)));
    }
}
