//! What the feature `serde` serializes: outcomes, errors and survivors, with the keys and words of `cgreap --json`, and
//! metrics.
//!
//! Durations are whole microseconds (`elapsed_us`), paths are text, in which bytes that are not UTF-8 are replaced. An error
//! has only the keys that apply to it.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::outcome::{Act, Outcome, ReapError, UsedMethod};

/// Serializes a duration, in microseconds.
pub(crate) fn micros<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
}

/// Serializes an optional path, as text.
pub(crate) fn text<S: Serializer>(path: &Option<impl AsRef<Path>>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.as_ref().to_string_lossy()).serialize(serializer)
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Outcome::Removed => "removed",
            Outcome::Emptied => "emptied",
            Outcome::AlreadyGone => "already-gone",
        })
    }
}

impl Serialize for UsedMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Act {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Act::Check => "check",
            Act::Kill => "kill",
            Act::Freeze => "freeze",
            Act::Thaw => "thaw",
            Act::Remove => "remove",
        })
    }
}

impl Serialize for ReapError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map(serializer.serialize_map(None)?);
        map.add("kind", self.kind())?;
        map.display("message", self)?;
        map.path("path", self.path())?;
        match self {
            ReapError::TimedOut { survivors, act, in_the_way, .. } => {
                map.add_some("act", *act)?;
                map.path("in_the_way", in_the_way.as_deref())?;
                map.add("survivors", survivors)?;
            }
            ReapError::Denied { act, path, .. } => {
                map.add("act", act)?;
                map.path("at", Some(path))?;
            }
            ReapError::Replaced { path, .. } => map.path("at", Some(path))?,
            ReapError::FrozenByAncestor { path, frozen_by, .. } => {
                map.path("at", Some(path))?;
                map.path("frozen_by", frozen_by.as_deref())?;
            }
            _ => {}
        }
        if let Some(error) = self.io_error() {
            map.display("cause", error)?;
        }
        map.add_some("errno", self.io_error().and_then(io::Error::raw_os_error))?;
        map.add_some("effort", self.effort())?;
        map.0.end()
    }
}

/// A map that is being written.
struct Map<M>(M);

impl<M: SerializeMap> Map<M> {
    fn add(&mut self, key: &str, value: impl Serialize) -> Result<(), M::Error> {
        self.0.serialize_entry(key, &value)
    }

    fn add_some(&mut self, key: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.add(key, value))
    }

    fn path(&mut self, key: &str, path: Option<&Path>) -> Result<(), M::Error> {
        self.add_some(key, path.map(Path::to_string_lossy))
    }

    fn display(&mut self, key: &str, value: impl fmt::Display) -> Result<(), M::Error> {
        self.add(key, value.to_string())
    }
}
