//! Tokens to the typed tree: recursive descent with precedence climbing, types checked where the operator stands.
//!
//! Precedence, loosest first, as in Tempo: `|`; `&&` and `||` alike; comparisons and structural operators; `+ -`; `!`;
//! `* / %`; `^` (to the right); all others to the left.

mod field;
mod names;

use triptych_model::traces::Value;
use triptych_model::{Error, Result};

use names::{arithmetic_op, bare_intrinsic, level, scoped_intrinsic, spanset_op};
pub(crate) use names::{compare_op, keyword_value};

use crate::ast::{
    AggregateOp, ArithmeticOp, Body, FieldExpr, MetricsExpr, MetricsLeaf, MetricsOp, Pipeline, Query,
    ScalarExpr, ScalarFilter, SecondStage, SpansetExpr, Stage, Type,
};
use crate::lexer::{Token, error_at, lex};
use crate::source::{Attribute, Scope};
use crate::value::{arithmetic, negated, number};

/// Deepest nesting of a query's tree, so that no text exhausts the stack. `&&` and `||` chains inside braces count once.
const DEPTH_MAX: usize = 100;

/// Most `topk(n)`.
const TOPK_MAX: i64 = 100_000;

/// Parses and checks a query. Errors are of kind `Invalid` and say where: `parse error at line 1, col 5: ...`.
pub fn parse(text: &str) -> Result<Query> {
    let tokens = lex(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0 };
    let start = parser.position();
    let node = parser.pipeline()?;
    let body = match node {
        Node::Pipeline(p) => Body::Spans(p),
        Node::Spans(e, _) => Body::Spans(Pipeline { stages: vec![Stage::Spans(e)] }),
        Node::Filter(f) => Body::Spans(Pipeline { stages: vec![Stage::Filter(f)] }),
        Node::Metrics(m, _) => Body::Metrics(m),
        other => return parser.fail(start, format_args!("{} alone is not a query", other.what())),
    };
    let mut hints = Vec::new();
    while parser.take_word("with") {
        parser.hints(&mut hints)?;
    }
    parser.expect_end()?;
    Ok(Query { body, hints })
}

/// An attribute or intrinsic by its name in a query: `resource.service.name`, `status`, `span:id`. A name without a scope that is
/// no intrinsic (`http.method`) means an attribute of any scope, as in Tempo's tag API.
pub fn parse_attribute(name: &str) -> Result<Attribute> {
    if name.is_empty() {
        return Err(Error::invalid("attribute has no name"));
    }
    if let Ok(tokens) = lex(name)
        && tokens.len() == 2
    {
        match &tokens[0].0 {
            Token::Attribute(a) => return Ok(a.clone()),
            Token::ScopedIntrinsic(word) => {
                return scoped_intrinsic(word)
                    .map(Attribute::Intrinsic)
                    .ok_or_else(|| Error::invalid(format!("unknown intrinsic {word}")));
            }
            Token::Word(word) => {
                if let Some(intrinsic) = bare_intrinsic(word) {
                    return Ok(Attribute::Intrinsic(intrinsic));
                }
            }
            _ => {}
        }
    }
    for (scope, word) in [
        (Scope::Span, "span."),
        (Scope::Resource, "resource."),
        (Scope::Event, "event."),
        (Scope::Link, "link."),
        (Scope::Instrumentation, "instrumentation."),
        (Scope::Any, "."),
    ] {
        if let Some(rest) = name.strip_prefix(word).filter(|rest| !rest.is_empty()) {
            return Ok(Attribute::Named(scope, rest.into()));
        }
    }
    Ok(Attribute::Named(Scope::Any, name.into()))
}

/// What a piece of a query may be before it is known what surrounds it. Trees that can grow carry their depth.
enum Node {
    Spans(SpansetExpr, usize),
    Pipeline(Pipeline),
    Filter(ScalarFilter),
    Metrics(MetricsExpr, usize),
    Scalar(ScalarExpr, usize),
    /// `{ .. } | count()`, to be compared with something.
    ScalarPipeline(Pipeline, ScalarExpr),
}

impl Node {
    fn what(&self) -> &'static str {
        match self {
            Node::Spans(..) => "a span set",
            Node::Pipeline(_) => "a pipeline",
            Node::Filter(_) => "a scalar filter",
            Node::Metrics(..) => "a metrics query",
            Node::Scalar(ScalarExpr::Value(_), _) => "a constant",
            Node::Scalar(..) | Node::ScalarPipeline(..) => "an aggregate without a comparison",
        }
    }
}

impl Node {
    /// A span set expression and its depth.
    fn into_spans(self) -> Result<(SpansetExpr, usize), Node> {
        match self {
            Node::Spans(e, depth) => Ok((e, depth)),
            Node::Pipeline(p) => {
                let e = SpansetExpr::Pipeline(p);
                let depth = e.depth();
                Ok((e, depth))
            }
            other => Err(other),
        }
    }

    fn again(tried: Result<(SpansetExpr, usize), Node>) -> Node {
        tried.map_or_else(|node| node, |(e, depth)| Node::Spans(e, depth))
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is `End`, and nothing moves past it.
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn position(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn fail<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T> {
        Err(error_at(self.text, at, message))
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        self.fail(self.position(), format_args!("unexpected {}, expected {wanted}", self.peek()))
    }

    fn sign(&self) -> Option<&'static str> {
        match self.peek() {
            Token::Sign(s) => Some(s),
            _ => None,
        }
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.sign() == Some(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { self.unexpected(&format!("`{sign}`")) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(w) if w == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect_end(&self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { self.unexpected("end of query") }
    }

    /// Counts nesting while `inner` runs.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX {
            return self.fail(self.position(), format_args!("nested deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn deeper(&self, at: usize, left: usize, right: usize) -> Result<usize> {
        let depth = left.max(right) + 1;
        if depth > DEPTH_MAX {
            return self.fail(at, format_args!("nested deeper than {DEPTH_MAX}"));
        }
        Ok(depth)
    }

    // --- Pipelines

    fn pipeline(&mut self) -> Result<Node> {
        self.nested(Self::pipeline_inner)
    }

    fn pipeline_inner(&mut self) -> Result<Node> {
        let mut node = match self.stage()? {
            Some(Stage::Coalesce) => {
                return self.fail(self.position(), "a pipeline cannot begin with coalesce()");
            }
            Some(stage) => Node::Pipeline(Pipeline { stages: vec![stage] }),
            None => self.expression(1)?,
        };
        loop {
            // A comparison behind a metrics query is one more stage, with or without a `|` before it.
            if let Node::Metrics(expr, depth) = node {
                if let Some(op) = self.sign().and_then(compare_op) {
                    let at = self.position();
                    if op.is_regex() {
                        return self.unexpected("a comparison");
                    }
                    self.advance();
                    let value = self.number()?;
                    node = self.second(at, expr, depth, SecondStage::Filter(op, seconds(&value)))?;
                    continue;
                }
                node = Node::Metrics(expr, depth);
            }
            let at = self.position();
            if !self.take_sign("|") {
                return Ok(node);
            }
            node = match node {
                Node::Metrics(expr, depth) => {
                    let at = self.position();
                    let stage = if self.take_word("topk") {
                        SecondStage::Topk(self.topk()?)
                    } else if self.take_word("bottomk") {
                        SecondStage::Bottomk(self.topk()?)
                    } else {
                        return self.unexpected("topk or bottomk");
                    };
                    self.second(at, expr, depth, stage)?
                }
                Node::Pipeline(p) => self.piped(p)?,
                Node::Spans(e, _) => self.piped(Pipeline { stages: vec![Stage::Spans(e)] })?,
                Node::Filter(f) => self.piped(Pipeline { stages: vec![Stage::Filter(f)] })?,
                other => return self.fail(at, format_args!("{} cannot feed a pipeline", other.what())),
            };
        }
    }

    fn second(&self, at: usize, expr: MetricsExpr, depth: usize, stage: SecondStage) -> Result<Node> {
        Ok(match expr {
            MetricsExpr::Second { of, mut stages } => {
                stages.push(stage);
                Node::Metrics(MetricsExpr::Second { of, stages }, depth)
            }
            of => {
                let depth = self.deeper(at, depth, 0)?;
                Node::Metrics(MetricsExpr::Second { of: Box::new(of), stages: vec![stage] }, depth)
            }
        })
    }

    fn topk(&mut self) -> Result<usize> {
        self.expect_sign("(")?;
        let at = self.position();
        let k = match self.peek() {
            Token::Int(k) => *k,
            _ => return self.unexpected("an integer"),
        };
        self.advance();
        if !(1..=TOPK_MAX).contains(&k) {
            return self.fail(at, format_args!("{k} is not between 1 and {TOPK_MAX}"));
        }
        self.expect_sign(")")?;
        Ok(k as usize)
    }

    /// What stands behind a `|`.
    fn piped(&mut self, mut pipeline: Pipeline) -> Result<Node> {
        if let Some(leaf_op) = self.metrics_op()? {
            let by = if self.take_word("by") { self.attribute_list()? } else { Vec::new() };
            let leaf = MetricsLeaf { pipeline, op: leaf_op, by };
            return Ok(Node::Metrics(MetricsExpr::Leaf(leaf), 1));
        }
        if let Some(stage) = self.stage()? {
            pipeline.stages.push(stage);
            return Ok(Node::Pipeline(pipeline));
        }
        let at = self.position();
        match self.expression(1)? {
            Node::Spans(e, _) => pipeline.stages.push(Stage::Spans(e)),
            Node::Filter(f) => pipeline.stages.push(Stage::Filter(f)),
            Node::Pipeline(p) => pipeline.stages.push(Stage::Spans(SpansetExpr::Pipeline(p))),
            // `({ .. } | count()) > 2`, with the comparison outside.
            Node::Scalar(e, _) if !matches!(e, ScalarExpr::Value(_)) && self.sign() == Some(")") => {
                return Ok(Node::ScalarPipeline(pipeline, e));
            }
            other => return self.fail(at, format_args!("{} cannot be a stage", other.what())),
        }
        Ok(Node::Pipeline(pipeline))
    }

    /// `by(..)`, `coalesce()`, `select(..)`; nothing else.
    fn stage(&mut self) -> Result<Option<Stage>> {
        let stage = if self.take_word("by") {
            self.expect_sign("(")?;
            let at = self.position();
            let (e, _) = self.field(1)?;
            if !e.names_attribute() {
                return self.fail(at, "by() must name something of the span");
            }
            self.expect_sign(")")?;
            Stage::By(e)
        } else if self.take_word("coalesce") {
            self.expect_sign("(")?;
            self.expect_sign(")")?;
            Stage::Coalesce
        } else if self.take_word("select") {
            Stage::Select(self.attribute_list()?)
        } else {
            return Ok(None);
        };
        Ok(Some(stage))
    }

    /// `(a, b)`
    fn attribute_list(&mut self) -> Result<Vec<Attribute>> {
        self.expect_sign("(")?;
        let mut all = Vec::new();
        loop {
            all.push(self.attribute()?);
            if !self.take_sign(",") {
                break;
            }
        }
        self.expect_sign(")")?;
        Ok(all)
    }

    fn attribute(&mut self) -> Result<Attribute> {
        match self.try_attribute()? {
            Some(a) => Ok(a),
            None => self.unexpected("an attribute"),
        }
    }

    fn try_attribute(&mut self) -> Result<Option<Attribute>> {
        let attribute = match self.peek() {
            Token::Attribute(a) => a.clone(),
            Token::ScopedIntrinsic(word) => match scoped_intrinsic(word) {
                Some(i) => Attribute::Intrinsic(i),
                None => return self.fail(self.position(), format_args!("unknown intrinsic {word}")),
            },
            Token::Word(word) => match bare_intrinsic(word) {
                Some(i) => Attribute::Intrinsic(i),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some(attribute))
    }

    fn metrics_op(&mut self) -> Result<Option<MetricsOp>> {
        let at = self.position();
        let Token::Word(word) = self.peek().clone() else { return Ok(None) };
        let with_attribute: fn(Attribute) -> MetricsOp = match word.as_str() {
            "rate" | "count_over_time" => {
                self.advance();
                self.expect_sign("(")?;
                self.expect_sign(")")?;
                return Ok(Some(if word == "rate" { MetricsOp::Rate } else { MetricsOp::CountOverTime }));
            }
            "quantile_over_time" => {
                self.advance();
                self.expect_sign("(")?;
                let attribute = self.measured()?;
                let mut quantiles = Vec::new();
                while self.take_sign(",") {
                    let at = self.position();
                    let q = match self.peek() {
                        Token::Int(i) => *i as f64,
                        Token::Float(v) => *v,
                        _ => return self.unexpected("a number"),
                    };
                    self.advance();
                    if !(0.0..=1.0).contains(&q) {
                        return self.fail(at, format_args!("quantile {q} is not between 0 and 1"));
                    }
                    quantiles.push(q);
                }
                if quantiles.is_empty() {
                    return self.unexpected("a quantile");
                }
                self.expect_sign(")")?;
                return Ok(Some(MetricsOp::QuantileOverTime(attribute, quantiles)));
            }
            "min_over_time" => MetricsOp::MinOverTime,
            "max_over_time" => MetricsOp::MaxOverTime,
            "sum_over_time" => MetricsOp::SumOverTime,
            "avg_over_time" => MetricsOp::AvgOverTime,
            "histogram_over_time" => MetricsOp::HistogramOverTime,
            "compare" => return self.fail(at, "compare() is not supported"),
            _ => return Ok(None),
        };
        self.advance();
        self.expect_sign("(")?;
        let attribute = self.measured()?;
        self.expect_sign(")")?;
        Ok(Some(with_attribute(attribute)))
    }

    /// An attribute that may hold numbers.
    fn measured(&mut self) -> Result<Attribute> {
        let at = self.position();
        let attribute = self.attribute()?;
        if let Attribute::Intrinsic(i) = &attribute
            && !i.kind().is_numeric()
        {
            return self.fail(at, format_args!("{attribute} is {}, not a number", i.kind().name()));
        }
        Ok(attribute)
    }

    /// `with` was taken.
    fn hints(&mut self, hints: &mut Vec<(String, Value)>) -> Result<()> {
        self.expect_sign("(")?;
        loop {
            let Token::Word(key) = self.peek().clone() else { return self.unexpected("the name of a hint") };
            self.advance();
            self.expect_sign("=")?;
            let negative = self.take_sign("-");
            let value = match self.peek() {
                Token::String(s) => Value::String(s.clone()),
                Token::Int(i) => Value::Int(*i),
                Token::Float(v) => Value::Float(*v),
                Token::Duration(ns) => Value::Duration(*ns),
                Token::Word(w) => match keyword_value(w) {
                    Some(v) => v,
                    None => return self.unexpected("a value"),
                },
                _ => return self.unexpected("a value"),
            };
            let value = if negative { negated(&value) } else { Some(value) };
            let Some(value) = value else { return self.unexpected("a number") };
            self.advance();
            hints.push((key, value));
            if !self.take_sign(",") {
                break;
            }
        }
        self.expect_sign(")")
    }

    // --- Span sets, scalars and metrics, joined by operators

    fn expression(&mut self, level_min: usize) -> Result<Node> {
        let mut left = self.operand()?;
        while let Some(sign) = self.sign() {
            let Some(l) = level(sign).filter(|l| *l >= level_min) else { break };
            // Behind a metrics query a comparison is a stage: left to `pipeline`.
            if l == 2 && matches!(left, Node::Metrics(..)) {
                break;
            }
            let at = self.position();
            self.advance();
            let right = self.nested(|p| p.expression(if sign == "^" { l } else { l + 1 }))?;
            left = self.join(at, sign, left, right)?;
        }
        Ok(left)
    }

    fn join(&self, at: usize, sign: &'static str, left: Node, right: Node) -> Result<Node> {
        let (left, right) = match (spanset_op(sign), left.into_spans(), right.into_spans()) {
            (Some(op), Ok((left, left_depth)), Ok((right, right_depth))) => {
                let depth = self.deeper(at, left_depth, right_depth)?;
                let e = SpansetExpr::Op { op, left: Box::new(left), right: Box::new(right) };
                return Ok(Node::Spans(e, depth));
            }
            (_, left, right) => (Node::again(left), Node::again(right)),
        };
        let wrong = |left: &Node, right: &Node| {
            self.fail(at, format_args!("`{sign}` cannot join {} and {}", left.what(), right.what()))
        };
        if let Some(op) = arithmetic_op(sign) {
            return match (left, right) {
                (Node::Scalar(ScalarExpr::Value(l), _), Node::Scalar(ScalarExpr::Value(r), _)) => {
                    match arithmetic(op, &l, &r) {
                        Some(v) => Ok(Node::Scalar(ScalarExpr::Value(v), 1)),
                        None => self.fail(at, "division by zero"),
                    }
                }
                (Node::Scalar(l, l_depth), Node::Scalar(r, r_depth)) => {
                    let depth = self.deeper(at, l_depth, r_depth)?;
                    let e = ScalarExpr::Arithmetic { op, left: Box::new(l), right: Box::new(r) };
                    Ok(Node::Scalar(e, depth))
                }
                (left, right) => {
                    let fits = !matches!(op, ArithmeticOp::Mod | ArithmeticOp::Pow);
                    match (self.metrics_side(at, &left)?, self.metrics_side(at, &right)?) {
                        (Some((l, l_depth)), Some((r, r_depth))) if fits => {
                            let depth = self.deeper(at, l_depth, r_depth)?;
                            let e = MetricsExpr::Math { op, left: Box::new(l), right: Box::new(r) };
                            Ok(Node::Metrics(e, depth))
                        }
                        _ => wrong(&left, &right),
                    }
                }
            };
        }
        let op = compare_op(sign).filter(|op| !op.is_regex());
        let (pipeline, op, left, right) = match (op, left, right) {
            (Some(op), Node::Scalar(l, _), Node::Scalar(r, _)) => (None, op, l, r),
            (Some(op), Node::ScalarPipeline(p, l), Node::Scalar(r, _)) => (Some(p), op, l, r),
            (_, left, right) => return wrong(&left, &right),
        };
        if let (ScalarExpr::Value(_), ScalarExpr::Value(_)) = (&left, &right) {
            return self.fail(at, "neither side is an aggregate");
        }
        let (l, r) = (left.kind(), right.kind());
        if !l.fits(r) {
            return self.fail(at, format_args!("`{sign}` cannot compare {} with {}", l.name(), r.name()));
        }
        let filter = ScalarFilter { op, left, right };
        Ok(match pipeline {
            None => Node::Filter(filter),
            Some(mut p) => {
                p.stages.push(Stage::Filter(filter));
                Node::Pipeline(p)
            }
        })
    }

    /// A metrics query or a number that can be computed with one.
    fn metrics_side(&self, at: usize, node: &Node) -> Result<Option<(MetricsExpr, usize)>> {
        Ok(match node {
            Node::Metrics(m, depth) => Some((m.clone(), *depth)),
            Node::Scalar(ScalarExpr::Value(Value::Duration(_)), _) => {
                return self.fail(at, "a duration cannot be computed with a metrics query");
            }
            Node::Scalar(ScalarExpr::Value(v), _) => number(v).map(|v| (MetricsExpr::Number(v), 1)),
            _ => None,
        })
    }

    fn operand(&mut self) -> Result<Node> {
        let at = self.position();
        if self.take_sign("{") {
            if self.take_sign("}") {
                return Ok(Node::Spans(SpansetExpr::Filter(FieldExpr::Value(Value::Bool(true))), 1));
            }
            let (e, _) = self.field(1)?;
            if !matches!(e.kind(), Type::Bool | Type::Dynamic) {
                return self
                    .fail(at, format_args!("a span filter must be a boolean, not {}", e.kind().name()));
            }
            self.expect_sign("}")?;
            return Ok(Node::Spans(SpansetExpr::Filter(e), 1));
        }
        if self.take_sign("(") {
            let node = self.pipeline()?;
            self.expect_sign(")")?;
            return Ok(match node {
                Node::Filter(f) => Node::Pipeline(Pipeline { stages: vec![Stage::Filter(f)] }),
                other => other,
            });
        }
        if self.take_sign("-") {
            let node = self.nested(Self::operand)?;
            return match &node {
                Node::Scalar(ScalarExpr::Value(v), _) if negated(v).is_some() => {
                    Ok(Node::Scalar(ScalarExpr::Value(negated(v).unwrap_or(Value::Nil)), 1))
                }
                _ => self.fail(at, format_args!("`-` cannot stand before {}", node.what())),
            };
        }
        let scalar = match self.peek().clone() {
            Token::Int(i) => ScalarExpr::Value(Value::Int(i)),
            Token::Float(v) => ScalarExpr::Value(Value::Float(v)),
            Token::Duration(ns) => ScalarExpr::Value(Value::Duration(ns)),
            Token::Word(word) => return self.aggregate(at, &word),
            _ => return self.unexpected("`{`, `(` or an aggregate"),
        };
        self.advance();
        Ok(Node::Scalar(scalar, 1))
    }

    fn aggregate(&mut self, at: usize, word: &str) -> Result<Node> {
        let op = match word {
            "count" => None,
            "avg" => Some(AggregateOp::Avg),
            "max" => Some(AggregateOp::Max),
            "min" => Some(AggregateOp::Min),
            "sum" => Some(AggregateOp::Sum),
            "rate"
            | "count_over_time"
            | "min_over_time"
            | "max_over_time"
            | "sum_over_time"
            | "avg_over_time"
            | "quantile_over_time"
            | "histogram_over_time" => {
                return self
                    .fail(at, format_args!("{word}() needs a span filter before it: {{}} | {word}(..)"));
            }
            "topk" | "bottomk" => {
                return self.fail(at, format_args!("{word}() must follow a metrics function"));
            }
            _ => return self.unexpected("`{`, `(` or an aggregate"),
        };
        self.advance();
        self.expect_sign("(")?;
        let Some(op) = op else {
            self.expect_sign(")")?;
            return Ok(Node::Scalar(ScalarExpr::Count, 1));
        };
        let of_at = self.position();
        let (of, depth) = self.field(1)?;
        let kind = of.kind();
        if kind != Type::Dynamic && !kind.is_numeric() {
            return self.fail(of_at, format_args!("{word}() needs a number, not {}", kind.name()));
        }
        if !of.names_attribute() {
            return self.fail(of_at, format_args!("{word}() must name something of the span"));
        }
        self.expect_sign(")")?;
        Ok(Node::Scalar(ScalarExpr::Aggregate { op, of }, depth + 1))
    }

    /// A constant, perhaps computed.
    fn number(&mut self) -> Result<Value> {
        let at = self.position();
        match self.nested(|p| p.expression(3))? {
            Node::Scalar(ScalarExpr::Value(v), _) => Ok(v),
            other => self.fail(at, format_args!("expected a number, found {}", other.what())),
        }
    }
}

/// Points of duration metrics are in seconds.
fn seconds(value: &Value) -> f64 {
    match value {
        Value::Duration(ns) => *ns as f64 / 1e9,
        other => number(other).unwrap_or(f64::NAN),
    }
}
