//! Pictures of tables: points, lines, bars, heat maps, and grids of samples.
//!
//! A figure is a function of a table. It keeps the numbers and draws them when it is asked for its SVG, so that a title, a
//! size or a logarithmic axis can be set at any time, and tests compare numbers instead of pixels.

mod axes;
mod bars;
mod heat;
mod pictures;
mod points;
pub(crate) mod style;

use std::fmt;
use std::path::Path;

use datasets::Seed;

use crate::show::escape;
use crate::{Error, Result, Table};

pub use pictures::picture_grid;

use points::Mark;

/// A picture of numbers; made by [`Table::scatter`], [`Table::lines`], [`Table::bars`], [`Table::heat_map`],
/// [`picture_grid`] and [`Figure::row`].
///
/// ```
/// use lab::Table;
///
/// let runs = Table::new([("nn_mass", vec![2.1, 8.5, 17.1, 22.1].into()), ("accuracy", vec![0.935, 0.941, 0.945, 0.947].into())])?;
/// let figure = runs.scatter("nn_mass", "accuracy", None)?.log_x().fit().title("Accuracy follows NN-Mass");
/// assert!(figure.svg().starts_with("<svg "));
/// # Ok::<(), lab::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Figure {
    plot: Plot,
    look: Look,
}

#[derive(Debug, Clone)]
enum Plot {
    Points(points::Points),
    Bars(bars::Bars),
    Heat(heat::Heat),
    Pictures(pictures::Pictures),
    Row(Vec<Figure>),
    Svg(String),
}

/// What a figure's setters set.
#[derive(Debug, Clone, Default)]
struct Look {
    title: String,
    x_label: String,
    y_label: String,
    /// Width and height in pixels.
    size: (u32, u32),
    log_x: bool,
}

impl Table {
    /// A dot a row at columns `x` and `y`, coloured by the column `by` where there is one.
    ///
    /// # Errors
    /// When there is no such column, `x` or `y` holds texts, or a column is asked for twice.
    pub fn scatter(&self, x: &str, y: &str, by: Option<&str>) -> Result<Figure> {
        self.points(x, y, by, Mark::Dot)
    }

    /// A line through the rows in the order of `x`; one for each value of the column `by` where there is one.
    ///
    /// # Errors
    /// As [`scatter`](Self::scatter).
    pub fn lines(&self, x: &str, y: &str, by: Option<&str>) -> Result<Figure> {
        self.points(x, y, by, Mark::Line)
    }

    fn points(&self, x: &str, y: &str, by: Option<&str>, mark: Mark) -> Result<Figure> {
        let plot = points::Points::new(self, [x, y], by, mark)?;
        Ok(Figure::of(Plot::Points(plot), (x, y), (640, 420)))
    }

    /// A bar a row, as high as the column `value`, named by the column `category`; with a whisker of the column `error` to
    /// both sides where there is one. Long names lay the bars down.
    ///
    /// # Errors
    /// When there is no such column, `value` or `error` holds texts, or two rows have the same category.
    pub fn bars(&self, category: &str, value: &str, error: Option<&str>) -> Result<Figure> {
        let plot = bars::Bars::new(self, category, value, error)?;
        Ok(Figure::of(Plot::Bars(plot), (category, value), (640, 420)))
    }

    /// A coloured cell for each pair of values of the columns `x` and `y`, by the column `value`; pairs without a row stay grey.
    ///
    /// # Errors
    /// When there is no such column, `value` holds texts, or two rows have the same `x` and `y`.
    pub fn heat_map(&self, x: &str, y: &str, value: &str) -> Result<Figure> {
        let plot = heat::Heat::new(self, [x, y], value)?;
        let size = plot.size();
        Ok(Figure::of(Plot::Heat(plot), (x, y), size))
    }
}

impl Figure {
    fn of(plot: Plot, (x, y): (&str, &str), size: (u32, u32)) -> Self {
        let look = Look { x_label: style::human(x), y_label: style::human(y), size, ..Look::default() };
        Self { plot, look }
    }

    /// Figures side by side, in their own sizes; a title goes above all of them.
    pub fn row(figures: &[Figure]) -> Self {
        let width = figures.iter().map(|figure| figure.look.size.0).sum();
        let height = figures.iter().map(|figure| figure.look.size.1).max().unwrap_or(0);
        Self::of(Plot::Row(figures.to_vec()), ("", ""), (width, height))
    }

    /// A picture drawn elsewhere, such as an architecture: a whole `<svg>` element that is `width` × `height` pixels.
    pub fn from_svg(svg: impl Into<String>, width: u32, height: u32) -> Self {
        Self::of(Plot::Svg(svg.into()), ("", ""), (width, height))
    }

    /// Sets the line above the figure; none by default.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.look.title = title.into();
        self
    }

    /// Sets the text of the horizontal axis; by default the column's name in words.
    pub fn x_label(mut self, label: impl Into<String>) -> Self {
        self.look.x_label = label.into();
        self
    }

    /// Sets the text of the vertical axis; by default the column's name in words.
    pub fn y_label(mut self, label: impl Into<String>) -> Self {
        self.look.y_label = label.into();
        self
    }

    /// Sets the size in pixels; by default 640 × 420, or what a heat map or a grid needs. At least 160 × 120.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.look.size = (width.max(160), height.max(120));
        self
    }

    /// Makes the horizontal axis of points and lines logarithmic. Points at 0 and below are left out, and a note says how many.
    pub fn log_x(mut self) -> Self {
        self.look.log_x = true;
        self
    }

    /// Draws the straight line of least squares through points, with its slope and R². On a logarithmic axis it is
    /// the line against ln x. Other figures stay as they are.
    pub fn fit(self) -> Self {
        self.fitted(None)
    }

    /// As [`fit`](Self::fit), with the 95 % bootstrap interval of R² in the text and that of the line shaded.
    pub fn fit_interval(self, seed: Seed) -> Self {
        self.fitted(Some(seed))
    }

    fn fitted(mut self, seed: Option<Seed>) -> Self {
        if let Plot::Points(points) = &mut self.plot {
            points.fit = Some(seed);
        }
        self
    }

    /// Draws the column `column` of the table behind points or lines as their uncertainty, to both sides: whiskers on points,
    /// a shade along lines. `x_std` of [`Table::mean`] is made for this.
    ///
    /// # Errors
    /// When there is no such column, it holds texts, or the figure has neither points nor lines.
    pub fn errors(mut self, column: &str) -> Result<Self> {
        match &mut self.plot {
            Plot::Points(points) => points.set_errors(column)?,
            _ => return Err(Error::mismatch(format!("errors `{column}`"), "a figure of points or lines", "another one")),
        }
        Ok(self)
    }

    /// The numbers that are drawn, as tables: of points, lines, bars and heat maps the rows; then of a fit its `slope`, `intercept`,
    /// `r2` and `n`, with `r2_low` and `r2_high` where it has an interval; of pictures their captions and sizes; of a row
    /// those of its figures in turn.
    pub fn data(&self) -> Vec<Table> {
        match &self.plot {
            Plot::Points(points) => points.data(self.look.log_x),
            Plot::Bars(bars) => vec![bars.data.clone()],
            Plot::Heat(heat) => vec![heat.data.clone()],
            Plot::Pictures(pictures) => vec![pictures.data()],
            Plot::Row(figures) => figures.iter().flat_map(Figure::data).collect(),
            Plot::Svg(_) => Vec::new(),
        }
    }

    /// The figure as an `<svg>` element, which is also a whole file.
    pub fn svg(&self) -> String {
        let look = &self.look;
        match &self.plot {
            Plot::Points(points) => points.frame(look),
            Plot::Bars(bars) => bars.frame(look),
            Plot::Heat(heat) => heat.frame(look),
            Plot::Pictures(pictures) => pictures.svg(look),
            Plot::Row(figures) => row(look, figures),
            Plot::Svg(svg) => svg.clone(),
        }
    }

    /// Writes the SVG to a file.
    ///
    /// # Errors
    /// When the file's name does not end in `.svg`, or it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.extension().is_none_or(|extension| extension != "svg") {
            return Err(Error::mismatch(path.display().to_string(), "a name that ends in .svg", "another"));
        }
        std::fs::write(path, self.svg()).map_err(|source| Error::io(path, "write the figure", source))
    }
}

/// Panels beside one another, each a picture of its own within the outer one.
fn row(look: &Look, figures: &[Figure]) -> String {
    let above = if look.title.is_empty() { 0 } else { 32 };
    let mut panels = String::new();
    let mut left = 0;
    for figure in figures {
        let inner = figure.svg().replacen("<svg ", &format!("<svg x=\"{left}\" y=\"{above}\" "), 1);
        panels.push_str(&inner);
        left += figure.look.size.0;
    }
    if above > 0 {
        panels.push_str(&format!(
            "<text x=\"{}\" y=\"22\" text-anchor=\"middle\" font-family=\"sans-serif\" font-size=\"16\" font-weight=\"bold\" fill=\"#222\">{}</text>\n",
            look.size.0 / 2,
            escape(&look.title)
        ));
    }
    style::document((look.size.0, look.size.1 + above), (look.size.0, look.size.1 + above), &panels)
}

impl fmt::Display for Figure {
    /// What the figure shows, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let look = &self.look;
        let rows: usize = self.data().first().map_or(0, Table::len);
        let what = match &self.plot {
            Plot::Points(points) => format!("{rows} {} of {} against {}", points.mark.noun(), look.y_label, look.x_label),
            Plot::Bars(_) => format!("{rows} bars of {}", look.y_label),
            Plot::Heat(heat) => format!("heat map of {} over {} and {}", heat.label(), look.x_label, look.y_label),
            Plot::Pictures(_) => format!("{rows} pictures"),
            Plot::Row(figures) => format!("{} figures", figures.len()),
            Plot::Svg(_) => format!("picture of {} × {} pixels", look.size.0, look.size.1),
        };
        match look.title.as_str() {
            "" => write!(f, "Figure: {what}"),
            title => write!(f, "{title}: {what}"),
        }
    }
}
