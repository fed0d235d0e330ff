//! Man pages of the program and of each of its commands.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::help_text::{Block, sections};

/// The pages, by file name.
pub fn pages(mut command: Command) -> Vec<(String, String)> {
    command.build();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<_> = [&command].into_iter().chain(shown).collect();
    let names: Vec<_> = commands.iter().map(|command| name(command)).collect();
    commands.iter().zip(&names).map(|(command, name)| (format!("{name}.1"), page(command, &names))).collect()
}

/// The name of a page, such as `cgreap-run`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// A page that refers to the others.
fn page(command: &Command, names: &[String]) -> String {
    let name = name(command);
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        // None: a build has to give the same pages every day. An empty word would be left out.
        .date(" ")
        .source(concat!("cgreap ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    let mut write = || {
        man.render_title(&mut page)?;
        summary(command, &name).to_writer(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        explanations(command).to_writer(&mut page)?;
        see_also(&name, names).to_writer(&mut page)
    };
    // There is no error of a Vec.
    let _: std::io::Result<()> = write();
    let page = String::from_utf8_lossy(&page);
    // Lines that are empty, between the paragraphs about an option, are for typesetters to guess at.
    page.replace("\n\n", "\n.sp\n").replace("\n.br\n.sp\n.br\n", "\n.sp\n")
}

/// The section NAME, which programs such as apropos(1) read.
fn summary(command: &Command, name: &str) -> Roff {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut letters = about.chars();
    let about: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    roff
}

/// The sections of the text after the options, examples last.
fn explanations(command: &Command) -> Roff {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let (examples, others): (Vec<_>, Vec<_>) =
        sections(&text).into_iter().partition(|section| section.heading == "Examples");
    let mut roff = Roff::new();
    for section in others.into_iter().chain(examples) {
        roff.control("SH", [&*section.heading.to_uppercase()]);
        write_blocks(&section.blocks, &mut roff);
    }
    roff
}

fn write_blocks(blocks: &[Block<'_>], roff: &mut Roff) {
    for (at, block) in blocks.iter().enumerate() {
        match block {
            Block::Paragraph(lines) => {
                if at > 0 {
                    roff.control("PP", []);
                }
                write_lines(lines, roff);
            }
            Block::Item { term, text, below } => {
                roff.control("TP", []).text([bold(*term)]);
                write_lines(text, roff);
                if !below.is_empty() {
                    roff.control("RS", []);
                    write_blocks(below, roff);
                    roff.control("RE", []);
                }
            }
        }
    }
}

fn write_lines(lines: &[&str], roff: &mut Roff) {
    for line in lines {
        roff.text([roman(*line)]);
    }
}

fn see_also(name: &str, names: &[String]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    for other in names.iter().filter(|&other| other != name) {
        roff.text([bold(other), roman("(1),")]);
    }
    roff.text([bold("cgroups"), roman("(7)")]);
    roff
}
