//! Completions for shells.
//!
//! clap_complete completes options everywhere, in bash and fish no operands, and in zsh none of a program that has
//! commands or any number of operands. For these there is a file for each shell, `operands.*`.

use clap::Command;
use clap_complete::aot::{Generator, generate};
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::args::Shell;

const NAME: &str = "cgreap";
/// What stands in these files for the options after which comes a value.
const VALUES: &str = "OPTIONS_WITH_VALUES";

/// The script for a shell.
pub fn script(shell: Shell, command: &Command) -> String {
    let values = options_with_values(command);
    match shell {
        Shell::Bash => {
            let operands = include_str!("operands.bash").replace(VALUES, &values.join("|"));
            format!("{}\n{operands}", generated(Bash, NAME, visible(command, Parts::Both)))
        }
        Shell::Zsh => zsh(command),
        Shell::Fish => {
            let operands = include_str!("operands.fish").replace(VALUES, &values.join(" "));
            // Where a command may be there are options, which there also are behind the first target.
            let script = generated(Fish, NAME, visible(command, Parts::Both));
            let script =
                script.replace("__fish_cgreap_needs_command\" -s", "__fish_cgreap_names_targets\" -s");
            let script =
                script.replace("__fish_cgreap_needs_command\" -l", "__fish_cgreap_names_targets\" -l");
            format!("{script}\n{operands}")
        }
    }
}

/// A script of two that are generated: one that knows commands and no targets, and the other way round.
fn zsh(command: &Command) -> String {
    let mut script = format!("#compdef {NAME}\n");
    for (name, parts) in [("cgreap_of_commands", Parts::Commands), ("cgreap_of_targets", Parts::Targets)] {
        let generated = generated(Zsh, name, visible(command, parts));
        // Without the beginning and the end, which would register it.
        let function = generated.trim_start_matches(|c| c != '\n');
        script += function.split("\nif [ \"$funcstack[1]\"").next().unwrap_or_default();
    }
    // One colon: options are completed behind operands too.
    let script = script.replace("\n'*::names -- ", "\n'*:names -- ");
    format!("{script}\n{}", include_str!("operands.zsh"))
}

fn generated(generator: impl Generator, name: &str, mut command: Command) -> String {
    let mut script = Vec::new();
    generate(generator, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// What is completed besides the options that are for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    Commands,
    Targets,
    Both,
}

/// The command line without hidden commands, which clap_complete would offer as well.
fn visible(command: &Command, parts: Parts) -> Command {
    let arguments = command.get_arguments().filter(|arg| parts != Parts::Commands || !arg.is_positional());
    let commands =
        command.get_subcommands().filter(|command| parts != Parts::Targets && !command.is_hide_set());
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(arguments.cloned())
        .subcommands(commands.cloned())
}

fn options_with_values(command: &Command) -> Vec<String> {
    let mut options: Vec<_> = [command]
        .into_iter()
        .chain(command.get_subcommands().filter(|command| !command.is_hide_set()))
        .flat_map(Command::get_opts)
        .filter(|option| option.get_action().takes_values())
        .filter_map(|option| option.get_long())
        .map(|name| format!("--{name}"))
        .collect();
    options.sort_unstable();
    options.dedup();
    options
}
