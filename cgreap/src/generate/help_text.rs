//! The texts after the options of `--help`, taken apart.
//!
//! A section has a heading at the margin that ends in a colon. What is in it is indented: paragraphs, and items. An
//! item has a term, which is followed by two spaces or more, or by a line that is further to the right. Further items
//! may be below it, left of its text.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    pub heading: &'a str,
    pub blocks: Vec<Block<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block<'a> {
    Paragraph(Vec<&'a str>),
    Item { term: &'a str, text: Vec<&'a str>, below: Vec<Block<'a>> },
}

/// The sections of a text.
pub fn sections(text: &str) -> Vec<Section<'_>> {
    let lines: Vec<_> = text.lines().collect();
    let is_heading = |line: &str| indent(line) == 0 && line.ends_with(':');
    let starts: Vec<_> = (0..lines.len()).filter(|&at| is_heading(lines[at])).collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    let section = |(&start, end): (&usize, usize)| Section {
        heading: lines[start].trim_end_matches(':'),
        blocks: blocks(&lines[start + 1..end]),
    };
    starts.iter().zip(ends).map(section).collect()
}

fn blocks<'a>(mut lines: &[&'a str]) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    let mut paragraph = Vec::new();
    while let Some((&line, rest)) = lines.split_first() {
        lines = rest;
        let deeper = lines.iter().take_while(|next| indent(next) > indent(line) && !line.is_empty()).count();
        let gap = line.trim_start().find("  ").map(|at| at + indent(line));
        if line.is_empty() || gap.is_some() || deeper > 0 {
            if !paragraph.is_empty() {
                blocks.push(Block::Paragraph(std::mem::take(&mut paragraph)));
            }
        } else {
            paragraph.push(line.trim());
        }
        if gap.is_some() || deeper > 0 {
            let (term, first) = line.split_at(gap.unwrap_or(line.len()));
            let below;
            (below, lines) = lines.split_at(deeper);
            // Where the text begins.
            let column = if gap.is_some() { line.len() - first.trim_start().len() } else { indent(below[0]) };
            let more = below.iter().take_while(|line| indent(line) >= column).count();
            let text = [first].into_iter().chain(below[..more].iter().copied()).map(str::trim);
            let text = text.filter(|line| !line.is_empty()).collect();
            blocks.push(Block::Item { term: term.trim(), text, below: self::blocks(&below[more..]) });
        }
    }
    if !paragraph.is_empty() {
        blocks.push(Block::Paragraph(paragraph));
    }
    blocks
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Examples:
  a b
      What it does,
      in two lines.
  c
      Another.

Table:
  Two lines
  of text.

  Another paragraph.

  x     it is
  long, y
        they are
  z     an object with
    in  one
    out
        two
  w     last";

    fn item<'a>(term: &'a str, text: &[&'a str], below: Vec<Block<'a>>) -> Block<'a> {
        Block::Item { term, text: text.to_vec(), below }
    }

    #[test]
    fn a_text_is_taken_apart() {
        let examples =
            vec![item("a b", &["What it does,", "in two lines."], vec![]), item("c", &["Another."], vec![])];
        let below = vec![item("in", &["one"], vec![]), item("out", &["two"], vec![])];
        let table = vec![
            Block::Paragraph(vec!["Two lines", "of text."]),
            Block::Paragraph(vec!["Another paragraph."]),
            item("x", &["it is"], vec![]),
            item("long, y", &["they are"], vec![]),
            item("z", &["an object with"], below),
            item("w", &["last"], vec![]),
        ];
        let expected = [("Examples", examples), ("Table", table)];
        assert_eq!(sections(TEXT), expected.map(|(heading, blocks)| Section { heading, blocks }));
    }

    #[test]
    fn a_text_without_sections_has_none() {
        assert_eq!(sections(""), []);
        assert_eq!(sections("Only words."), []);
    }
}
