//! Random numbers that are the same on every machine, in every version of this crate, for ever.
//!
//! The generator is SplitMix64 (Steele, Lea & Flood 2014): a counter and a mixing function. Its `n`-th number is a
//! function of `(seed, n)`, which is what lets a batch, a weight or a wiring be named by a seed and an index.

/// Names a stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of the part called `name`: streams of different names are independent.
    pub fn named(self, name: &str) -> Self {
        // FNV-1a, then mixed with the seed: names are few and short, so collisions are not a concern.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self(mix(self.0 ^ mix(hash)))
    }

    /// The seed of part `index`: an epoch, a sample, a repetition.
    pub fn at(self, index: u64) -> Self {
        Self(mix(self.0.wrapping_add(GAMMA).wrapping_add(mix(index.wrapping_add(GAMMA)))))
    }

    /// The numbers of this stream, from the first.
    pub fn rng(self) -> Rng {
        Rng { state: self.0 }
    }
}

/// A stream of random numbers; made by [`Seed::rng`].
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// Uniform in `0.0..1.0`, 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n`, without bias (Lemire 2019).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "no number is below 0");
        let n = n as u64;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= n.wrapping_neg() % n {
                return (product >> 64) as usize;
            }
        }
    }

    /// `true` with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// From the normal distribution with mean 0 and variance 1 (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// From the Beta distribution with both parameters `alpha`, in `0.0..=1.0` (Jöhnk 1964).
    pub fn beta(&mut self, alpha: f64) -> f64 {
        loop {
            let (x, y) = (self.uniform().powf(1.0 / alpha), self.uniform().powf(1.0 / alpha));
            // Of a very small `alpha`, both may be too small to be told from 0.
            if x + y <= 1.0 && x + y > 0.0 {
                return x / (x + y);
            }
        }
    }

    /// Puts `items` in random order (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// `k` different numbers of `0..n`, in the order drawn.
    ///
    /// # Panics
    /// When `k` is larger than `n`.
    pub fn choose(&mut self, n: usize, k: usize) -> Vec<usize> {
        assert!(k <= n, "cannot choose {k} different numbers of {n}");
        let mut pool: Vec<usize> = (0..n).collect();
        for i in 0..k {
            let j = i + self.below(n - i);
            pool.swap(i, j);
        }
        pool.truncate(k);
        pool
    }
}
