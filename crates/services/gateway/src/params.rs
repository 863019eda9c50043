//! Parameters as the originals take them: from the query string and from a form body, the first of a name counts.

use jiff::Timestamp;
use triptych_model::{Error, Result};

/// Largest form body. A query that is longer is not a question.
pub const FORM_BYTES_MAX: usize = 4 << 20;

/// Decoded `name=value` pairs, query string first.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn parse(query: &str, form: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(form));
        Self(pairs.map(|(n, v)| (n.into_owned(), v.into_owned())).collect())
    }

    pub fn of(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(pairs.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
    }

    /// The first value of that name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Of several spellings the first that is there: Grafana sends `match[]`, some clients `match`.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| Error::invalid(format!("invalid parameter {name:?}: it is missing")))
    }

    pub fn limit(&self, name: &str, default: usize) -> Result<usize> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<u32>()
                .map(|n| n as usize)
                .map_err(|_| Error::invalid(format!("invalid parameter {name:?}: {text:?} is not a count"))),
        }
    }

    /// A time in milliseconds as Prometheus takes it: seconds with fraction, or RFC 3339.
    pub fn time_ms(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            Error::invalid(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"))
        };
        if let Ok(seconds) = text.parse::<f64>() {
            return float_to(seconds, 1e3).map(Some).ok_or_else(wrong);
        }
        text.parse::<Timestamp>().map(|t| Some(t.as_millisecond())).map_err(|_| wrong())
    }

    /// A time in nanoseconds as Loki and Tempo take it: an integer with more than ten digits is nanoseconds, other numbers are
    /// seconds, else RFC 3339.
    pub fn time_ns(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            Error::invalid(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"))
        };
        if let Ok(number) = text.parse::<i64>() {
            let digits = text.trim_start_matches('-').len();
            return if digits <= 10 {
                number.checked_mul(1_000_000_000).map(Some).ok_or_else(wrong)
            } else {
                Ok(Some(number))
            };
        }
        if let Ok(seconds) = text.parse::<f64>() {
            return float_to(seconds, 1e9).map(Some).ok_or_else(wrong);
        }
        let time = text.parse::<Timestamp>().map_err(|_| wrong())?;
        i64::try_from(time.as_nanosecond()).map(Some).map_err(|_| wrong())
    }

    /// A duration in nanoseconds: seconds with fraction, or `5m`, `1h30m`.
    pub fn duration_ns(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            Error::invalid(format!("invalid parameter {name:?}: cannot parse {text:?} to a valid duration"))
        };
        if let Ok(seconds) = text.parse::<f64>() {
            return float_to(seconds, 1e9).map(Some).ok_or_else(wrong);
        }
        duration_text_ns(text).map(Some).ok_or_else(wrong)
    }
}

fn float_to(seconds: f64, scale: f64) -> Option<i64> {
    let scaled = (seconds * scale).round();
    // 2^63 as a float; beyond it the cast would saturate silently.
    (scaled.is_finite() && scaled.abs() < 9.223_372_036_854_775e18).then_some(scaled as i64)
}

/// `1h30m`, `250ms`, `1.5s`, `10us`, units down to nanoseconds; also Prometheus' `d`, `w`, `y`.
pub fn duration_text_ns(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 10] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
        ("d", 86_400e9),
        ("w", 604_800e9),
        ("y", 31_536_000e9),
    ];
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, ns) = UNITS.iter().find(|(unit, _)| *unit == &rest[..length])?;
        total += number * ns;
        rest = &rest[length..];
    }
    float_to(total, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        let params = Params::parse(
            "a=1.5&b=1700000000000000000&c=2023-11-14T22:13:20Z&d=1h30m&e=x&f=1e300&g=1700000000",
            b"h=%7B&a=2",
        );
        assert_eq!(params.time_ms("a").unwrap(), Some(1500));
        assert_eq!(params.time_ns("b").unwrap(), Some(1_700_000_000_000_000_000));
        assert_eq!(params.time_ns("g").unwrap(), Some(1_700_000_000_000_000_000));
        assert_eq!(params.time_ms("c").unwrap(), Some(1_700_000_000_000));
        assert_eq!(params.duration_ns("d").unwrap(), Some(5_400_000_000_000));
        assert_eq!(params.get("h"), Some("{"));
        for name in ["e", "f"] {
            assert!(
                params.time_ms(name).is_err()
                    && params.time_ns(name).is_err()
                    && params.duration_ns(name).is_err()
            );
        }
        assert!(params.limit("e", 1).is_err());
        assert!(params.required("nope").unwrap_err().to_string().contains("nope"));
    }
}
