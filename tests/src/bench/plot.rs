//! Plots: rows with a label, in each row every side of the comparison, drawn as SVG.
//!
//! Deliberately absent: interaction, and a second kind of layout. A row of text and a scale below it read well in a
//! repository.

use anyhow::{Context, Result, bail, ensure};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::stats::Summary;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// Its name in docs/benchmarks.
    pub file: String,
    /// The picture.
    pub svg: String,
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// Its file's name, ending in `.svg`.
    pub file: &'a str,
    /// What is compared.
    pub title: &'a str,
    /// Of the scale below.
    pub unit: &'a str,
    /// The sides, at most four.
    pub sides: &'a [&'a str],
    /// The rows from top to bottom: a label, and each side's samples (none: that side was not measured here).
    pub rows: Vec<(String, Vec<Vec<f64>>)>,
    /// A line at this value, with what it means.
    pub limit: Option<(f64, &'a str)>,
}

/// A scale that begins at 0, or a logarithmic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// From the power of ten below the least sample; samples must be positive.
    Logarithmic,
}

/// The median as a bar from the scale's beginning, the least and the greatest sample as whiskers.
///
/// # Errors
/// When there is nothing to draw, or it cannot be drawn.
pub fn bars(chart: &Chart<'_>, scale: Scale) -> Result<Plot> {
    draw(chart, scale, Form::Bars)
}

/// Each sample as a dot, the median as a line across.
///
/// # Errors
/// When there is nothing to draw, or it cannot be drawn.
pub fn distribution(chart: &Chart<'_>, scale: Scale) -> Result<Plot> {
    draw(chart, scale, Form::Dots)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Bars,
    Dots,
}

/// Blue, orange, green, purple: told apart by the colour-blind, too (Okabe and Ito).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];
const WIDTH: u32 = 900;
const LABEL_WIDTH: u32 = 260;
/// Of one side of a row, and between rows.
const LINE: u32 = 16;
const GAP: u32 = 10;
const TOP: u32 = 60;
const BOTTOM: u32 = 50;
const FONT: (&str, u32) = ("sans-serif", 13);

fn draw(chart: &Chart<'_>, scale: Scale, form: Form) -> Result<Plot> {
    let samples = chart.rows.iter().flat_map(|(_, sides)| sides).flatten().copied();
    let whole: Vec<f64> = samples.chain(chart.limit.map(|(at, _)| at)).collect();
    let Some(Summary { min, max, .. }) = Summary::of(&whole) else { bail!("{}: nothing to draw", chart.file) };
    let mut svg = String::new();
    let drawn = match scale {
        Scale::Linear => {
            let from = min.min(0.0);
            on_scale(chart, form, from..max.max(f64::MIN_POSITIVE) * 1.12, from, &mut svg)
        }
        Scale::Logarithmic => {
            ensure!(min > 0.0, "{}: a logarithmic scale has no place for {min}", chart.file);
            let from = 10_f64.powf(min.log10().floor());
            on_scale(chart, form, (from..max * 1.6).log_scale(), from, &mut svg)
        }
    };
    drawn.with_context(|| format!("drawing {}", chart.file))?;
    Ok(Plot { file: chart.file.into(), svg })
}

fn on_scale<X>(chart: &Chart<'_>, form: Form, scale: X, from: f64, svg: &mut String) -> Result<()>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    let row = chart.sides.len() as u32 * LINE + GAP;
    let depth = row * chart.rows.len() as u32;
    let root = SVGBackend::with_string(svg, (WIDTH, TOP + depth + BOTTOM)).into_drawing_area();
    root.fill(&WHITE)?;
    legend(&root, chart)?;
    let mut context = ChartBuilder::on(&root)
        .margin_top(TOP)
        .margin_right(60)
        .set_label_area_size(LabelAreaPosition::Left, LABEL_WIDTH)
        .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
        // From the top down.
        .build_cartesian_2d(scale, f64::from(depth)..0.0)?;
    let mut mesh = context.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().light_line_style(TRANSPARENT).x_labels(8);
    mesh.x_desc(chart.unit).label_style(FONT).draw()?;
    if let Some((at, what)) = chart.limit {
        context.draw_series([PathElement::new([(at, 0.0), (at, f64::from(depth))], RED)])?;
        let (x, _) = context.backend_coord(&(at, 0.0));
        root.draw(&Text::new(what, (x + 3, TOP as i32 - 14), FONT.into_font().color(&RED)))?;
    }
    let rows = chart.rows.iter().enumerate();
    for (number, (label, sides)) in rows {
        let top = number as u32 * row + GAP / 2;
        let middle = (TOP + top + (row - GAP) / 2) as i32 - 7;
        root.draw(&Text::new(label.as_str(), (10, middle), FONT.into_font()))?;
        for (number, samples) in sides.iter().enumerate() {
            let Some(summary) = Summary::of(samples) else { continue };
            let line = Line { top: f64::from(top + number as u32 * LINE), colour: COLOURS[number % COLOURS.len()] };
            match form {
                Form::Bars => context.draw_series(line.bar(from, &summary))?,
                Form::Dots => context.draw_series(line.dots(samples))?,
            };
            context.draw_series(line.marks(form, &summary))?;
            let (x, y) = context.backend_coord(&(summary.max, line.middle()));
            root.draw(&Text::new(short(summary.p50), (x + 6, y - 6), FONT.into_font()))?;
        }
    }
    Ok(root.present()?)
}

/// The title and the sides' colours.
fn legend(root: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart<'_>) -> Result<()> {
    root.draw(&Text::new(chart.title, (10, 8), ("sans-serif", 18).into_font()))?;
    let mut left = LABEL_WIDTH as i32;
    for (side, colour) in chart.sides.iter().zip(COLOURS) {
        root.draw(&Rectangle::new([(left, 32), (left + 10, 42)], colour.filled()))?;
        root.draw(&Text::new(*side, (left + 14, 30), FONT.into_font()))?;
        left += 40 + 8 * side.len() as i32;
    }
    Ok(())
}

/// Where one side of a row is drawn.
struct Line {
    top: f64,
    colour: RGBColor,
}

impl Line {
    fn middle(&self) -> f64 {
        self.top + f64::from(LINE) / 2.0
    }

    fn ends(&self) -> (f64, f64) {
        (self.top + 2.0, self.top + f64::from(LINE) - 2.0)
    }

    fn bar(&self, from: f64, summary: &Summary) -> [Rectangle<(f64, f64)>; 1] {
        let (above, below) = self.ends();
        [Rectangle::new([(from, above), (summary.p50, below)], self.colour.filled())]
    }

    fn dots(&self, samples: &[f64]) -> Vec<Circle<(f64, f64), i32>> {
        let dot = |at: &f64| Circle::new((*at, self.middle()), 3, self.colour.mix(0.4).filled());
        samples.iter().map(dot).collect()
    }

    fn marks(&self, form: Form, summary: &Summary) -> [PathElement<(f64, f64)>; 1] {
        let (above, below) = self.ends();
        match form {
            Form::Bars => [PathElement::new([(summary.min, self.middle()), (summary.max, self.middle())], BLACK)],
            Form::Dots => [PathElement::new([(summary.p50, above), (summary.p50, below)], BLACK.stroke_width(2))],
        }
    }
}

/// Three figures that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.3}G", value / 1e9),
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 1e4 => format!("{:.1}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_side_and_median_is_drawn() {
        let rows = vec![
            ("10 ms, cable cut".to_owned(), vec![vec![36.1, 36.3, 37.0], vec![41.0, 48.0, 55.0]]),
            ("1 s, cable cut".to_owned(), vec![vec![3610.0], vec![]]),
        ];
        let chart = Chart {
            file: "outage.svg",
            title: "Outage",
            unit: "ms",
            sides: &["failover", "keepalived"],
            rows,
            limit: Some((37.0, "floor")),
        };
        for plot in [bars(&chart, Scale::Linear), distribution(&chart, Scale::Logarithmic)] {
            let Plot { file, svg } = plot.expect("it can be drawn");
            assert_eq!(file, "outage.svg");
            for text in ["Outage", "keepalived", "10 ms, cable cut", "1 s, cable cut", "floor", "36.3", "48.0", "3610"]
            {
                assert!(svg.contains(text), "no {text} in {svg}");
            }
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let chart = |samples: Vec<f64>| Chart {
            file: "x.svg",
            title: "",
            unit: "",
            sides: &["one"],
            rows: vec![(String::new(), vec![samples])],
            limit: None,
        };
        assert!(bars(&chart(vec![]), Scale::Linear).is_err());
        assert!(bars(&chart(vec![0.0]), Scale::Logarithmic).is_err());
        assert!(bars(&chart(vec![0.0]), Scale::Linear).is_ok());
    }
}
