//! The typed plan: what the evaluator runs. Made from a checked tree for one query's times: `@ start()`, `step()` and
//! duration arithmetic are numbers here, parentheses are gone, scalars and vectors are different types, and what gives the
//! same answer at every step is wrapped so that it runs once.

use regex::Regex;
use triptych_model::labels::METRIC_NAME;
use triptych_model::matcher::anchored_regex;
use triptych_model::{Error, MatchOp, Matcher, Result};

use crate::ast::{self, AggregateOp, At, BinaryOp, DurationExpr, Expr, Grouping, Matching, Span};
use crate::eval::math::{MathFn, date_fn, math_fn};
use crate::eval::over_time::RangeFn;

/// The times of the whole query. `step_ms` 0: one instant.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
    /// Resolution of subqueries that name none.
    pub subquery_step_ms: i64,
}

impl Times {
    /// A length of time. Fails where it is none, as a division by zero.
    pub fn duration_ms(self, duration: &DurationExpr) -> Result<i64> {
        Planner { times: self, given: &[] }.duration_ms(duration)
    }

    /// What `@` means.
    pub fn at_ms(self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Ms(ms) => ms,
            At::Start => self.start_ms,
            At::End => self.end_ms,
        })
    }
}

#[derive(Debug)]
pub enum Plan {
    Scalar(Scalar),
    String(String),
    Vector(Vector),
    Matrix(RangeArg),
}

#[derive(Debug)]
pub enum Scalar {
    Const(f64),
    /// `time()`
    Time,
    /// `scalar(v)`
    OfVector(Box<Vector>),
    Negative(Box<Scalar>),
    Binary {
        op: BinaryOp,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
    MinOf(Box<Scalar>, Box<Scalar>),
    MaxOf(Box<Scalar>, Box<Scalar>),
    /// The same at every step.
    Invariant(Box<Scalar>),
}

#[derive(Debug, Clone)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
}

/// What a range function slides over.
#[derive(Debug)]
pub enum RangeArg {
    Matrix {
        selector: Selector,
        range_ms: i64,
        span: Span,
    },
    Subquery {
        inner: Box<Vector>,
        range_ms: i64,
        step_ms: i64,
        offset_ms: i64,
        at_ms: Option<i64>,
        span: Span,
    },
}

impl RangeArg {
    pub fn span(&self) -> Span {
        match self {
            RangeArg::Matrix { span, .. } | RangeArg::Subquery { span, .. } => *span,
        }
    }
    pub fn range_ms(&self) -> i64 {
        match self {
            RangeArg::Matrix { range_ms, .. } | RangeArg::Subquery { range_ms, .. } => *range_ms,
        }
    }
    pub fn offset_ms(&self) -> i64 {
        match self {
            RangeArg::Matrix { selector, .. } => selector.offset_ms,
            RangeArg::Subquery { offset_ms, .. } => *offset_ms,
        }
    }
    pub fn at_ms(&self) -> Option<i64> {
        match self {
            RangeArg::Matrix { selector, .. } => selector.at_ms,
            RangeArg::Subquery { at_ms, .. } => *at_ms,
        }
    }
}

#[derive(Debug)]
pub enum Vector {
    /// `timestamps`: the samples' own times, in seconds, in place of their values.
    Select {
        selector: Selector,
        timestamps: bool,
    },
    /// `vector(s)`
    OfScalar(Scalar),
    OverTime {
        func: RangeFn,
        arg: RangeArg,
        params: Vec<Scalar>,
        param_span: Span,
    },
    /// Value by value; the name goes.
    Math {
        func: MathFn,
        arg: Box<Vector>,
        params: Vec<Scalar>,
    },
    /// `timestamp(v)` of what is not a selector: the time of the step.
    StepTime(Box<Vector>),
    ScalarBinary {
        op: BinaryOp,
        return_bool: bool,
        vector: Box<Vector>,
        scalar: Scalar,
        scalar_left: bool,
    },
    Binary {
        op: BinaryOp,
        return_bool: bool,
        left: Box<Vector>,
        right: Box<Vector>,
        matching: Matching,
    },
    Aggregate {
        op: AggregateOp,
        arg: Box<Vector>,
        param: Option<Scalar>,
        /// Of `count_values`.
        label: String,
        without: bool,
        /// Sorted.
        labels: Vec<String>,
        param_span: Span,
        /// The answer is to be merged with those of other shards.
        partial: bool,
    },
    /// `labels`: what the missing series is known to have.
    Absent {
        arg: Box<Vector>,
        labels: Vec<(String, String)>,
    },
    AbsentOverTime {
        arg: RangeArg,
        labels: Vec<(String, String)>,
    },
    HistogramQuantile {
        quantiles: Vec<(Scalar, Span)>,
        label: Option<String>,
        arg: Box<Vector>,
        span: Span,
    },
    HistogramFraction {
        lower: Scalar,
        upper: Scalar,
        arg: Box<Vector>,
        span: Span,
    },
    LabelReplace {
        arg: Box<Vector>,
        target: String,
        replacement: String,
        source: String,
        regex: Regex,
    },
    LabelJoin {
        arg: Box<Vector>,
        target: String,
        separator: String,
        sources: Vec<String>,
    },
    Sort {
        arg: Box<Vector>,
        descending: bool,
        span: Span,
    },
    SortByLabel {
        arg: Box<Vector>,
        labels: Vec<String>,
        descending: bool,
        span: Span,
    },
    /// What other queriers have evaluated, by its number.
    Given(usize),
    /// Functions of native histograms: floats give nothing.
    Nothing,
    /// The same at every step.
    Invariant(Box<Vector>),
}

impl Vector {
    /// Whether no two of the series differ in the metric's name alone, so that dropping names cannot make them equal.
    pub fn unique_without_name(&self) -> bool {
        match self {
            Vector::Select { selector, .. } => {
                selector.matchers.iter().any(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal)
            }
            Vector::OverTime { func: RangeFn::Last | RangeFn::First, arg, .. } => match arg {
                RangeArg::Matrix { selector, .. } => {
                    selector.matchers.iter().any(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal)
                }
                RangeArg::Subquery { inner, .. } => inner.unique_without_name(),
            },
            Vector::ScalarBinary { op, return_bool, vector, .. } => {
                !op.is_comparison() || *return_bool || vector.unique_without_name()
            }
            Vector::Binary { op, return_bool, left, right, matching } => match op {
                BinaryOp::Or => false,
                BinaryOp::And | BinaryOp::Unless => left.unique_without_name(),
                op if op.is_comparison() && !return_bool => match matching.grouping {
                    Grouping::Right => right.unique_without_name(),
                    _ => left.unique_without_name(),
                },
                _ => true,
            },
            Vector::Aggregate { op, arg, labels, without, .. } => match op {
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                    arg.unique_without_name()
                }
                _ => *without || !labels.iter().any(|l| l == METRIC_NAME),
            },
            Vector::Given(_) | Vector::LabelReplace { .. } | Vector::LabelJoin { .. } => false,
            Vector::Sort { arg, .. } | Vector::SortByLabel { arg, .. } | Vector::Invariant(arg) => {
                arg.unique_without_name()
            }
            Vector::OfScalar(_)
            | Vector::OverTime { .. }
            | Vector::Math { .. }
            | Vector::StepTime(_)
            | Vector::Absent { .. }
            | Vector::AbsentOverTime { .. }
            | Vector::HistogramQuantile { .. }
            | Vector::HistogramFraction { .. }
            | Vector::Nothing => true,
        }
    }
}

impl Plan {
    /// The answer is to be merged with those of other shards.
    pub fn make_partial(&mut self) {
        let Plan::Vector(vector) = self else { return };
        let mut vector = vector;
        while let Vector::Invariant(inner) = vector {
            vector = inner;
        }
        if let Vector::Aggregate { partial, .. } = vector {
            *partial = true;
        }
    }
}

/// Plans a checked tree. What stands at one of the `given` spans is [`Vector::Given`].
pub fn plan(expr: &Expr, times: Times, given: &[Span]) -> Result<Plan> {
    let planner = Planner { times, given };
    let expr = expr.unwrap_parens();
    if let Some(at) = planner.given_at(expr.span())
        && !matches!(expr, Expr::Aggregate(_))
    {
        return Ok(Plan::Vector(Vector::Given(at)));
    }
    Ok(match expr.result_type() {
        ast::Type::Scalar => Plan::Scalar(planner.scalar(expr)?.wrapped()),
        ast::Type::String => Plan::String(planner.string(expr)?),
        ast::Type::Vector => Plan::Vector(planner.vector(expr)?.wrapped()),
        ast::Type::Matrix => Plan::Matrix(planner.range(expr)?.node),
    })
}

/// Whether a part answers the same at every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Varies {
    Yes,
    No,
    /// No, and it costs nothing: a literal.
    Literal,
}

struct Planned<T> {
    node: T,
    varies: Varies,
}

impl Planned<Scalar> {
    fn wrapped(self) -> Scalar {
        match self.varies {
            Varies::No => Scalar::Invariant(Box::new(self.node)),
            _ => self.node,
        }
    }
}

impl Planned<Vector> {
    fn wrapped(self) -> Vector {
        match self.varies {
            Varies::No => Vector::Invariant(Box::new(self.node)),
            _ => self.node,
        }
    }
}

fn mistyped<T>() -> Result<T> {
    Err(Error::internal("the plan does not agree with the type check"))
}

struct Planner<'a> {
    times: Times,
    given: &'a [Span],
}

impl Planner<'_> {
    fn given_at(&self, span: Span) -> Option<usize> {
        self.given.iter().position(|given| (given.start, given.end) == (span.start, span.end))
    }

    fn string(&self, expr: &Expr) -> Result<String> {
        match expr.unwrap_parens() {
            Expr::String(s) => Ok(s.value.clone()),
            _ => mistyped(),
        }
    }

    /// A string that names a label.
    fn label(&self, expr: &Expr, invalid: impl Fn(&str) -> String) -> Result<String> {
        match expr.unwrap_parens() {
            Expr::String(s) if s.raw.is_none() && !s.value.is_empty() => Ok(s.value.clone()),
            Expr::String(s) => Err(Error::invalid(invalid(&s.value))),
            _ => mistyped(),
        }
    }

    fn seconds(&self, duration: &DurationExpr) -> Result<f64> {
        Ok(match duration {
            DurationExpr::Ms(ms) => *ms as f64 / 1000.0,
            DurationExpr::Step => self.times.step_ms as f64 / 1000.0,
            DurationExpr::Range => (self.times.end_ms - self.times.start_ms) as f64 / 1000.0,
            DurationExpr::Negative(e) => -self.seconds(e)?,
            DurationExpr::Paren(e) => self.seconds(e)?,
            DurationExpr::MinOf(l, r) => self.seconds(l)?.min(self.seconds(r)?),
            DurationExpr::MaxOf(l, r) => self.seconds(l)?.max(self.seconds(r)?),
            DurationExpr::Binary(op, l, r) => {
                let (l, r) = (self.seconds(l)?, self.seconds(r)?);
                match op {
                    BinaryOp::Div if r == 0.0 => return Err(Error::invalid("division by zero")),
                    BinaryOp::Mod if r == 0.0 => return Err(Error::invalid("modulo by zero")),
                    _ => crate::eval::binary::scalar_op(*op, l, r),
                }
            }
        })
    }

    fn duration_ms(&self, duration: &DurationExpr) -> Result<i64> {
        let seconds = self.seconds(duration)?;
        if !seconds.is_finite() || seconds.abs() > i64::MAX as f64 / 1e9 {
            return Err(Error::invalid(format!("duration out of range: {duration}")));
        }
        Ok((seconds * 1000.0).round() as i64)
    }

    fn range_ms(&self, duration: &DurationExpr) -> Result<i64> {
        let ms = self.duration_ms(duration)?;
        if ms <= 0 {
            return Err(Error::invalid(format!("duration must be greater than 0: {duration}")));
        }
        Ok(ms)
    }

    fn offset_ms(&self, offset: Option<&DurationExpr>) -> Result<i64> {
        offset.map_or(Ok(0), |o| self.duration_ms(o))
    }

    fn selector(&self, e: &ast::VectorSelector) -> Result<Planned<Selector>> {
        let at_ms = self.times.at_ms(e.at);
        let node =
            Selector { matchers: e.matchers.clone(), offset_ms: self.offset_ms(e.offset.as_ref())?, at_ms };
        Ok(Planned { node, varies: if at_ms.is_some() { Varies::No } else { Varies::Yes } })
    }

    fn range(&self, expr: &Expr) -> Result<Planned<RangeArg>> {
        match expr.unwrap_parens() {
            Expr::Matrix(m) => {
                let Planned { node: selector, varies } = self.selector(&m.selector)?;
                let node = RangeArg::Matrix { selector, range_ms: self.range_ms(&m.range)?, span: m.span };
                Ok(Planned { node, varies })
            }
            Expr::Subquery(s) => {
                let inner = Box::new(self.vector(&s.expr)?.wrapped());
                let step_ms = match &s.step {
                    Some(step) => self.range_ms(step)?,
                    None => self.times.subquery_step_ms.max(1),
                };
                let at_ms = self.times.at_ms(s.at);
                let node = RangeArg::Subquery {
                    inner,
                    range_ms: self.range_ms(&s.range)?,
                    step_ms,
                    offset_ms: self.offset_ms(s.offset.as_ref())?,
                    at_ms,
                    span: s.span,
                };
                Ok(Planned { node, varies: if at_ms.is_some() { Varies::No } else { Varies::Yes } })
            }
            _ => mistyped(),
        }
    }

    fn scalar(&self, expr: &Expr) -> Result<Planned<Scalar>> {
        let literal = |v: f64| Ok(Planned { node: Scalar::Const(v), varies: Varies::Literal });
        match expr.unwrap_parens() {
            Expr::Number(n) => literal(n.value),
            Expr::Unary(e) => {
                let Planned { node, varies } = self.scalar(&e.expr)?;
                let node = if e.negative { Scalar::Negative(Box::new(node)) } else { node };
                Ok(Planned { node, varies })
            }
            Expr::Binary(e) => {
                let (l, r) = (self.scalar(&e.left)?, self.scalar(&e.right)?);
                let varies = together([l.varies, r.varies]);
                let (left, right) = self.both(l, r, varies);
                Ok(Planned { node: Scalar::Binary { op: e.op, left, right }, varies })
            }
            Expr::Call(e) => match e.function.name {
                "time" => Ok(Planned { node: Scalar::Time, varies: Varies::Yes }),
                "pi" => literal(std::f64::consts::PI),
                "start" => literal(self.times.start_ms as f64 / 1000.0),
                "end" => literal(self.times.end_ms as f64 / 1000.0),
                "range" => literal((self.times.end_ms - self.times.start_ms) as f64 / 1000.0),
                "step" => literal(self.times.step_ms as f64 / 1000.0),
                "scalar" => {
                    let [arg] = &e.args[..] else { return mistyped() };
                    let Planned { node, varies } = self.vector(arg)?;
                    Ok(Planned { node: Scalar::OfVector(Box::new(node)), varies })
                }
                name @ ("min_of" | "max_of") => {
                    let [left, right] = &e.args[..] else { return mistyped() };
                    let (l, r) = (self.scalar(left)?, self.scalar(right)?);
                    let varies = together([l.varies, r.varies]);
                    let (l, r) = self.both(l, r, varies);
                    let node = if name == "min_of" { Scalar::MinOf(l, r) } else { Scalar::MaxOf(l, r) };
                    Ok(Planned { node, varies })
                }
                _ => mistyped(),
            },
            _ => mistyped(),
        }
    }

    fn both(&self, l: Planned<Scalar>, r: Planned<Scalar>, whole: Varies) -> (Box<Scalar>, Box<Scalar>) {
        if whole == Varies::Yes {
            (Box::new(l.wrapped()), Box::new(r.wrapped()))
        } else {
            (Box::new(l.node), Box::new(r.node))
        }
    }

    fn vector(&self, expr: &Expr) -> Result<Planned<Vector>> {
        match expr.unwrap_parens() {
            Expr::Vector(e) => {
                let Planned { node: selector, varies } = self.selector(e)?;
                Ok(Planned { node: Vector::Select { selector, timestamps: false }, varies })
            }
            Expr::Unary(e) => {
                let Planned { node, varies } = self.vector(&e.expr)?;
                if !e.negative {
                    return Ok(Planned { node, varies });
                }
                let node = Vector::Math { func: MathFn::Plain(|v| -v), arg: Box::new(node), params: vec![] };
                Ok(Planned { node, varies })
            }
            Expr::Binary(e) => self.binary(e),
            Expr::Aggregate(e) => self.aggregate(e),
            Expr::Call(e) => self.call(e),
            _ => mistyped(),
        }
    }

    fn binary(&self, e: &ast::Binary) -> Result<Planned<Vector>> {
        let (op, return_bool) = (e.op, e.return_bool);
        let scalar_left = e.left.result_type() == ast::Type::Scalar;
        if scalar_left || e.right.result_type() == ast::Type::Scalar {
            let (v, s) = if scalar_left { (&e.right, &e.left) } else { (&e.left, &e.right) };
            let (v, s) = (self.vector(v)?, self.scalar(s)?);
            let varies = together([v.varies, s.varies]);
            let (vector, scalar) =
                if varies == Varies::Yes { (v.wrapped(), s.wrapped()) } else { (v.node, s.node) };
            let vector = Box::new(vector);
            return Ok(Planned {
                node: Vector::ScalarBinary { op, return_bool, vector, scalar, scalar_left },
                varies,
            });
        }
        let (l, r) = (self.vector(&e.left)?, self.vector(&e.right)?);
        let varies = together([l.varies, r.varies]);
        let (left, right) = if varies == Varies::Yes { (l.wrapped(), r.wrapped()) } else { (l.node, r.node) };
        let mut matching = e.matching.clone();
        matching.labels.sort();
        matching.labels.dedup();
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(Planned { node: Vector::Binary { op, return_bool, left, right, matching }, varies })
    }

    fn aggregate(&self, e: &ast::Aggregate) -> Result<Planned<Vector>> {
        let arg = match self.given_at(e.span) {
            Some(at) if !crate::split::is_done_again(e.op) => {
                return Ok(Planned { node: Vector::Given(at), varies: Varies::Yes });
            }
            Some(at) => Planned { node: Vector::Given(at), varies: Varies::Yes },
            None => self.vector(&e.expr)?,
        };
        let mut varies = arg.varies;
        let (mut param, mut label) = (None, String::new());
        let mut param_span = e.span;
        if let Some(p) = &e.param {
            param_span = p.span();
            if e.op == AggregateOp::CountValues {
                label = self.label(p, |l| format!("invalid label name {}", quoted_raw(l)))?;
            } else {
                let p = self.scalar(p)?;
                varies = together([varies, p.varies]);
                param = Some(if varies == Varies::Yes { p.wrapped() } else { p.node });
            }
        }
        let arg = Box::new(if varies == Varies::Yes { arg.wrapped() } else { arg.node });
        let mut labels = e.labels.clone();
        labels.sort();
        labels.dedup();
        let (without, partial) = (e.without, false);
        let node = Vector::Aggregate { op: e.op, arg, param, label, without, labels, param_span, partial };
        Ok(Planned { node, varies })
    }

    fn call(&self, e: &ast::Call) -> Result<Planned<Vector>> {
        let name = e.function.name;
        if let Some(func) = RangeFn::from_name(name) {
            return self.over_time(func, e);
        }
        if let Some(func) = math_fn(name) {
            return self.math(func, &e.args);
        }
        if let Some(func) = date_fn(name) {
            let Planned { node, .. } = match e.args.first() {
                Some(arg) => self.vector(arg).map(|p| Planned { node: p.wrapped(), varies: Varies::Yes })?,
                None => Planned { node: Vector::OfScalar(Scalar::Time), varies: Varies::Yes },
            };
            let node = Vector::Math { func: MathFn::Plain(func), arg: Box::new(node), params: vec![] };
            return Ok(Planned { node, varies: Varies::Yes });
        }
        let first = || e.args.first().map_or_else(mistyped, Ok);
        let over = |make: &dyn Fn(Box<Vector>) -> Vector| -> Result<Planned<Vector>> {
            let Planned { node, varies } = self.vector(first()?)?;
            Ok(Planned { node: make(Box::new(node)), varies })
        };
        match name {
            "vector" => {
                let Planned { node, varies } = self.scalar(first()?)?;
                let varies = if varies == Varies::Literal { Varies::No } else { varies };
                Ok(Planned { node: Vector::OfScalar(node), varies })
            }
            "timestamp" => {
                let inner = first()?.unwrap_parens();
                if let Expr::Vector(s) = inner {
                    let Planned { node: selector, varies } = self.selector(s)?;
                    return Ok(Planned { node: Vector::Select { selector, timestamps: true }, varies });
                }
                let arg = self.vector(inner)?.wrapped();
                Ok(Planned { node: Vector::StepTime(Box::new(arg)), varies: Varies::Yes })
            }
            "absent" => {
                let labels = known_labels(first()?);
                over(&|arg| Vector::Absent { arg, labels: labels.clone() })
            }
            "absent_over_time" => {
                let labels = known_labels(first()?);
                let Planned { node: arg, varies } = self.range(first()?)?;
                Ok(Planned { node: Vector::AbsentOverTime { arg, labels }, varies })
            }
            "histogram_quantile" => {
                let [q, arg] = &e.args[..] else { return mistyped() };
                let (quantile, v) = (self.scalar(q)?, self.vector(arg)?);
                let varies = together([quantile.varies, v.varies]);
                let (q_node, v_node) = if varies == Varies::Yes {
                    (quantile.wrapped(), v.wrapped())
                } else {
                    (quantile.node, v.node)
                };
                let node = Vector::HistogramQuantile {
                    quantiles: vec![(q_node, q.span())],
                    label: None,
                    arg: Box::new(v_node),
                    span: arg.span(),
                };
                Ok(Planned { node, varies })
            }
            "histogram_quantiles" => {
                let [arg, label, qs @ ..] = &e.args[..] else { return mistyped() };
                let v = self.vector(arg)?;
                let label = self.label(label, |l| format!("invalid label name {}", quoted_raw(l)))?;
                let qs: Vec<_> = qs.iter().map(|q| Ok((self.scalar(q)?, q.span()))).collect::<Result<_>>()?;
                let varies = qs.iter().fold(v.varies, |all, (q, _)| together([all, q.varies]));
                let keep = varies != Varies::Yes;
                let quantiles =
                    qs.into_iter().map(|(q, span)| (if keep { q.node } else { q.wrapped() }, span)).collect();
                let arg_node = Box::new(if keep { v.node } else { v.wrapped() });
                let node = Vector::HistogramQuantile {
                    quantiles,
                    label: Some(label),
                    arg: arg_node,
                    span: arg.span(),
                };
                Ok(Planned { node, varies })
            }
            "histogram_fraction" => {
                let [lower, upper, arg] = &e.args[..] else { return mistyped() };
                let (l, u, v) = (self.scalar(lower)?, self.scalar(upper)?, self.vector(arg)?);
                let varies = together([l.varies, u.varies, v.varies]);
                let (lower, upper, v) = if varies == Varies::Yes {
                    (l.wrapped(), u.wrapped(), v.wrapped())
                } else {
                    (l.node, u.node, v.node)
                };
                let node = Vector::HistogramFraction { lower, upper, arg: Box::new(v), span: arg.span() };
                Ok(Planned { node, varies })
            }
            "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev"
            | "histogram_stdvar" => Ok(Planned { node: Vector::Nothing, varies: Varies::Literal }),
            "label_replace" => self.label_replace(e),
            "label_join" => {
                let [_, target, separator, sources @ ..] = &e.args[..] else { return mistyped() };
                let target =
                    self.label(target, |l| format!("invalid destination label name in label_join(): {l}"))?;
                let separator = self.string(separator)?;
                let sources: Vec<String> = sources
                    .iter()
                    .map(|s| self.label(s, |l| format!("invalid source label name in label_join(): {l}")))
                    .collect::<Result<_>>()?;
                over(&|arg| Vector::LabelJoin {
                    arg,
                    target: target.clone(),
                    separator: separator.clone(),
                    sources: sources.clone(),
                })
            }
            "sort" => over(&|arg| Vector::Sort { arg, descending: false, span: e.span }),
            "sort_desc" => over(&|arg| Vector::Sort { arg, descending: true, span: e.span }),
            "sort_by_label" | "sort_by_label_desc" => {
                let labels: Vec<String> =
                    e.args.iter().skip(1).map(|l| self.string(l)).collect::<Result<_>>()?;
                let descending = name == "sort_by_label_desc";
                over(&|arg| Vector::SortByLabel { arg, labels: labels.clone(), descending, span: e.span })
            }
            other => Err(Error::invalid(format!("function {other:?} is not supported"))),
        }
    }

    fn label_replace(&self, e: &ast::Call) -> Result<Planned<Vector>> {
        let [arg, target, replacement, source, regex] = &e.args[..] else { return mistyped() };
        let pattern = self.string(regex)?;
        let invalid = || Error::invalid(format!("invalid regular expression in label_replace(): {pattern}"));
        let regex = anchored_regex(&pattern).map_err(|_| invalid())?;
        let target =
            self.label(target, |l| format!("invalid destination label name in label_replace(): {l}"))?;
        let (replacement, source) = (self.string(replacement)?, self.string(source)?);
        let Planned { node, varies } = self.vector(arg)?;
        let arg = Box::new(node);
        Ok(Planned { node: Vector::LabelReplace { arg, target, replacement, source, regex }, varies })
    }

    fn over_time(&self, func: RangeFn, e: &ast::Call) -> Result<Planned<Vector>> {
        let is_range = |a: &&Expr| a.result_type() == ast::Type::Matrix;
        let Some(arg) = e.args.iter().find(is_range) else { return mistyped() };
        let arg = self.range(arg)?;
        let params: Vec<Planned<Scalar>> =
            e.args.iter().filter(|a| !is_range(a)).map(|a| self.scalar(a)).collect::<Result<_>>()?;
        let param_span = e.args.iter().find(|a| !is_range(a)).map_or(e.span, Expr::span);
        let mut varies = params.iter().fold(arg.varies, |all, p| together([all, p.varies]));
        if func == RangeFn::PredictLinear {
            // It looks from the time of each step.
            varies = Varies::Yes;
        }
        let params =
            params.into_iter().map(|p| if varies == Varies::Yes { p.wrapped() } else { p.node }).collect();
        Ok(Planned { node: Vector::OverTime { func, arg: arg.node, params, param_span }, varies })
    }

    fn math(&self, func: MathFn, args: &[Expr]) -> Result<Planned<Vector>> {
        let [arg, params @ ..] = args else { return mistyped() };
        let arg = self.vector(arg)?;
        let params: Vec<Planned<Scalar>> = params.iter().map(|p| self.scalar(p)).collect::<Result<_>>()?;
        let varies = params.iter().fold(arg.varies, |all, p| together([all, p.varies]));
        let keep = varies != Varies::Yes;
        let params = params.into_iter().map(|p| if keep { p.node } else { p.wrapped() }).collect();
        let arg = Box::new(if keep { arg.node } else { arg.wrapped() });
        Ok(Planned { node: Vector::Math { func, arg, params }, varies })
    }
}

fn together<const N: usize>(parts: [Varies; N]) -> Varies {
    if parts.contains(&Varies::Yes) {
        Varies::Yes
    } else if parts.contains(&Varies::No) {
        Varies::No
    } else {
        Varies::Literal
    }
}

/// In quotes; escapes that are not UTF-8 stand in the text already.
fn quoted_raw(text: &str) -> String {
    format!("\"{text}\"")
}

/// The labels that a series which is not there would have had: from equality matchers of labels that are named once.
fn known_labels(expr: &Expr) -> Vec<(String, String)> {
    let matchers = match expr.unwrap_parens() {
        Expr::Vector(s) => &s.matchers,
        Expr::Matrix(m) => &m.selector.matchers,
        _ => return Vec::new(),
    };
    let mut known: Vec<(String, String)> = Vec::new();
    for m in matchers.iter().filter(|m| m.name != METRIC_NAME) {
        let once = matchers.iter().filter(|other| other.name == m.name).count() == 1;
        if m.op == MatchOp::Equal && once {
            known.push((m.name.clone(), m.value.clone()));
        }
    }
    known
}
