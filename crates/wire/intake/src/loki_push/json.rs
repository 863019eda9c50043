//! The JSON form, walked by serde's visitors straight into the sink: no tree is built. Where `values` stands before `stream`
//! its text is kept (borrowed) and walked once the labels are known.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use triptych_model::{Error, Result};

use super::begin_stream;
use crate::sink::{LogsSink, check_pairs, recycle, sort_last_wins};

/// Decodes the JSON form of a push.
pub fn decode_json(body: &[u8], sink: &mut impl LogsSink) -> Result<()> {
    let text = std::str::from_utf8(body).map_err(|e| crate::wire::not_utf8("push body", &e))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut failed = None;
    let walk = Request { sink, failed: &mut failed };
    let result = walk.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (failed, result) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(Error::invalid(format!("push body: {e}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(V)
    }
}

/// String pairs of an object, in order of arrival.
#[derive(Default)]
struct TextPairs<'de>(Vec<(Cow<'de, str>, Cow<'de, str>)>);

impl<'de> de::Deserialize<'de> for TextPairs<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TextPairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with string values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextPairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    check_pairs(pairs.len(), "labels").map_err(de::Error::custom)?;
                    pairs.push((name, value));
                }
                Ok(TextPairs(pairs))
            }
        }
        d.deserialize_map(V)
    }
}

/// Nanoseconds: a string (what senders write) or an integer.
struct Nanos(i64);

impl<'de> de::Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Nanos;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp in nanoseconds")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Nanos, E> {
                v.parse().map(Nanos).map_err(|_| E::invalid_value(de::Unexpected::Str(v), &self))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Nanos, E> {
                Ok(Nanos(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Nanos, E> {
                i64::try_from(v).map(Nanos).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(v), &self))
            }
        }
        d.deserialize_any(V)
    }
}

/// One walk over part of the document; `failed` carries an error of the sink past serde.
struct Request<'s, S> {
    sink: &'s mut S,
    failed: &'s mut Option<Error>,
}

struct Streams<'s, S>(Request<'s, S>);
struct Stream<'s, S>(Request<'s, S>);
struct Values<'s, S>(Request<'s, S>);
struct Value<'s, 'p, 'de>(&'s mut EntryBuffer<'p, 'de>);

/// What one entry needs; reused from entry to entry.
struct EntryBuffer<'p, 'de> {
    ts_ns: i64,
    line: Cow<'de, str>,
    metadata: TextPairs<'de>,
    pairs: Vec<(&'p str, &'p str)>,
}

impl<S> Request<'_, S> {
    fn again(&mut self) -> Request<'_, S> {
        Request { sink: &mut *self.sink, failed: &mut *self.failed }
    }

    fn note<T, E: de::Error>(&mut self, result: Result<T>) -> Result<T, E> {
        result.map_err(|error| {
            let text = E::custom(&error);
            *self.failed = Some(error);
            text
        })
    }
}

impl<'de, S: LogsSink> DeserializeSeed<'de> for Request<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, S: LogsSink> Visitor<'de> for Request<'_, S> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `streams`")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if key == "streams" {
                map.next_value_seed(Streams(self.again()))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de, S: LogsSink> DeserializeSeed<'de> for Streams<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, S: LogsSink> Visitor<'de> for Streams<'_, S> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of streams")
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Stream(self.0.again()))?.is_some() {}
        Ok(())
    }
}

impl<'de, S: LogsSink> DeserializeSeed<'de> for Stream<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de, S: LogsSink> Visitor<'de> for Stream<'_, S> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `stream` and `values`")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut begun = None;
        let mut before: Option<&'de RawValue> = None;
        while let Some(Text(key)) = map.next_key()? {
            match (&*key, begun) {
                ("stream", None) => {
                    let TextPairs(pairs) = map.next_value()?;
                    let mut labels: Vec<_> = pairs.iter().map(|(n, v)| (&**n, &**v)).collect();
                    let result = begin_stream(&mut labels, 1, self.0.sink);
                    begun = Some(self.0.note(result)?);
                }
                ("stream", Some(_)) => return Err(de::Error::duplicate_field("stream")),
                ("values", Some(true)) => map.next_value_seed(Values(self.0.again()))?,
                ("values", None) if before.is_none() => before = Some(map.next_value()?),
                ("values", None) => return Err(de::Error::duplicate_field("values")),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if begun.is_none() {
            let result = begin_stream(&mut Vec::new(), 1, self.0.sink);
            begun = Some(self.0.note(result)?);
        }
        match before {
            Some(raw) if begun == Some(true) => {
                Values(self.0.again()).deserialize(raw).map_err(de::Error::custom)
            }
            _ => Ok(()),
        }
    }
}

impl<'de, S: LogsSink> DeserializeSeed<'de> for Values<'_, S> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, S: LogsSink> Visitor<'de> for Values<'_, S> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        loop {
            let mut entry = EntryBuffer {
                ts_ns: 0,
                line: Cow::Borrowed(""),
                metadata: TextPairs::default(),
                pairs: recycle(std::mem::take(&mut pairs)),
            };
            if seq.next_element_seed(Value(&mut entry))?.is_none() {
                return Ok(());
            }
            let EntryBuffer { ts_ns, line, metadata, pairs: mut all } = entry;
            all.extend(metadata.0.iter().map(|(n, v)| (&**n, &**v)));
            sort_last_wins(&mut all);
            let result = self.0.sink.entry(ts_ns, &line, &all);
            pairs = recycle(all);
            self.0.note(result)?;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of timestamp, line and maybe structured metadata")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Nanos(ts_ns) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let Text(line) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        self.0.ts_ns = ts_ns;
        self.0.line = line;
        if let Some(metadata) = seq.next_element()? {
            self.0.metadata = metadata;
        }
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(de::Error::custom("a value has more than timestamp, line and structured metadata"));
        }
        Ok(())
    }
}
