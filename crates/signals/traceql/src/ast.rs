//! The typed syntax tree. `Display` writes it back as text that parses to the same tree.

use triptych_model::traces::Value;

use crate::source::{Attribute, CompareOp, Intrinsic};

/// A whole query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub body: Body,
    /// `with(key = value, ..)`.
    pub hints: Vec<(String, Value)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Finds span sets.
    Spans(Pipeline),
    /// Makes time series.
    Metrics(MetricsExpr),
}

/// Stages joined by `|`; each takes the span sets of the one before. The first takes all spans of a trace as one set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pipeline {
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Spans(SpansetExpr),
    /// `count() > 2`: drops span sets.
    Filter(ScalarFilter),
    By(FieldExpr),
    Coalesce,
    Select(Vec<Attribute>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum SpansetExpr {
    /// `{ .. }`; `{}` is `{ true }`.
    Filter(FieldExpr),
    Op {
        op: SpansetOp,
        left: Box<SpansetExpr>,
        right: Box<SpansetExpr>,
    },
    /// `( .. | .. )`.
    Pipeline(Pipeline),
}

/// How two spans must be related: what the right span is to the left one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `>`
    Child,
    /// `<`
    Parent,
    /// `>>`
    Descendant,
    /// `<<`
    Ancestor,
    /// `~`
    Sibling,
}

impl Relation {
    /// What the left span is to the right one.
    pub fn inverse(self) -> Self {
        match self {
            Relation::Child => Relation::Parent,
            Relation::Parent => Relation::Child,
            Relation::Descendant => Relation::Ancestor,
            Relation::Ancestor => Relation::Descendant,
            Relation::Sibling => Relation::Sibling,
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Relation::Child => ">",
            Relation::Parent => "<",
            Relation::Descendant => ">>",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpansetOp {
    /// Both sides found something; the spans of both.
    And,
    /// Some side found something; the spans of both.
    Or,
    /// Right spans that stand in the relation to some left span.
    Related(Relation),
    /// `!>`: right spans that stand in the relation to no left span.
    NotRelated(Relation),
    /// `&>`: right spans that stand in the relation to some left span, and these left spans.
    UnionRelated(Relation),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ScalarFilter {
    pub op: CompareOp,
    pub left: ScalarExpr,
    pub right: ScalarExpr,
}

/// One value per span set.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarExpr {
    Value(Value),
    Count,
    Aggregate { op: AggregateOp, of: FieldExpr },
    Arithmetic { op: ArithmeticOp, left: Box<ScalarExpr>, right: Box<ScalarExpr> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateOp {
    Avg,
    Max,
    Min,
    Sum,
}

impl AggregateOp {
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Avg => "avg",
            AggregateOp::Max => "max",
            AggregateOp::Min => "min",
            AggregateOp::Sum => "sum",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

impl ArithmeticOp {
    pub fn as_str(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Sub => "-",
            ArithmeticOp::Mul => "*",
            ArithmeticOp::Div => "/",
            ArithmeticOp::Mod => "%",
            ArithmeticOp::Pow => "^",
        }
    }
}

impl ArithmeticOp {
    /// Integers stay integers; a duration with another, or scaled by a number, stays a duration; else it is a float.
    pub(crate) fn kind(self, left: Type, right: Type) -> Type {
        match (self, left, right) {
            (_, Type::Dynamic, _) | (_, _, Type::Dynamic) => Type::Dynamic,
            (_, Type::Int, Type::Int) => Type::Int,
            (ArithmeticOp::Add | ArithmeticOp::Sub | ArithmeticOp::Mod, Type::Duration, _) => Type::Duration,
            (ArithmeticOp::Add | ArithmeticOp::Sub, _, Type::Duration) => Type::Duration,
            (ArithmeticOp::Mul | ArithmeticOp::Div, Type::Duration, Type::Int | Type::Float) => {
                Type::Duration
            }
            (ArithmeticOp::Mul, Type::Int | Type::Float, Type::Duration) => Type::Duration,
            _ => Type::Float,
        }
    }
}

/// One value per span. Constant parts are folded by the parser.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldExpr {
    Value(Value),
    Attribute(Attribute),
    Not(Box<FieldExpr>),
    Negate(Box<FieldExpr>),
    /// `!= nil` (true), `= nil` (false).
    Exists(Box<FieldExpr>, bool),
    And(Vec<FieldExpr>),
    Or(Vec<FieldExpr>),
    Compare {
        op: CompareOp,
        left: Box<FieldExpr>,
        right: Box<FieldExpr>,
    },
    Arithmetic {
        op: ArithmeticOp,
        left: Box<FieldExpr>,
        right: Box<FieldExpr>,
    },
}

/// Time series.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsExpr {
    /// What the leaves extract and one fold makes.
    Leaf(MetricsLeaf),
    /// A number for every series and point of the other side.
    Number(f64),
    Math {
        op: ArithmeticOp,
        left: Box<MetricsExpr>,
        right: Box<MetricsExpr>,
    },
    /// `| topk(5) > 10`, from left to right.
    Second {
        of: Box<MetricsExpr>,
        stages: Vec<SecondStage>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct MetricsLeaf {
    pub pipeline: Pipeline,
    pub op: MetricsOp,
    pub by: Vec<Attribute>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MetricsOp {
    Rate,
    CountOverTime,
    MinOverTime(Attribute),
    MaxOverTime(Attribute),
    SumOverTime(Attribute),
    AvgOverTime(Attribute),
    QuantileOverTime(Attribute, Vec<f64>),
    HistogramOverTime(Attribute),
}

impl MetricsOp {
    pub fn name(&self) -> &'static str {
        match self {
            MetricsOp::Rate => "rate",
            MetricsOp::CountOverTime => "count_over_time",
            MetricsOp::MinOverTime(_) => "min_over_time",
            MetricsOp::MaxOverTime(_) => "max_over_time",
            MetricsOp::SumOverTime(_) => "sum_over_time",
            MetricsOp::AvgOverTime(_) => "avg_over_time",
            MetricsOp::QuantileOverTime(..) => "quantile_over_time",
            MetricsOp::HistogramOverTime(_) => "histogram_over_time",
        }
    }

    /// The attribute whose values are folded.
    pub fn attribute(&self) -> Option<&Attribute> {
        match self {
            MetricsOp::Rate | MetricsOp::CountOverTime => None,
            MetricsOp::MinOverTime(a)
            | MetricsOp::MaxOverTime(a)
            | MetricsOp::SumOverTime(a)
            | MetricsOp::AvgOverTime(a)
            | MetricsOp::QuantileOverTime(a, _)
            | MetricsOp::HistogramOverTime(a) => Some(a),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum SecondStage {
    Topk(usize),
    Bottomk(usize),
    /// Drops points. Durations are in seconds, as the points are.
    Filter(CompareOp, f64),
}

/// What an expression's values are, as far as the text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// An attribute: whatever it holds.
    Dynamic,
    Nil,
    Int,
    Float,
    Duration,
    String,
    Bool,
    Status,
    Kind,
}

impl Type {
    pub(crate) fn of_value(value: &Value) -> Self {
        match value {
            Value::String(_) => Type::String,
            Value::Int(_) => Type::Int,
            Value::Float(_) => Type::Float,
            Value::Bool(_) => Type::Bool,
            Value::Duration(_) => Type::Duration,
            Value::Status(_) => Type::Status,
            Value::SpanKind(_) => Type::Kind,
            Value::Nil => Type::Nil,
        }
    }

    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Type::Int | Type::Float | Type::Duration)
    }

    /// Whether values of the two types can be compared or computed with.
    pub(crate) fn fits(self, other: Type) -> bool {
        self == other
            || self == Type::Dynamic
            || other == Type::Dynamic
            || (self.is_numeric() && other.is_numeric())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Dynamic => "an attribute",
            Type::Nil => "nil",
            Type::Int => "an integer",
            Type::Float => "a float",
            Type::Duration => "a duration",
            Type::String => "a string",
            Type::Bool => "a boolean",
            Type::Status => "a status",
            Type::Kind => "a span kind",
        }
    }
}

impl Intrinsic {
    pub(crate) fn kind(self) -> Type {
        match self {
            Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart => Type::Duration,
            Intrinsic::Status => Type::Status,
            Intrinsic::Kind => Type::Kind,
            Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => Type::Int,
            Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::TraceId
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::EventName
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion => Type::String,
        }
    }
}

impl FieldExpr {
    pub(crate) fn kind(&self) -> Type {
        match self {
            FieldExpr::Value(v) => Type::of_value(v),
            FieldExpr::Attribute(Attribute::Intrinsic(i)) => i.kind(),
            FieldExpr::Attribute(Attribute::Named(..)) => Type::Dynamic,
            FieldExpr::Not(_)
            | FieldExpr::Exists(..)
            | FieldExpr::And(_)
            | FieldExpr::Or(_)
            | FieldExpr::Compare { .. } => Type::Bool,
            FieldExpr::Negate(e) => e.kind(),
            FieldExpr::Arithmetic { op, left, right } => op.kind(left.kind(), right.kind()),
        }
    }

    /// Calls `see` for every attribute named.
    pub(crate) fn visit_attributes<'a>(&'a self, see: &mut dyn FnMut(&'a Attribute)) {
        match self {
            FieldExpr::Value(_) => {}
            FieldExpr::Attribute(a) => see(a),
            FieldExpr::Not(e) | FieldExpr::Negate(e) | FieldExpr::Exists(e, _) => e.visit_attributes(see),
            FieldExpr::And(all) | FieldExpr::Or(all) => all.iter().for_each(|e| e.visit_attributes(see)),
            FieldExpr::Compare { left, right, .. } | FieldExpr::Arithmetic { left, right, .. } => {
                left.visit_attributes(see);
                right.visit_attributes(see);
            }
        }
    }

    /// Whether the value depends on the span.
    pub(crate) fn names_attribute(&self) -> bool {
        let mut named = false;
        self.visit_attributes(&mut |_| named = true);
        named
    }
}

impl ScalarExpr {
    pub(crate) fn kind(&self) -> Type {
        match self {
            ScalarExpr::Value(v) => Type::of_value(v),
            ScalarExpr::Count => Type::Int,
            ScalarExpr::Aggregate { of, .. } => of.kind(),
            ScalarExpr::Arithmetic { op, left, right } => op.kind(left.kind(), right.kind()),
        }
    }

    pub(crate) fn visit_attributes<'a>(&'a self, see: &mut dyn FnMut(&'a Attribute)) {
        match self {
            ScalarExpr::Value(_) | ScalarExpr::Count => {}
            ScalarExpr::Aggregate { of, .. } => of.visit_attributes(see),
            ScalarExpr::Arithmetic { left, right, .. } => {
                left.visit_attributes(see);
                right.visit_attributes(see);
            }
        }
    }
}

impl Pipeline {
    /// Calls `see` for every attribute named anywhere in it.
    pub(crate) fn visit_attributes<'a>(&'a self, see: &mut dyn FnMut(&'a Attribute)) {
        for stage in &self.stages {
            match stage {
                Stage::Spans(e) => e.visit_attributes(see),
                Stage::Filter(f) => {
                    f.left.visit_attributes(see);
                    f.right.visit_attributes(see);
                }
                Stage::By(e) => e.visit_attributes(see),
                Stage::Coalesce => {}
                Stage::Select(all) => all.iter().for_each(&mut *see),
            }
        }
    }

    /// Whether spans are asked how they are related.
    pub(crate) fn relates_spans(&self) -> bool {
        self.stages.iter().any(|s| matches!(s, Stage::Spans(e) if e.relates_spans()))
    }
}

impl SpansetExpr {
    /// Nesting, without what is inside braces.
    pub(crate) fn depth(&self) -> usize {
        match self {
            SpansetExpr::Filter(_) => 1,
            SpansetExpr::Op { left, right, .. } => 1 + left.depth().max(right.depth()),
            SpansetExpr::Pipeline(p) => {
                let stages = p.stages.iter().map(|s| if let Stage::Spans(e) = s { e.depth() } else { 1 });
                1 + stages.max().unwrap_or(0)
            }
        }
    }

    fn visit_attributes<'a>(&'a self, see: &mut dyn FnMut(&'a Attribute)) {
        match self {
            SpansetExpr::Filter(e) => e.visit_attributes(see),
            SpansetExpr::Op { left, right, .. } => {
                left.visit_attributes(see);
                right.visit_attributes(see);
            }
            SpansetExpr::Pipeline(p) => p.visit_attributes(see),
        }
    }

    fn relates_spans(&self) -> bool {
        match self {
            SpansetExpr::Filter(_) => false,
            SpansetExpr::Op { op, left, right } => {
                !matches!(op, SpansetOp::And | SpansetOp::Or) || left.relates_spans() || right.relates_spans()
            }
            SpansetExpr::Pipeline(p) => p.relates_spans(),
        }
    }
}

impl MetricsExpr {
    /// The leaves, from left to right.
    pub fn leaves(&self) -> Vec<&MetricsLeaf> {
        match self {
            MetricsExpr::Leaf(leaf) => vec![leaf],
            MetricsExpr::Number(_) => Vec::new(),
            MetricsExpr::Math { left, right, .. } => {
                let mut all = left.leaves();
                all.extend(right.leaves());
                all
            }
            MetricsExpr::Second { of, .. } => of.leaves(),
        }
    }
}
