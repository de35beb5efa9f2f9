//! What the theory of NN-Mass expects of a layer: the singular values of a matrix of standard normal numbers.
//!
//! Bhardwaj, Li & Marculescu, CVPR 2021, arXiv:1910.00780: a layer of width `w` in a network of mass `m` behaves as such a matrix of `w` rows
//! and `w + m/2` columns, `m/2` being the mean number of links of a unit; its mean singular value grows with the mass. What it tends to in
//! large matrices is the law of Marchenko & Pastur (Mathematics of the USSR-Sbornik 1, 1967); the bounds are those of Davidson & Szarek
//! ("Local operator theory, random matrices and Banach spaces", 2001).
//!
//! PyTorch's initial weights have the variance `1/(3·columns)` instead: divide by the root of `3·columns`, and little of the growth is left.

use datasets::Seed;
use rayon::prelude::*;
use serde::Serialize;

use crate::{Error, Result, Table, spectrum};

/// The mean singular value of large matrices of standard normal numbers, from the law of Marchenko and Pastur: within 0.05 of that of
/// matrices with 8 rows, at most `rms`.
///
/// ```
/// let mean = lab::metrics::gaussian::mean(64.0, 64.0);
/// assert!((mean - 8.0 * 8.0 / (3.0 * std::f64::consts::PI)).abs() < 1e-5);
/// ```
pub fn mean(rows: f64, columns: f64) -> f64 {
    /// Of the middle rule, for a function that is smooth around the circle (but for square matrices).
    const STEPS: usize = 2048;
    let (ratio, angle) = (rows.min(columns) / rows.max(columns), |step: usize| std::f64::consts::PI * (step as f64 + 0.5) / STEPS as f64);
    // Eigenvalues of A Aᵀ / columns, as 1 + y + 2√y cos θ: in θ the density is 2/π sin² θ divided by them.
    let root = |angle: f64| angle.sin().powi(2) / (1.0 + ratio + 2.0 * ratio.sqrt() * angle.cos()).sqrt();
    rows.max(columns).sqrt() * 2.0 / STEPS as f64 * (0..STEPS).map(|step| root(angle(step))).sum::<f64>()
}

/// The root of the mean of the squared singular values that is expected: exact for any size.
pub fn rms(rows: f64, columns: f64) -> f64 {
    rows.max(columns).sqrt()
}

/// Below the smallest singular value that is expected, and above the largest.
pub fn bounds(rows: f64, columns: f64) -> (f64, f64) {
    ((columns.sqrt() - rows.sqrt()).abs(), columns.sqrt() + rows.sqrt())
}

/// The singular values of one matrix `(rows, columns)` of standard normal numbers, largest first.
pub fn draw(rows: usize, columns: usize, seed: Seed) -> Vec<f64> {
    let mut rng = seed.rng();
    let numbers: Vec<f64> = (0..rows * columns).map(|_| rng.normal()).collect();
    spectrum::singular_values(&numbers, rows, columns)
}

/// Theory and simulation side by side, for each width `w` and mass `m`: of matrices of `w` rows and `w + ⌊m/2⌋` columns.
///
/// Columns: `width`; `nn_mass`; `columns`; `mean`, `rms`, `low` and `high` as [`mean`], [`rms`] and [`bounds`] have them; `drawn_mean`,
/// `drawn_min` and `drawn_max`, each the mean over `draws` matrices of that of a matrix.
///
/// # Errors
/// When a width or `draws` is 0, or a mass negative.
pub fn curves(widths: &[usize], masses: &[f64], draws: usize, seed: Seed) -> Result<Table> {
    #[derive(Serialize)]
    struct Row {
        width: usize,
        nn_mass: f64,
        columns: usize,
        mean: f64,
        rms: f64,
        low: f64,
        high: f64,
        drawn_mean: f64,
        drawn_min: f64,
        drawn_max: f64,
    }
    if draws == 0 || widths.contains(&0) {
        return Err(Error::mismatch("gaussian: widths and draws", "at least 1", 0));
    }
    if let Some(mass) = masses.iter().find(|mass| !(**mass >= 0.0 && mass.is_finite())) {
        return Err(Error::mismatch("gaussian: nn_mass", "a number from 0 on", mass));
    }
    let row = |(at, (width, nn_mass)): (usize, (usize, f64))| {
        let columns = width + (nn_mass / 2.0) as usize;
        let (w, c) = (width as f64, columns as f64);
        let drawn: Vec<Vec<f64>> = (0..draws as u64).map(|draw| self::draw(width, columns, seed.at(at as u64).at(draw))).collect();
        let over = |of: &dyn Fn(&[f64]) -> f64| drawn.iter().map(|values| of(values)).sum::<f64>() / draws as f64;
        let (low, high) = bounds(w, c);
        Row {
            width,
            nn_mass,
            columns,
            mean: mean(w, c),
            rms: rms(w, c),
            low,
            high,
            drawn_mean: over(&|values| values.iter().sum::<f64>() / w),
            drawn_min: over(&|values| values[width - 1]),
            drawn_max: over(&|values| values[0]),
        }
    };
    let cells: Vec<(usize, f64)> = widths.iter().flat_map(|&width| masses.iter().map(move |&mass| (width, mass))).collect();
    Table::from_rows(&cells.into_par_iter().enumerate().map(row).collect::<Vec<_>>())
}
