//! How much one column says about another: least squares, correlations, and how sure one may be of them.
//!
//! Everything here is a function of two slices of finite numbers. The lab's claims are of the kind "accuracy follows
//! NN-Mass", from a few dozen networks; so each R² comes with an interval, from resampling the networks.

use datasets::Seed;

use crate::{Error, Result};

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Units of y per unit of x.
    pub slope: f64,
    /// The line's y at x = 0.
    pub intercept: f64,
    /// The part of y's variance that the line explains, in `0.0..=1.0`: the squared Pearson correlation.
    pub r2: f64,
    /// Number of points.
    pub n: usize,
}

impl Fit {
    /// The line's y at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// From `low` to `high`: where a number lies with a confidence of 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The mean; NaN of no numbers.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation, unbiased (divided by n − 1); NaN of fewer than two numbers.
pub fn std_dev(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The mean, with a confidence of 95 % by Student's t distribution: the numbers are taken as drawn from one normal distribution. NaN of fewer than two.
pub fn mean_interval(values: &[f64]) -> Interval {
    around(mean(values), std_dev(values), values.len())
}

/// As [`mean_interval`], of `n` numbers of which no more is known.
pub(crate) fn around(mean: f64, std_dev: f64, n: usize) -> Interval {
    let half = if n < 2 { f64::NAN } else { student(n - 1) * std_dev / (n as f64).sqrt() };
    Interval { low: mean - half, high: mean + half }
}

/// The number that |t| stays below with a probability of 95 %, at `degrees` of freedom, at least 1.
fn student(degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 13.0); // 12.706 at one degree
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if within(middle, degrees) < 0.95 { low = middle } else { high = middle }
    }
    low
}

/// The probability that |t| stays below `t` (Abramowitz & Stegun 26.7.3 and 26.7.4).
fn within(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let odd = degrees % 2 == 1;
    let (mut term, mut sum) = if odd { (angle.cos(), 0.0) } else { (1.0, 0.0) };
    for k in (if odd { 1 } else { 0 }..degrees.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= angle.cos().powi(2) * (k + 1) as f64 / (k + 2) as f64;
    }
    let sum = angle.sin() * sum;
    if odd { (angle + sum) * std::f64::consts::FRAC_2_PI } else { sum }
}

/// The line through the points `(xs[i], ys[i])` with the least squared error in y.
///
/// # Errors
/// When the lengths differ, there are fewer than three points, a number is not finite, or all `xs` or all `ys` are equal
/// (then R² is not defined).
pub fn fit(xs: &[f64], ys: &[f64]) -> Result<Fit> {
    let moments = Moments::checked(xs, ys)?;
    Ok(moments.fit(xs.len()))
}

/// Pearson's correlation, in `-1.0..=1.0`: how close the points lie to a straight line.
///
/// # Errors
/// As [`fit`].
pub fn pearson(xs: &[f64], ys: &[f64]) -> Result<f64> {
    let moments = Moments::checked(xs, ys)?;
    Ok(moments.pearson())
}

/// Spearman's correlation, in `-1.0..=1.0`: how close `ys` come to growing whenever `xs` do; equal values share a rank.
///
/// # Errors
/// As [`fit`].
pub fn spearman(xs: &[f64], ys: &[f64]) -> Result<f64> {
    Moments::checked(xs, ys)?;
    pearson(&ranks(xs), &ranks(ys))
}

/// The interval of R² of the straight line, from 2,000 bootstrap samples of the points.
///
/// Percentiles of the resampled R². With few points R² is biased upwards, and so is this interval: of a dozen unrelated
/// points it rarely begins at 0.
///
/// # Errors
/// As [`fit`].
pub fn r2_interval(xs: &[f64], ys: &[f64], seed: Seed) -> Result<Interval> {
    Moments::checked(xs, ys)?;
    let fits = bootstrap(xs, ys, seed);
    Ok(interval(fits.iter().map(|fit| fit.r2).collect()))
}

/// The interval of the straight line at each of `at`, from 2,000 bootstrap samples of the points: what a figure shades.
///
/// # Errors
/// As [`fit`].
pub fn fit_band(xs: &[f64], ys: &[f64], at: &[f64], seed: Seed) -> Result<Vec<Interval>> {
    Moments::checked(xs, ys)?;
    let fits = bootstrap(xs, ys, seed);
    Ok(at.iter().map(|&x| interval(fits.iter().map(|fit| fit.at(x)).collect())).collect())
}

/// Sums of squares and products about the means; two passes, so that a large mean costs no digits.
struct Moments {
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Moments {
    fn of(points: impl Iterator<Item = (f64, f64)> + Clone, n: usize) -> Self {
        let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
        let (x, y) = (sum_x / n as f64, sum_y / n as f64);
        let zero = Self { x, y, xx: 0.0, xy: 0.0, yy: 0.0 };
        points.fold(zero, |sum, (px, py)| {
            let (dx, dy) = (px - x, py - y);
            Self { xx: sum.xx + dx * dx, xy: sum.xy + dx * dy, yy: sum.yy + dy * dy, ..sum }
        })
    }

    fn checked(xs: &[f64], ys: &[f64]) -> Result<Self> {
        if xs.len() != ys.len() {
            return Err(Error::mismatch("fit: ys", format!("{} numbers, one for each of xs", xs.len()), ys.len()));
        }
        if xs.len() < 3 {
            return Err(Error::mismatch("fit", "at least 3 points", xs.len()));
        }
        for (name, values) in [("xs", xs), ("ys", ys)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(Error::mismatch(format!("fit: {name}[{at}]"), "a finite number", values[at]));
            }
            if values.iter().all(|&value| value == values[0]) {
                return Err(Error::mismatch(
                    format!("fit: {name}"),
                    "numbers that differ",
                    format!("{} times {}", values.len(), values[0]),
                ));
            }
        }
        Ok(Self::of(xs.iter().copied().zip(ys.iter().copied()), xs.len()))
    }

    fn pearson(&self) -> f64 {
        (self.xy / (self.xx.sqrt() * self.yy.sqrt())).clamp(-1.0, 1.0)
    }

    fn fit(&self, n: usize) -> Fit {
        let slope = self.xy / self.xx;
        Fit { slope, intercept: self.y - slope * self.x, r2: self.pearson().powi(2), n }
    }
}

/// Lines through as many points drawn with replacement. Samples whose x or y do not vary have no R² and are drawn again.
fn bootstrap(xs: &[f64], ys: &[f64], seed: Seed) -> Vec<Fit> {
    const SAMPLES: usize = 2_000;
    let mut rng = seed.named("bootstrap").rng();
    let mut fits = Vec::with_capacity(SAMPLES);
    let mut drawn = vec![0; xs.len()];
    while fits.len() < SAMPLES {
        drawn.fill_with(|| rng.below(xs.len()));
        let varies = |values: &[f64]| drawn.iter().any(|&i| values[i] != values[drawn[0]]);
        if varies(xs) && varies(ys) {
            fits.push(Moments::of(drawn.iter().map(|&i| (xs[i], ys[i])), drawn.len()).fit(drawn.len()));
        }
    }
    fits
}

fn interval(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[(part * (values.len() - 1) as f64).round() as usize];
    Interval { low: at(0.025), high: at(0.975) }
}

/// Positions in sorted order, counted from 1; equal values get the mean of their positions.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        before += equal.len();
    }
    ranks
}

/// The pairs whose members are both finite.
pub(crate) fn finite(xs: &[f64], ys: &[f64]) -> (Vec<f64>, Vec<f64>) {
    xs.iter().copied().zip(ys.iter().copied()).filter(|(x, y)| x.is_finite() && y.is_finite()).unzip()
}
