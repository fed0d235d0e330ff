//! `cgreap __generate DIR` and `cgreap __completions SHELL`: completions for shells, and man pages.
//!
//! Each module uses only modules to the left of it: `help_text`, `man`, `completions`.

mod completions;
mod help_text;
mod man;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::args::{Cli, Shell};
use crate::console::print;

/// Writes all files where programs look for them below /usr/share, and prints their paths.
pub fn files(dir: &Path) -> Result<(), String> {
    let shells = [
        ("bash-completion/completions/cgreap", Shell::Bash),
        ("zsh/site-functions/_cgreap", Shell::Zsh),
        ("fish/vendor_completions.d/cgreap.fish", Shell::Fish),
    ];
    let shells = shells
        .into_iter()
        .map(|(path, shell)| (PathBuf::from(path), completions::script(shell, &Cli::command())));
    let pages =
        man::pages(Cli::command()).into_iter().map(|(name, page)| (Path::new("man/man1").join(name), page));
    for (path, text) in shells.chain(pages) {
        let path = dir.join(path);
        write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Writes the completions for one shell to stdout.
pub fn completions(shell: Shell) -> Result<(), String> {
    print(&completions::script(shell, &Cli::command()))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}
