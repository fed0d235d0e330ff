//! The completions and man pages that `cgreap` generates of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 4] = ["", "run", "sweep", "demo"];

fn cgreap(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cgreap")).args(args).stdin(Stdio::null()).output().expect("cgreap")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = cgreap(args);
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    text(output.stdout)
}

fn help(command: &str) -> String {
    if command.is_empty() { stdout(&["--help"]) } else { stdout(&[command, "--help"]) }
}

/// A directory that is removed again.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("cgroup-reaper-{}-{test}", std::process::id()));
        fs::create_dir(&dir).expect("temporary directory");
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The generated files, by path.
fn generate(test: &str) -> BTreeMap<String, String> {
    let dir = Dir::new(test);
    let share = dir.0.join("usr/share");
    let told = stdout(&["__generate", share.to_str().unwrap()]);
    let file = |line: &str| {
        let path =
            Path::new(line).strip_prefix(&share).expect("below the directory").to_str().unwrap().to_owned();
        (path, fs::read_to_string(line).expect(line))
    };
    told.lines().map(file).collect()
}

/// The long options of a command, as its help lists them.
fn options(command: &str) -> BTreeSet<String> {
    let help = help(command);
    let is_option = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
    let long = |line: &str| Some(line.split_once("--")?.1.split([' ', '=', '.']).next()?.to_owned());
    help.lines().filter(is_option).filter_map(long).collect()
}

#[test]
fn every_option_is_completed_and_explained() {
    let files = generate("options");
    let paths: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "bash-completion/completions/cgreap",
            "fish/vendor_completions.d/cgreap.fish",
            "man/man1/cgreap-demo.1",
            "man/man1/cgreap-run.1",
            "man/man1/cgreap-sweep.1",
            "man/man1/cgreap.1",
            "zsh/site-functions/_cgreap",
        ]
    );
    for command in COMMANDS {
        let options = options(command);
        assert!(options.len() >= if command == "demo" { 2 } else { 5 }, "{command}: {options:?}");
        let page =
            &files[&format!("man/man1/cgreap{}{command}.1", if command.is_empty() { "" } else { "-" })];
        for option in options {
            let bash = &files["bash-completion/completions/cgreap"];
            assert!(
                bash.contains(&format!("--{option} ")) || bash.contains(&format!("--{option}\"")),
                "{option}"
            );
            assert!(
                files["fish/vendor_completions.d/cgreap.fish"].contains(&format!(" -l {option} ")),
                "{option}"
            );
            assert!(files["zsh/site-functions/_cgreap"].contains(&format!("--{option}")), "{option}");
            assert!(
                page.contains(&format!("\\fB\\-\\-{}\\fR", option.replace('-', "\\-"))),
                "{command} {option}"
            );
        }
    }
    for (path, file) in &files {
        for hidden in ["__generate", "__completions", "cleaner"] {
            assert!(!file.contains(hidden), "{path}: {hidden}");
        }
        for command in &COMMANDS[1..] {
            assert!(file.contains(command), "{path}: {command}");
        }
    }
}

#[test]
fn no_word_of_the_help_is_missing_in_a_page() {
    let files = generate("words");
    for command in COMMANDS {
        let page =
            &files[&format!("man/man1/cgreap{}{command}.1", if command.is_empty() { "" } else { "-" })];
        // As it is read.
        let page = page.replace("\\*(Aq", "'").replace("\\-", "-").replace("\\\\", "\\");
        let page = ["\\fB", "\\fI", "\\fR"].iter().fold(page, |page, font| page.replace(font, ""));
        let words: BTreeSet<_> = page.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        let help = help(command);
        // Headings are in capitals, and the names of options and values in another form.
        let is_text =
            |line: &&str| !line.ends_with(':') && !line.starts_with("Usage") && !line.starts_with("  -");
        let after_usage = help.split_once("Options:").expect("options").1;
        for word in after_usage.lines().filter(is_text).flat_map(str::split_whitespace) {
            let is_header = word.contains(['<', '[', ']']) || word.starts_with("--");
            assert!(is_header || words.contains(word.trim_end_matches(',')), "{command}: {word}");
        }
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{command}: {section}");
        }
    }
}

#[test]
fn they_are_hidden() {
    for command in COMMANDS {
        assert!(!help(command).contains("__"), "{command}");
    }
}

#[test]
fn an_unknown_shell_is_refused_with_those_that_are_known() {
    let output = cgreap(&["__completions", "csh"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let err = text(output.stderr);
    assert!(["csh", "bash", "zsh", "fish"].iter().all(|shell| err.contains(shell)), "{err}");
}

#[test]
fn one_shell_is_as_the_file() {
    let files = generate("shells");
    for (shell, path) in [
        ("bash", "bash-completion/completions/cgreap"),
        ("zsh", "zsh/site-functions/_cgreap"),
        ("fish", "fish/vendor_completions.d/cgreap.fish"),
    ] {
        assert_eq!(stdout(&["__completions", shell]), files[path]);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let output = cgreap(&["__generate", "/dev/null/share"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).starts_with("cgreap: /dev/null/share/"));
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgreap"));
    let output = command.args(["__completions", "bash"]).stdout(full).output().expect("cgreap");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).starts_with("cgreap: stdout: "));
}

/// What is changed in the generated scripts is still there to be changed.
#[test]
fn zsh_and_fish_complete_options_behind_targets() {
    let fish = stdout(&["__completions", "fish"]);
    for option in ["-l keep-dir", "-s q"] {
        assert!(fish.contains(&format!("-n \"__fish_cgreap_names_targets\" {option} ")), "{fish}");
    }
    assert!(
        !fish.contains("__fish_cgreap_needs_command\" -l") && !fish.contains("OPTIONS_WITH_VALUES"),
        "{fish}"
    );
    let zsh = stdout(&["__completions", "zsh"]);
    assert!(zsh.starts_with("#compdef cgreap\n") && zsh.matches("#compdef").count() == 1, "{zsh}");
    assert!(zsh.matches("funcstack").count() == 1 && !zsh.contains("OPTIONS_WITH_VALUES"), "{zsh}");
    let functions = [
        "_cgreap() {",
        "_cgreap_of_commands() {",
        "_cgreap_of_targets() {",
        "_cgreap_of_commands_commands() {",
    ];
    for line in functions.into_iter().chain(["'*:names -- Cgroup directories"]) {
        assert!(zsh.contains(&format!("\n{line}")), "{line}: {zsh}");
    }
}

/// Has bash complete the last of these words. Returns what it offers.
fn complete(dir: &Path, script: &Path, words: &[&str]) -> Vec<String> {
    // What `complete` has registered is called as bash calls it: the program, the word, the one before it.
    const ASK: &str = "
        . \"$1\"; shift
        complete -p cgreap | grep -q -- '-F _cgreap_operands' || exit 1
        compopt() { :; }
        COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1))
        _cgreap_operands cgreap \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", ASK, "bash"]).arg(script).args(words).current_dir(dir);
    let output = command.output().expect("bash");
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    let mut offered: Vec<_> = text(output.stdout).lines().map(str::to_owned).collect();
    offered.retain(|word| !word.is_empty());
    offered.sort_unstable();
    offered
}

#[test]
fn bash_completes() {
    let dir = Dir::new("bash");
    let script = dir.0.join("script");
    fs::write(&script, stdout(&["__completions", "bash"])).expect("script");
    let inside = dir.0.join("inside");
    fs::create_dir_all(inside.join("dir-one/below")).expect("directories");
    fs::create_dir(inside.join("dir-two")).expect("directory");
    fs::write(inside.join("file"), "").expect("file");
    let dirs = ["dir-one", "dir-two"];
    for (words, offered) in [
        ("cgreap _", &["demo", "dir-one", "dir-two", "run", "sweep"][..]),
        ("cgreap r", &["run"]),
        ("cgreap dir-o", &["dir-one"]),
        ("cgreap dir-one/_", &["dir-one/below"]),
        ("cgreap dir-one _", &dirs),
        ("cgreap dir-one r", &[]),
        ("cgreap -- _", &dirs),
        ("cgreap dir-one --kee", &["--keep-dir"]),
        ("cgreap --kee", &["--keep-dir"]),
        ("cgreap --method _", &["auto", "cgroup-kill", "freezer", "pidfd"]),
        ("cgreap --method f", &["freezer"]),
        // A command is the first word.
        ("cgreap --deadline 5s sw", &[]),
        ("cgreap --deadline = 5s _", &dirs),
        ("cgreap -v run _", &dirs),
        ("cgreap sweep _", &dirs),
        ("cgreap sweep --old", &["--older-than"]),
        ("cgreap sweep --older-than 1h _", &dirs),
        ("cgreap demo _", &[]),
        ("cgreap demo --verb", &["--verbose"]),
        ("cgreap run --time", &["--timeout"]),
        ("cgreap run mapfil", &["mapfile"]),
        ("cgreap run -- mapfil", &["mapfile"]),
        ("cgreap run --set pids.max = 5 --grace TERM = 5s -- mapfil", &["mapfile"]),
        ("cgreap run dir-o", &["dir-one"]),
        // The command's own: nothing here, where bash-completion is not loaded, and no option of cgreap.
        ("cgreap run ls --time", &[]),
        ("cgreap run -- ls --time", &[]),
        ("cgreap run -- run r", &[]),
    ] {
        let words: Vec<_> = words.split(' ').map(|word| word.trim_end_matches('_')).collect();
        assert_eq!(complete(&inside, &script, &words), offered, "{words:?}");
    }
}
