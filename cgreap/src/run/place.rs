//! Where the cgroups of a run are made.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use rustix::process::geteuid;

use super::mark;
use crate::args::{RunArgs, Setting};
use crate::mounts::{Mount, mounts};

/// How to get the right to make cgroups.
pub const RIGHTS: &str = "run it as root, or in a delegated subtree: `systemd-run --user --scope -p Delegate=yes \
                          cgreap run ...`, or in a cgroup delegated to the user, with --parent";

/// A cgroup to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The directory in which it is made; `None` if no cgroup of this process is to be seen.
    pub parent: Option<PathBuf>,
    /// What is written to its files.
    pub settings: Vec<Setting>,
    /// Whether the run goes on without it.
    pub optional: bool,
}

/// The cgroups of a run. The first one is reaped with grace and reported, the others after it.
pub type Sites = Vec<Site>;

/// Returns the possibilities, the best first. An error if there is none.
pub fn choose(args: &RunArgs) -> Result<Vec<Sites>, String> {
    let system = System::read()?;
    match &args.parent {
        Some(parent) => system.below(parent, &args.set).map(|sites| vec![sites]),
        None => system.choose(&args.set),
    }
}

/// What the machine has.
struct System {
    mounts: Vec<Mount>,
    /// /proc/self/cgroup
    own: Vec<u8>,
    is_root: bool,
}

impl System {
    fn read() -> Result<System, String> {
        let mounts = mounts().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
        let own = fs::read("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
        Ok(System { mounts, own, is_root: geteuid().is_root() })
    }

    fn mount(&self, controller: Option<&str>) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.has(controller))
    }

    fn v1_mount(&self, setting: &Setting) -> Option<&Mount> {
        setting.controller().and_then(|controller| self.mount(Some(controller)))
    }

    /// The own cgroup in a hierarchy, if the mount shows it.
    fn own_dir(&self, mount: &Mount) -> Option<PathBuf> {
        let own = mount.own_path(&self.own)?;
        // In a cgroup namespace it can be outside of the namespace: `/../x`.
        let is_outside = own.components().any(|component| component == std::path::Component::ParentDir);
        let below = own.strip_prefix(&mount.root).ok().filter(|_| !is_outside)?;
        Some(mount.point.join(below).components().collect())
    }

    /// The own cgroup, whose limits are to hold for the command too. Where it is not to be seen, for root the root of the
    /// hierarchy.
    fn parent(&self, mount: &Mount) -> Option<PathBuf> {
        self.own_dir(mount).or_else(|| self.is_root.then(|| mount.point.clone()))
    }

    fn choose(&self, settings: &[Setting]) -> Result<Vec<Sites>, String> {
        let v2 = self.mount(None).map(|mount| self.v2_sites(mount, settings)).transpose()?;
        let possible: Vec<_> = v2.into_iter().chain(self.v1_sites(settings)).collect();
        if !possible.is_empty() {
            return Ok(possible);
        }
        Err(match settings.iter().find(|setting| self.v1_mount(setting).is_none()) {
            Some(Setting { file, .. }) => format!("--set {file}: no hierarchy that is mounted has this file"),
            None => "neither cgroup v2 nor the v1 hierarchy of freezer or pids is mounted".to_owned(),
        })
    }

    /// The cgroup in v2, and one in each v1 hierarchy that a setting needs.
    fn v2_sites(&self, mount: &Mount, settings: &[Setting]) -> Result<Sites, String> {
        let (in_v1, in_v2) = self.divide(settings);
        let needed: Vec<_> = in_v2.iter().filter_map(Setting::controller).collect();
        let parent = match (needed.is_empty(), self.own_dir(mount)) {
            (true, _) => self.parent(mount),
            (false, own) => {
                let own = own.unwrap_or_else(|| mount.point.clone());
                Some(nearest_with(&needed, &own, &mount.point, mark::is_set)?)
            }
        };
        let mut sites = vec![Site { parent, settings: in_v2, optional: false }];
        self.add_v1(&mut sites, None, in_v1);
        Ok(sites)
    }

    /// The cgroup in the v1 freezer, which makes it safe to kill fork storms, or in pids. `None` if a setting is not of v1.
    fn v1_sites(&self, settings: &[Setting]) -> Option<Sites> {
        let mount = self.mount(Some("freezer")).or_else(|| self.mount(Some("pids")))?;
        let (mut in_v1, of_all) = self.divide(settings);
        if of_all.iter().any(|setting| setting.controller().is_some()) {
            return None;
        }
        let mut own = of_all;
        own.extend(in_v1.extract_if_of(mount, self));
        let mut sites = vec![Site { parent: self.parent(mount), settings: own, optional: false }];
        let sets_pids = in_v1.iter().any(|setting| setting.controller() == Some("pids"));
        self.add_v1(&mut sites, Some(mount), in_v1);
        match self.mount(Some("pids")) {
            Some(pids) if pids != mount && !sets_pids => {
                sites.push(Site { parent: self.parent(pids), settings: Vec::new(), optional: true });
            }
            _ => {}
        }
        Some(sites)
    }

    /// The cgroup in this directory, and one in each v1 hierarchy that a setting needs.
    fn below(&self, parent: &Path, settings: &[Setting]) -> Result<Sites, String> {
        let named = |error: &dyn std::fmt::Display| format!("--parent {}: {error}", parent.display());
        let parent = parent.canonicalize().map_err(|error| named(&error))?;
        let kind = statfs(&parent).map_err(|errno| named(&errno.desc()))?.filesystem_type();
        let (mut in_v1, of_parent) = self.divide(settings);
        if kind == CGROUP2_SUPER_MAGIC {
            let needed: Vec<_> = of_parent.iter().filter_map(Setting::controller).collect();
            if let Some(missing) = needed.iter().find(|controller| !gives(&parent, controller)) {
                return Err(named(&format!(
                    "it does not give the controller {missing} to its cgroups (cgroup.subtree_control)"
                )));
            }
            let mut sites = vec![Site { parent: Some(parent), settings: of_parent, optional: false }];
            self.add_v1(&mut sites, None, in_v1);
            return Ok(sites);
        }
        if kind != CGROUP_SUPER_MAGIC {
            return Err(named(&"not a cgroup"));
        }
        let mount = self
            .mounts
            .iter()
            .filter(|mount| mount.controllers.is_some() && parent.starts_with(&mount.point));
        let mount = mount.max_by_key(|mount| mount.point.as_os_str().len());
        if let Some(setting) = of_parent.iter().find(|setting| setting.controller().is_some()) {
            return Err(format!(
                "--set {}: no v1 hierarchy that is mounted has this controller",
                setting.file
            ));
        }
        let mut own = of_parent;
        if let Some(mount) = mount {
            own.extend(in_v1.extract_if_of(mount, self));
        }
        let mut sites = vec![Site { parent: Some(parent), settings: own, optional: false }];
        self.add_v1(&mut sites, mount, in_v1);
        Ok(sites)
    }

    /// Settings of controllers that have a v1 hierarchy, and the others.
    fn divide(&self, settings: &[Setting]) -> (Vec<Setting>, Vec<Setting>) {
        settings.iter().cloned().partition(|setting| self.v1_mount(setting).is_some())
    }

    /// Adds a cgroup in each v1 hierarchy of these settings, none of which is of `except`.
    fn add_v1(&self, sites: &mut Sites, except: Option<&Mount>, mut settings: Vec<Setting>) {
        for mount in self.mounts.iter().filter(|mount| Some(*mount) != except) {
            let settings: Vec<_> = settings.extract_if_of(mount, self);
            if !settings.is_empty() {
                sites.push(Site { parent: self.parent(mount), settings, optional: false });
            }
        }
    }
}

trait ExtractIfOf {
    /// Takes out the settings whose v1 hierarchy this is.
    fn extract_if_of(&mut self, mount: &Mount, system: &System) -> Vec<Setting>;
}

impl ExtractIfOf for Vec<Setting> {
    fn extract_if_of(&mut self, mount: &Mount, system: &System) -> Vec<Setting> {
        let (of_mount, others) =
            std::mem::take(self).into_iter().partition(|setting| system.v1_mount(setting) == Some(mount));
        *self = others;
        of_mount
    }
}

/// The nearest cgroup, from `own` up to the root of the hierarchy, that gives all of these controllers to those below it. The
/// search ends at the cgroup of another run: what is made outside of it would outlive that run, which kills only what is inside.
fn nearest_with(
    controllers: &[&str],
    own: &Path,
    root: &Path,
    is_of_run: impl Fn(&Path) -> bool,
) -> Result<PathBuf, String> {
    let mut ancestors: Vec<_> = own.ancestors().take_while(|dir| dir.starts_with(root)).collect();
    let run = ancestors.iter().position(|dir| is_of_run(dir));
    ancestors.truncate(run.map_or(ancestors.len(), |run| run + 1));
    let gives_all = |dir: &&&Path| controllers.iter().all(|controller| gives(dir, controller));
    if let Some(dir) = ancestors.iter().find(gives_all) {
        return Ok(dir.to_path_buf());
    }
    if run.is_some() {
        return Err(format!(
            "this is inside of another `cgreap run`, whose cgroups do not give {} to others (cgroup.subtree_control): give \
             the limit to that run, or name another place with --parent",
            controllers.join(", ")
        ));
    }
    let nowhere = controllers.iter().find(|controller| !ancestors.iter().any(|dir| gives(dir, controller)));
    Err(match nowhere {
        Some(controller) => format!(
            "the controller {controller} is missing: no v1 hierarchy that is mounted has it, and neither {} nor a \
             cgroup above gives it to others (cgroup.subtree_control)",
            own.display()
        ),
        None => {
            format!("no cgroup gives all of {} to others (cgroup.subtree_control)", controllers.join(", "))
        }
    })
}

/// Whether the cgroups in this one have the controller.
fn gives(dir: &Path, controller: &str) -> bool {
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, root: &str, controllers: Option<&str>) -> Mount {
        Mount {
            point: point.into(),
            root: root.into(),
            // After an option that every mount has.
            controllers: controllers.map(|list| format!("rw,{list}").split(',').map(str::to_owned).collect()),
        }
    }

    fn set(text: &str) -> Setting {
        let (file, value) = text.split_once('=').unwrap();
        Setting { file: file.to_owned(), value: value.to_owned() }
    }

    fn hybrid() -> System {
        System {
            mounts: vec![
                mount("/c/cpu,cpuacct", "/", Some("cpu,cpuacct")),
                mount("/c/freezer", "/", Some("freezer")),
                mount("/c/pids", "/", Some("pids")),
                mount("/c/unified", "/", None),
            ],
            own: b"3:cpu,cpuacct:/a\n2:freezer:/\n1:pids:/b/c\n0::/d\n".to_vec(),
            is_root: true,
        }
    }

    fn path(site: &Site) -> Option<&str> {
        site.parent.as_ref().map(|path| path.to_str().unwrap())
    }

    #[test]
    fn v2_comes_first_and_then_the_freezer() {
        let mut system = hybrid();
        let possible = system.choose(&[]).unwrap();
        assert_eq!(possible.len(), 2);
        assert_eq!(path(&possible[0][0]), Some("/c/unified/d"));
        assert_eq!(possible[0].len(), 1);
        assert_eq!(path(&possible[1][0]), Some("/c/freezer"));
        assert_eq!(path(&possible[1][1]), Some("/c/pids/b/c"));
        assert!(possible[1][1].optional);
        system.mounts.clear();
        assert!(system.choose(&[]).unwrap_err().contains("neither"));
    }

    #[test]
    fn settings_of_v1_controllers_get_a_cgroup_there() {
        let settings = ["cpu.shares=2", "pids.max=5", "cpuacct.usage=0", "cgroup.max.depth=1"].map(set);
        let possible = hybrid().choose(&settings).unwrap();
        let files =
            |site: &Site| site.settings.iter().map(|setting| setting.file.clone()).collect::<Vec<_>>();
        assert_eq!(files(&possible[0][0]), ["cgroup.max.depth"]);
        assert_eq!(files(&possible[0][1]), ["cpu.shares", "cpuacct.usage"]);
        assert_eq!(path(&possible[0][1]), Some("/c/cpu,cpuacct/a"));
        assert_eq!(files(&possible[0][2]), ["pids.max"]);
        assert_eq!(possible[0].len(), 3);
        // Without v2: one cgroup in pids, not two, and it is not optional.
        assert_eq!(possible[1].len(), 3);
        assert!(possible[1].iter().all(|site| !site.optional));
    }

    #[test]
    fn a_controller_that_is_nowhere_is_named() {
        let error = hybrid().choose(&[set("memory.max=1G")]).unwrap_err();
        assert!(error.contains("the controller memory is missing"), "{error}");
        let mut system = hybrid();
        system.mounts.retain(|mount| mount.controllers.is_some());
        let error = system.choose(&[set("memory.max=1G")]).unwrap_err();
        assert!(error.contains("memory.max"), "{error}");
    }

    #[test]
    fn a_cgroup_outside_of_the_namespace_is_no_parent() {
        let mut system = hybrid();
        system.own = b"0::/../x\n".to_vec();
        assert_eq!(path(&system.choose(&[]).unwrap()[0][0]), Some("/c/unified"));
        // The root of the hierarchy is for root.
        system.is_root = false;
        assert_eq!(path(&system.choose(&[]).unwrap()[0][0]), None);
        system.own = b"0::/box/x\n".to_vec();
        system.mounts = vec![mount("/c", "/box", None)];
        assert_eq!(path(&system.choose(&[]).unwrap()[0][0]), Some("/c/x"));
    }

    #[test]
    fn the_search_for_a_controller_ends_at_another_run() {
        let root = std::env::temp_dir().join(format!("cgroup-reaper-nearest-{}", std::process::id()));
        let (run, own) = (root.join("a/run"), root.join("a/run/own"));
        fs::create_dir_all(&own).unwrap();
        let give = |dir: &Path, controllers: &str| {
            fs::write(dir.join("cgroup.subtree_control"), controllers).unwrap()
        };
        let nearest = |controllers: &[&str], is_of_run: bool| {
            nearest_with(controllers, &own, &root, |dir| is_of_run && dir == run)
        };
        give(&root, "memory pids io");
        give(&run, "pids");
        let found = [
            nearest(&["pids"], true),
            nearest(&["memory"], false),
            nearest(&["memory"], true),
            nearest(&["pids", "memory"], true),
        ];
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found[..2], [Ok(run), Ok(root)]);
        for refused in &found[2..] {
            assert!(refused.as_ref().unwrap_err().contains("inside of another `cgreap run`"), "{refused:?}");
        }
    }
}
