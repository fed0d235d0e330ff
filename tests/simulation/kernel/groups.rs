//! Cgroups: made, removed, frozen, and which processes they have.

use std::time::Duration;

use super::{FrozenBy, Group, GroupId, Life, MOUNTS, Process, World};

impl Group {
    /// Notes that it is frozen until now, if it is.
    pub(super) fn note_frozen(&mut self, now: Duration) {
        if self.frozen.is_some() {
            self.frozen_until = now;
        }
    }
}

impl World {
    pub(super) fn add_group(&mut self, hierarchy: usize, parent: Option<GroupId>, name: &str) -> GroupId {
        self.groups.push(Group {
            hierarchy,
            parent,
            name: name.to_string(),
            removed: false,
            target: parent.and_then(|parent| self.groups[parent].target),
            frozen: None,
            frozen_at: Duration::ZERO,
            frozen_until: Duration::ZERO,
            thaws_failed: 0,
            to_be_thawed: false,
            busy: false,
            denied: false,
            events: (false, false),
            notified: Duration::ZERO,
            notify_pending: false,
        });
        self.groups.len() - 1
    }

    /// mkdir(2); the group that is there already, if one is.
    pub(crate) fn mkdir(&mut self, parent: GroupId, name: &str) -> GroupId {
        if let Some(there) = self.child(parent, name) {
            return there;
        }
        let hierarchy = self.groups[parent].hierarchy;
        self.add_group(hierarchy, Some(parent), name)
    }

    pub(crate) fn path(&self, group: GroupId) -> String {
        match self.groups[group].parent {
            None => MOUNTS[group].to_string(),
            Some(parent) => format!("{}/{}", self.path(parent), self.groups[group].name),
        }
    }

    pub(crate) fn child(&self, parent: GroupId, name: &str) -> Option<GroupId> {
        self.children(parent).find(|&child| self.groups[child].name == name)
    }

    pub(crate) fn children(&self, parent: GroupId) -> impl Iterator<Item = GroupId> {
        let is = move |group: &Group| !group.removed && group.parent == Some(parent);
        self.groups.iter().enumerate().filter(move |(_, group)| is(group)).map(|(id, _)| id)
    }

    /// What is at the paths of a target now is part of it.
    pub(crate) fn claim(&mut self, target: usize) {
        let paths = &self.targets[target].paths;
        let tops: Vec<GroupId> =
            paths.iter().filter_map(|(parent, name)| self.child(*parent, name)).collect();
        for group in 0..self.groups.len() {
            if tops.iter().any(|&top| self.is_below(group, top)) {
                self.groups[group].target = Some(target);
            }
        }
        self.targets[target].tops = tops;
        self.changed();
    }

    /// Whether `group` is `top` or below it.
    pub(crate) fn is_below(&self, mut group: GroupId, top: GroupId) -> bool {
        loop {
            if group == top {
                return true;
            }
            match self.groups[group].parent {
                Some(parent) => group = parent,
                None => return false,
            }
        }
    }

    /// rmdir(2), by any party.
    pub(crate) fn remove(&mut self, group: GroupId) -> Result<(), i32> {
        let state = &self.groups[group];
        if state.removed {
            return Err(libc::ENOENT);
        }
        // A process that has left the lists does not hold a directory, exiting or not.
        let holds = |process: &Process| match process.life {
            Life::Alive => true,
            Life::Exiting => !self.features.exiting_unlisted,
            Life::Dead => false,
        };
        let members = self.processes.iter().any(|p| holds(p) && p.groups[state.hierarchy] == group);
        if state.busy || state.parent.is_none() || members || self.children(group).next().is_some() {
            return Err(libc::EBUSY);
        }
        self.groups[group].removed = true;
        self.groups[group].note_frozen(self.now);
        Ok(())
    }

    /// Writes FROZEN or THAWED to `freezer.state`, 1 or 0 to `cgroup.freeze`.
    pub(crate) fn set_frozen(&mut self, group: GroupId, frozen: Option<FrozenBy>) {
        if frozen.is_none() {
            self.thawed_in = self.step;
        }
        self.groups[group].note_frozen(self.now);
        if self.groups[group].frozen.is_none() {
            self.groups[group].frozen_at = self.now;
            self.groups[group].thaws_failed = 0;
        }
        self.groups[group].frozen = match (frozen, self.groups[group].frozen) {
            // Once frozen by others it counts as such, whatever the library writes.
            (Some(_), Some(FrozenBy::Others)) => Some(FrozenBy::Others),
            (frozen, _) => frozen,
        };
        self.changed();
    }

    pub(super) fn is_frozen_from(&self, mut group: GroupId) -> bool {
        loop {
            if self.groups[group].frozen.is_some() {
                return true;
            }
            match self.groups[group].parent {
                Some(parent) => group = parent,
                None => return false,
            }
        }
    }

    pub(super) fn members_below(&self, top: GroupId) -> impl Iterator<Item = &Process> {
        let hierarchy = self.groups[top].hierarchy;
        self.processes.iter().filter(move |p| p.life != Life::Dead && self.is_below(p.groups[hierarchy], top))
    }
}
