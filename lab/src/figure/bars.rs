//! Bars with whiskers.

use plotters::element::{PathElement, Rectangle};
use plotters::style::Color;

use super::axes::{self, Axis, Key, Margins};
use super::{Look, style};
use crate::{Error, Result, Table};

/// A bar a row.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    pub(super) data: Table,
    names: Vec<String>,
    values: Vec<f64>,
    /// NaN where there is none.
    errors: Vec<f64>,
}

impl Bars {
    pub(super) fn new(table: &Table, category: &str, value: &str, error: Option<&str>) -> Result<Self> {
        let columns: Vec<&str> = [category, value].into_iter().chain(error).collect();
        let data = table.select(&columns)?;
        let cells = data.data(category)?;
        if style::groups(&cells).len() < cells.len() {
            let found = format!("{} rows of {} categories", cells.len(), style::groups(&cells).len());
            return Err(Error::mismatch(format!("bars of `{category}`"), "one row a category, as `mean` gives them", found));
        }
        let values = data.column_f64(value)?;
        let errors = error.map_or(Ok(vec![f64::NAN; values.len()]), |error| data.column_f64(error))?;
        Ok(Self { names: cells.iter().map(style::name).collect(), values, errors, data })
    }

    pub(super) fn frame(&self, look: &Look) -> String {
        let (width, height) = axes::room(look, &Key::None);
        // Where names do not fit below their bars, the bars lie, the first on top, and the axes change places.
        let slot = width / self.names.len().max(1) as f64 - 8.0;
        let lying = self.names.iter().any(|name| style::text_width(name, 13.0) > slot);
        let ends = self.values.iter().zip(&self.errors).flat_map(|(value, error)| [*value, value - error, value + error]);
        // Lengths compare only from 0, so 0 is always on the axis; and no air beyond it.
        let (low, high) = ends.filter(|end| end.is_finite()).fold((0.0, 0.0), |(low, high): (f64, f64), end| (low.min(end), high.max(end)));
        let air = if low == high { 1.0 } else { (high - low) * 0.06 };
        let range = if low < 0.0 { low - air } else { 0.0 }..if high > 0.0 || low == high { high + air } else { 0.0 };
        let (names, numbers, turned);
        if lying {
            let mut axis = Axis::names(&self.names, width * 0.4);
            axis.range = axis.range.end..axis.range.start;
            (names, numbers) = (axis, Axis::spanning(range, width * 0.75, axes::ACROSS));
            turned = Look { x_label: look.y_label.clone(), y_label: String::new(), ..look.clone() };
        } else {
            (names, numbers) = (Axis::names(&self.names, slot), Axis::spanning(range, height, axes::UPRIGHT));
            turned = look.clone();
        }
        let (x, y) = if lying { (&numbers, &names) } else { (&names, &numbers) };
        let at = |place: f64, value: f64| if lying { (value, place) } else { (place, value) };
        axes::draw(&turned, x, y, &Margins::default(), |chart| {
            for (place, (&value, &error)) in self.values.iter().zip(&self.errors).enumerate() {
                let place = place as f64;
                if value.is_finite() {
                    chart
                        .draw_series([Rectangle::new([at(place - 0.34, 0.0), at(place + 0.34, value)], style::PLAIN.mix(0.85).filled())])?;
                }
                if value.is_finite() && error.is_finite() {
                    let ink = axes::stroke(style::INK, 1.5);
                    let [low, high] = [value - error, value + error];
                    chart.draw_series([
                        PathElement::new([at(place, low), at(place, high)], ink),
                        PathElement::new([at(place - 0.08, low), at(place + 0.08, low)], ink),
                        PathElement::new([at(place - 0.08, high), at(place + 0.08, high)], ink),
                    ])?;
                }
            }
            Ok(())
        })
    }
}
