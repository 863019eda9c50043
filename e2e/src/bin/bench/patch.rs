//! Bodies that are encoded once and sent many times: protobuf with *holes*, places of a fixed length whose bytes change with
//! each sending, and a snappy encoder that leaves holes uncompressed, so that they can be written in the compressed body.

/// Writes protobuf and notes where holes are.
#[derive(Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    /// Position and length.
    pub holes: Vec<(usize, usize)>,
}

impl Body {
    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn tag(&mut self, field: u32, wire_type: u32) {
        self.uvarint(u64::from(field << 3 | wire_type));
    }

    pub fn text(&mut self, field: u32, text: &str) {
        self.tag(field, 2);
        self.uvarint(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.uvarint(value);
    }

    pub fn hole(&mut self, length: usize) {
        self.holes.push((self.bytes.len(), length));
        self.bytes.resize(self.bytes.len() + length, 0);
    }

    /// A length-delimited field that is one hole.
    pub fn hole_field(&mut self, field: u32, length: usize) {
        self.tag(field, 2);
        self.uvarint(length as u64);
        self.hole(length);
    }

    pub fn message(&mut self, field: u32, inner: Body) {
        self.tag(field, 2);
        self.uvarint(inner.bytes.len() as u64);
        self.append(inner);
    }

    pub fn append(&mut self, inner: Body) {
        let base = self.bytes.len();
        self.bytes.extend_from_slice(&inner.bytes);
        self.holes.extend(inner.holes.iter().map(|(at, length)| (base + at, *length)));
    }
}

/// A request as it goes over the wire, and where its holes are.
pub struct Request {
    pub bytes: Vec<u8>,
    holes: Vec<usize>,
    pub items: u64,
    /// What the items are counted as, before compression.
    pub data_bytes: u64,
}

impl Request {
    pub fn new(path: &str, headers: &[(&str, &str)], body: Body, items: u64, data_bytes: u64) -> Self {
        let mut bytes = crate::http::post_head(path, headers, body.bytes.len());
        let base = bytes.len();
        bytes.extend_from_slice(&body.bytes);
        let holes = body.holes.iter().map(|(at, _)| base + at).collect();
        Self { bytes, holes, items, data_bytes }
    }

    /// Fills hole `index`; `value` has the hole's length.
    #[inline]
    pub fn fill(&mut self, index: usize, value: &[u8]) {
        let at = self.holes[index];
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }
}

/// A varint of exactly `N` bytes, padded with continuation bits.
#[inline]
pub fn padded_varint<const N: usize>(mut value: u64) -> [u8; N] {
    let mut out = [0x80; N];
    for byte in &mut out {
        *byte |= (value & 0x7f) as u8;
        value >>= 7;
    }
    out[N - 1] &= 0x7f;
    out
}

const HASH_BITS: u32 = 14;
const COPY_BYTES_MAX: usize = 64;
const OFFSET_MAX: usize = 65_535;

/// Compresses to snappy's raw format. Bytes of holes are always literals and no copy refers to them.
pub fn snappy(plain: Body) -> Body {
    let bytes = &plain.bytes;
    let mut hole = vec![false; bytes.len()];
    for (at, length) in &plain.holes {
        hole[*at..at + length].fill(true);
    }
    let mut out = Body::default();
    out.uvarint(bytes.len() as u64);
    let mut seen = vec![0_u32; 1 << HASH_BITS];
    let (mut i, mut literal) = (0, 0);
    let mut holes = plain.holes.iter().peekable();
    while i + 4 <= bytes.len() {
        if hole[i..i + 4].contains(&true) {
            i += 1;
            continue;
        }
        let word = u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let slot = (word.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize;
        // Positions are kept one higher, so that 0 means none.
        let candidate = std::mem::replace(&mut seen[slot], i as u32 + 1) as usize;
        let Some(from) = candidate.checked_sub(1).filter(|from| i - from <= OFFSET_MAX) else {
            i += 1;
            continue;
        };
        let mut length = 0;
        while length < COPY_BYTES_MAX
            && i + length < bytes.len()
            && bytes[from + length] == bytes[i + length]
            && !hole[from + length]
            && !hole[i + length]
        {
            length += 1;
        }
        if length < 4 {
            i += 1;
            continue;
        }
        put_literal(&mut out, bytes, literal..i, &mut holes);
        out.bytes.push(((length - 1) << 2) as u8 | 2);
        out.bytes.extend_from_slice(&((i - from) as u16).to_le_bytes());
        i += length;
        literal = i;
    }
    put_literal(&mut out, bytes, literal..bytes.len(), &mut holes);
    out
}

fn put_literal<'h>(
    out: &mut Body,
    bytes: &[u8],
    range: std::ops::Range<usize>,
    holes: &mut std::iter::Peekable<impl Iterator<Item = &'h (usize, usize)>>,
) {
    let Some(last) = range.len().checked_sub(1) else { return };
    match last {
        0..60 => out.bytes.push((last << 2) as u8),
        60..256 => out.bytes.extend_from_slice(&[60 << 2, last as u8]),
        256..65_536 => {
            out.bytes.push(61 << 2);
            out.bytes.extend_from_slice(&(last as u16).to_le_bytes());
        }
        _ => {
            out.bytes.push(63 << 2);
            out.bytes.extend_from_slice(&(last as u32).to_le_bytes());
        }
    }
    let base = out.bytes.len();
    while let Some((at, length)) = holes.next_if(|(at, _)| *at < range.end) {
        out.holes.push((base + at - range.start, *length));
    }
    out.bytes.extend_from_slice(&bytes[range]);
}

/// Numbers that look random, cheaply and the same in every run.
pub struct Random(pub u64);

impl Random {
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }

    /// 16 hexadecimal digits.
    pub fn hex(&mut self) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let value = self.next();
        std::array::from_fn(|i| DIGITS[(value >> (4 * i)) as usize & 15])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_holes_arrive() {
        let mut random = Random(1);
        let mut body = Body::default();
        for i in 0..2000 {
            body.text(1, &format!("a label that comes again and again {}", i % 37));
            let length = 1 + random.below(20) as usize;
            body.hole(length);
        }
        let (mut plain, holes) = (body.bytes.clone(), body.holes.clone());
        let mut packed = snappy(body);
        assert!(packed.bytes.len() < plain.len() * 3 / 4);
        assert_eq!(packed.holes.len(), holes.len());
        for ((at, length), (packed_at, packed_length)) in holes.iter().zip(&packed.holes) {
            assert_eq!(length, packed_length);
            for i in 0..*length {
                let value = random.next() as u8;
                plain[at + i] = value;
                packed.bytes[packed_at + i] = value;
            }
        }
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&packed.bytes).unwrap(), plain);
    }

    #[test]
    fn padded_varints_keep_their_value() {
        assert_eq!(padded_varint::<5>(1), [0x81, 0x80, 0x80, 0x80, 0]);
        assert_eq!(padded_varint::<2>(300), [0xac, 0x02]);
    }
}
