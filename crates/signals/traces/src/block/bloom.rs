//! The sharded Bloom filter over trace ids.
//!
//! ```text
//! shard of an id = fnv1-32(id) % shards
//! bloom-<shard>  = m u64 BE | k u64 BE | bits u64 BE (= m) | words u64 BE, bit i at word i / 64, 1 << i % 64
//! hashes         = h0,h1 = murmur3-128(id); h2,h3 = murmur3-128(id ++ [1])
//! i-th bit       = (h[i % 2] + i * h[2 + ((i + i % 2) % 4) / 2]) mod m
//! ```
//! Sources: Tempo `tempodb/encoding/common/bloom.go`, bits-and-blooms/bloom v3.

use triptych_model::{Error, Result};

/// Bytes of one shard (Tempo's default; tuned for caches).
pub const SHARD_BYTES: usize = 100 * 1024;
pub const FALSE_POSITIVE_RATE: f64 = 0.01;
const SHARDS_MAX: usize = 1000;
/// Most bits a filter may claim; ours have 819,200, older blocks up to 8 Mi.
const BITS_MAX: u64 = 1 << 30;
const HEADER_BYTES: usize = 24;

fn murmur3_128(data: &[u8]) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let fmix = |mut k: u64| {
        k ^= k >> 33;
        k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
        k ^= k >> 33;
        k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ k >> 33
    };
    let (mut h1, mut h2) = (0u64, 0u64);
    let (blocks, tail) = data.as_chunks::<16>();
    for block in blocks {
        let word = u128::from_le_bytes(*block);
        h1 ^= mix1(word as u64);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2((word >> 64) as u64);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let word = u128::from_le_bytes(last);
    if tail.len() > 8 {
        h2 ^= mix2((word >> 64) as u64);
    }
    if !tail.is_empty() {
        h1 ^= mix1(word as u64);
    }
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = fmix(h1);
    h2 = fmix(h2);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2)
}

fn locations(id: &[u8; 16], m: u64, k: u64) -> impl Iterator<Item = u64> {
    let mut longer = [1; 17];
    longer[..16].copy_from_slice(id);
    let ((h0, h1), (h2, h3)) = (murmur3_128(id), murmur3_128(&longer));
    let h = [h0, h1, h2, h3];
    (0..k).map(move |i| {
        let step = h[2 + (((i + i % 2) % 4) / 2) as usize];
        h[(i % 2) as usize].wrapping_add(i.wrapping_mul(step)) % m
    })
}

/// Which shard an id belongs to. `shards` 0 means the 10 of the first blocks ever.
pub fn shard_of(id: &[u8; 16], shards: u32) -> usize {
    let hash = id.iter().fold(2_166_136_261u32, |h, b| h.wrapping_mul(16_777_619) ^ u32::from(*b));
    (hash % if shards == 0 { 10 } else { shards }) as usize
}

/// Builds the filter over all ids of a block; one file per shard.
pub fn build(ids: &[[u8; 16]]) -> Vec<Vec<u8>> {
    let n = ids.len().max(1) as f64;
    let bits_wanted = (-n * FALSE_POSITIVE_RATE.ln() / 2f64.ln().powi(2)).ceil();
    let k = (2f64.ln() * bits_wanted / n).ceil() as u64;
    let shards = ((bits_wanted / (SHARD_BYTES as f64 * 8.0)).ceil() as usize).clamp(1, SHARDS_MAX);
    let m = SHARD_BYTES as u64 * 8;
    let mut words = vec![vec![0u64; SHARD_BYTES / 8]; shards];
    for id in ids {
        let shard = &mut words[shard_of(id, shards as u32)];
        for bit in locations(id, m, k) {
            shard[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
    words
        .into_iter()
        .map(|words| {
            let mut out = Vec::with_capacity(HEADER_BYTES + SHARD_BYTES);
            for header in [m, k, m] {
                out.extend_from_slice(&header.to_be_bytes());
            }
            words.iter().for_each(|w| out.extend_from_slice(&w.to_be_bytes()));
            out
        })
        .collect()
}

/// Whether a shard's file says that the id may be there.
pub fn test(file: &[u8], id: &[u8; 16]) -> Result<bool> {
    let damaged = || Error::damaged("bloom filter: header does not fit its length");
    let (header, words) = file.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
    let numbers: Vec<u64> = header.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
    let &[m, k, bits] = numbers.as_slice() else {
        return Err(damaged());
    };
    if m == 0 || m > BITS_MAX || k == 0 || k > 64 || bits < m || (words.len() as u64) < m.div_ceil(64) * 8 {
        return Err(damaged());
    }
    let words = words.as_chunks::<8>().0;
    Ok(locations(id, m, k).all(|bit| {
        let word = u64::from_be_bytes(words[(bit / 64) as usize]);
        word & (1 << (bit % 64)) != 0
    }))
}

#[cfg(test)]
mod tests;
