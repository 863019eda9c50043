//! Filters of tag questions, in the words of the store.

use triptych_model::Result;
use triptych_model::traces::TagsSelect;
use triptych_traceql::source::{Attribute, FetchSpans};

use crate::view::Matcher;

/// The spans that a tag question is about. As in Tempo only the conditions of its filter count, and only those that all spans
/// must pass.
pub(crate) fn tags_fetch(select: &TagsSelect) -> FetchSpans {
    FetchSpans {
        conditions: triptych_traceql::filter_conditions(&select.query),
        all_conditions: true,
        start_ns: select.start_ns,
        end_ns: select.end_ns,
        ..FetchSpans::default()
    }
}

/// The spans that a question for the values of `attributes` is about.
pub(crate) fn values_matcher(select: &TagsSelect, attributes: &[Attribute]) -> Result<Matcher> {
    Matcher::new(&FetchSpans { attributes: attributes.to_vec(), ..tags_fetch(select) })
}

pub(crate) fn tags_matcher(select: &TagsSelect) -> Result<Matcher> {
    Matcher::new(&tags_fetch(select))
}
