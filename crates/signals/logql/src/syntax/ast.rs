//! What a query says, typed. Everything here is plain data; [`crate::pipeline`] compiles it, [`crate::engine`] evaluates it.

use triptych_model::Matcher;

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Log(LogExpr),
    Metric(MetricExpr),
}

/// `{app="a"} |= "x" | json`
#[derive(Debug, Clone, PartialEq)]
pub struct LogExpr {
    pub matchers: Vec<Matcher>,
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Line(LineFilterExpr),
    /// No expressions: all fields.
    Json(Vec<Extraction>),
    Logfmt {
        strict: bool,
        keep_empty: bool,
        extractions: Vec<Extraction>,
    },
    Regexp(String),
    Pattern(String),
    Unpack,
    LabelFilter(LabelFilterExpr),
    LineFormat(String),
    LabelFormat(Vec<LabelFormat>),
    Decolorize,
    Drop(Vec<LabelPick>),
    Keep(Vec<LabelPick>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Regex,
    /// `!~`
    NotRegex,
    /// `|>`
    Pattern,
    /// `!>`
    NotPattern,
}

impl LineOp {
    pub fn as_str(self) -> &'static str {
        match self {
            LineOp::Contains => "|=",
            LineOp::NotContains => "!=",
            LineOp::Regex => "|~",
            LineOp::NotRegex => "!~",
            LineOp::Pattern => "|>",
            LineOp::NotPattern => "!>",
        }
    }

    pub fn is_negative(self) -> bool {
        matches!(self, LineOp::NotContains | LineOp::NotRegex | LineOp::NotPattern)
    }
}

/// `|= "a" or "b"`: passes where any needle is found; a negative one passes where none is.
#[derive(Debug, Clone, PartialEq)]
pub struct LineFilterExpr {
    pub op: LineOp,
    pub needles: Vec<LineNeedle>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineNeedle {
    Text(String),
    /// `ip("10.0.0.0/8")`
    Ip(String),
}

/// `label="path"` of `json` and `logfmt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    pub label: String,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelFormat {
    /// `dst=src`
    Rename { label: String, from: String },
    /// `dst="{{.src}}"`
    Template { label: String, template: String },
}

/// An item of `drop` and `keep`: a name, or a name with a condition on its value.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelPick {
    Name(String),
    Matcher(Matcher),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl CompareOp {
    pub fn as_str(self) -> &'static str {
        match self {
            CompareOp::Equal => "==",
            CompareOp::NotEqual => "!=",
            CompareOp::Greater => ">",
            CompareOp::GreaterOrEqual => ">=",
            CompareOp::Less => "<",
            CompareOp::LessOrEqual => "<=",
        }
    }

    pub fn test<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            CompareOp::Equal => left == right,
            CompareOp::NotEqual => left != right,
            CompareOp::Greater => left > right,
            CompareOp::GreaterOrEqual => left >= right,
            CompareOp::Less => left < right,
            CompareOp::LessOrEqual => left <= right,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum LabelFilterExpr {
    Matcher(Matcher),
    Number { label: String, op: CompareOp, value: f64 },
    Duration { label: String, op: CompareOp, ns: i64 },
    Bytes { label: String, op: CompareOp, bytes: u64 },
    Ip { label: String, negative: bool, pattern: String },
    And(Vec<LabelFilterExpr>),
    Or(Vec<LabelFilterExpr>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum MetricExpr {
    Range(Box<RangeAgg>),
    Vector(Box<VectorAgg>),
    Binary(Box<Binary>),
    Literal(f64),
    /// `vector(1)`
    VectorLiteral(f64),
    LabelReplace(Box<LabelReplace>),
}

/// `rate({app="a"} | json | unwrap x [5m] offset 1m) by (host)`
#[derive(Debug, Clone, PartialEq)]
pub struct RangeAgg {
    pub op: RangeOp,
    /// Of `quantile_over_time`.
    pub param: Option<f64>,
    pub log: LogExpr,
    pub unwrap: Option<Unwrap>,
    pub range_ns: i64,
    pub offset_ns: i64,
    pub grouping: Option<Grouping>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Unwrap {
    pub label: String,
    pub conversion: Option<Conversion>,
    /// Label filters behind `unwrap`.
    pub filters: Vec<LabelFilterExpr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conversion {
    Duration,
    DurationSeconds,
    Bytes,
}

impl Conversion {
    pub fn as_str(self) -> &'static str {
        match self {
            Conversion::Duration => "duration",
            Conversion::DurationSeconds => "duration_seconds",
            Conversion::Bytes => "bytes",
        }
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($variant),* }
        impl $type {
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),* }
            }
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some($type::$variant),)* _ => None }
            }
        }
    };
}

named! {
    RangeOp {
        Rate = "rate", RateCounter = "rate_counter", Count = "count_over_time", BytesRate = "bytes_rate",
        Bytes = "bytes_over_time", Avg = "avg_over_time", Sum = "sum_over_time", Min = "min_over_time",
        Max = "max_over_time", Stdvar = "stdvar_over_time", Stddev = "stddev_over_time",
        Quantile = "quantile_over_time", First = "first_over_time", Last = "last_over_time",
        Absent = "absent_over_time",
    }
}

impl RangeOp {
    /// Whether `sum by (..)` around it may already group the samples: the sum of the parts is the whole.
    pub fn is_additive(self) -> bool {
        matches!(self, RangeOp::Rate | RangeOp::Count | RangeOp::BytesRate | RangeOp::Bytes | RangeOp::Sum)
    }

    pub fn may_unwrap(self) -> bool {
        !matches!(self, RangeOp::Count | RangeOp::BytesRate | RangeOp::Bytes)
    }

    pub fn must_unwrap(self) -> bool {
        self.may_unwrap() && !matches!(self, RangeOp::Rate | RangeOp::Absent)
    }

    pub fn may_group(self) -> bool {
        use RangeOp::*;
        matches!(self, Avg | Stddev | Stdvar | Quantile | Max | Min | First | Last)
    }
}

named! {
    VectorOp {
        Sum = "sum", Avg = "avg", Min = "min", Max = "max", Count = "count", Stddev = "stddev", Stdvar = "stdvar",
        Topk = "topk", Bottomk = "bottomk", ApproxTopk = "approx_topk", Sort = "sort", SortDesc = "sort_desc",
    }
}

impl VectorOp {
    pub fn has_param(self) -> bool {
        matches!(self, VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    pub without: bool,
    /// As written.
    pub labels: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VectorAgg {
    pub op: VectorOp,
    /// Of `topk`, `bottomk`.
    pub param: Option<u64>,
    pub grouping: Option<Grouping>,
    pub inner: MetricExpr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Compare(CompareOp),
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Compare(op) => op.as_str(),
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Higher binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::Compare(_) => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => 5,
            BinaryOp::Pow => 6,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    pub op: BinaryOp,
    pub return_bool: bool,
    pub matching: Matching,
    pub left: MetricExpr,
    pub right: MetricExpr,
}

/// `on (a) group_left (b)`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matching {
    pub on: bool,
    /// Of `on` or `ignoring`.
    pub labels: Vec<String>,
    pub group: Group,
    /// Labels taken over from the side of which there is one.
    pub include: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Group {
    #[default]
    OneToOne,
    /// `group_left`: many on the left.
    Left,
    Right,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LabelReplace {
    pub inner: MetricExpr,
    pub dst: String,
    pub replacement: String,
    pub src: String,
    pub regex: String,
}
