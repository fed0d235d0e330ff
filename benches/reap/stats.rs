//! Medians, spreads, and the tables.

use std::time::Duration;

use cgroup_reaper::Metrics;

use crate::contender::{Card, Kind};

/// What one contender's rounds came to, in milliseconds.
#[derive(Default)]
pub struct Samples {
    pub total: Vec<f64>,
    /// CPU time of the thread.
    pub cpu: Vec<f64>,
    /// Of each group.
    pub latency: Vec<f64>,
    pub reaps: u64,
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

/// Three digits, whatever the size.
fn figure(value: f64) -> String {
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

/// The bare loop that counts for `card`: the best of those that do the same work in the same place.
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
    println!("\n## {title}: latency, ms\n");
    println!(
        "| {:<40} | median | {:^15} | {:^15} | to bare | {:^13} |",
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
        "\n## {title}: ms from the first start to the last end, CPU ms of the loop's thread, ms a group\n"
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

/// What ours counted, and how far the original is behind.
fn footnotes(rows: &[Row<'_>]) {
    println!();
    for (card, samples) in rows {
        let Some((before, after)) = &samples.metrics else { continue };
        let each = |count: fn(&Metrics) -> u64| {
            format!("{:.2}", (count(after) - count(before)) as f64 / samples.reaps.max(1) as f64)
        };
        println!(
            "{}, a reap: {} wake-ups, {} events, {} timers, {} looks, {} signals, {} cgroup.kill, {} escalations",
            card.name,
            each(|metrics| metrics.wakeups),
            each(|metrics| metrics.events),
            each(|metrics| metrics.timers),
            each(|metrics| metrics.looks),
            each(|metrics| metrics.signals),
            each(|metrics| metrics.cgroup_kills),
            each(|metrics| metrics.escalations),
        );
    }
    for (original, slow) in rows.iter().filter(|(card, _)| card.kind == Kind::Original) {
        let against: Vec<String> = rows
            .iter()
            .filter(|(card, _)| card.kind == Kind::Ours)
            .map(|(card, fast)| {
                format!("{}x {}", figure(median(&slow.total) / median(&fast.total)), card.name)
            })
            .collect();
        println!("{} takes {}", original.name, against.join(", "));
    }
}
