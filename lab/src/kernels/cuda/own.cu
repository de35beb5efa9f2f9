// Kernels of our own: what a card can do, and neither cuDNN nor candle does there. `own.rs` compiles and launches them.
//
// Every loop strides over the whole grid, and sums are of whole numbers: results do not depend on how many threads there are.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EACH(i, len) for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < len; i += gridDim.x * (u64)blockDim.x)

// SplitMix64 as `datasets::Seed` and `Rng` have it, number for number.
#define GAMMA 0x9e3779b97f4a7c15ull

static __device__ u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// kept[i] is 0 with probability p, else 1: whether the first uniform number of part i of the seed is not below p.
extern "C" __global__ void draw(u8* kept, u64 len, u64 seed, double p) {
    EACH(i, len) {
        u64 part = mix(seed + GAMMA + mix(i + GAMMA));
        double uniform = (double)(mix(part + GAMMA) >> 11) * (1.0 / 9007199254740992.0);
        kept[i] = uniform >= p;
    }
}

// The largest numbers, by magnitude: a radix selection, one digit of 8 bits after another, from the highest.
//
// A number's key is its magnitude, as bits, and then its place, so that no two keys are equal. found[0] is the key that is looked for, as
// far as it is settled, with zeros behind; found[1] how many keys are certainly below it.
template <typename T>
static __device__ u64 key(T bits, u64 place) {
    T magnitude = bits << 1; // without the sign; those of floating-point numbers are in order
    return (u64)magnitude << 32 | place;
}

// Adds to bins, of the keys that agree with what is settled, how many have each value of the digit.
template <typename T>
static __device__ void count(const T* numbers, u64 len, u32 digit, const u64* found, u32* bins) {
    __shared__ u32 own[256];
    for (u32 bin = threadIdx.x; bin < 256; bin += blockDim.x) own[bin] = 0;
    __syncthreads();
    EACH(i, len) {
        u64 rest = key(numbers[i], i) >> 8 * digit;
        if (rest >> 8 == found[0] >> 8 * digit >> 8) atomicAdd(&own[rest & 255], 1u);
    }
    __syncthreads();
    for (u32 bin = threadIdx.x; bin < 256; bin += blockDim.x) {
        if (own[bin] > 0) atomicAdd(&bins[bin], own[bin]);
    }
}

// Settles the digit of the key that has so many keys below it, and empties bins. By one thread.
extern "C" __global__ void settle(u64* found, u32* bins, u32 digit, u64 below) {
    u64 value = 0;
    for (; found[1] + bins[value] <= below; value++) found[1] += bins[value];
    found[0] |= value << 8 * digit;
    for (u32 bin = 0; bin < 256; bin++) bins[bin] = 0;
}

// The numbers whose keys are not below what was found, and 0 for the others.
template <typename T>
static __device__ void keep(T* kept, const T* numbers, u64 len, const u64* found) {
    EACH(i, len) kept[i] = key(numbers[i], i) < found[0] ? 0 : numbers[i];
}

#define FOR_BITS(T)                                                                                                    \
    extern "C" __global__ void count_##T(const T* numbers, u64 len, u32 digit, const u64* found, u32* bins) {          \
        count(numbers, len, digit, found, bins);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void keep_##T(T* kept, const T* numbers, u64 len, const u64* found) {                        \
        keep(kept, numbers, len, found);                                                                               \
    }

FOR_BITS(u16)
FOR_BITS(u32)
