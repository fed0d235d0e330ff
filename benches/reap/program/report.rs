//! The results, kept for the requirements and the plots.

use super::contender::Card;

/// One contender's figures of one case.
pub struct Entry {
    pub case: Case,
    pub card: Card,
    /// Medians, milliseconds: from the first start to the last end, the loop's CPU, and of each group.
    pub total: f64,
    pub cpu: f64,
    pub latency: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub groups: usize,
    /// Processes in each.
    pub each: usize,
}

/// A figure with the limit that it must keep.
pub struct Requirement {
    pub work: String,
    pub value: f64,
    pub limit: f64,
    /// It is to be that at most, or at least.
    pub at_most: bool,
    pub unit: &'static str,
}

pub type Figure = fn(&Entry) -> f64;

/// The figures that grow with the number of groups, and how each is computed from an entry.
pub const FIGURES: [(&str, Figure); 3] = [
    ("Total, ms", |entry| entry.total),
    ("Median latency of a group, ms", |entry| entry.latency),
    ("CPU a reap, ms", |entry| entry.cpu / entry.case.groups as f64),
];

#[derive(Default)]
pub struct Report {
    pub entries: Vec<Entry>,
    /// The longest call of the loop, ms of CPU, by number of groups of one process.
    pub longest: Vec<(Card, usize, f64)>,
    pub requirements: Vec<Requirement>,
}

impl Report {
    pub fn at_most(&mut self, work: String, value: f64, limit: f64, unit: &'static str) {
        self.requirements.push(Requirement { work, value, limit, at_most: true, unit });
    }

    pub fn at_least(&mut self, work: String, value: f64, limit: f64, unit: &'static str) {
        self.requirements.push(Requirement { work, value, limit, at_most: false, unit });
    }

    /// The sizes that there are figures of, one process a group, ascending.
    pub fn sizes(&self) -> Vec<usize> {
        let singles = self.entries.iter().filter(|entry| entry.case.each == 1);
        let mut sizes: Vec<usize> = singles.map(|entry| entry.case.groups).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The figures of one contender, one process a group, by number of groups.
    pub fn line(&self, name: &str, figure: Figure) -> Vec<(usize, f64)> {
        let of_it = |size: usize| {
            let wanted = Case { groups: size, each: 1 };
            self.entries.iter().find(|entry| entry.card.name == name && entry.case == wanted)
        };
        self.sizes().into_iter().filter_map(|size| Some((size, figure(of_it(size)?)))).collect()
    }

    /// Each contender once.
    pub fn cards(&self) -> Vec<Card> {
        let mut cards: Vec<Card> = Vec::new();
        for entry in &self.entries {
            if cards.iter().all(|card| card.name != entry.card.name) {
                cards.push(entry.card);
            }
        }
        cards
    }

    /// One table for each thing that grows with the number of groups.
    pub fn print_summary(&self) {
        let sizes = self.sizes();
        if sizes.len() < 2 {
            return;
        }
        for (title, figure) in FIGURES {
            println!("\n### {title}, by number of groups\n");
            let heads: Vec<String> = sizes.iter().map(usize::to_string).collect();
            println!("| | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(sizes.len()));
            for card in self.cards() {
                let line = self.line(card.name, figure);
                let cell = |size: &usize| {
                    let value = line.iter().find(|(at, _)| at == size);
                    value.map_or(String::new(), |(_, value)| format!("{value:.3}"))
                };
                let cells: Vec<String> = sizes.iter().map(cell).collect();
                println!("| {} | {} |", card.name, cells.join(" | "));
            }
        }
    }

    pub fn print_requirements(&self) {
        println!("\n### Bars\n\n| work | bar | measured | met |\n|---|---:|---:|---|");
        for Requirement { work, value, limit, at_most, unit } in &self.requirements {
            let sign = if *at_most { "<=" } else { ">=" };
            let met = if *at_most { value <= limit } else { value >= limit };
            let met = if met { "yes" } else { "**no**" };
            println!("| {work} | {sign} {limit}{unit} | {value:.2}{unit} | {met} |");
        }
    }
}
