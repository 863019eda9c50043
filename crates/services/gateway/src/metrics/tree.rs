//! `/api/v1/parse_query`: a query's syntax tree, in the shape that Prometheus' page and other editors read.

use serde_json::{Value, json};
use triptych_model::Matcher;
use triptych_promql::ast::{At, Binary, DurationExpr, Expr, Grouping, Type, VectorSelector};
use triptych_promql::functions::{Function, Variadic};

use crate::numbers;

/// The tree below this node. As deep as the parser lets expressions be.
pub fn tree(expr: &Expr) -> Value {
    match expr {
        Expr::Number(e) => json!({"type": "numberLiteral", "val": decimal(e.value)}),
        Expr::String(e) => json!({"type": "stringLiteral", "val": e.value}),
        Expr::Paren(inner, _) => json!({"type": "parenExpr", "expr": tree(inner)}),
        Expr::Unary(e) => {
            let op = if e.negative { "-" } else { "+" };
            json!({"type": "unaryExpr", "op": op, "expr": tree(&e.expr)})
        }
        Expr::Binary(e) => json!({
            "type": "binaryExpr",
            "op": e.op.as_str(),
            "lhs": tree(&e.left),
            "rhs": tree(&e.right),
            "matching": matching(e),
            "bool": e.return_bool,
        }),
        Expr::Call(e) => json!({
            "type": "call",
            "func": function(e.function),
            "args": e.args.iter().map(tree).collect::<Vec<_>>(),
        }),
        Expr::Aggregate(e) => json!({
            "type": "aggregation",
            "op": e.op.as_str(),
            "expr": tree(&e.expr),
            "param": e.param.as_ref().map(tree),
            "grouping": e.labels,
            "without": e.without,
        }),
        Expr::Vector(e) => selector("vectorSelector", e),
        Expr::Matrix(e) => {
            let mut node = selector("matrixSelector", &e.selector);
            node["range"] = milliseconds(Some(&e.range)).into();
            node["rangeExpr"] = arithmetic(Some(&e.range));
            node
        }
        Expr::Subquery(e) => json!({
            "type": "subquery",
            "expr": tree(&e.expr),
            "range": milliseconds(Some(&e.range)),
            "rangeExpr": arithmetic(Some(&e.range)),
            "offset": milliseconds(e.offset.as_ref()),
            "offsetExpr": arithmetic(e.offset.as_ref()),
            "step": milliseconds(e.step.as_ref()),
            "stepExpr": arithmetic(e.step.as_ref()),
            "timestamp": timestamp(e.at),
            "startOrEnd": start_or_end(e.at),
        }),
    }
}

fn selector(kind: &str, e: &VectorSelector) -> Value {
    let matcher = |m: &Matcher| json!({"name": m.name, "value": m.value, "type": m.op.as_str()});
    json!({
        "type": kind,
        "name": e.name,
        "offset": milliseconds(e.offset.as_ref()),
        "offsetExpr": arithmetic(e.offset.as_ref()),
        "matchers": e.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "timestamp": timestamp(e.at),
        "startOrEnd": start_or_end(e.at),
        "anchored": false,
        "smoothed": false,
    })
}

/// How series are paired; nothing where one side is a scalar.
fn matching(e: &Binary) -> Value {
    if e.left.result_type() != Type::Vector || e.right.result_type() != Type::Vector {
        return Value::Null;
    }
    let matching = &e.matching;
    let card = match matching.grouping {
        Grouping::None if e.op.is_set() => "many-to-many",
        Grouping::None => "one-to-one",
        Grouping::Left => "many-to-one",
        Grouping::Right => "one-to-many",
    };
    json!({
        "card": card,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    })
}

fn function(function: &Function) -> Value {
    let name = |t: &Type| match t {
        Type::Scalar => "scalar",
        Type::String => "string",
        Type::Vector => "vector",
        Type::Matrix => "matrix",
    };
    let variadic = match function.variadic {
        Variadic::No => 0,
        Variadic::AtMost(times) => times as i64,
        Variadic::Any => -1,
    };
    json!({
        "name": function.name,
        "argTypes": function.args.iter().map(name).collect::<Vec<_>>(),
        "variadic": variadic,
        "returnType": name(&function.returns),
    })
}

/// A literal's length; 0 where there is none, and where it is an expression, which [`arithmetic`] shows.
fn milliseconds(length: Option<&DurationExpr>) -> i64 {
    match length {
        Some(DurationExpr::Ms(ms)) => *ms,
        Some(DurationExpr::Paren(inner)) if is_literal(inner) => milliseconds(Some(inner)),
        _ => 0,
    }
}

fn is_literal(length: &DurationExpr) -> bool {
    match length {
        DurationExpr::Ms(_) => true,
        DurationExpr::Paren(inner) => is_literal(inner),
        _ => false,
    }
}

/// A length that is more than a literal; null for others.
fn arithmetic(length: Option<&DurationExpr>) -> Value {
    length.filter(|length| !is_literal(length)).map_or(Value::Null, |length| node(length, false))
}

/// `wrapped`: it stands in parentheses.
fn node(length: &DurationExpr, wrapped: bool) -> Value {
    let expr = |op: &str, left: Option<&DurationExpr>, right: Option<&DurationExpr>| {
        json!({
            "type": "durationExpr",
            "op": op,
            "lhs": left.map(|l| node(l, false)),
            "rhs": right.map(|r| node(r, false)),
            "wrapped": wrapped,
        })
    };
    match length {
        DurationExpr::Ms(ms) => {
            json!({"type": "numberLiteral", "val": decimal(*ms as f64 / 1000.0), "duration": true})
        }
        DurationExpr::Paren(inner) => node(inner, true),
        DurationExpr::Step => expr("step", None, None),
        DurationExpr::Range => expr("range", None, None),
        DurationExpr::Negative(inner) => expr("-", None, Some(inner)),
        DurationExpr::Binary(op, left, right) => expr(op.as_str(), Some(left), Some(right)),
        DurationExpr::MinOf(left, right) => expr("min_of", Some(left), Some(right)),
        DurationExpr::MaxOf(left, right) => expr("max_of", Some(left), Some(right)),
    }
}

fn timestamp(at: Option<At>) -> Option<i64> {
    match at {
        Some(At::Ms(ms)) => Some(ms),
        _ => None,
    }
}

fn start_or_end(at: Option<At>) -> Option<&'static str> {
    match at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        _ => None,
    }
}

fn decimal(value: f64) -> String {
    let mut out = String::new();
    numbers::decimal(&mut out, value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_have_the_shape_of_the_original() {
        let of = |query: &str| tree(&triptych_promql::parse(query).unwrap());
        let up = json!({
            "type": "vectorSelector", "name": "up", "offset": 60000, "offsetExpr": null,
            "matchers": [
                {"name": "job", "value": "a.*", "type": "=~"},
                {"name": "__name__", "value": "up", "type": "="},
            ],
            "timestamp": null, "startOrEnd": "end", "anchored": false, "smoothed": false,
        });
        assert_eq!(of("up{job=~'a.*'} @ end() offset 1m"), up);

        let rate = of("topk(2, rate(x[5m] @ 1.5)) by (job)");
        assert_eq!((&rate["type"], &rate["op"]), (&json!("aggregation"), &json!("topk")));
        assert_eq!((&rate["param"]["val"], &rate["grouping"]), (&json!("2"), &json!(["job"])));
        let call = &rate["expr"];
        assert_eq!(
            call["func"],
            json!({"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"})
        );
        let matrix = &call["args"][0];
        assert_eq!((&matrix["type"], &matrix["range"]), (&json!("matrixSelector"), &json!(300_000)));
        assert_eq!((&matrix["rangeExpr"], &matrix["timestamp"]), (&Value::Null, &json!(1500)));

        let joined = of("a * on(x) group_left(y) -b");
        assert_eq!(
            joined["matching"],
            json!({"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"],
                   "fillValues": {"lhs": null, "rhs": null}})
        );
        assert_eq!(joined["rhs"]["op"], "-");
        assert_eq!(of("a and b")["matching"]["card"], "many-to-many");
        assert_eq!(of("(a > bool 1e-7)")["expr"]["matching"], Value::Null);
        assert_eq!(of("a > bool 1e-7")["rhs"]["val"], "0.0000001");
        let sub = of("max_over_time(a[1h:step()])")["args"][0].clone();
        assert_eq!(
            (&sub["type"], &sub["range"], &sub["step"]),
            (&json!("subquery"), &json!(3_600_000), &json!(0))
        );
        assert_eq!(sub["stepExpr"]["op"], "step");
        assert_eq!(of("'x'"), json!({"type": "stringLiteral", "val": "x"}));
        assert_eq!(of("round(a)")["func"]["variadic"], 1);
    }
}
