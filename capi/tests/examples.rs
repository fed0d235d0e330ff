//! Each example, built against the library as `capi/install` lays it out, and run on real cgroups.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use common::*;

/// Reaps of each program.
const REAPS: usize = 100;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(output) } else { Err(format!("{command:?}: {}\n{said}", output.status)) }
}

/// Where the library is installed.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let _ = fs::remove_dir_all(&prefix);
        install(&[format!("--prefix={}", prefix.display()).as_ref()]);
        prefix
    })
}

/// Installs what cargo has built for this test.
fn install(args: &[&OsStr]) {
    let built = std::env::current_exe().expect("own path");
    let built = built.parent().expect("target/PROFILE/deps");
    let mut install = Command::new(package().join("install"));
    output(install.arg(format!("--from={}", built.display())).args(args)).unwrap();
}

/// Whether there is a compiler.
fn compiler(program: &str) -> Result<(), String> {
    output(Command::new(program).arg("--version")).map(drop)
}

/// What a compiler needs for a package. `.ci/run` installs the packages.
fn flags(package: &str) -> Result<Vec<String>, String> {
    let flags = match package {
        // It has no file for pkg-config.
        "libev" => Path::new("/usr/include/ev.h")
            .exists()
            .then(|| "-lev".to_owned())
            .ok_or("no /usr/include/ev.h")?,
        _ => {
            let output = output(Command::new("pkg-config").args(["--cflags", "--libs", package]))?;
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

/// Compiles an example, with every warning an error.
fn compile<S: AsRef<OsStr>>(compiler: &str, source: impl AsRef<Path>, program: &str, flags: &[S]) -> PathBuf {
    let installed = installed();
    let program = installed.join(program);
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program);
    command.arg("-I").arg(installed.join("include"));
    command.arg(package().join("examples").join(source));
    command.args(flags).arg("-L").arg(installed.join("lib")).arg("-lcgroup_reaper");
    output(&mut command).unwrap();
    program
}

/// A command that ends within a minute, with the installed library. A compiled one runs under the tool that
/// `CGROUP_REAPER_EXAMPLES_UNDER` names.
fn bounded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]);
    if let Some(under) =
        std::env::var("CGROUP_REAPER_EXAMPLES_UNDER").ok().filter(|_| program.as_ref() != "python3")
    {
        command.args(under.split_whitespace());
    }
    command.arg(program);
    command.env("LD_LIBRARY_PATH", installed().join("lib"));
    command
}

/// Has a program reap a hundred cgroups, a third of them empty, and checks what it says. One in the first half ends some time
/// after all others.
fn reaps_a_hundred(test: &str, layout: Layout, mut command: Command) {
    let sandbox = Sandbox::new(test);
    let mut dirs = Vec::new();
    let mut sleepers = Vec::new();
    for index in 0..REAPS {
        let name = format!("task-{index}");
        let dir = if layout == Layout::V2 { sandbox.v2(&name) } else { sandbox.v1("freezer", &name) };
        if index % 3 > 0 {
            sleepers.push(sandbox.sleeper(&[&dir]));
        }
        dirs.push(dir);
    }
    let held = sandbox.hold_exit(sleepers[0].clone());
    let said = thread::scope(|scope| {
        let running = scope.spawn(|| output(command.args(&dirs)));
        let others = || dirs.iter().filter(|dir| dir.exists()).count() <= 1;
        eventually("the end of the others", || running.is_finished() || others());
        thread::sleep(Duration::from_millis(100));
        held.release();
        running.join().unwrap().unwrap()
    });
    let said = String::from_utf8(said.stdout).unwrap();
    let mut reported = BTreeSet::new();
    for line in said.lines().filter(|line| !line.starts_with("turns: ")) {
        let (index, rest) = line.split_once(": ").unwrap();
        let index: usize = index.parse().unwrap();
        assert_eq!(rest, format!("{}: removed", dirs[index].display()));
        assert!(reported.insert(index), "twice: {line}");
    }
    assert_eq!(reported.len(), REAPS, "{said}");
    assert!(dirs.iter().all(|dir| !dir.exists()));
    assert!(sleepers.iter().all(|sleeper| sleeper.ended(TIMEOUT)));
    // A loop that spins makes many thousands.
    let turns = said.lines().find_map(|line| line.strip_prefix("turns: ")).unwrap();
    assert!(turns.parse::<usize>().unwrap() < 20 * REAPS, "{turns} turns");
}

/// The hierarchies that the examples are run in.
fn layouts() -> Vec<Layout> {
    let layouts = [(Layout::V2, v2()), (Layout::Freezer, v1("freezer"))];
    layouts.into_iter().filter_map(|(layout, there)| there.ok().map(|()| layout)).collect()
}

fn cgroups() -> Result<(), String> {
    v2().or_else(|_| v1("freezer"))
}

/// Runs an example in C with a package, in the first layout that there is.
fn runs(test: &str, name: &str, package: &str) {
    match flags(package) {
        Ok(flags) => {
            let program = compile("cc", format!("{name}.c"), name, &flags);
            reaps_a_hundred(test, layouts()[0], bounded(program));
        }
        Err(reason) => skip(test, reason.trim()),
    }
}

#[test]
fn epoll() {
    require!(compiler("cc"), cgroups());
    let program = compile::<&str>("cc", "epoll.c", "epoll", &["-std=gnu11", "-pedantic"]);
    for layout in layouts() {
        reaps_a_hundred(test_name!(), layout, bounded(&program));
    }
}

#[test]
fn epoll_with_the_static_library() {
    require!(compiler("cc"), cgroups());
    // What pkg-config --static says.
    let pc = fs::read_to_string(installed().join("lib/pkgconfig/cgroup_reaper.pc")).unwrap();
    let private = pc.lines().find_map(|line| line.strip_prefix("Libs.private:")).unwrap();
    let mut flags = vec![installed().join("lib/libcgroup_reaper.a").into_os_string()];
    flags.extend(private.split_whitespace().map(Into::into));
    // The linker has found all in the one, and takes nothing from the other.
    flags.push("-Wl,--as-needed".into());
    let program = compile("cc", "epoll.c", "epoll-static", &flags);
    let mut command = bounded(program);
    command.env_remove("LD_LIBRARY_PATH");
    reaps_a_hundred(test_name!(), layouts()[0], command);
}

#[test]
fn libuv() {
    require!(compiler("cc"), cgroups());
    runs(test_name!(), "libuv", "libuv");
}

#[test]
fn glib() {
    require!(compiler("cc"), cgroups());
    runs(test_name!(), "glib", "glib-2.0");
}

#[test]
fn sd_event() {
    require!(compiler("cc"), cgroups());
    runs(test_name!(), "sd_event", "libsystemd");
}

#[test]
fn libev() {
    require!(compiler("cc"), cgroups());
    runs(test_name!(), "libev", "libev");
}

#[test]
fn cpp() {
    require!(cgroups(), compiler("c++"));
    // The oldest that the header is for.
    let program = compile("c++", "cpp.cc", "cpp", &["-std=c++11", "-pedantic"]);
    reaps_a_hundred(test_name!(), layouts()[0], bounded(program));
}

#[test]
fn asyncio() {
    require!(cgroups(), compiler("python3"));
    for layout in layouts() {
        let mut command = bounded("python3");
        command.args(["-X", "dev", "-W", "error", "-B"]).arg(package().join("tests/cases/counted.py"));
        command.arg(package().join("examples/asyncio_loop.py"));
        reaps_a_hundred(test_name!(), layout, command);
    }
}

/// A process in the first of them, none in the others.
fn targets(sandbox: &Sandbox) -> Vec<PathBuf> {
    let make =
        |name: &str| if layouts()[0] == Layout::V2 { sandbox.v2(name) } else { sandbox.v1("freezer", name) };
    let dirs: Vec<PathBuf> = ["busy", "one", "two", "three", "four"].map(make).into();
    sandbox.sleeper(&[&dirs[0]]);
    dirs
}

#[test]
fn cpp_cases() {
    require!(cgroups(), compiler("c++"));
    let sandbox = Sandbox::new(test_name!());
    let program = compile("c++", "../tests/cases/cpp.cc", "cpp-cases", &["-std=c++11", "-pedantic"]);
    output(bounded(program).args(&targets(&sandbox)[..4])).unwrap();
}

#[test]
fn asyncio_cases() {
    require!(cgroups(), compiler("python3"));
    let sandbox = Sandbox::new(test_name!());
    let mut command = bounded("python3");
    command.args(["-X", "dev", "-W", "error", "-B"]).arg(package().join("tests/cases/asyncio_cases.py"));
    output(command.args(targets(&sandbox))).unwrap();
}

/// The first block of code in this language in README.md, which begins with a line that has `start`.
fn block(language: &str, start: &str) -> String {
    let guide = fs::read_to_string(package().join("README.md")).unwrap();
    let blocks = guide.split("\n```").filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let found =
        blocks.map(str::to_owned).find(|block| block.lines().next().is_some_and(|line| line.contains(start)));
    found.unwrap_or_else(|| panic!("no block of {language} that begins with {start}"))
}

#[test]
fn what_the_guide_shows_compiles() {
    require!(compiler("cc"), compiler("c++"), compiler("python3"));
    let c = block("c", "cgr_reactor *");
    let c = format!(
        "#include <signal.h>\n#include <stdio.h>\n#include <cgroup_reaper.h>\nint main(void) {{\n{c}}}\n"
    );
    let cpp = block("cpp", "#include");
    let (include, rest) = cpp.split_once('\n').unwrap();
    let cpp = format!("#include <csignal>\n#include <cstdio>\n{include}\nint main() {{\n{rest}}}\n");
    for (compiler, name, text) in [("cc", "guide.c", c), ("c++", "guide.cc", cpp)] {
        let source = installed().join(name);
        fs::write(&source, text).unwrap();
        compile::<&str>(compiler, source, &format!("{name}.out"), &[]);
    }
    let parse = "import ast, sys; ast.parse(sys.argv[1])";
    output(Command::new("python3").args(["-c", parse, &block("python", "import")])).unwrap();
}

#[test]
fn pkg_config_finds_what_is_installed() {
    require!(compiler("pkg-config"));
    let pc_path = installed().join("lib/pkgconfig");
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "cgroup_reaper"]).env("PKG_CONFIG_PATH", pc_path);
    let said = String::from_utf8(output(&mut command).unwrap().stdout).unwrap();
    for part in [
        format!("-I{}/include", installed().display()),
        format!("-L{}/lib", installed().display()),
        "-lcgroup_reaper".to_owned(),
    ] {
        assert!(said.contains(&part), "{part} in {said}");
    }
    let said = output(command.arg("--modversion")).unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&said).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn programs_need_the_library_by_its_soname() {
    require!(compiler("cc"));
    let program = compile::<&str>("cc", "epoll.c", "epoll-soname", &[]);
    let program = fs::read(program).unwrap();
    let soname = format!("\0libcgroup_reaper.so.{}\0", env!("CARGO_PKG_VERSION_MAJOR"));
    assert!(program.windows(soname.len()).any(|bytes| bytes == soname.as_bytes()));
}

#[test]
fn a_destdir_is_in_no_file() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("destdir");
    let _ = fs::remove_dir_all(&dir);
    install(&["--prefix=/usr".as_ref(), "--libdir=/usr/lib64".as_ref(), dir.as_os_str()]);
    let pc = fs::read_to_string(dir.join("usr/lib64/pkgconfig/cgroup_reaper.pc")).unwrap();
    assert!(pc.contains("prefix=/usr\nlibdir=/usr/lib64\n") && !pc.contains('@'), "{pc}");
    for file in [
        "usr/include/cgroup_reaper.h",
        "usr/include/cgroup_reaper.hpp",
        "usr/lib64/libcgroup_reaper.so",
        "usr/lib64/libcgroup_reaper.so.0",
        "usr/lib64/libcgroup_reaper.a",
        "usr/share/cgroup_reaper/cgroup_reaper_asyncio.py",
    ] {
        assert!(dir.join(file).exists(), "{file}");
    }
}

/// With a target, cargo does not build into TARGET_DIR/release.
#[test]
fn install_finds_what_cargo_has_built() {
    require!(compiler("cargo"), compiler("rustc"));
    let version = output(Command::new("rustc").arg("-vV")).unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("built");
    let _ = fs::remove_dir_all(&prefix);
    let mut install = Command::new(package().join("install"));
    install.arg(format!("--prefix={}", prefix.display()));
    install.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("build"));
    install.env("CARGO_BUILD_TARGET", host);
    // To be built sooner.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    output(&mut install).unwrap();
    for file in ["libcgroup_reaper.so", "libcgroup_reaper.a"] {
        assert!(prefix.join("lib").join(file).exists(), "{file}");
    }
}
