//! Random numbers from one place, so that one seed replays the world.

use std::cell::Cell;

thread_local! {
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// 64 random bits: of the operating system's quality, or what follows from the seed of this thread.
pub fn random_u64() -> u64 {
    SEEDED.with(|seeded| match seeded.get() {
        Some(mut state) => {
            let number = split_mix(&mut state);
            seeded.set(Some(state));
            number
        }
        #[expect(clippy::disallowed_methods, reason = "this is the replacement")]
        None => rand::random(),
    })
}

/// As [`random_u64`], twice as many.
pub fn random_u128() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}

/// From now on the numbers that this thread draws follow from `seed`; `None`: they are random again. For the simulation, which
/// runs a world on one thread.
pub fn seed(seed: Option<u64>) {
    SEEDED.with(|seeded| seeded.set(seed));
}

/// SplitMix64 (Steele, Lea, Flood 2014): the next number of the sequence that `state` stands in.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides() {
        let draw = || [random_u64(), random_u64()];
        seed(Some(1));
        let first = draw();
        seed(Some(1));
        assert_eq!(draw(), first);
        seed(Some(2));
        assert_ne!(draw(), first);
        seed(None);
        assert_ne!(draw(), draw());
    }
}
