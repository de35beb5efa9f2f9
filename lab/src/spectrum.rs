//! Eigenvalues of small symmetric matrices and singular values of small matrices, in `f64`.
//!
//! A symmetric matrix is made tridiagonal by reflections (Householder 1958), and its diagonal then grows alone by shifted rotations (the QL
//! method with implicit shifts: Martin & Wilkinson, Numerische Mathematik 12, 1968): about 4/3·n³ multiplications, no vectors. Singular
//! values are the roots of the eigenvalues of the smaller of `A Aᵀ` and `Aᵀ A`, so those below 1e-8 of the largest are noise.

/// The `n` eigenvalues of a symmetric matrix `(n, n)`, row after row, largest first, each within rounding of the largest. Of the matrix only
/// the lower half is read.
///
/// ```
/// let values = lab::spectrum::eigenvalues(vec![2.0, 1.0, 1.0, 2.0], 2);
/// assert!((values[0] - 3.0).abs() < 1e-14 && (values[1] - 1.0).abs() < 1e-14);
/// ```
///
/// NaN, all of them, where a number is not finite.
///
/// # Panics
/// When the matrix does not have `n·n` numbers.
pub fn eigenvalues(mut matrix: Vec<f64>, n: usize) -> Vec<f64> {
    assert_eq!(matrix.len(), n * n, "a matrix of {n}×{n}");
    // Among numbers of about 1 no square leaves the range.
    let scale = matrix.iter().fold(0.0, |most: f64, number| if number.is_nan() { f64::INFINITY } else { most.max(number.abs()) });
    if !scale.is_finite() {
        return vec![f64::NAN; n];
    }
    if scale == 0.0 {
        return vec![0.0; n];
    }
    matrix.iter_mut().for_each(|number| *number /= scale);
    let (mut diagonal, mut beside) = tridiagonal(&mut matrix, n);
    diagonalise(&mut diagonal, &mut beside);
    diagonal.sort_by(|a, b| b.total_cmp(a));
    diagonal.into_iter().map(|value| value * scale).collect()
}

/// The singular values of a matrix `(rows, columns)`, row after row: as many as its smaller side, largest first.
///
/// # Panics
/// When the matrix does not have `rows·columns` numbers.
pub fn singular_values(matrix: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    assert_eq!(matrix.len(), rows * columns, "a matrix of {rows}×{columns}");
    if rows <= columns {
        return roots(gram(matrix, rows, columns, &vec![1.0; columns]), rows);
    }
    let turned: Vec<f64> = (0..rows * columns).map(|at| matrix[at % rows * columns + at / rows]).collect();
    roots(gram(&turned, columns, rows, &vec![1.0; rows]), columns)
}

/// `A S² Aᵀ` `(rows, rows)` of a matrix `A (rows, columns)` and the diagonal `scales` of `S`: the lower half, zeros above.
pub(crate) fn gram(matrix: &[f64], rows: usize, columns: usize, scales: &[f64]) -> Vec<f64> {
    let scaled: Vec<f64> = matrix.iter().enumerate().map(|(at, number)| number * scales[at % columns]).collect();
    let mut products = vec![0.0; rows * rows];
    for (i, row) in scaled.chunks_exact(columns).enumerate() {
        for (product, other) in products[i * rows..].iter_mut().zip(scaled.chunks_exact(columns)).take(i + 1) {
            *product = dot(row, other);
        }
    }
    products
}

/// The roots of the eigenvalues of a matrix without negative ones.
pub(crate) fn roots(matrix: Vec<f64>, n: usize) -> Vec<f64> {
    // Rounding may leave a 0 a little below.
    eigenvalues(matrix, n).into_iter().map(|value| if value < 0.0 { 0.0 } else { value.sqrt() }).collect()
}

/// In several sums at once, so that the compiler takes vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_whole, b_whole) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a_whole.remainder().iter().zip(b_whole.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_whole.zip(b_whole) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f64>() + rest
}

/// Diagonal `(n)` and what stands beside it `(n)`, the last 0, of a tridiagonal matrix with the same eigenvalues.
fn tridiagonal(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside, mut product) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    // From the last row up, each is reflected onto its element beside the diagonal: by I − u uᵀ / half, on both sides of the rows before it.
    for last in (1..n).rev() {
        let (before, row) = matrix.split_at_mut(last * n);
        diagonal[last] = row[last];
        let u = &mut row[..last];
        let others = dot(&u[..last - 1], &u[..last - 1]);
        // Rounding beside numbers of about 1. Where the matrix has no rank left, it would be reflected into ever smaller rounding.
        if others <= f64::EPSILON * f64::EPSILON {
            beside[last - 1] = u[last - 1];
            continue;
        }
        let reflected = -(others + u[last - 1] * u[last - 1]).sqrt().copysign(u[last - 1]);
        beside[last - 1] = reflected;
        u[last - 1] -= reflected;
        let half = dot(u, u) / 2.0;
        let product = &mut product[..last];
        product.fill(0.0);
        for (i, row) in before.chunks_exact(n).enumerate() {
            product[i] += dot(&row[..=i], &u[..=i]);
            product[..i].iter_mut().zip(row).for_each(|(product, number)| *product += number * u[i]);
        }
        let along = dot(u, product) / (2.0 * half * half);
        product.iter_mut().zip(&*u).for_each(|(product, u)| *product = *product / half - along * u);
        for (i, row) in before.chunks_exact_mut(n).enumerate() {
            for (number, (u_j, product_j)) in row[..=i].iter_mut().zip(u.iter().zip(&*product)) {
                *number -= u[i] * product_j + product[i] * u_j;
            }
        }
    }
    if n > 0 {
        diagonal[0] = matrix[0];
    }
    (diagonal, beside)
}

/// Turns what stands beside the diagonal to 0, so that the diagonal becomes the eigenvalues.
fn diagonalise(diagonal: &mut [f64], beside: &mut [f64]) {
    let n = diagonal.len();
    // What is lost in rounding beside the largest number: nothing smaller could be turned to 0 for certain.
    let nothing = diagonal.iter().chain(&*beside).fold(0.0, |most: f64, number| most.max(number.abs())) * f64::EPSILON;
    for first in 0..n {
        loop {
            let last = (first..n - 1).find(|&i| beside[i].abs() <= nothing).unwrap_or(n - 1);
            if last == first {
                break;
            }
            // The shift is the eigenvalue of the first two rows that is nearer to the first.
            let slope = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
            let mut g = diagonal[last] - diagonal[first] + beside[first] / (slope + slope.hypot(1.0).copysign(slope));
            let (mut sin, mut cos, mut moved) = (1.0, 1.0, 0.0);
            let mut chased = true;
            for i in (first..last).rev() {
                let (f, b) = (sin * beside[i], cos * beside[i]);
                let r = (f * f + g * g).sqrt();
                beside[i + 1] = r;
                if r == 0.0 {
                    // The block falls apart here.
                    diagonal[i + 1] -= moved;
                    chased = false;
                    break;
                }
                (sin, cos) = (f / r, g / r);
                g = diagonal[i + 1] - moved;
                let turned = (diagonal[i] - g) * sin + 2.0 * cos * b;
                moved = sin * turned;
                diagonal[i + 1] = g + moved;
                g = cos * turned - b;
            }
            if chased {
                diagonal[first] -= moved;
                beside[first] = g;
            }
            beside[last] = 0.0;
        }
    }
}
