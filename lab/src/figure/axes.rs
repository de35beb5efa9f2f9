//! Axes, grid, title and legend around a plot; plotters does the drawing.
//!
//! plotters rounds everything to whole units. So a picture is drawn ten times as large and shown at a tenth of it: curves come
//! out smooth, and lines may be one and a half pixels wide. All sizes outside [`px`] are in pixels of the page.

use std::ops::Range;

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoTextStyle, RGBColor, ShapeStyle, TextStyle};

use super::style::{self, FAINT, GRID, INK};
use super::{Look, points::Mark};
use crate::show::number;

/// Pixels between ticks, about, along a horizontal axis and along a vertical one.
pub(super) const ACROSS: f64 = 64.0;
pub(super) const UPRIGHT: f64 = 44.0;

/// Font sizes in pixels.
const TEXT: f64 = 13.0;
const TITLE: f64 = 16.0;
const NOTE: f64 = 12.0;

pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Area<'b> = DrawingArea<SVGBackend<'b>, Shift>;

/// Pixels in plotters' units.
pub(super) fn px(pixels: f64) -> i32 {
    (pixels * 10.0).round() as i32
}

/// A stroke of so many pixels.
pub(super) fn stroke(colour: impl Color, pixels: f64) -> ShapeStyle {
    ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: px(pixels).unsigned_abs() }
}

/// One axis: what it spans, where it has ticks, and what they say.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) range: Range<f64>,
    pub(super) ticks: Vec<(f64, String)>,
    /// Whether the grid has lines at the ticks.
    pub(super) grid: bool,
}

/// What is written beside the plot.
#[derive(Debug, Default)]
pub(super) struct Margins {
    /// A line below the title.
    pub(super) subtitle: String,
    /// A line below everything.
    pub(super) note: String,
    pub(super) key: Key,
}

/// What explains the colours, to the right of the plot.
#[derive(Debug, Default)]
pub(super) enum Key {
    #[default]
    None,
    /// A heading and the groups.
    Groups(String, Vec<(String, RGBColor)>, Mark),
    /// A heading and the ends of the colour scale.
    Scale(String, Axis),
}

/// Room in pixels that the page leaves for a plot: width and height without titles, labels and key. A first guess.
pub(super) fn room(look: &Look, key: &Key) -> (f64, f64) {
    (f64::from(look.size.0) - 90.0 - key.width(look), f64::from(look.size.1) - 100.0)
}

/// Whether a line below the title is shown whole, as a first guess: the labels of the vertical axis may take more than is left for them here.
pub(super) fn subtitle_fits(text: &str, look: &Look) -> bool {
    style::text_width(text, TEXT) <= f64::from(look.size.0) - 110.0
}

impl Axis {
    /// Numbers from the smallest to the largest of `values`, with a little air, and a tick every `spacing` pixels or so.
    pub(super) fn linear(values: impl Iterator<Item = f64>, room: f64, spacing: f64) -> Self {
        let (low, high) = ends(values);
        let air = if low == high { (low.abs() * 0.1).max(0.5) } else { (high - low) * 0.05 };
        Self::spanning(low - air..high + air, room, spacing)
    }

    /// Exactly this range.
    pub(super) fn spanning(range: Range<f64>, room: f64, spacing: f64) -> Self {
        let most = ((room / spacing) as usize).clamp(2, 12);
        let ticks = (2..=most).rev().map(|count| linear_ticks(&range, count)).find(|ticks| fits(ticks, &range, room, spacing));
        Self { ticks: ticks.unwrap_or_else(|| linear_ticks(&range, 2)), range, grid: true }
    }

    /// Decimal logarithms; the ticks say the numbers themselves.
    pub(super) fn log(logs: impl Iterator<Item = f64>, room: f64, spacing: f64) -> Self {
        let (low, high) = ends(logs);
        let air = if low == high { 0.1 } else { (high - low) * 0.05 };
        let range = low - air..high + air;
        let decades = |digits: &[f64], every: i32| -> Vec<(f64, String)> {
            (range.start.floor() as i32..=range.end.ceil() as i32)
                .filter(|decade| decade % every == 0)
                .flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)))
                .filter(|value| range.contains(&value.log10()))
                .map(|value| (value.log10(), log_text(value)))
                .collect()
        };
        let choices = [
            decades(&[1.0, 2.0, 3.0, 5.0, 7.0], 1),
            decades(&[1.0, 2.0, 5.0], 1),
            decades(&[1.0, 3.0], 1),
            decades(&[1.0], 1),
            decades(&[1.0], 2),
        ];
        // Within a fraction of a decade no round digit may fall: then ticks are even steps, as on a linear axis.
        let even = || -> Vec<(f64, String)> {
            let ticks = linear_ticks(&(10f64.powf(range.start)..10f64.powf(range.end)), 5);
            ticks.into_iter().filter(|(value, _)| *value > 0.0).map(|(value, text)| (value.log10(), text)).collect()
        };
        let ticks = choices.into_iter().find(|ticks| ticks.len() >= 3 && fits(ticks, &range, room, spacing)).unwrap_or_else(even);
        Self { range, ticks, grid: true }
    }

    /// Names at 0, 1, 2 and so on, cut to the `room` pixels that each has.
    pub(super) fn names(names: &[String], room: f64) -> Self {
        let ticks = names.iter().enumerate().map(|(at, name)| (at as f64, style::cut(name, TEXT, room))).collect();
        Self { range: -0.5..names.len() as f64 - 0.5, ticks, grid: false }
    }

    fn widest(&self) -> f64 {
        self.ticks.iter().map(|(_, text)| style::text_width(text, TEXT)).fold(0.0, f64::max)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|(at, _)| *at).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| at == value);
        tick.map_or(String::new(), |(_, text)| text.clone())
    }
}

/// The smallest and the largest of the finite ones; 0 and 1 of none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends = values.filter(|value| value.is_finite()).fold(None, |ends: Option<(f64, f64)>, value| match ends {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    });
    ends.unwrap_or((0.0, 1.0))
}

/// Whether neighbouring texts stay apart: along a vertical axis by their height, along a horizontal one by their width.
fn fits(ticks: &[(f64, String)], range: &Range<f64>, room: f64, spacing: f64) -> bool {
    let pixels = |value: f64| (value - range.start) / (range.end - range.start) * room;
    // Ticks of a vertical axis ask for less than a text's width, so only their height counts.
    let need =
        |a: &str, b: &str| if spacing < 60.0 { 20.0 } else { (style::text_width(a, TEXT) + style::text_width(b, TEXT)) / 2.0 + 14.0 };
    ticks.windows(2).all(|pair| pixels(pair[1].0) - pixels(pair[0].0) >= need(&pair[0].1, &pair[1].1))
}

/// At most about `count` round numbers, evenly spaced, and their texts.
fn linear_ticks(range: &Range<f64>, count: usize) -> Vec<(f64, String)> {
    let raw = (range.end - range.start) / count as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    let digit = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|digit| digit * magnitude >= raw * 0.999).unwrap_or(10.0);
    let step = digit * magnitude;
    let first = (range.start / step - 1e-9).ceil() as i64;
    let last = (range.end / step + 1e-9).floor() as i64;
    let values: Vec<f64> = (first..=last).map(|at| at as f64 * step).collect();
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    values.iter().map(|&value| (value, tick_text(value, step, largest))).collect()
}

/// A tick's number with as many decimals as the step needs; millions and more as `2.5 M`.
fn tick_text(value: f64, step: f64, largest: f64) -> String {
    let (unit, suffix) = match largest {
        largest if largest >= 1e15 => return number::short(value),
        largest if largest >= 1e12 => (1e12, " T"),
        largest if largest >= 1e9 => (1e9, " G"),
        largest if largest >= 1e6 => (1e6, " M"),
        _ => (1.0, ""),
    };
    if value == 0.0 {
        return "0".to_owned();
    }
    let step = step / unit;
    if step < 1e-6 {
        return number::short(value).replace('-', "−");
    }
    let decimals = (0..9).find(|&decimals| ((step * 10f64.powi(decimals)).round() - step * 10f64.powi(decimals)).abs() < 1e-6).unwrap_or(9);
    let text = match decimals {
        0 => number::count((value / unit).round() as i64),
        _ => format!("{:.*}", decimals.unsigned_abs() as usize, value / unit),
    };
    format!("{}{suffix}", text.replace('-', "−"))
}

/// A round number at a tick of a logarithmic axis.
fn log_text(value: f64) -> String {
    // The bounds lie a little below the powers of ten, which are not exact.
    match value {
        0.9e-4..0.95 => format!("{value:.*}", -value.log10().floor() as usize),
        0.95..0.95e6 => number::count(value.round() as i64),
        0.95e6..0.95e15 => tick_text(value, value, value),
        _ => format!("{value:.0e}").replace('-', "−"),
    }
}

impl Key {
    const MOST: usize = 14;

    fn width(&self, look: &Look) -> f64 {
        let widest = f64::from(look.size.0) * 0.4;
        match self {
            Self::None => 0.0,
            Self::Groups(heading, entries, _) => {
                let texts = entries.iter().map(|(text, _)| style::text_width(text, TEXT) + 28.0);
                (texts.fold(style::text_width(heading, NOTE), f64::max) + 14.0).min(widest)
            }
            Self::Scale(_, axis) => (axis.widest() + 62.0).min(widest),
        }
    }

    fn draw(&self, area: &Area, look: &Look, left: f64, top: f64, bottom: f64) -> Drawn {
        let room = self.width(look) - 14.0;
        match self {
            Self::None => Ok(()),
            Self::Groups(heading, entries, mark) => {
                write(area, &style::cut(heading, NOTE, room), (left, top + 6.0), &Font::plain(NOTE, FAINT))?;
                let shown = if entries.len() > Self::MOST { Self::MOST - 1 } else { entries.len() };
                for (at, (text, colour)) in entries[..shown].iter().enumerate() {
                    let y = top + 28.0 + 20.0 * at as f64;
                    match mark {
                        Mark::Dot => area.draw(&Circle::new((px(left + 8.0), px(y)), px(4.0), colour.filled()))?,
                        Mark::Line => area.draw(&PathElement::new([(px(left), px(y)), (px(left + 18.0), px(y))], stroke(*colour, 2.5)))?,
                    }
                    write(area, &style::cut(text, TEXT, room - 26.0), (left + 26.0, y), &Font::plain(TEXT, INK))?;
                }
                if shown < entries.len() {
                    let y = top + 28.0 + 20.0 * shown as f64;
                    write(area, &format!("… {} more", entries.len() - shown), (left, y), &Font::plain(NOTE, FAINT))?;
                }
                Ok(())
            }
            Self::Scale(heading, axis) => {
                const STEPS: u32 = 64;
                let height = (bottom - top) / f64::from(STEPS);
                for step in 0..STEPS {
                    // A little overlap, or the page shines through between the steps.
                    let below = (bottom - f64::from(step) * height + 0.5).min(bottom);
                    let colour = style::scale(f64::from(step) / f64::from(STEPS - 1));
                    let corners = [(px(left), px(bottom - f64::from(step + 1) * height)), (px(left + 14.0), px(below))];
                    area.draw(&Rectangle::new(corners, colour.filled()))?;
                }
                for (value, text) in &axis.ticks {
                    let part = (value - axis.range.start) / (axis.range.end - axis.range.start);
                    if (0.0..=1.0).contains(&part) {
                        write(area, text, (left + 20.0, bottom - part * (bottom - top)), &Font::plain(TEXT, INK))?;
                    }
                }
                let centre = (left + room + 4.0, (top + bottom) / 2.0);
                let font = Font { turned: true, anchor: HPos::Center, ..Font::plain(TEXT, INK) };
                write(area, &style::cut(heading, TEXT, bottom - top), centre, &font)
            }
        }
    }
}

/// The whole picture: title, axes, grid, what `series` draws, and the key.
pub(super) fn draw(look: &Look, x: &Axis, y: &Axis, margins: &Margins, series: impl FnOnce(&mut Chart) -> Drawn) -> String {
    let size = (look.size.0 * 10, look.size.1 * 10);
    let mut content = String::new();
    {
        let area = SVGBackend::with_string(&mut content, size).into_drawing_area();
        let drawn = on(&area, look, (x, y), margins, series).and_then(|()| area.present());
        drawn.expect("a string takes all that is written to it, and the axes have a length");
    }
    let inner = content.split_once('>').map_or("", |(_, rest)| rest).trim_end().trim_end_matches("</svg>");
    style::document(look.size, size, inner)
}

fn on(area: &Area, look: &Look, (x, y): (&Axis, &Axis), margins: &Margins, series: impl FnOnce(&mut Chart) -> Drawn) -> Drawn {
    let line = |text: &str, height: f64| if text.is_empty() { 0.0 } else { height };
    let (width, height) = (f64::from(look.size.0), f64::from(look.size.1));
    let (left, right) = (y.widest() + 16.0 + line(&look.y_label, 24.0), 22.0 + margins.key.width(look));
    let top = 14.0 + line(&look.title, 26.0) + line(&margins.subtitle, 20.0);
    let (labels, bottom) = (26.0 + line(&look.x_label, 24.0), 10.0 + line(&margins.note, 20.0));

    if !look.title.is_empty() {
        let font = Font { bold: true, ..Font::plain(TITLE, INK) };
        write(area, &style::cut(&look.title, TITLE * 1.06, width - left - 20.0), (left + 8.0, 22.0), &font)?;
    }
    if !margins.subtitle.is_empty() {
        let y = 22.0 + line(&look.title, 24.0);
        write(area, &style::cut(&margins.subtitle, TEXT, width - left - 20.0), (left + 8.0, y), &Font::plain(TEXT, FAINT))?;
    }
    if !margins.note.is_empty() {
        write(area, &style::cut(&margins.note, NOTE, width - left - 20.0), (left + 8.0, height - 14.0), &Font::plain(NOTE, FAINT))?;
    }

    let mut chart = ChartBuilder::on(area)
        .margin_top(px(top))
        .margin_right(px(right))
        .margin_bottom(px(bottom))
        .margin_left(px(8.0))
        .x_label_area_size(px(labels))
        .y_label_area_size(px(left))
        .build_cartesian_2d(x.clone(), y.clone())?;
    let text = Font::plain(TEXT, INK);
    let mut mesh = chart.configure_mesh();
    mesh.label_style(text.style(area)).axis_desc_style(text.style(area)).x_desc(&look.x_label).y_desc(&look.y_label);
    mesh.axis_style(stroke(FAINT, 1.0)).bold_line_style(stroke(GRID, 1.0)).max_light_lines(0);
    mesh.set_all_tick_mark_size(px(4.0));
    if !x.grid {
        mesh.disable_x_mesh();
    }
    if !y.grid {
        mesh.disable_y_mesh();
    }
    mesh.draw()?;
    series(&mut chart)?;
    margins.key.draw(area, look, width - margins.key.width(look), top, height - bottom - labels)
}

/// How a text is set; its reference point is the middle of its height.
struct Font {
    size: f64,
    colour: RGBColor,
    bold: bool,
    turned: bool,
    anchor: HPos,
}

impl Font {
    fn plain(size: f64, colour: RGBColor) -> Self {
        Self { size, colour, bold: false, turned: false, anchor: HPos::Left }
    }

    fn style(&self, area: &Area) -> TextStyle<'static> {
        // plotters divides by 1.24, its idea of the difference between a font's size and its height.
        let font = ("sans-serif", self.size * 12.4, if self.bold { FontStyle::Bold } else { FontStyle::Normal });
        let style = TextStyle { color: self.colour.to_backend_color(), ..font.into_text_style(area) };
        let style = style.pos(Pos::new(self.anchor, VPos::Center));
        if self.turned { style.transform(FontTransform::Rotate270) } else { style }
    }
}

fn write(area: &Area, text: &str, (x, y): (f64, f64), font: &Font) -> Drawn {
    area.draw_text(text, &font.style(area), (px(x), px(y)))
}

/// A style for text that a plot writes inside the chart, centred on its point.
pub(super) fn centred(chart: &Chart, colour: RGBColor) -> TextStyle<'static> {
    let style = ("sans-serif", NOTE * 12.4).into_text_style(chart.plotting_area());
    TextStyle { color: colour.to_backend_color(), ..style }.pos(Pos::new(HPos::Center, VPos::Center))
}
