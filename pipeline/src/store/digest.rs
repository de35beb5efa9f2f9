//! SHA-256 of many messages, two of them side by side.
//!
//! Processors have instructions for the rounds of SHA-256, and can begin one of them every two cycles; but a round needs what the one before it
//! gave, and that takes four. One message alone leaves the half of that unit idle, which a second one fills.

use sha2::{Digest, Sha256};

/// The SHA-256 of each of some messages. A message is given as its first few bytes, at most as many as a block has, and the others.
pub(super) fn sha256(messages: &[(&[u8], &[u8])]) -> Vec<[u8; 32]> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") {
        #[expect(unsafe_code, reason = "the compiler cannot know on which processor this will run")]
        // SAFETY: this processor has what the function was compiled for.
        return unsafe { wide::sha256(messages) };
    }
    messages.iter().map(|(head, rest)| Sha256::new().chain_update(head).chain_update(rest).finalize().into()).collect()
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128, _mm_sha256msg1_epu32,
        _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    type Block = [u8; 64];
    type State = [u32; 8];

    /// What a state begins as: of the square roots of the first primes, the first 32 bits behind the point (FIPS 180-4, 5.3.3).
    const INITIAL: State = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

    /// A constant for each round: the same of their cube roots (FIPS 180-4, 4.2.2).
    #[rustfmt::skip]
    const ROUNDS: [i32; 64] = bits([
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]);

    const fn bits(words: [u32; 64]) -> [i32; 64] {
        let mut bits = [0; 64];
        let mut at = 0;
        while at < 64 {
            bits[at] = words[at].cast_signed();
            at += 1;
        }
        bits
    }

    /// As the function of this name outside.
    #[target_feature(enable = "sha,sse4.1")]
    pub(super) fn sha256(messages: &[(&[u8], &[u8])]) -> Vec<[u8; 32]> {
        let padded: Vec<Padded<'_>> = messages.iter().map(|(head, rest)| Padded::new(head, rest)).collect();
        let mut states = vec![INITIAL; padded.len()];
        side_by_side(padded.iter().zip(&mut states).map(|(padded, state)| Lane { state, now: &[], next: padded.stretches().into_iter() }));
        states.iter().map(|state| std::array::from_fn(|at| state[at / 4].to_be_bytes()[at % 4])).collect()
    }

    /// Takes all messages to their ends, two at a time.
    #[target_feature(enable = "sha,sse4.1")]
    fn side_by_side<'a>(mut coming: impl Iterator<Item = Lane<'a>>) {
        let mut lanes = [coming.next(), coming.next()];
        loop {
            for lane in &mut lanes {
                while lane.as_mut().is_some_and(Lane::is_done) {
                    *lane = coming.next();
                }
            }
            match &mut lanes {
                [Some(one), Some(other)] => {
                    let len = one.now.len().min(other.now.len());
                    let blocks = [one.take(len), other.take(len)];
                    compress([one.state, other.state], blocks);
                }
                [Some(lane), None] | [None, Some(lane)] => {
                    let blocks = [lane.take(lane.now.len())];
                    compress([lane.state], blocks);
                }
                [None, None] => return,
            }
        }
    }

    /// The blocks of a message. Those in its middle stay where they are.
    struct Padded<'a> {
        /// The first, if it is not one of the last, and the one or two last: with the mark of the end, and the length in bits.
        ends: [Block; 3],
        first: usize,
        last: usize,
        middle: &'a [Block],
    }

    impl<'a> Padded<'a> {
        fn new(head: &[u8], rest: &'a [u8]) -> Self {
            let bits = 8 * (head.len() + rest.len()) as u64;
            let (start, rest) = rest.split_at(rest.len().min(64 - head.len()));
            let (middle, left) = rest.as_chunks();
            let mut ends = [[0; 64]; 3];
            let bytes = ends.as_flattened_mut();
            let mut end = 0;
            for part in [head, start, left, &[0x80]] {
                bytes[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            let len = (end + 8).next_multiple_of(64);
            bytes[len - 8..len].copy_from_slice(&bits.to_be_bytes());
            Self { ends, first: usize::from(head.len() + start.len() == 64), last: len / 64, middle }
        }

        fn stretches(&self) -> [&[Block]; 3] {
            [&self.ends[..self.first], self.middle, &self.ends[self.first..self.last]]
        }
    }

    /// One message on its way.
    struct Lane<'a> {
        state: &'a mut State,
        now: &'a [Block],
        next: std::array::IntoIter<&'a [Block], 3>,
    }

    impl<'a> Lane<'a> {
        /// Whether no block is left; if one is, there is one in `now`.
        fn is_done(&mut self) -> bool {
            while self.now.is_empty() {
                let Some(next) = self.next.next() else { return true };
                self.now = next;
            }
            false
        }

        fn take(&mut self, len: usize) -> &'a [Block] {
            let (taken, left) = self.now.split_at(len);
            self.now = left;
            taken
        }
    }

    /// A state as the instructions want it, and the four times four words that are the next to go into it.
    #[derive(Clone, Copy)]
    struct Work {
        abef: __m128i,
        cdgh: __m128i,
        words: [__m128i; 4],
    }

    /// Takes each state through its blocks, all of which are equally many.
    #[target_feature(enable = "sha,sse4.1")]
    fn compress<const N: usize>(states: [&mut State; N], blocks: [&[Block]; N]) {
        let zero = _mm_setzero_si128();
        let mut work = [Work { abef: zero, cdgh: zero, words: [zero; 4] }; N];
        for (work, state) in work.iter_mut().zip(&states) {
            let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
            (work.abef, work.cdgh) = (_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h));
        }
        for at in 0..blocks[0].len() {
            let before = work;
            for (work, blocks) in work.iter_mut().zip(&blocks) {
                work.words = words(&blocks[at]);
            }
            for sixteen in 0..4 {
                for four in 0..4 {
                    let [k0, k1, k2, k3] = *ROUNDS[16 * sixteen + 4 * four..].first_chunk().expect("4 of 64");
                    for work in &mut work {
                        work.rounds(four, _mm_set_epi32(k3, k2, k1, k0));
                    }
                    if sixteen < 3 {
                        for work in &mut work {
                            work.schedule(four);
                        }
                    }
                }
            }
            for (work, before) in work.iter_mut().zip(&before) {
                work.abef = _mm_add_epi32(work.abef, before.abef);
                work.cdgh = _mm_add_epi32(work.cdgh, before.cdgh);
            }
        }
        for (work, state) in work.iter().zip(states) {
            let Work { abef, cdgh, .. } = *work;
            let [a, b] = [_mm_extract_epi32::<3>(abef), _mm_extract_epi32::<2>(abef)];
            let [c, d] = [_mm_extract_epi32::<3>(cdgh), _mm_extract_epi32::<2>(cdgh)];
            let [e, f] = [_mm_extract_epi32::<1>(abef), _mm_extract_epi32::<0>(abef)];
            let [g, h] = [_mm_extract_epi32::<1>(cdgh), _mm_extract_epi32::<0>(cdgh)];
            *state = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
        }
    }

    impl Work {
        /// Four rounds, with the words of number `four` and these constants.
        #[inline]
        #[target_feature(enable = "sha,sse4.1")]
        fn rounds(&mut self, four: usize, constants: __m128i) {
            let sum = _mm_add_epi32(self.words[four], constants);
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sum);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, _mm_shuffle_epi32::<0b1110>(sum));
        }

        /// Makes of the words of number `four` those that come 16 rounds later.
        #[inline]
        #[target_feature(enable = "sha,sse4.1")]
        fn schedule(&mut self, four: usize) {
            let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|later| self.words[(four + later) % 4]);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
            self.words[four] = _mm_sha256msg2_epu32(sum, w3);
        }
    }

    /// The 16 words of a block; in a message their most significant byte comes first.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn words(block: &Block) -> [__m128i; 4] {
        let turned = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [_mm_setzero_si128(); 4];
        for (words, bytes) in words.iter_mut().zip(block.as_chunks::<8>().0.as_chunks::<2>().0) {
            let [low, high] = bytes.map(i64::from_le_bytes);
            *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), turned);
        }
        words
    }
}
