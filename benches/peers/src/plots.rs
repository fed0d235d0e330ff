//! The figures as pictures: one line for each contender, by number of groups, both axes logarithmic.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::program::contender::{Card, Kind};
use crate::program::report::{Figure, Report};

/// Below the directory of this package, whatever the caller's is.
const PLACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plots");

/// Colours far from each other, also of neighbours.
fn colour(index: usize) -> RGBColor {
    const GOLDEN: f64 = 0.618_033_988_75;
    let (red, green, blue) =
        HSLColor((0.6 + index as f64 * GOLDEN).fract(), 0.75, 0.42).to_backend_color().rgb;
    RGBColor(red, green, blue)
}

pub fn draw(report: &Report) -> Result<(), Box<dyn Error>> {
    // The figures of a quick run are too rough to be kept.
    if report.sizes().last().is_none_or(|&largest| largest < 1000) {
        println!("no plots: they need a whole run");
        return Ok(());
    }
    std::fs::create_dir_all(PLACE)?;
    plot("latency.svg", "Median latency of a group, ms", lines(report, |entry| entry.latency))?;
    let cpu = lines(report, |entry| entry.cpu / entry.case.groups as f64);
    plot("cpu.svg", "CPU of the loop's thread, ms a reap", cpu)?;
    plot("longest-call.svg", "Longest call of the loop, ms of CPU, median of the rounds", longest(report))?;
    Ok(())
}

/// A contender's points: groups, value.
type Line = (Card, Vec<(f64, f64)>);

fn lines(report: &Report, figure: Figure) -> Vec<Line> {
    let points =
        |card: &Card| report.line(card.name, figure).into_iter().map(|(x, y)| (x as f64, y)).collect();
    let cards = report.cards().into_iter();
    // The line of one that is embedded is the other one's.
    cards.filter(|card| card.kind != Kind::Embedded).map(|card| (card, points(&card))).collect()
}

fn longest(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for &(card, groups, value) in &report.longest {
        match lines.iter_mut().find(|(other, _)| other.name == card.name) {
            Some((_, points)) => points.push((groups as f64, value)),
            None => lines.push((card, vec![(groups as f64, value)])),
        }
    }
    lines
}

fn plot(file: &str, what: &str, mut lines: Vec<Line>) -> Result<(), Box<dyn Error>> {
    let path = Path::new(PLACE).join(file);
    // Without a second point there is no line.
    lines.retain(|(_, points)| points.len() > 1);
    for (_, value) in lines.iter_mut().flat_map(|(_, points)| points) {
        *value = value.max(1e-4);
    }
    let all = || lines.iter().flat_map(|(_, line)| line);
    let most = all().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) =
        all().fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.1), high.max(point.1)));

    let area = SVGBackend::new(&path, (960, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let (chart_area, legend) = area.split_horizontally(640);
    let mut chart = ChartBuilder::on(&chart_area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..most).log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("groups at once, one process each")
        .y_desc(what)
        .x_label_formatter(&|value| format!("{value}"))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (index, (card, line)) in lines.iter().enumerate() {
        let colour = colour(index);
        let style = colour.stroke_width(if card.kind == Kind::Ours { 3 } else { 1 });
        chart.draw_series(LineSeries::new(line.iter().copied(), style))?;
        let circle = |&point: &(f64, f64)| match card.kind {
            Kind::Ours => Circle::new(point, 4, colour.filled()),
            _ => Circle::new(point, 3, colour.stroke_width(1)),
        };
        chart.draw_series(line.iter().map(circle))?;
        let y = 24 + 22 * index as i32;
        legend.draw(&PathElement::new(vec![(8, y), (36, y)], style))?;
        legend.draw(&Text::new(card.name, (44, y - 7), ("sans-serif", 13)))?;
    }
    area.present()?;
    println!("wrote {}", path.canonicalize()?.display());
    Ok(())
}
