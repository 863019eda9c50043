//! Compiled line pipelines.
//!
//! A [`Pipeline`] is compiled once per query and leaf, shared, and instantiated per stream as a [`StreamPipeline`], which owns
//! all the scratch space: a line that is filtered out costs no allocation, and one that passes costs its label sets.
//!
//! Line filters run first wherever the line is still as stored, whatever stands between; the parsers extract only what a later
//! stage, the grouping or the answer reads (log queries: everything).

mod json;
pub mod label_filter;
pub mod labels;
pub mod line_filter;
pub mod parsers;
pub mod pattern;
pub mod regexes;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use regex::CaptureLocations;
use triptych_model::{Error, Labels, Result};

use self::json::JsonPath;
use self::label_filter::{LabelFilter, TextTest};
use self::labels::{Category, LineLabels};
pub use self::line_filter::LineFilter;
use self::line_filter::LineTest;
use self::parsers::{LogfmtOptions, Needs, ParseRun, RegexpParser};
use self::pattern::CapturePattern;
use crate::syntax::ast::{
    Expr, LabelFormat, LabelPick, LineFilterExpr, LogExpr, MetricExpr, RangeAgg, Stage,
};
use crate::template::Template;
use crate::{ERROR_DETAILS_LABEL, ERROR_LABEL, PRESERVE_ERROR_LABEL};

#[derive(Debug)]
enum Op {
    Line(LineTest),
    Json(Needs),
    JsonPaths(Vec<JsonPath>, Needs),
    Logfmt(LogfmtOptions, Needs),
    LogfmtPaths(LogfmtOptions, Vec<(String, String)>, Needs),
    /// The number is that of its capture locations.
    Regexp(RegexpParser, usize, Needs),
    Pattern(CapturePattern, Needs),
    Unpack,
    Filter(LabelFilter),
    LineFormat(Template),
    LabelFormat(Vec<CompiledFormat>),
    Decolorize,
    Drop(Vec<Pick>),
    Keep(Vec<Pick>),
}

#[derive(Debug)]
enum CompiledFormat {
    Rename { label: String, from: String },
    Template { label: String, template: Template },
}

#[derive(Debug)]
enum Pick {
    Name(String),
    Test(TextTest),
}

impl Pick {
    fn compile(pick: &LabelPick) -> Result<Self> {
        Ok(match pick {
            LabelPick::Name(name) => Pick::Name(name.clone()),
            LabelPick::Matcher(m) => Pick::Test(TextTest::compile(m)?),
        })
    }

    fn name(&self) -> &str {
        match self {
            Pick::Name(name) => name,
            Pick::Test(test) => test.label(),
        }
    }

    fn hits(&self, value: &str) -> bool {
        match self {
            Pick::Name(_) => true,
            Pick::Test(test) => test.passes(value),
        }
    }
}

#[derive(Debug)]
struct Program {
    /// See the line as it is stored.
    line_tests: Vec<LineTest>,
    ops: Vec<Op>,
    prefilter: Option<LineFilter>,
    locations: usize,
    changes_line: bool,
}

/// The stages of a query, compiled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pipeline(Arc<Program>);

/// A line that passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Processed<'a> {
    pub line: Cow<'a, str>,
    /// The stream's labels, as the pipeline left them.
    pub labels: Labels,
    /// Structured metadata; names that the stream has go by `<name>_extracted`.
    pub metadata: Labels,
    /// What parsers and `label_format` added, `__error__` among it.
    pub parsed: Labels,
}

/// Whether a stage puts another text in the line's place.
fn changes_line(stage: &Stage) -> bool {
    matches!(stage, Stage::LineFormat(_) | Stage::Unpack | Stage::Decolorize)
}

/// The line filters that see the line as it is stored.
fn stored_line_filters(stages: &[Stage]) -> impl Iterator<Item = &LineFilterExpr> {
    stages.iter().take_while(|s| !changes_line(s)).filter_map(|s| match s {
        Stage::Line(filter) => Some(filter),
        _ => None,
    })
}

impl Pipeline {
    /// Of a log query: everything that is extracted is read.
    pub fn compile(stages: &[Stage]) -> Result<Self> {
        Self::compile_for(stages, Needs::All)
    }

    /// `read`: the labels that are read behind the last stage.
    pub(crate) fn compile_for(stages: &[Stage], read: Needs) -> Result<Self> {
        let line_tests =
            stored_line_filters(stages).map(LineTest::compile).collect::<Result<Vec<LineTest>>>()?;
        let prefilter = LineFilter::compile(stored_line_filters(stages));
        let mut line_is_stored = stages.iter().take_while(|s| !changes_line(s)).count();
        // From the back, so that each parser knows what is read behind it.
        let mut needs = read;
        let mut ops = Vec::new();
        let mut locations = 0;
        line_is_stored = stages.len() - line_is_stored;
        for (behind, stage) in stages.iter().rev().enumerate() {
            let op = match stage {
                Stage::Line(filter) => {
                    if behind >= line_is_stored {
                        continue;
                    }
                    Op::Line(LineTest::compile(filter)?)
                }
                Stage::Json(paths) if paths.is_empty() => Op::Json(needs.clone()),
                Stage::Json(paths) => {
                    let paths = paths
                        .iter()
                        .map(|p| JsonPath::parse(&p.label, &p.path))
                        .collect::<Result<Vec<_>>>()?;
                    Op::JsonPaths(paths, needs.clone())
                }
                Stage::Logfmt { strict, keep_empty, extractions } => {
                    let options = LogfmtOptions { strict: *strict, keep_empty: *keep_empty };
                    if extractions.is_empty() {
                        Op::Logfmt(options, needs.clone())
                    } else {
                        let mut paths = Vec::new();
                        for e in extractions {
                            if e.path.trim().is_empty() || e.path.contains(['=', '"', ' ']) {
                                return Err(Error::invalid(format!(
                                    "cannot parse expression [{}]: not a logfmt key",
                                    e.path
                                )));
                            }
                            paths.push((e.label.clone(), e.path.clone()));
                        }
                        Op::LogfmtPaths(options, paths, needs.clone())
                    }
                }
                Stage::Regexp(regex) => {
                    locations += 1;
                    Op::Regexp(RegexpParser::compile(regex)?, locations - 1, needs.clone())
                }
                Stage::Pattern(pattern) => Op::Pattern(CapturePattern::parse(pattern)?, needs.clone()),
                Stage::Unpack => Op::Unpack,
                Stage::LabelFilter(filter) => {
                    let filter = LabelFilter::compile(filter)?;
                    filter.add_needs(&mut needs);
                    Op::Filter(filter)
                }
                Stage::LineFormat(template) => {
                    let template = Template::parse(template)?;
                    needs_of(&template, &mut needs);
                    Op::LineFormat(template)
                }
                Stage::LabelFormat(formats) => {
                    let mut compiled = Vec::new();
                    for format in formats {
                        compiled.push(match format {
                            LabelFormat::Rename { label, from } => {
                                needs.add(from);
                                CompiledFormat::Rename { label: label.clone(), from: from.clone() }
                            }
                            LabelFormat::Template { label, template } => {
                                let template = Template::parse(template)?;
                                needs_of(&template, &mut needs);
                                CompiledFormat::Template { label: label.clone(), template }
                            }
                        });
                    }
                    Op::LabelFormat(compiled)
                }
                Stage::Decolorize => Op::Decolorize,
                Stage::Drop(picks) | Stage::Keep(picks) => {
                    let picks = picks.iter().map(Pick::compile).collect::<Result<Vec<_>>>()?;
                    for pick in &picks {
                        if let Pick::Test(test) = pick {
                            needs.add(test.label());
                        }
                        if matches!(pick.name(), ERROR_LABEL | ERROR_DETAILS_LABEL) {
                            needs.add(ERROR_LABEL);
                        }
                    }
                    if matches!(stage, Stage::Drop(_)) { Op::Drop(picks) } else { Op::Keep(picks) }
                }
            };
            ops.push(op);
        }
        ops.reverse();
        let changes_line = stages.iter().any(changes_line);
        Ok(Self(Arc::new(Program { line_tests, ops, prefilter, locations, changes_line })))
    }

    /// Whether lines and labels pass as they are: no stage at all.
    pub fn is_noop(&self) -> bool {
        self.0.line_tests.is_empty() && self.0.ops.is_empty()
    }

    /// Whether only line filters run, which need neither labels nor metadata.
    pub fn is_line_filters_only(&self) -> bool {
        self.0.ops.is_empty()
    }

    /// What a block's raw bytes must contain for any of its lines to pass, where that can be said.
    pub fn prefilter(&self) -> Option<LineFilter> {
        self.0.prefilter.clone()
    }

    /// The line filters alone, for a caller that has the bytes of a line but not yet its metadata. False is certain.
    #[inline]
    pub fn line_may_pass(&self, line: &str) -> bool {
        self.0.line_tests.iter().all(|t| t.passes(line))
    }

    pub fn for_stream(&self, labels: &Labels) -> StreamPipeline {
        let program = self.0.clone();
        // Names that the stream has are extracted as `.._extracted`: nobody finds them under the plain name.
        let missing = program
            .ops
            .iter()
            .map(|op| match op.needs() {
                Some(Needs::Only(names))
                    if !names.iter().any(|n| n == ERROR_LABEL || n == ERROR_DETAILS_LABEL) =>
                {
                    names.iter().filter(|n| labels.get(n).is_none()).count()
                }
                _ => usize::MAX,
            })
            .collect();
        let mut locations: Vec<Option<CaptureLocations>> = (0..program.locations).map(|_| None).collect();
        for op in &program.ops {
            if let Op::Regexp(parser, at, _) = op
                && let Some(slot) = locations.get_mut(*at)
            {
                *slot = Some(parser.locations());
            }
        }
        StreamPipeline {
            program,
            state: State {
                labels: LineLabels::new(labels.clone()),
                line: String::new(),
                spare: String::new(),
                name: String::new(),
                missing,
                locations,
            },
        }
    }
}

fn needs_of(template: &Template, needs: &mut Needs) {
    match template.fields() {
        Some(fields) => fields.iter().for_each(|f| needs.add(f)),
        None => *needs = Needs::All,
    }
}

impl Op {
    fn needs(&self) -> Option<&Needs> {
        match self {
            Op::Json(needs)
            | Op::JsonPaths(_, needs)
            | Op::Logfmt(_, needs)
            | Op::LogfmtPaths(_, _, needs)
            | Op::Regexp(_, _, needs)
            | Op::Pattern(_, needs) => Some(needs),
            _ => None,
        }
    }
}

/// A pipeline at work on one stream.
#[derive(Debug)]
pub struct StreamPipeline {
    program: Arc<Program>,
    state: State,
}

/// Kept apart from the program, so that stages and scratch space can be borrowed side by side.
#[derive(Debug)]
struct State {
    labels: LineLabels,
    /// The line once a stage has changed it.
    line: String,
    spare: String,
    name: String,
    /// Per op: how many names a parser must find before it may stop.
    missing: Vec<usize>,
    locations: Vec<Option<CaptureLocations>>,
}

/// Which text is the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Input,
    Changed,
}

impl StreamPipeline {
    /// One line. `metadata`: pairs of structured metadata, such as `&Labels` or `iter::empty()`; read only where the line
    /// filters let the line through.
    pub fn process<'a, 'm>(
        &'a mut self,
        ts_ns: i64,
        line: &'a str,
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Option<Processed<'a>> {
        let at = self.run(ts_ns, line, metadata)?;
        let State { labels, line: changed, .. } = &self.state;
        Some(Processed {
            line: Cow::Borrowed(match at {
                At::Input => line,
                At::Changed => changed,
            }),
            labels: labels.stream_labels(),
            metadata: labels.metadata_labels(),
            parsed: labels.parsed_labels(),
        })
    }

    /// As [`StreamPipeline::process`] for stored bytes: what is no UTF-8 is replaced first.
    pub fn process_bytes<'m>(
        &mut self,
        ts_ns: i64,
        line: &[u8],
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Option<Processed<'static>> {
        let text = String::from_utf8_lossy(line);
        let Processed { line, labels, metadata, parsed } = self.process(ts_ns, &text, metadata)?;
        let line = Cow::Owned(line.into_owned());
        Some(Processed { line, labels, metadata, parsed })
    }

    /// Runs the stages; the labels are in [`StreamPipeline::line_labels`] afterwards, the length of the line comes back.
    pub(crate) fn run_for_sample<'m>(
        &mut self,
        ts_ns: i64,
        line: &str,
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Option<usize> {
        match self.run(ts_ns, line, metadata)? {
            At::Input => Some(line.len()),
            At::Changed => Some(self.state.line.len()),
        }
    }

    pub(crate) fn line_labels(&mut self) -> &mut LineLabels {
        &mut self.state.labels
    }

    #[inline]
    fn run<'m>(
        &mut self,
        ts_ns: i64,
        line: &str,
        metadata: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) -> Option<At> {
        if !self.program.line_tests.iter().all(|t| t.passes(line)) {
            return None;
        }
        self.state.labels.reset(metadata);
        if self.program.ops.is_empty() {
            return Some(At::Input);
        }
        debug_assert!(
            self.program.changes_line || !self.program.ops.iter().any(|o| matches!(o, Op::Line(_)))
        );
        self.state.run(&self.program, ts_ns, line)
    }
}

impl State {
    fn run(&mut self, program: &Program, ts_ns: i64, input: &str) -> Option<At> {
        let mut at = At::Input;
        for (i, op) in program.ops.iter().enumerate() {
            let line: &str = match at {
                At::Input => input,
                At::Changed => &self.line,
            };
            let labels = &mut self.labels;
            let missing = self.missing.get(i).copied().unwrap_or(usize::MAX);
            // Nobody reads what this parser would find.
            if missing == 0 {
                continue;
            }
            macro_rules! run {
                ($needs:expr) => {
                    ParseRun { needs: $needs, missing, name: &mut self.name }
                };
            }
            match op {
                Op::Line(test) => {
                    if !test.passes(line) {
                        return None;
                    }
                }
                Op::Json(needs) => json::parse_json(line, labels, &mut run!(needs)),
                Op::JsonPaths(paths, needs) => json::parse_json_paths(line, paths, labels, &mut run!(needs)),
                Op::Logfmt(options, needs) => parsers::parse_logfmt(line, *options, labels, &mut run!(needs)),
                Op::LogfmtPaths(options, paths, needs) => {
                    parsers::parse_logfmt_paths(line, *options, paths, labels, &mut run!(needs));
                }
                Op::Regexp(parser, slot, needs) => {
                    if let Some(Some(locations)) = self.locations.get_mut(*slot) {
                        parser.parse(line, locations, labels, &mut run!(needs));
                    }
                }
                Op::Pattern(pattern, needs) => {
                    parsers::parse_pattern(pattern, line, labels, &mut run!(needs))
                }
                Op::Unpack => {
                    if json::unpack(line, labels, &mut run!(&Needs::All), &mut self.spare) {
                        std::mem::swap(&mut self.line, &mut self.spare);
                        at = At::Changed;
                    }
                }
                Op::Filter(filter) => {
                    if !filter.passes(labels) {
                        return None;
                    }
                }
                Op::LineFormat(template) => {
                    self.spare.clear();
                    match template.render(labels, line, ts_ns, &mut self.spare) {
                        Ok(()) => {
                            std::mem::swap(&mut self.line, &mut self.spare);
                            at = At::Changed;
                        }
                        Err(details) => labels.set_error("TemplateFormatErr", details),
                    }
                }
                Op::LabelFormat(formats) => {
                    for format in formats {
                        match format {
                            CompiledFormat::Rename { label, from } => {
                                let Some(value) = labels.get(from).map(str::to_owned) else { continue };
                                let category = labels.category(from).unwrap_or(Category::Parsed);
                                labels.set(category, label, &value);
                                labels.delete(from);
                            }
                            CompiledFormat::Template { label, template } => {
                                self.spare.clear();
                                match template.render(labels, line, ts_ns, &mut self.spare) {
                                    Ok(()) => labels.set(Category::Parsed, label, &self.spare),
                                    Err(details) => labels.set_error("TemplateFormatErr", details),
                                }
                            }
                        }
                    }
                }
                Op::Decolorize => {
                    if memchr::memchr(0x1b, line.as_bytes()).is_some() {
                        self.spare.clear();
                        decolorize(line, &mut self.spare);
                        std::mem::swap(&mut self.line, &mut self.spare);
                        at = At::Changed;
                    }
                }
                Op::Drop(picks) => {
                    for pick in picks {
                        let hit = labels.get(pick.name()).is_some_and(|value| pick.hits(value));
                        if hit {
                            labels.delete(pick.name());
                            if pick.name() == ERROR_LABEL {
                                labels.clear_error();
                            }
                        }
                    }
                }
                Op::Keep(picks) => {
                    for name in labels.names() {
                        let value = labels.get(&name).unwrap_or("");
                        if name != PRESERVE_ERROR_LABEL
                            && !picks.iter().any(|p| p.name() == name && p.hits(value))
                        {
                            labels.delete(&name);
                        }
                    }
                }
            }
        }
        Some(at)
    }
}

/// Without ANSI escape sequences: CSI (`ESC [ .. letter`) and two-byte ones.
fn decolorize(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(at) = memchr::memchr(0x1b, rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('[') {
            let length = tail.bytes().take_while(|b| (0x20..0x40).contains(b)).count();
            let end = match tail.as_bytes().get(length) {
                Some(b) if (0x40..0x7f).contains(b) => length + 1,
                _ => length,
            };
            rest = &tail[end..];
        }
    }
    out.push_str(rest);
}

/// Compiles everything in the expression once, so that a bad regex, pattern or template is found when it is parsed.
pub fn check_expr(expr: &Expr) -> Result<()> {
    let parse_error = |e: Error| Error::invalid(format!("parse error : {}", e.message));
    match expr {
        Expr::Log(log) => check_log(log).map_err(parse_error),
        Expr::Metric(metric) => check_metric(metric).map_err(parse_error),
    }
}

fn check_log(log: &LogExpr) -> Result<()> {
    Pipeline::compile(&log.stages).map(|_| ())
}

fn check_range(range: &RangeAgg) -> Result<()> {
    check_log(&range.log)?;
    if let Some(unwrap) = &range.unwrap {
        for filter in &unwrap.filters {
            LabelFilter::compile(filter)?;
        }
    }
    Ok(())
}

fn check_metric(metric: &MetricExpr) -> Result<()> {
    match metric {
        MetricExpr::Range(range) => check_range(range),
        MetricExpr::Vector(vector) => check_metric(&vector.inner),
        MetricExpr::Binary(binary) => {
            check_metric(&binary.left)?;
            check_metric(&binary.right)
        }
        MetricExpr::LabelReplace(replace) => {
            regexes::compile(&format!("^(?s:{})$", replace.regex))?;
            check_metric(&replace.inner)
        }
        MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => Ok(()),
    }
}
