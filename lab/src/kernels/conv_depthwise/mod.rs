//! Depthwise convolution: each channel has filters of its own, so there is no matrix to multiply, only shifted pictures to add.
//!
//! Vectors run along a picture where it is large ([`field`]), and across channels where it is small ([`lanes`]).

mod field;
mod lanes;

use super::conv::Geometry;
use super::real::Real;

/// Whether channels lie side by side: where a picture that goes out is small, and what is laid out for a vector of channels stays in a
/// near cache.
pub(super) fn small(g: &Geometry) -> bool {
    g.area_out() <= 1 << 8 && g.o_group * g.area_in().max(g.area_out()).max(g.taps()) <= 1 << 11
}

/// `ys (n, o, oh, ow)`.
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    if small(g) { lanes::forward(g, xs, weight, bias, ys) } else { field::forward(g, xs, weight, bias, ys) }
}

/// The gradient of the input `(n, c, h, w)`.
pub(super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T], dxs: &mut [T]) {
    if small(g) { lanes::backward_data(g, grad, weight, dxs) } else { field::backward_data(g, grad, weight, dxs) }
}

/// The gradient of the weight `(o, 1, kh, kw)`.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    if small(g) { lanes::backward_filter(g, grad, xs, dweight) } else { field::backward_filter(g, grad, xs, dweight) }
}
