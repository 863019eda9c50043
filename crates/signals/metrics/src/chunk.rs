//! The Gorilla XOR chunk, bit for bit as Prometheus writes it (`tsdb/chunkenc/xor.go`; layout in
//! `tsdb/docs/format/chunks.md`).
//!
//! ```text
//! chunk    = number of samples u16 BE | bit stream, filled up with zero bits (a whole spare byte in places)
//! sample 0 = t varint (zigzag) | v 64 bits
//! sample 1 = t - t0 uvarint    | xor(v)
//! sample n = dod               | xor(v)
//! dod      = 0                       delta of deltas is 0
//!          | 10   + 14 bits          -8191 ..= 8192
//!          | 110  + 17 bits          -65535 ..= 65536
//!          | 1110 + 20 bits          -524287 ..= 524288
//!          | 1111 + 64 bits
//! xor      = 0                       same value
//!          | 10 + meaningful bits    in the window (leading, trailing) of the sample before
//!          | 11 + leading 5 bits + length 6 bits (0 means 64) + meaningful bits
//! ```
//! The decoder trusts nothing: torn or impossible bits are `Error::damaged`.

use triptych_model::metrics::{ChunkEncoding, EncodedChunk, Sample};
use triptych_model::{Error, Result};

/// Samples per chunk, Prometheus' `DefaultSamplesPerChunk`.
pub const CHUNK_SAMPLES_MAX: u16 = 120;

/// No window yet.
const NO_WINDOW: u8 = 0xff;

/// Writes one chunk. The bytes are complete after each append.
#[derive(Debug, Clone)]
pub struct XorAppender {
    bytes: Vec<u8>,
    t_ms: i64,
    value: u64,
    delta: u64,
    samples: u16,
    /// Bits still free in the last byte; 8 after whole bytes were put at a byte's border, see `put`.
    free: u8,
    leading: u8,
    trailing: u8,
}

impl Default for XorAppender {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            t_ms: 0,
            value: 0,
            delta: 0,
            samples: 0,
            free: 0,
            leading: NO_WINDOW,
            trailing: 0,
        }
    }
}

impl XorAppender {
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Samples so far.
    pub fn samples(&self) -> u16 {
        self.samples
    }

    /// The last sample; meaningless while empty.
    pub fn last(&self) -> Sample {
        Sample { t_ms: self.t_ms, value: f64::from_bits(self.value) }
    }

    /// The chunk so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Memory held, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the finished chunk out; the appender is empty again.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }

    /// Appends one sample. The caller keeps time ascending and the count below `u16::MAX`.
    #[inline]
    pub fn append(&mut self, t_ms: i64, value: f64) {
        let bits = value.to_bits();
        match self.samples {
            0 => {
                self.bytes.reserve(32);
                self.bytes.extend_from_slice(&[0, 0]);
                self.put_varint(t_ms);
                self.put(bits, 64);
                self.leading = NO_WINDOW;
            }
            1 => {
                self.delta = t_ms.wrapping_sub(self.t_ms) as u64;
                self.put_uvarint(self.delta);
                self.put_xor(bits);
            }
            _ => {
                let delta = t_ms.wrapping_sub(self.t_ms) as u64;
                let dod = delta.wrapping_sub(self.delta) as i64;
                self.delta = delta;
                match dod {
                    0 => self.put(0, 1),
                    -8191..=8192 => self.put(0b10 << 14 | dod as u64 & 0x3fff, 16),
                    -65535..=65536 => self.put(0b110 << 17 | dod as u64 & 0x1_ffff, 20),
                    -524_287..=524_288 => self.put(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
                    _ => {
                        self.put(0b1111, 4);
                        self.put(dod as u64, 64);
                    }
                }
                self.put_xor(bits);
            }
        }
        self.t_ms = t_ms;
        self.value = bits;
        self.samples = self.samples.saturating_add(1);
        if let Some(count) = self.bytes.first_chunk_mut::<2>() {
            *count = self.samples.to_be_bytes();
        }
    }

    #[inline]
    fn put_xor(&mut self, bits: u64) {
        let xor = bits ^ self.value;
        if xor == 0 {
            self.put(0, 1);
            return;
        }
        let leading = (xor.leading_zeros() as u8).min(31);
        let trailing = xor.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            self.put(0b10, 2);
            self.put(xor >> self.trailing, u32::from(64 - self.leading - self.trailing));
        } else {
            self.leading = leading;
            self.trailing = trailing;
            let length = 64 - leading - trailing;
            self.put(0b11 << 11 | u64::from(leading) << 6 | u64::from(length & 63), 13);
            self.put(xor >> trailing, u32::from(length));
        }
    }

    /// Writes the lowest `count` bits, the highest of them first. As in Prometheus, whole bytes at a byte's border are followed
    /// by a spare empty byte, which the next bits use.
    #[inline]
    fn put(&mut self, value: u64, mut count: u32) {
        let mut value = value << (64 - count); // count is 1..=64
        let spare = count.is_multiple_of(8) && matches!(self.free, 0 | 8);
        if self.free > 0 {
            let free = u32::from(self.free);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (value >> (64 - free)) as u8;
            }
            if count < free {
                self.free = (free - count) as u8;
                return;
            }
            value <<= free;
            count -= free;
        }
        let whole = count.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&value.to_be_bytes()[..whole]);
        self.free = (whole as u32 * 8 - count) as u8;
        if spare {
            self.bytes.push(0);
            self.free = 8;
        }
    }

    fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    fn put_varint(&mut self, value: i64) {
        self.put_uvarint((value << 1 ^ value >> 63) as u64);
    }
}

/// Encodes samples in ascending time into one chunk; more than `u16::MAX` samples do not fit, the rest is left out.
pub fn encode(samples: &[Sample]) -> Vec<u8> {
    let mut appender = XorAppender::default();
    for sample in samples.iter().take(usize::from(u16::MAX)) {
        appender.append(sample.t_ms, sample.value);
    }
    if appender.is_empty() { vec![0, 0] } else { appender.take() }
}

/// Samples that the header of an XOR or histogram chunk claims.
pub fn samples_in(data: &[u8]) -> u16 {
    data.first_chunk::<2>().map_or(0, |c| u16::from_be_bytes(*c))
}

/// Appends the samples of an XOR chunk to `out`. On an error nothing is appended.
pub fn decode(data: &[u8], out: &mut Vec<Sample>) -> Result<()> {
    let before = out.len();
    let result = decode_inner(data, out);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

/// Appends the samples of a chunk of any encoding that has float samples.
pub fn decode_chunk(chunk: &EncodedChunk, out: &mut Vec<Sample>) -> Result<()> {
    match chunk.encoding {
        ChunkEncoding::Xor => decode(&chunk.data, out),
        ChunkEncoding::Histogram | ChunkEncoding::FloatHistogram => {
            Err(Error::invalid("chunk holds native histograms, which this version does not evaluate"))
        }
    }
}

fn damaged() -> Error {
    Error::damaged("XOR chunk: torn or impossible bits")
}

fn decode_inner(data: &[u8], out: &mut Vec<Sample>) -> Result<()> {
    let (count, stream) = data.split_first_chunk::<2>().ok_or_else(damaged)?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count == 0 {
        return Ok(());
    }
    // A sample takes two bits at least: a claim cannot make us reserve more than the data allows.
    if count > 2 + stream.len() * 4 {
        return Err(damaged());
    }
    out.reserve(count);
    let mut bits = Bits { data: stream, position: 0 };
    let mut t = bits.varint().ok_or_else(damaged)?;
    let mut value = bits.take(64);
    let (mut leading, mut trailing) = (0u32, 0u32);
    let mut delta = 0u64;
    out.push(Sample { t_ms: t, value: f64::from_bits(value) });
    for i in 1..count {
        if i == 1 {
            delta = bits.uvarint().ok_or_else(damaged)?;
        } else {
            // At most 4 + 20 bits of dod are in the 57 that a peek guarantees.
            let word = bits.peek();
            let size = match word.leading_ones() {
                0 => {
                    bits.position += 1;
                    0
                }
                1 => 14,
                2 => 17,
                3 => 20,
                _ => 64,
            };
            match size {
                0 => {}
                64 => {
                    bits.position += 4;
                    delta = delta.wrapping_add(bits.take(64));
                }
                size => {
                    let prefix = word.leading_ones() + 1;
                    let raw = (word << prefix) >> (64 - size);
                    // Everything above half of the range is negative; half itself is positive, unlike two's complement.
                    let dod = if raw > 1 << (size - 1) { raw.wrapping_sub(1 << size) } else { raw };
                    delta = delta.wrapping_add(dod);
                    bits.position += (prefix + size) as usize;
                }
            }
        }
        t = t.wrapping_add(delta as i64);

        let word = bits.peek();
        if word >> 63 == 0 {
            bits.position += 1;
        } else {
            if word >> 62 & 1 == 1 {
                leading = (word >> 57 & 31) as u32;
                let length = match (word >> 51 & 63) as u32 {
                    0 => 64,
                    n => n,
                };
                trailing = 64u32.checked_sub(leading + length).ok_or_else(damaged)?;
                bits.position += 13;
            } else {
                bits.position += 2;
            }
            value ^= bits.take(64 - leading - trailing) << trailing;
        }
        if bits.position > bits.data.len() * 8 {
            return Err(damaged());
        }
        out.push(Sample { t_ms: t, value: f64::from_bits(value) });
    }
    if bits.position > bits.data.len() * 8 { Err(damaged()) } else { Ok(()) }
}

struct Bits<'a> {
    data: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    /// The next 57 bits at least, from the top; zeros beyond the end (the caller compares the position with the end).
    #[inline]
    fn peek(&self) -> u64 {
        let byte = self.position >> 3;
        let word = match self.data.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => {
                let mut chunk = [0u8; 8];
                let rest = self.data.get(byte..).unwrap_or_default();
                chunk[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(chunk)
            }
        };
        word << (self.position & 7)
    }

    /// 1 to 64 bits.
    #[inline]
    fn take(&mut self, count: u32) -> u64 {
        if count <= 57 {
            let bits = self.peek() >> (64 - count);
            self.position += count as usize;
            return bits;
        }
        let high = self.peek() >> 32;
        self.position += 32;
        let rest = count - 32;
        let low = self.peek() >> (64 - rest);
        self.position += rest as usize;
        high << rest | low
    }

    fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for i in 0..10 {
            if self.position + 8 > self.data.len() * 8 {
                return None;
            }
            let byte = self.take(8);
            if i == 9 && byte > 1 {
                return None;
            }
            value |= (byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn varint(&mut self) -> Option<i64> {
        let raw = self.uvarint()?;
        Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

#[cfg(test)]
mod tests;
