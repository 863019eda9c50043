//! The part of Go's text/template that queries use: fields, variables, pipelines, literals, `if`, `with`, `range`, trimming,
//! comments, and Loki's functions. No `define`, `block`, `template`, methods, channels.
//!
//! A template is written by whoever may ask queries, so its work per line is limited: steps, size of the output, width of
//! padding. What fails at run time is an error text; the pipeline turns it into `TemplateFormatErr`.

mod functions;
mod parse;
mod printf;
mod time;
mod value;

#[cfg(test)]
mod tests;

use triptych_model::Result;

use self::functions::Function;
use self::value::Value;
use crate::pipeline::labels::LineLabels;

/// Largest text a template may make of one line, and largest value inside of it.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Work for one line: nodes, commands, list items, JSON values copied, and text by length.
const STEPS_MAX: usize = 200_000;
/// What compiling a regex that is not written as a literal counts for.
const REGEX_STEPS: usize = 5_000;

#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
    fields: Option<Vec<String>>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Output(Pipe),
    If { branches: Vec<(Pipe, Vec<Node>)>, otherwise: Vec<Node> },
    With { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Range { pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, Default)]
struct Pipe {
    /// `$a, $b :=`
    variables: Vec<String>,
    /// `:=` rather than `=`.
    declares: bool,
    commands: Vec<Vec<Term>>,
}

#[derive(Debug)]
enum Term {
    Literal(Value),
    Dot,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Call(Function),
    Paren(Box<Pipe>, Vec<String>),
}

type Rendered<T> = std::result::Result<T, String>;

struct Run<'a> {
    labels: &'a LineLabels,
    line: &'a str,
    ts_ns: i64,
    variables: Vec<(String, Value)>,
    steps: usize,
}

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        let nodes = parse::parse(text)?;
        let mut fields = Some(Vec::new());
        fields_of(&nodes, &mut fields);
        Ok(Self { nodes, fields })
    }

    /// The labels that it reads; `None`: it may read any.
    pub fn fields(&self) -> Option<&[String]> {
        self.fields.as_deref()
    }

    /// Appends to `out`, which is to be thrown away on failure.
    pub fn render(&self, labels: &LineLabels, line: &str, ts_ns: i64, out: &mut String) -> Rendered<()> {
        let mut run = Run { labels, line, ts_ns, variables: Vec::new(), steps: 0 };
        run.nodes(&self.nodes, &Value::Labels, out)
    }
}

fn fields_of(nodes: &[Node], fields: &mut Option<Vec<String>>) {
    fn pipe(p: &Pipe, fields: &mut Option<Vec<String>>) {
        for term in p.commands.iter().flatten() {
            match term {
                Term::Dot => *fields = None,
                Term::Variable(name, _) if name.is_empty() => *fields = None,
                Term::Field(path) => {
                    if let (Some(fields), Some(first)) = (fields.as_mut(), path.first()) {
                        fields.push(first.clone());
                    }
                }
                Term::Paren(inner, _) => pipe(inner, fields),
                Term::Literal(_) | Term::Variable(..) | Term::Call(_) => {}
            }
        }
    }
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Output(p) => pipe(p, fields),
            Node::If { branches, otherwise } => {
                for (p, body) in branches {
                    pipe(p, fields);
                    fields_of(body, fields);
                }
                fields_of(otherwise, fields);
            }
            Node::With { pipe: p, body, otherwise } | Node::Range { pipe: p, body, otherwise } => {
                pipe(p, fields);
                fields_of(body, fields);
                fields_of(otherwise, fields);
            }
        }
    }
}

impl Run<'_> {
    fn step(&mut self) -> Rendered<()> {
        self.charge(1)
    }

    fn charge(&mut self, steps: usize) -> Rendered<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            Err(format!("template runs more than {STEPS_MAX} steps"))
        } else {
            Ok(())
        }
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Rendered<()> {
        let scope = self.variables.len();
        let result = nodes.iter().try_for_each(|node| self.node(node, dot, out));
        self.variables.truncate(scope);
        result
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Rendered<()> {
        self.step()?;
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Output(pipe) => {
                // The commonest of all, without a copy.
                if pipe.variables.is_empty()
                    && let [command] = pipe.commands.as_slice()
                    && let [Term::Field(path)] = command.as_slice()
                    && let ([name], Value::Labels) = (path.as_slice(), dot)
                {
                    out.push_str(self.labels.get(name).unwrap_or(""));
                } else {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        value.print(self.labels, out);
                    }
                }
            }
            Node::If { branches, otherwise } => {
                let scope = self.variables.len();
                let mut taken = None;
                for (pipe, body) in branches {
                    if self.pipe(pipe, dot)?.is_true(self.labels) {
                        taken = Some(body);
                        break;
                    }
                }
                let result = self.nodes(taken.unwrap_or(otherwise), dot, out);
                self.variables.truncate(scope);
                result?;
            }
            Node::With { pipe, body, otherwise } => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let result = if value.is_true(self.labels) {
                    self.nodes(body, &value, out)
                } else {
                    self.nodes(otherwise, dot, out)
                };
                self.variables.truncate(scope);
                result?;
            }
            Node::Range { pipe, body, otherwise } => {
                let value = self.commands(pipe, dot)?;
                let items = value.items(self.labels)?;
                self.charge(items.len())?;
                if items.is_empty() {
                    self.nodes(otherwise, dot, out)?;
                }
                let scope = self.variables.len();
                for (key, item) in items {
                    match pipe.variables.as_slice() {
                        [one] => self.variables.push((one.clone(), item.clone())),
                        [first, second] => {
                            self.variables.push((first.clone(), key));
                            self.variables.push((second.clone(), item.clone()));
                        }
                        _ => {}
                    }
                    let result = self.nodes(body, &item, out);
                    self.variables.truncate(scope);
                    result?;
                }
            }
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(format!("template writes more than {OUTPUT_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Rendered<Value> {
        let value = self.commands(pipe, dot)?;
        if let Some(name) = pipe.variables.first() {
            if pipe.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let slot = self.variables.iter_mut().rev().find(|(n, _)| n == name);
                slot.ok_or_else(|| format!("undefined variable: ${name}"))?.1 = value.clone();
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Rendered<Value> {
        let mut carried: Option<Value> = None;
        for command in &pipe.commands {
            self.step()?;
            let value = match command.split_first() {
                Some((Term::Call(function), arguments)) => {
                    // `and` and `or` stop at the first that decides.
                    let mut values = Vec::with_capacity(arguments.len() + 1);
                    let mut decided = None;
                    for argument in arguments {
                        let value = self.term(argument, dot)?;
                        if function.decides(&value, self.labels) {
                            decided = Some(value);
                            break;
                        }
                        values.push(value);
                    }
                    match decided {
                        Some(value) => value,
                        None => {
                            values.extend(carried.take());
                            self.charge(function.cost(&values))?;
                            function.call(values, self)?
                        }
                    }
                }
                Some((term, [])) if carried.is_none() => self.term(term, dot)?,
                Some(_) => return Err("can't give argument to non-function".to_owned()),
                None => Value::Nil,
            };
            value.check_size()?;
            carried = Some(value);
        }
        Ok(carried.unwrap_or(Value::Nil))
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Rendered<Value> {
        self.step()?;
        let value = self.term_value(term, dot)?;
        self.charge(value.weight())?;
        Ok(value)
    }

    fn term_value(&mut self, term: &Term, dot: &Value) -> Rendered<Value> {
        match term {
            Term::Literal(value) => Ok(value.clone()),
            Term::Dot => Ok(dot.clone()),
            Term::Field(path) => dot.field(path, self.labels),
            Term::Variable(name, path) if name.is_empty() => Value::Labels.field(path, self.labels),
            Term::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                found.ok_or_else(|| format!("undefined variable: ${name}"))?.1.field(path, self.labels)
            }
            Term::Call(function) => function.call(Vec::new(), self),
            Term::Paren(pipe, path) => self.pipe(pipe, dot)?.field(path, self.labels),
        }
    }
}
