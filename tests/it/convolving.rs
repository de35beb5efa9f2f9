//! Convolutions of any sizes, by each of their ways: the numbers of plain loops and of candle, and the gradient of their output.

use lab::kernels::{self, Conv, composed};

use crate::differentiating::{Op, check_gradient, check_twins, distance, fill, numbers};

/// Input, weight and settings of convolutions that have gone wrong somewhere, sometime.
pub(crate) fn convolutions() -> Vec<([usize; 4], [usize; 4], Conv)> {
    let conv = Conv::default();
    vec![
        ([2, 3, 5, 5], [4, 3, 3, 3], Conv { padding: (1, 1), ..conv }),
        ([1, 2, 7, 5], [3, 2, 3, 2], conv),
        ([2, 2, 5, 6], [3, 2, 2, 2], Conv { stride: (2, 2), ..conv }),
        ([2, 2, 7, 8], [2, 2, 3, 3], Conv { stride: (2, 3), padding: (1, 0), ..conv }),
        ([2, 2, 7, 7], [3, 2, 1, 1], Conv { stride: (3, 3), ..conv }),
        ([2, 2, 5, 5], [2, 2, 1, 1], Conv { padding: (2, 1), ..conv }),
        ([3, 4, 5, 3], [5, 4, 1, 1], conv),
        ([5, 2, 1, 1], [3, 2, 3, 3], Conv { padding: (1, 1), ..conv }),
        ([4, 3, 1, 1], [2, 3, 1, 1], conv),
        ([3, 2, 1, 16], [3, 2, 1, 3], Conv { padding: (0, 1), ..conv }),
        ([1, 5, 4, 4], [2, 5, 1, 1], conv),
        ([1, 2, 3, 3], [2, 2, 2, 2], Conv { padding: (3, 4), ..conv }),
        ([1, 2, 7, 9], [2, 2, 3, 3], Conv { dilation: (2, 3), padding: (2, 1), ..conv }),
        ([2, 2, 7, 7], [2, 2, 2, 3], Conv { dilation: (3, 1), stride: (2, 2), ..conv }),
        ([2, 4, 5, 5], [6, 2, 3, 3], Conv { groups: 2, padding: (1, 1), ..conv }),
        ([2, 6, 5, 5], [3, 2, 3, 3], Conv { groups: 3, stride: (2, 1), ..conv }),
        ([2, 3, 5, 5], [3, 1, 3, 3], Conv { groups: 3, padding: (1, 1), ..conv }),
        ([2, 3, 7, 5], [6, 1, 3, 2], Conv { groups: 3, stride: (2, 3), padding: (2, 1), dilation: (1, 2) }),
        ([1, 3, 4, 4], [3, 1, 1, 1], Conv { groups: 3, ..conv }),
    ]
}

#[test]
fn convolution_has_the_gradient_of_its_output() {
    for (xs, weight, conv) in convolutions() {
        let name = format!("{conv:?}");
        check_gradient(&name, &[&xs, &weight, &weight[..1]], |t| kernels::conv2d(&t[0], &t[1], Some(&t[2]), &conv));
        check_gradient(&name, &[&xs, &weight], |t| kernels::conv2d(&t[0], &t[1], None, &conv));
    }
}

#[test]
fn convolution_agrees_with_plain_loops() {
    for (xs_dims, weight_dims, conv) in convolutions() {
        let (xs, weight) = (fill(1, &xs_dims), fill(2, &weight_dims));
        let ys = kernels::conv2d(&xs, &weight, None, &conv).unwrap();
        let (_, _, oh, ow) = ys.dims4().unwrap();
        let ([n, c, h, w], [o, c_group, kh, kw]) = (xs_dims, weight_dims);
        let (xs, weight) = (numbers(&xs), numbers(&weight));
        let mut want = Vec::new();
        for (sample, filter) in (0..n).flat_map(|sample| (0..o).map(move |filter| (sample, filter))) {
            let first = filter / (o / conv.groups) * c_group;
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let mut sum = 0.0;
                for (channel, ki, kj) in (0..c_group).flat_map(|c| (0..kh * kw).map(move |tap| (c, tap / kw, tap % kw))) {
                    let y = (oy * conv.stride.0 + ki * conv.dilation.0).wrapping_sub(conv.padding.0);
                    let x = (ox * conv.stride.1 + kj * conv.dilation.1).wrapping_sub(conv.padding.1);
                    if y < h && x < w {
                        sum += xs[((sample * c + first + channel) * h + y) * w + x]
                            * weight[((filter * c_group + channel) * kh + ki) * kw + kj];
                    }
                }
                want.push(sum);
            }
        }
        assert!(distance(&numbers(&ys), &want) < 1e-12, "{conv:?} of {xs_dims:?}");
    }
}

/// Sizes at which the output falls into several tiles, or several pictures into one, with and without remainders.
#[test]
fn large_convolutions_agree_with_candles_own() {
    let conv = Conv { padding: (1, 1), ..Conv::default() };
    for (xs, weight, conv) in [
        ([2, 64, 20, 19], [5, 64, 3, 3], conv),
        ([2, 64, 21, 20], [5, 64, 3, 3], Conv { stride: (2, 2), ..conv }),
        ([20, 64, 4, 4], [7, 64, 3, 3], conv),
        ([35, 40, 5, 4], [7, 40, 3, 3], Conv { stride: (2, 2), ..conv }),
        ([130, 9, 1, 1], [7, 9, 1, 1], Conv::default()),
        ([3, 130, 12, 12], [260, 130, 1, 1], Conv::default()),
        ([2, 64, 20, 20], [64, 32, 3, 3], Conv { groups: 2, ..conv }),
        ([3, 9, 7, 7], [12, 9, 1, 1], Conv::default()),
        ([3, 9, 8, 8], [14, 9, 1, 1], Conv::default()),
        // So many positions that the gradient of the filter is summed block after block.
        ([2, 2, 100, 100], [3, 2, 3, 3], conv),
        ([300, 3, 8, 8], [4, 3, 1, 1], Conv::default()),
        // Depthwise: large pictures, then small ones in more channels than a vector has lanes.
        ([3, 33, 30, 31], [33, 1, 3, 3], Conv { groups: 33, ..conv }),
        ([2, 3, 41, 40], [6, 1, 5, 3], Conv { groups: 3, stride: (2, 1), padding: (2, 1), dilation: (1, 2) }),
        ([3, 35, 7, 6], [70, 1, 3, 3], Conv { groups: 35, stride: (2, 2), ..conv }),
        ([2, 17, 2, 2], [17, 1, 5, 5], Conv { groups: 17, padding: (2, 2), ..conv }),
        // By Winograd's tiles of 4×4: with remainders of rows, columns, tiles and channels, any padding, few tiles and many.
        ([2, 64, 20, 19], [24, 64, 3, 3], conv),
        ([3, 9, 7, 5], [17, 9, 3, 3], conv),
        ([1, 8, 9, 37], [8, 8, 3, 3], Conv::default()),
        ([2, 16, 6, 6], [9, 16, 3, 3], Conv { padding: (2, 2), ..conv }),
        ([5, 8, 6, 7], [8, 8, 3, 3], Conv { padding: (0, 1), ..conv }),
        ([70, 40, 4, 4], [48, 40, 3, 3], conv),
        ([3, 130, 4, 4], [140, 130, 3, 3], conv),
        ([2, 24, 9, 8], [36, 8, 3, 3], Conv { groups: 3, ..conv }),
    ] {
        let ours: Op<'_> = &|t| kernels::conv2d(&t[0], &t[1], Some(&t[2]), &conv);
        check_twins("conv2d", &[&xs, &weight, &weight[..1]], ours, &|t| composed::conv2d(&t[0], &t[1], Some(&t[2]), &conv));
    }
}
