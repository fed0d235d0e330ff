//! Medians, spreads, and the tables.

use std::time::Duration;

use cgroup_reaper::Metrics;

use super::contender::{Card, Family, Kind};
use super::report::{Case, Report};

/// The measured times of one contender, in milliseconds.
#[derive(Default)]
pub struct Samples {
    pub total: Vec<f64>,
    /// CPU time of the thread.
    pub cpu: Vec<f64>,
    /// Of each group.
    pub latency: Vec<f64>,
    pub reaps: u64,
    pub allocations: u64,
    pub metrics: Option<(Metrics, Metrics)>,
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value that the fraction `part` of the values lies below; NaN of none.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = part * (sorted.len().saturating_sub(1)) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(&low), Some(&high)) => low + (high - low) * at.fract(),
        _ => f64::NAN,
    }
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Three significant digits.
pub fn figure(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v < 1.0 => format!("{v:.3}"),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn spread(values: &[f64]) -> String {
    format!("{} .. {}", figure(quantile(values, 0.25)), figure(quantile(values, 0.75)))
}

type Row<'a> = (&'a Card, &'a Samples);

/// The bare loop to compare `card` with: the best of those that do the same work in the same hierarchy.
fn best_bare<'a>(rows: &[Row<'a>], card: &Card, by: impl Fn(&Samples) -> &Vec<f64>) -> Option<&'a Samples> {
    rows.iter()
        .filter(|(other, _)| {
            other.kind == Kind::Bare && other.family == card.family && other.place == card.place
        })
        .map(|(_, samples)| *samples)
        .min_by(|a, b| median(by(a)).total_cmp(&median(by(b))))
}

/// The ratio of medians, and the quartiles of the ratios round by round.
fn ratio(values: &[f64], bare: Option<&Vec<f64>>) -> (String, String) {
    let Some(bare) = bare else { return ("-".into(), String::new()) };
    let by_round: Vec<f64> = values.iter().zip(bare).map(|(value, bare)| value / bare).collect();
    (figure(median(values) / median(bare)), spread(&by_round))
}

pub fn print_one(title: &str, rows: &[Row<'_>]) {
    println!("\n### {title}: latency, ms\n");
    println!(
        "| {:<40} | median | {:^15} | {:^15} | to bare | {:^15} |",
        "", "p25 .. p75", "min .. max", "by round"
    );
    println!("|{:-<42}|-------:|{:-<17}|{:-<17}|--------:|{:-<15}|", "", "", "", "");
    for (card, samples) in rows {
        let values = &samples.total;
        let (ratio, rounds) =
            ratio(values, best_bare(rows, card, |bare| &bare.total).map(|bare| &bare.total));
        println!(
            "| {:<40} | {:>6} | {:^15} | {:^15} | {:>7} | {:^13} |",
            card.name,
            figure(median(values)),
            spread(values),
            format!("{} .. {}", figure(quantile(values, 0.0)), figure(quantile(values, 1.0))),
            ratio,
            rounds,
        );
    }
    footnotes(rows);
}

pub fn print_many(title: &str, rows: &[Row<'_>]) {
    println!(
        "\n### {title}: ms from the first start to the last end, CPU ms of the loop's thread, ms a group\n"
    );
    println!(
        "| {:<40} |  total | {:^13} | to bare | {:^13} |    CPU | to bare | p50 group | p99 group |",
        "", "p25 .. p75", "by round"
    );
    println!(
        "|{:-<42}|-------:|{:-<15}|--------:|{:-<15}|-------:|--------:|----------:|----------:|",
        "", "", ""
    );
    for (card, samples) in rows {
        let total = best_bare(rows, card, |bare| &bare.total);
        let cpu = best_bare(rows, card, |bare| &bare.cpu);
        let (total_ratio, rounds) = ratio(&samples.total, total.map(|bare| &bare.total));
        let (cpu_ratio, _) = ratio(&samples.cpu, cpu.map(|bare| &bare.cpu));
        println!(
            "| {:<40} | {:>6} | {:^13} | {:>7} | {:^13} | {:>6} | {:>7} | {:>9} | {:>9} |",
            card.name,
            figure(median(&samples.total)),
            spread(&samples.total),
            total_ratio,
            rounds,
            figure(median(&samples.cpu)),
            cpu_ratio,
            figure(quantile(&samples.latency, 0.5)),
            figure(quantile(&samples.latency, 0.99)),
        );
    }
    footnotes(rows);
}

/// This crate's counts, and how much slower the timer-paced algorithm is.
fn footnotes(rows: &[Row<'_>]) {
    println!();
    for (card, samples) in rows {
        let Some((before, after)) = &samples.metrics else { continue };
        let each = |count: fn(&Metrics) -> u64| {
            format!("{:.2}", (count(after) - count(before)) as f64 / samples.reaps.max(1) as f64)
        };
        println!(
            "{}, a reap: {:.1} allocations, {} wake-ups, {} events, {} timers, {} checks, {} signals, \
             {} cgroup.kill, {} escalations  ",
            card.name,
            samples.allocations as f64 / samples.reaps.max(1) as f64,
            each(|metrics| metrics.wakeups),
            each(|metrics| metrics.events),
            each(|metrics| metrics.timers),
            each(|metrics| metrics.checks),
            each(|metrics| metrics.signals),
            each(|metrics| metrics.cgroup_kills),
            each(|metrics| metrics.escalations),
        );
    }
    for (other, slow) in rows.iter().filter(|(card, _)| matches!(card.kind, Kind::TimerPaced | Kind::Peer)) {
        let against: Vec<String> = rows
            .iter()
            .filter(|(card, _)| {
                card.kind == Kind::Ours && (other.kind == Kind::TimerPaced || level(card, other))
            })
            .map(|(card, fast)| {
                format!("{}x {}", figure(median(&slow.total) / median(&fast.total)), card.name)
            })
            .collect();
        println!("{} takes {}  ", other.name, against.join(", "));
    }
}

/// Whether two do the same work.
fn level(card: &Card, other: &Card) -> bool {
    card.family == other.family && card.place == other.place
}

/// Adds the requirements of a case to the report.
pub fn add_requirements(report: &mut Report, case: Case, rows: &[Row<'_>]) {
    let Case { groups, each } = case;
    let what = match groups {
        1 => format!("one reap of {each}"),
        _ => format!("{groups} groups of {each} at once"),
    };
    for (card, samples) in rows.iter().filter(|(card, _)| card.kind == Kind::Ours) {
        let against_bare = |by: fn(&Samples) -> &Vec<f64>| {
            best_bare(rows, card, by).map(|bare| median(by(samples)) / median(by(bare)))
        };
        let (total, cpu) = (against_bare(|samples| &samples.total), against_bare(|samples| &samples.cpu));
        let (Some(total), Some(cpu)) = (total, cpu) else { continue };
        let name = format!("{}, {what}", card.name);
        match card.family {
            Family::V2 if groups == 1 && each <= 32 => {
                report.at_most(format!("{name}: latency to bare"), total, 1.1, "");
            }
            Family::V2 if groups >= 1000 => {
                report.at_most(format!("{name}: total to bare"), total, 1.1, "");
                report.at_most(format!("{name}: CPU to bare"), cpu, 1.2, "");
            }
            Family::Pidfd if groups == 1000 && each == 1 => {
                report.at_most(format!("{name}: total to bare"), total, 1.15, "");
            }
            Family::Freezer if groups == 1000 && each == 1 => {
                report.at_most(format!("{name}: total to bare"), total, 1.05, "");
                report.at_most(format!("{name}: CPU to bare"), cpu, 1.0, "");
            }
            Family::Pidfd | Family::Freezer if groups == 1 && each <= 32 => {
                report.at_most(format!("{name}: latency to bare"), total, 1.15, "");
            }
            _ => {}
        }
        let default = |(card, _): &&Row<'_>| card.kind == Kind::TimerPaced && card.name.ends_with("10 s");
        if let (Some((_, slow)), false) = (rows.iter().find(default), card.family == Family::V2) {
            let times = median(&slow.total) / median(&samples.total);
            if groups == 1 && each == 1 {
                let limit = if card.family == Family::Freezer { 70.0 } else { 140.0 };
                report.at_least(format!("{name}: times faster than timer-paced"), times, limit, "");
            }
            if groups == 1000 && each == 1 {
                report.at_least(format!("{name}: times faster than timer-paced"), times, 3.0, "");
                let cpu = median(&samples.cpu) / median(&slow.cpu);
                report.at_most(format!("{name}: CPU to timer-paced"), cpu, 1.0, "");
            }
        }
        for (peer, slow) in rows.iter().filter(|(other, _)| other.kind == Kind::Peer && level(card, other)) {
            // Where both take the least time that the kernel allows, 5 % is noise.
            let times = median(&slow.total) / median(&samples.total);
            report.at_least(format!("{name}: times faster than {}", peer.name), times, 0.95, "");
        }
    }
}
