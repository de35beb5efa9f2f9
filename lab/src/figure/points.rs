//! Dots and lines.

use datasets::Seed;
use plotters::element::{Circle, PathElement, Polygon};
use plotters::style::{Color, RGBColor};

use super::axes::{self, Axis, Chart, Drawn, Key, Margins};
use super::{Look, style};
use crate::show::number;
use crate::stats::{self, Fit, Interval};
use crate::table::Datum;
use crate::{Result, Table};

/// How a row is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Dot,
    Line,
}

impl Mark {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Dot => "points",
            Self::Line => "points along lines",
        }
    }
}

/// Rows as dots or along lines.
#[derive(Debug, Clone)]
pub(super) struct Points {
    source: Table,
    names: [String; 2],
    by: Option<String>,
    errors: Option<String>,
    pub(super) mark: Mark,
    /// Whether a line is fitted, and whether with an interval.
    pub(super) fit: Option<Option<Seed>>,
}

/// One row, as it is drawn: on a logarithmic axis, `x` is the decimal logarithm.
#[derive(Debug, Clone, Copy)]
struct Point {
    row: usize,
    x: f64,
    y: f64,
    error: f64,
}

/// A fitted line and how sure it is.
struct Fitted {
    fit: Fit,
    r2: Option<Interval>,
    /// Both ends of the line.
    line: [(f64, f64); 2],
    /// Points of the shade, if there is one: x, and the line's interval there.
    band: Vec<(f64, Interval)>,
}

impl Points {
    pub(super) fn new(table: &Table, [x, y]: [&str; 2], by: Option<&str>, mark: Mark) -> Result<Self> {
        table.column_f64(x)?;
        table.column_f64(y)?;
        let columns: Vec<&str> = by.into_iter().chain([x, y]).collect();
        table.select(&columns)?;
        let (names, by) = ([x.to_owned(), y.to_owned()], by.map(str::to_owned));
        Ok(Self { source: table.clone(), names, by, errors: None, mark, fit: None })
    }

    pub(super) fn set_errors(&mut self, column: &str) -> Result<()> {
        self.source.column_f64(column)?;
        self.errors = Some(column.to_owned());
        Ok(())
    }

    fn numbers(&self, column: &str) -> Vec<f64> {
        self.source.column_f64(column).expect("the constructor has read it")
    }

    fn points(&self, log_x: bool) -> Vec<Point> {
        let (xs, ys) = (self.numbers(&self.names[0]), self.numbers(&self.names[1]));
        let errors = self.errors.as_ref().map_or(vec![f64::NAN; xs.len()], |column| self.numbers(column));
        let point = |row: usize| Point { row, x: if log_x { xs[row].log10() } else { xs[row] }, y: ys[row], error: errors[row] };
        (0..xs.len()).map(point).filter(|point| point.x.is_finite() && point.y.is_finite()).collect()
    }

    /// The points of each group, with the group's name and colour, in the order of x for lines.
    fn series(&self, log_x: bool) -> Vec<(Datum, RGBColor, Vec<Point>)> {
        let mut points = self.points(log_x);
        if self.mark == Mark::Line {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        let Some(by) = &self.by else {
            return vec![(Datum::Missing, style::PLAIN, points)];
        };
        let cells = self.source.data(by).expect("the constructor has read it");
        let groups = style::groups(&points.iter().map(|point| cells[point.row].clone()).collect::<Vec<_>>());
        let colours = style::colours(&groups);
        let members = |group: &Datum| points.iter().filter(|point| style::same(&cells[point.row], group)).copied().collect();
        groups.into_iter().zip(colours).map(|(group, colour)| (group.clone(), colour, members(&group))).collect()
    }

    /// The line through all points; against the natural logarithm on a logarithmic axis. `None` where no line is defined.
    fn fitted(&self, log_x: bool) -> Option<Fitted> {
        let seed = self.fit?;
        let unit = if log_x { std::f64::consts::LN_10 } else { 1.0 };
        let (xs, ys): (Vec<f64>, Vec<f64>) = self.points(log_x).iter().map(|point| (point.x * unit, point.y)).unzip();
        let fit = stats::fit(&xs, &ys).ok()?;
        let (low, high) = xs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
        let (r2, band) = match seed {
            None => (None, Vec::new()),
            Some(seed) => {
                let at: Vec<f64> = (0..=40).map(|step| low + (high - low) * f64::from(step) / 40.0).collect();
                let band = stats::fit_band(&xs, &ys, &at, seed).ok()?;
                (Some(stats::r2_interval(&xs, &ys, seed).ok()?), at.iter().map(|x| x / unit).zip(band).collect())
            }
        };
        Some(Fitted { fit, r2, line: [low, high].map(|x| (x / unit, fit.at(x))), band })
    }

    pub(super) fn data(&self, log_x: bool) -> Vec<Table> {
        let mut columns: Vec<&str> = self.by.iter().chain(&self.names).map(String::as_str).collect();
        // The column of the errors may also be one of the others.
        columns.extend(self.errors.as_deref().filter(|errors| !columns.contains(errors)));
        let mut rows = self.points(log_x).into_iter().map(|point| point.row).peekable();
        let mut row = 0..;
        let drawn = self.source.filter(|_| row.next().is_some_and(|row| rows.next_if_eq(&row).is_some()));
        let drawn = drawn.and_then(|drawn| drawn.select(&columns)).expect("the constructor has read these columns");
        let fit = self.fitted(log_x).map(|Fitted { fit, r2, .. }| {
            let mut columns = vec![("slope", fit.slope), ("intercept", fit.intercept), ("r2", fit.r2)];
            columns.extend(r2.into_iter().flat_map(|r2| [("r2_low", r2.low), ("r2_high", r2.high)]));
            let columns = columns.into_iter().map(|(name, value)| (name, vec![value].into())).chain([("n", vec![fit.n].into())]);
            Table::new(columns).expect("one row, different names")
        });
        [drawn].into_iter().chain(fit).collect()
    }

    pub(super) fn frame(&self, look: &Look) -> String {
        let series = self.series(look.log_x);
        let fitted = self.fitted(look.log_x);
        let key = match &self.by {
            None => Key::None,
            Some(by) => {
                let entries = series.iter().map(|(group, colour, _)| (style::name(group), *colour)).collect();
                Key::Groups(style::human(by), entries, self.mark)
            }
        };
        let margins = Margins { subtitle: self.subtitle(fitted.as_ref(), look), note: self.note(look.log_x), key };
        let (width, height) = axes::room(look, &margins.key);
        let points = || series.iter().flat_map(|(_, _, points)| points);
        let xs = points().map(|point| point.x);
        let x = if look.log_x { Axis::log(xs, width, axes::ACROSS) } else { Axis::linear(xs, width, axes::ACROSS) };
        let spread = |point: &Point| [point.y, point.y - point.error, point.y + point.error];
        let shade = fitted.iter().flat_map(|fitted| &fitted.band).flat_map(|(_, interval)| [interval.low, interval.high]);
        let line = fitted.iter().flat_map(|fitted| fitted.line).map(|(_, y)| y);
        let y = Axis::linear(points().flat_map(spread).chain(shade).chain(line), height, axes::UPRIGHT);
        axes::draw(look, &x, &y, &margins, |chart| {
            if let Some(fitted) = &fitted {
                draw_fit(chart, fitted)?;
            }
            series.iter().try_for_each(|(_, colour, points)| self.draw_series(chart, *colour, points))
        })
    }

    fn draw_series(&self, chart: &mut Chart, colour: RGBColor, points: &[Point]) -> Drawn {
        let spread: Vec<&Point> = points.iter().filter(|point| point.error.is_finite()).collect();
        match self.mark {
            Mark::Dot => {
                let whisker = |point: &&Point| {
                    PathElement::new(
                        [(point.x, point.y - point.error), (point.x, point.y + point.error)],
                        axes::stroke(colour.mix(0.6), 1.5),
                    )
                };
                chart.draw_series(spread.iter().map(whisker))?;
                let dot = |point: &Point| Circle::new((point.x, point.y), axes::px(4.0), colour.mix(0.78).filled());
                chart.draw_series(points.iter().map(dot))?;
            }
            Mark::Line => {
                let low = spread.iter().map(|point| (point.x, point.y - point.error));
                let high = spread.iter().rev().map(|point| (point.x, point.y + point.error));
                chart.draw_series([Polygon::new(low.chain(high).collect::<Vec<_>>(), colour.mix(0.16))])?;
                let line: Vec<(f64, f64)> = points.iter().map(|point| (point.x, point.y)).collect();
                chart.draw_series([PathElement::new(line, axes::stroke(colour, 2.0))])?;
                // Dots show where the few points of a short line are, and that a single point is there at all.
                if points.len() <= 16 {
                    let dot = |point: &Point| Circle::new((point.x, point.y), axes::px(3.0), colour.filled());
                    chart.draw_series(points.iter().map(dot))?;
                }
            }
        }
        Ok(())
    }

    /// What there is to say of the fit; without the slope where the page has no room for it.
    fn subtitle(&self, fitted: Option<&Fitted>, look: &Look) -> String {
        let per = if look.log_x { " per unit of ln x" } else { "" };
        match (fitted, self.fit) {
            (None, None) => String::new(),
            (None, Some(_)) => "no line fits: too few points, or no variation".to_owned(),
            (Some(Fitted { fit, r2, .. }), _) => {
                let between = r2.map_or(String::new(), |r2| format!(" (95 %: {:.2} to {:.2})", r2.low, r2.high));
                let text = |slope: String| format!("R² = {:.3}{between}{slope}, n = {}", fit.r2, fit.n);
                let whole = text(format!(", slope {}{per}", number::short(fit.slope)));
                if axes::subtitle_fits(&whole, look) { whole } else { text(String::new()) }
            }
        }
    }

    fn note(&self, log_x: bool) -> String {
        let left_out = self.source.len() - self.points(log_x).len();
        match left_out {
            0 => String::new(),
            left_out => {
                let why = if log_x { "a value is missing, or x is not positive" } else { "a value is missing" };
                format!("{left_out} of {} rows not shown: {why}", self.source.len())
            }
        }
    }
}

fn draw_fit(chart: &mut Chart, fitted: &Fitted) -> Drawn {
    let low = fitted.band.iter().map(|(x, interval)| (*x, interval.low));
    let high = fitted.band.iter().rev().map(|(x, interval)| (*x, interval.high));
    chart.draw_series([Polygon::new(low.chain(high).collect::<Vec<_>>(), style::INK.mix(0.09))])?;
    chart.draw_series([PathElement::new(fitted.line, axes::stroke(style::INK.mix(0.75), 1.5))])?;
    Ok(())
}
