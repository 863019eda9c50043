//! Request bodies: content encodings with hard limits, so that no header and no bomb can claim more than its share.
//!
//! Limits work twice. A size that the compressed form claims (snappy and zstd headers) is checked before a byte is allocated,
//! and a snappy claim must also be reachable from the bytes that are there. Formats that claim nothing (gzip, deflate) are
//! decompressed in steps, and stop at the limit. Before each step the caller is asked for the memory.

use std::borrow::Cow;
use std::io::Read;

use triptych_model::Error;

/// First step of a decompression without a known size, in bytes.
const STEP_BYTES: usize = 64 << 10;

/// Snappy's best case: a 3-byte copy element yields 64 bytes. A claim above this ratio is a lie.
const SNAPPY_RATIO_MAX: usize = 22;

/// `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    /// Block format, as remote write and Loki push use it; not the framed one.
    Snappy,
    Gzip,
    Deflate,
    Zstd,
}

/// Why a body cannot be read. Tells which HTTP status to answer with.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// 415.
    #[error("content encoding {0:?} is not supported; use snappy, gzip, zstd, deflate or identity")]
    UnsupportedEncoding(String),
    /// 413.
    #[error("{what} is {bytes} bytes, the limit is {bytes_max}")]
    TooLarge { what: &'static str, bytes: u64, bytes_max: usize },
    /// 413. How large it would have become is not known.
    #[error(
        "decompressed body is larger than the limit of {bytes_max} bytes (compressed: {compressed_bytes})"
    )]
    Bomb { compressed_bytes: usize, bytes_max: usize },
    /// 400.
    #[error("{0}")]
    Damaged(String),
    /// The memory was not granted.
    #[error(transparent)]
    Memory(#[from] Error),
}

impl Encoding {
    /// From the header; an absent one means identity.
    pub fn from_header(header: Option<&str>) -> Result<Self, BodyError> {
        let name = header.unwrap_or("").trim();
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "snappy" => Ok(Self::Snappy),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            _ => Err(BodyError::UnsupportedEncoding(name.chars().take(40).collect())),
        }
    }
}

/// Decompresses `body` to at most `bytes_max`. `reserve` is called before memory is taken, with the additional bytes.
pub fn decode<'a>(
    body: &'a [u8],
    encoding: Encoding,
    bytes_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<Cow<'a, [u8]>, BodyError> {
    match encoding {
        Encoding::Identity => {
            check_claim("body", body.len() as u64, bytes_max)?;
            Ok(Cow::Borrowed(body))
        }
        Encoding::Snappy => snappy(body, bytes_max, reserve).map(Cow::Owned),
        Encoding::Gzip => {
            steps(flate2::read::MultiGzDecoder::new(body), "gzip", body.len(), bytes_max, reserve)
                .map(Cow::Owned)
        }
        // HTTP's deflate is zlib; some senders leave the zlib header away.
        Encoding::Deflate if is_zlib(body) => {
            steps(flate2::read::ZlibDecoder::new(body), "deflate", body.len(), bytes_max, reserve)
                .map(Cow::Owned)
        }
        Encoding::Deflate => {
            steps(flate2::read::DeflateDecoder::new(body), "deflate", body.len(), bytes_max, reserve)
                .map(Cow::Owned)
        }
        Encoding::Zstd => zstd(body, bytes_max, reserve).map(Cow::Owned),
    }
}

fn check_claim(what: &'static str, bytes: u64, bytes_max: usize) -> Result<(), BodyError> {
    if bytes > bytes_max as u64 {
        return Err(BodyError::TooLarge { what, bytes, bytes_max });
    }
    Ok(())
}

fn snappy(
    body: &[u8],
    bytes_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<u8>, BodyError> {
    let claimed = snap::raw::decompress_len(body).map_err(|e| BodyError::Damaged(format!("snappy: {e}")))?;
    check_claim("body after snappy", claimed as u64, bytes_max)?;
    if claimed > body.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(BodyError::Damaged(format!(
            "snappy: header claims {claimed} bytes, {} compressed bytes cannot hold them",
            body.len()
        )));
    }
    reserve(claimed)?;
    let mut out = vec![0; claimed];
    let length = snap::raw::Decoder::new()
        .decompress(body, &mut out)
        .map_err(|e| BodyError::Damaged(format!("snappy: {e}")))?;
    out.truncate(length);
    Ok(out)
}

fn zstd(
    body: &[u8],
    bytes_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<u8>, BodyError> {
    let damaged = |e: std::io::Error| BodyError::Damaged(format!("zstd: {e}"));
    if let Ok(Some(claimed)) = zstd::zstd_safe::get_frame_content_size(body) {
        check_claim("body after zstd", claimed, bytes_max)?;
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
    // The window is memory too: at least the 8 MiB that every decoder should take (RFC 8878, 3.1.1.1.2; streaming writers ask
    // for it whatever they send, and only touched pages count), else no larger than what may come out of it.
    let window_log = bytes_max.max(1).next_power_of_two().trailing_zeros().clamp(23, 27);
    decoder.window_log_max(window_log).map_err(damaged)?;
    steps(decoder, "zstd", body.len(), bytes_max, reserve)
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [cmf, flg, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0)
}

/// Reads to the end in growing steps, at most `bytes_max`.
fn steps(
    mut reader: impl Read,
    name: &str,
    compressed_bytes: usize,
    bytes_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<(), Error>,
) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            if filled > bytes_max {
                return Err(BodyError::Bomb { compressed_bytes, bytes_max });
            }
            // One byte more than allowed shows that there is more.
            let step = filled.max(STEP_BYTES).min(bytes_max + 1 - filled);
            reserve(step)?;
            out.resize(filled + step, 0);
        }
        match reader.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(BodyError::Damaged(format!("{name}: {e}"))),
        }
    }
    if filled > bytes_max {
        return Err(BodyError::Bomb { compressed_bytes, bytes_max });
    }
    out.truncate(filled);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn encode(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => plain.to_vec(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            Encoding::Gzip => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                e.write_all(plain).unwrap();
                e.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                e.write_all(plain).unwrap();
                e.finish().unwrap()
            }
            Encoding::Zstd => ::zstd::encode_all(plain, 1).unwrap(),
        }
    }

    const ALL: [Encoding; 5] =
        [Encoding::Identity, Encoding::Snappy, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    fn run(body: &[u8], encoding: Encoding, max: usize) -> (Result<Vec<u8>, BodyError>, usize) {
        let mut reserved = 0;
        let out = decode(body, encoding, max, &mut |n| {
            reserved += n;
            Ok(())
        });
        (out.map(Cow::into_owned), reserved)
    }

    #[test]
    fn bombs_cost_no_more_than_the_limit() {
        let plain = vec![0u8; 4 << 20];
        for encoding in ALL {
            let (out, reserved) = run(&encode(encoding, &plain), encoding, 1 << 20);
            assert!(matches!(out, Err(BodyError::TooLarge { .. } | BodyError::Bomb { .. })), "{encoding:?}");
            assert!(reserved <= (1 << 20) + 1, "{encoding:?} {reserved}");
            let (out, _) = run(&encode(encoding, &plain), encoding, 4 << 20);
            assert!(out.unwrap() == plain, "{encoding:?}: exactly at the limit passes");
        }
    }

    #[test]
    fn claims_are_not_believed() {
        // 4 GiB claimed by five bytes; then 1 MiB claimed by a body that could not hold it.
        let (out, reserved) = run(b"\xff\xff\xff\xff\x0f\0", Encoding::Snappy, 64 << 20);
        assert!(matches!(out, Err(BodyError::TooLarge { bytes: 4294967295, .. })), "{out:?}");
        assert_eq!(reserved, 0);
        let (out, reserved) = run(b"\x80\x80\x40\0a", Encoding::Snappy, 64 << 20);
        assert!(matches!(out, Err(BodyError::Damaged(_))), "{out:?}");
        assert_eq!(reserved, 0);
        // zstd: without a content size (streamed), and with one.
        let mut e = ::zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        e.write_all(&vec![0; 2 << 20]).unwrap();
        let (out, _) = run(&e.finish().unwrap(), Encoding::Zstd, 1 << 20);
        assert!(matches!(out, Err(BodyError::Bomb { .. })), "{out:?}");
        let (out, reserved) = run(&encode(Encoding::Zstd, &vec![0; 2 << 20]), Encoding::Zstd, 1 << 20);
        assert!(out.is_err());
        assert!(reserved <= (1 << 20) + 1);
    }

    #[test]
    fn raw_deflate_is_taken_too() {
        let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(b"hello hello hello").unwrap();
        let (out, _) = run(&e.finish().unwrap(), Encoding::Deflate, 100);
        assert_eq!(out.unwrap(), b"hello hello hello");
    }

    #[test]
    fn headers() {
        assert_eq!(Encoding::from_header(None).unwrap(), Encoding::Identity);
        assert_eq!(Encoding::from_header(Some(" GZIP ")).unwrap(), Encoding::Gzip);
        assert!(Encoding::from_header(Some("br")).unwrap_err().to_string().contains("\"br\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(plain in proptest::collection::vec(any::<u8>(), 0..4000)) {
            for encoding in ALL {
                prop_assert_eq!(run(&encode(encoding, &plain), encoding, 4000).0.unwrap(), plain.clone());
            }
        }

        #[test]
        fn damage_never_panics(plain in proptest::collection::vec(any::<u8>(), 0..400), at: prop::sample::Index, bit in 0u8..8) {
            for encoding in ALL {
                let mut body = encode(encoding, &plain);
                if body.is_empty() { continue; }
                let i = at.index(body.len());
                body[i] ^= 1 << bit;
                let (out, reserved) = run(&body, encoding, 1000);
                if let Ok(out) = out { prop_assert!(out.len() <= 1000); }
                prop_assert!(reserved <= 1001);
                body.truncate(i);
                let _ = run(&body, encoding, 1000);
            }
        }
    }
}
