//! How a crate declares its own metrics: once, in its `telemetry.rs`, with [`telemetry!`](crate::telemetry!). From the declaration come
//! the functions that count, the `# HELP` lines of `/metrics` and the page `docs/metrics.md`; so none of them can disagree.

/// One of our own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As it stands in `/metrics`; the unit is in the name.
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    /// The lines of its doc comment.
    pub help: &'static [&'static str],
}

/// The types of Prometheus' text format that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// As in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// What it means, in one line.
    pub fn meaning(&self) -> String {
        self.help.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// Declares a crate's own metrics. The crate must depend on the facade `metrics`.
///
/// ```ignore
/// triptych_model::telemetry! {
///     /// Time of one fsync.
///     histogram fsync_seconds(wal) = "triptych_wal_fsync_seconds";
/// }
/// ```
///
/// makes `pub(crate) fn fsync_seconds(wal: impl Into<SharedString>) -> metrics::Histogram`, and the list `TELEMETRY` of all of them.
#[macro_export]
macro_rules! telemetry {
    ($($(#[doc = $help:literal])+ $kind:ident $function:ident($($label:ident),*) = $name:literal;)+) => {
        /// This crate's own metrics.
        pub const TELEMETRY: &[$crate::telemetry::Metric] = &[$($crate::telemetry::Metric {
            name: $name,
            kind: $crate::telemetry!(@kind $kind),
            labels: &[$(stringify!($label)),*],
            help: &[$($help),+],
        }),+];
        $(
            $(#[doc = $help])+
            pub(crate) fn $function(
                $($label: impl Into<::metrics::SharedString>),*
            ) -> $crate::telemetry!(@handle $kind) {
                ::metrics::$kind!($name $(, stringify!($label) => $label)*)
            }
        )+
    };
    (@kind counter) => { $crate::telemetry::MetricKind::Counter };
    (@kind gauge) => { $crate::telemetry::MetricKind::Gauge };
    (@kind histogram) => { $crate::telemetry::MetricKind::Histogram };
    (@handle counter) => { ::metrics::Counter };
    (@handle gauge) => { ::metrics::Gauge };
    (@handle histogram) => { ::metrics::Histogram };
}
