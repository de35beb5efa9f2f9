//! Heat maps.

use plotters::element::{Rectangle, Text};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use super::axes::{self, Axis, Key, Margins};
use super::{Look, style};
use crate::show::number;
use crate::table::Datum;
use crate::{Error, Result, Table};

/// A colour for each pair of values.
#[derive(Debug, Clone)]
pub(super) struct Heat {
    pub(super) data: Table,
    value: String,
    columns: Vec<Datum>,
    rows: Vec<Datum>,
    /// Column, row, value.
    cells: Vec<(usize, usize, f64)>,
}

impl Heat {
    pub(super) fn new(table: &Table, [x, y]: [&str; 2], value: &str) -> Result<Self> {
        let data = table.select(&[x, y, value])?;
        let values = data.column_f64(value)?;
        let (xs, ys) = (data.data(x)?, data.data(y)?);
        let (columns, rows) = (style::groups(&xs), style::groups(&ys));
        let place = |groups: &[Datum], cell: &Datum| {
            groups.iter().position(|group| style::same(group, cell)).expect("the groups are of these cells")
        };
        let mut cells: Vec<(usize, usize, f64)> = Vec::new();
        for ((cell_x, cell_y), value) in xs.iter().zip(&ys).zip(values) {
            let (column, row) = (place(&columns, cell_x), place(&rows, cell_y));
            if cells.iter().any(|cell| (cell.0, cell.1) == (column, row)) {
                let found = format!("two at ({}, {})", style::name(cell_x), style::name(cell_y));
                return Err(Error::mismatch(format!("heat map of `{x}` and `{y}`"), "one row a pair, as `mean` gives them", found));
            }
            cells.push((column, row, value));
        }
        Ok(Self { data, value: value.to_owned(), columns, rows, cells })
    }

    pub(super) fn label(&self) -> String {
        style::human(&self.value)
    }

    /// Cells of a comfortable size, within a page's width.
    pub(super) fn size(&self) -> (u32, u32) {
        let pixels = |count: usize, least: u32, most: u32| (count as u32 * 52).clamp(least, most);
        (200 + pixels(self.columns.len(), 240, 640), 110 + pixels(self.rows.len(), 160, 520))
    }

    pub(super) fn frame(&self, look: &Look) -> String {
        let finite = || self.cells.iter().map(|cell| cell.2).filter(|value| value.is_finite());
        let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low < high {
            (low, high)
        } else if low == high {
            (low - 0.5, low + 0.5)
        } else {
            (0.0, 1.0)
        };
        let scale = Axis::spanning(low..high, f64::from(look.size.1) - 100.0, axes::UPRIGHT);
        let margins = Margins { key: Key::Scale(self.label(), scale), ..Margins::default() };
        let (width, height) = axes::room(look, &margins.key);
        let (cell_width, cell_height) = (width / self.columns.len().max(1) as f64, height / self.rows.len().max(1) as f64);
        let names = |groups: &[Datum], room: f64| Axis::names(&groups.iter().map(style::name).collect::<Vec<_>>(), room);
        let (x, y) = (names(&self.columns, cell_width - 4.0), names(&self.rows, f64::from(look.size.0) * 0.25));
        let text = |value: f64| number::short(value);
        let legible = cell_height >= 18.0 && finite().all(|value| style::text_width(&text(value), 12.0) <= cell_width - 4.0);
        axes::draw(look, &x, &y, &margins, |chart| {
            let all = [(x.range.start, y.range.start), (x.range.end, y.range.end)];
            chart.draw_series([Rectangle::new(all, RGBColor(0xf2, 0xf2, 0xf2).filled())])?;
            for &(column, row, value) in self.cells.iter().filter(|cell| cell.2.is_finite()) {
                let (column, row) = (column as f64, row as f64);
                let colour = style::scale((value - low) / (high - low));
                chart.draw_series([Rectangle::new([(column - 0.49, row - 0.49), (column + 0.49, row + 0.49)], colour.filled())])?;
                if legible {
                    let ink = if style::is_dark(colour) { WHITE } else { BLACK };
                    let font = axes::centred(chart, ink);
                    chart.draw_series([Text::new(text(value), (column, row), font)])?;
                }
            }
            Ok(())
        })
    }
}
