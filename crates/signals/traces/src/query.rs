//! Where the store meets the language: filters of tag questions, search, samples.

use triptych_model::Result;
use triptych_model::traces::TagsSelect;
use triptych_traceql::source::FetchSpans;

use crate::view::Matcher;

/// The spans that a tag question is about. As in Tempo only the conditions of its filter count, and only those that all spans
/// must pass.
pub(crate) fn tags_matcher(select: &TagsSelect) -> Result<Matcher> {
    Matcher::new(&tags_fetch(select)?)
}

pub(crate) fn tags_fetch(select: &TagsSelect) -> Result<FetchSpans> {
    let fetch = FetchSpans { start_ns: select.start_ns, end_ns: select.end_ns, ..FetchSpans::default() };
    Ok(fetch)
}
