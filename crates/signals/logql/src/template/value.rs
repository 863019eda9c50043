//! Values at run time, and how Go prints them.

use std::fmt::Write;
use std::sync::Arc;

use regex::Regex;

use super::time;
use super::{OUTPUT_BYTES_MAX, Rendered};
use crate::pipeline::labels::LineLabels;

#[derive(Debug, Clone)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A literal where a function wants a regex, compiled with the template.
    Regex(Arc<Regex>),
    /// Nanoseconds since the epoch, and seconds east of UTC for printing.
    Time(i64, i32),
    /// Of `fromJson`.
    Json(serde_json::Value),
    /// All labels: the dot a template starts with.
    Labels,
}

impl Value {
    pub fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(s) => Value::Text(s.clone()),
            other => Value::Json(other.clone()),
        }
    }

    pub fn is_true(&self, labels: &LineLabels) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Text(t) => !t.is_empty(),
            Value::Regex(_) => true,
            Value::Time(..) => true,
            Value::Json(serde_json::Value::Array(a)) => !a.is_empty(),
            Value::Json(serde_json::Value::Object(o)) => !o.is_empty(),
            Value::Json(_) => true,
            Value::Labels => !labels.all().is_empty(),
        }
    }

    /// What a copy of it costs.
    pub fn weight(&self) -> usize {
        fn of(json: &serde_json::Value) -> usize {
            match json {
                serde_json::Value::Array(items) => 1 + items.iter().map(of).sum::<usize>(),
                serde_json::Value::Object(items) => 1 + items.values().map(of).sum::<usize>(),
                _ => 1,
            }
        }
        match self {
            Value::Text(text) => text.len() / 256,
            Value::Json(json) => of(json),
            _ => 0,
        }
    }

    pub fn check_size(&self) -> Rendered<()> {
        match self {
            Value::Text(text) if text.len() > OUTPUT_BYTES_MAX => {
                Err(format!("template makes a text of more than {OUTPUT_BYTES_MAX} bytes"))
            }
            _ => Ok(()),
        }
    }

    pub fn field(&self, path: &[String], labels: &LineLabels) -> Rendered<Value> {
        let Some((name, rest)) = path.split_first() else { return Ok(self.clone()) };
        let mut json = match self {
            Value::Labels => {
                let value = Value::Text(labels.get(name).unwrap_or("").to_owned());
                return if rest.is_empty() { Ok(value) } else { value.field(rest, labels) };
            }
            Value::Json(json @ serde_json::Value::Object(_)) => json,
            Value::Nil => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
            _ => return Err(format!("can't evaluate field {name} in type {}", self.kind())),
        };
        for name in path {
            match json {
                serde_json::Value::Object(object) => match object.get(name) {
                    Some(inner) => json = inner,
                    None => return Ok(Value::Nil),
                },
                _ => return Err(format!("can't evaluate field {name}")),
            }
        }
        Ok(Value::from_json(json))
    }

    /// What `range` walks over: position or key, and the item.
    pub fn items(&self, labels: &LineLabels) -> Rendered<Vec<(Value, Value)>> {
        Ok(match self {
            Value::Nil => Vec::new(),
            Value::Labels => labels
                .all()
                .iter()
                .map(|(n, v)| (Value::Text((*n).to_owned()), Value::Text((*v).to_owned())))
                .collect(),
            Value::Json(serde_json::Value::Array(items)) => {
                items.iter().enumerate().map(|(i, v)| (Value::Int(i as i64), Value::from_json(v))).collect()
            }
            Value::Json(serde_json::Value::Object(items)) => {
                let mut items: Vec<_> = items.iter().collect();
                items.sort_by_key(|(k, _)| k.as_str());
                items.into_iter().map(|(k, v)| (Value::Text(k.clone()), Value::from_json(v))).collect()
            }
            _ => return Err(format!("range can't iterate over {}", self.kind())),
        })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) | Value::Regex(_) => "string",
            Value::Time(..) => "time.Time",
            Value::Json(serde_json::Value::Array(_)) => "[]interface {}",
            Value::Json(_) => "map[string]interface {}",
            Value::Labels => "map[string]string",
        }
    }

    /// As `%v`.
    pub fn print(&self, labels: &LineLabels, out: &mut String) {
        // Writing to a string does not fail.
        let _ = match self {
            Value::Nil => write!(out, "<no value>"),
            Value::Bool(b) => write!(out, "{b}"),
            Value::Int(i) => write!(out, "{i}"),
            Value::Float(f) => {
                print_float(*f, out);
                Ok(())
            }
            Value::Text(t) => {
                out.push_str(t);
                Ok(())
            }
            Value::Regex(regex) => {
                out.push_str(regex.as_str());
                Ok(())
            }
            Value::Time(ns, offset) => {
                time::format("2006-01-02 15:04:05.999999999 -0700 MST", *ns, *offset, out);
                Ok(())
            }
            Value::Json(json) => {
                print_json(json, out);
                Ok(())
            }
            Value::Labels => {
                out.push_str("map[");
                for (i, (name, value)) in labels.all().iter().enumerate() {
                    let _ = write!(out, "{}{name}:{value}", if i > 0 { " " } else { "" });
                }
                out.push(']');
                Ok(())
            }
        };
    }

    pub fn to_text(&self, labels: &LineLabels) -> String {
        match self {
            Value::Text(text) => text.clone(),
            other => {
                let mut out = String::new();
                other.print(labels, &mut out);
                out
            }
        }
    }
}

fn print_json(json: &serde_json::Value, out: &mut String) {
    match json {
        serde_json::Value::Null => out.push_str("<nil>"),
        serde_json::Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        serde_json::Value::Number(n) => print_float(n.as_f64().unwrap_or(f64::NAN), out),
        serde_json::Value::String(s) => out.push_str(s),
        serde_json::Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                print_json(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(items) => {
            out.push_str("map[");
            let mut items: Vec<_> = items.iter().collect();
            items.sort_by_key(|(k, _)| k.as_str());
            for (i, (key, item)) in items.into_iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                print_json(item, out);
            }
            out.push(']');
        }
    }
}

/// Go's `%v` of a float: the shortest digits.
pub fn print_float(value: f64, out: &mut String) {
    print_float_to(value, 6, out);
}

/// Go's `%g`: with an exponent below 1e-4, and where there would be more than `digits` digits before the point.
pub fn print_float_to(value: f64, digits: i32, out: &mut String) {
    let magnitude = value.abs();
    let _ = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' })
    } else if magnitude != 0.0 && !(1e-4..10_f64.powi(digits)).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(e) => ('-', e),
            None => ('+', exponent),
        };
        write!(out, "{digits}e{sign}{exponent:0>2}")
    } else {
        write!(out, "{value}")
    };
}
