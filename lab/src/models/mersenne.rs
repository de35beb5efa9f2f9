//! The numbers of Python's `random` module, for wirings that a published program drew by it.
//!
//! The generator is MT19937 (Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 1998) with its seeding by an array; how a sample
//! is made of its numbers is CPython's rule. Nothing else here should be drawn so: [`datasets::Rng`] is ours.

use std::collections::BTreeSet;

const WORDS: usize = 624;
/// How far apart the words are that are mixed.
const APART: usize = 397;

/// Python's generator.
pub(super) struct Python {
    words: [u32; WORDS],
    next: usize,
}

impl Python {
    /// After `random.seed(key)`, for a `key` of one word.
    pub(super) fn seeded(key: u32) -> Self {
        let mut words = [0; WORDS];
        words[0] = 19_650_218;
        for i in 1..WORDS {
            words[i] = 1_812_433_253_u32.wrapping_mul(before(&words, i)).wrapping_add(i as u32);
        }
        // Of a key that is longer, its words would take turns here.
        let mut at = 1;
        let mut step = |words: &mut [u32; WORDS], factor: u32, plus: &dyn Fn(usize) -> u32| {
            words[at] = (words[at] ^ before(words, at).wrapping_mul(factor)).wrapping_add(plus(at));
            at += 1;
            if at == WORDS {
                (words[0], at) = (words[WORDS - 1], 1);
            }
        };
        for _ in 0..WORDS {
            step(&mut words, 1_664_525, &|_| key);
        }
        for _ in 1..WORDS {
            step(&mut words, 1_566_083_941, &|at| (at as u32).wrapping_neg());
        }
        words[0] = 1 << 31;
        Self { words, next: WORDS }
    }

    /// `random.sample(range(n), k)`: `k` different numbers of `0..n`, in the order drawn.
    pub(super) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        // From here on a set of those drawn is smaller than a list of all.
        let large = 21 + if k > 5 { (0..).map(|i| 4_usize.pow(i)).find(|&power| power >= 3 * k).unwrap_or(usize::MAX) } else { 0 };
        if n <= large {
            let mut pool: Vec<usize> = (0..n).collect();
            let mut draw = || {
                let at = self.below(pool.len());
                pool.swap_remove(at)
            };
            return (0..k).map(|_| draw()).collect();
        }
        let mut drawn = BTreeSet::new();
        std::iter::repeat_with(|| self.below(n)).filter(|&number| drawn.insert(number)).take(k).collect()
    }

    /// Uniform in `0..n`: as many of the highest bits as `n` has, drawn again until they fit.
    fn below(&mut self, n: usize) -> usize {
        let spare = (n as u32).leading_zeros();
        loop {
            let number = (self.bits() >> spare) as usize;
            if number < n {
                return number;
            }
        }
    }

    fn bits(&mut self) -> u32 {
        if self.next == WORDS {
            for i in 0..WORDS {
                let (own, following) = (self.words[i], self.words[(i + 1) % WORDS]);
                let joined = (own & (1 << 31)) | (following & !(1 << 31));
                let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + APART) % WORDS] ^ (joined >> 1) ^ odd;
            }
            self.next = 0;
        }
        let word = self.words[self.next];
        self.next += 1;
        let word = word ^ (word >> 11);
        let word = word ^ ((word << 7) & 0x9d2c_5680);
        let word = word ^ ((word << 15) & 0xefc6_0000);
        word ^ (word >> 18)
    }
}

fn before(words: &[u32; WORDS], at: usize) -> u32 {
    words[at - 1] ^ (words[at - 1] >> 30)
}
