//! Memory that goes back and comes again.

use candle::Device;

use super::*;

fn of(len: usize) -> Tensor {
    Tensor::from_vec(fresh::<f32>(len), len, &Device::Cpu).unwrap()
}

#[test]
fn what_was_lent_within_a_loan_is_apart() {
    lend::<f32, _>(5, |outer| {
        outer.fill(1.0);
        lend::<f32, _>(9, |inner| inner.fill(2.0));
        assert_eq!(outer, [1.0; 5]);
    });
    // The thread keeps some of it, whatever it holds; there is as much as was asked for.
    for len in [3, 9, 0, 20] {
        assert_eq!(lend::<f32, _>(len, |numbers| numbers.len()), len);
    }
}

#[test]
fn memory_comes_again_to_one_owner() {
    let mut pool = Pool::default();
    pool.enter(|| {
        let at = |numbers: &[f32]| numbers.as_ptr().addr();
        recycle(of(64)).unwrap();
        let (one, other) = (fresh::<f32>(64), fresh::<f32>(64));
        assert!(one.len() == 64 && other.len() == 64 && at(&one) != at(&other));
    });
    assert_eq!(pool.len(), 0);
    pool.enter(|| recycle(of(64)).unwrap());
    assert_eq!(pool.len(), 64);
    // Somewhat smaller is taken from it, and whole.
    pool.enter(|| assert_eq!(fresh::<f32>(62), vec![0.0; 62]));
    assert_eq!(pool.len(), 0);
}
