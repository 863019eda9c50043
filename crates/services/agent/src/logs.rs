//! The loop: find files, read a batch, send it, remember how far.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use triptych_model::batch::{LogRecordEntry, LogsBuilder};
use triptych_model::{Kind, Labels};
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::{Shutdown, blocking, now_ns};

use crate::Deps;
use crate::config::{Config, Files, Format};
use crate::cri;
use crate::positions::Positions;
use crate::tail::Tail;
use crate::telemetry;

pub struct Job {
    config: Config,
    files: Vec<Files>,
    write: Arc<dyn Write>,
    ctx: WriteContext,
    node: String,
    positions_path: PathBuf,
}

/// What the blocking side owns between rounds.
struct State {
    tails: BTreeMap<PathBuf, Followed>,
    positions: Positions,
    looked: Option<Instant>,
    /// The last time that was given to a line: plain lines get times of their own, so that none is a copy of another.
    last_ns: i64,
}

struct Followed {
    tail: Tail,
    labels: Labels,
    format: Format,
    /// The beginning of a CRI line, per stream.
    partial: [String; 2],
}

/// Lines of a round, by stream.
#[derive(Default)]
struct Round {
    streams: BTreeMap<Labels, Vec<(i64, String)>>,
    bytes: usize,
    more: bool,
}

impl Job {
    pub fn new(config: &Config, deps: &Deps, ctx: WriteContext) -> Self {
        let mut files = config.files.clone();
        let own = deps.data_dir.join("triptych.log");
        files.push(Files {
            job: "triptych".to_owned(),
            paths: vec![glob::Pattern::escape(&own.to_string_lossy())],
            ..Default::default()
        });
        Self {
            config: config.clone(),
            files,
            write: deps.write.clone(),
            ctx,
            node: deps.node.clone(),
            positions_path: deps.data_dir.join("positions.yaml"),
        }
    }

    pub async fn run(self, shutdown: Shutdown) {
        let job = Arc::new(self);
        let positions = Positions::load(job.positions_path.clone());
        let mut state = State { tails: BTreeMap::new(), positions, looked: None, last_ns: 0 };
        loop {
            let reader = job.clone();
            let read = blocking(move || {
                let round = reader.read(&mut state);
                (state, round)
            });
            let Ok((after, round)) = read.await else { return };
            state = after;
            let more = round.more;
            if round.bytes > 0 && !job.send(round, &shutdown).await {
                return;
            }
            let saver = blocking(move || {
                remember(&mut state);
                state
            });
            let Ok(after) = saver.await else { return };
            state = after;
            if shutdown.is_triggered() {
                return;
            }
            if !more {
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = tokio::time::sleep(job.config.batch_wait) => {}
                }
            }
        }
    }

    /// Reads about a batch. Files take turns, so that a busy one does not starve the others.
    fn read(&self, state: &mut State) -> Round {
        if state.looked.is_none_or(|at| at.elapsed() >= self.config.discovery_interval) {
            state.looked = Some(Instant::now());
            self.look(state);
        }
        let mut round = Round::default();
        let share = (self.config.batch_bytes_max / state.tails.len().max(1)).max(64 << 10);
        let mut gone = Vec::new();
        for (path, followed) in &mut state.tails {
            if round.bytes >= self.config.batch_bytes_max {
                round.more = true;
                break;
            }
            let mut lines = Vec::new();
            match followed.tail.poll(share, |line| lines.push(line.to_owned())) {
                Ok(polled) => {
                    round.more |= polled.more;
                    if polled.cut > 0 {
                        telemetry::cut_lines().increment(polled.cut);
                    }
                    if polled.gone {
                        gone.push(path.clone());
                    }
                }
                Err(error) => {
                    telemetry::read_errors().increment(1);
                    tracing::debug!(path = %path.display(), %error, "file cannot be read");
                }
            }
            for line in lines {
                followed.entry(&line, &mut state.last_ns, self.config.line_bytes_max, &mut round);
            }
        }
        for path in gone {
            state.tails.remove(&path);
            state.positions.remove(&path);
        }
        round
    }

    fn look(&self, state: &mut State) {
        let mut seen = BTreeSet::new();
        for files in &self.files {
            for path in files.find() {
                if !seen.insert(path.clone()) || state.tails.contains_key(&path) {
                    continue;
                }
                let begin = state.positions.get(&path);
                let tail = Tail::new(path.clone(), begin, self.config.line_bytes_max);
                let labels = self.labels(files, &path);
                let followed = Followed { tail, labels, format: files.format, partial: Default::default() };
                state.tails.insert(path, followed);
            }
        }
        telemetry::files().set(state.tails.len() as f64);
    }

    fn labels(&self, files: &Files, path: &Path) -> Labels {
        let mut labels = vec![
            ("job", files.job.clone()),
            ("filename", path.to_string_lossy().into_owned()),
            ("host", self.node.clone()),
        ];
        if files.format == Format::Cri {
            labels.extend(cri::pod_labels(path));
        }
        labels.extend(files.labels.iter().map(|(n, v)| (n.as_str(), v.clone())));
        Labels::from_pairs(labels)
    }

    /// Sends until it is acknowledged or refused for good. False: shut down before.
    async fn send(&self, round: Round, shutdown: &Shutdown) -> bool {
        let mut pause = self.config.backoff_min;
        loop {
            match self.write.logs(&self.ctx, batch(&round)).await {
                Ok(report) => {
                    telemetry::sent_lines().increment(report.accepted);
                    for (reason, refused) in report.refused {
                        telemetry::refused_lines(reason).increment(refused.items);
                    }
                    return true;
                }
                Err(error) if matches!(error.kind, Kind::Invalid) => {
                    telemetry::lost_batches().increment(1);
                    tracing::warn!(%error, "a batch was refused, its lines are left out");
                    return true;
                }
                Err(error) => {
                    telemetry::retries().increment(1);
                    tracing::debug!(%error, ?pause, "lines could not be sent, will try again");
                    tokio::select! {
                        () = shutdown.triggered() => return false,
                        () = tokio::time::sleep(error.retry_after.unwrap_or(pause).max(pause)) => {}
                    }
                    pause = (pause * 2).min(self.config.backoff_max.max(Duration::from_millis(1)));
                }
            }
        }
    }
}

fn remember(state: &mut State) {
    for followed in state.tails.values() {
        // The beginning of a line that is still being put together is read again after a restart.
        if followed.partial.iter().all(String::is_empty) {
            state.positions.set(followed.tail.path(), followed.tail.position());
        }
    }
    if let Err(error) = state.positions.save() {
        tracing::warn!(%error, "positions cannot be written");
    }
}

fn batch(round: &Round) -> LogsBuilder {
    let mut batch = LogsBuilder::default();
    for (labels, entries) in &round.streams {
        let entries =
            entries.iter().map(|(ts_ns, line)| LogRecordEntry { ts_ns: *ts_ns, line, metadata: &[] });
        batch.stream(labels.hash64(), labels.as_encoded(), entries);
    }
    batch
}

impl Followed {
    fn entry(&mut self, line: &str, last_ns: &mut i64, line_bytes_max: usize, round: &mut Round) {
        if line.is_empty() {
            return;
        }
        let parsed = if self.format == Format::Cri { cri::parse(line) } else { None };
        let Some(parsed) = parsed else {
            *last_ns = now_ns().max(*last_ns + 1);
            round.add(self.labels.clone(), *last_ns, line.to_owned());
            return;
        };
        let partial = &mut self.partial[usize::from(parsed.stream == "stderr")];
        if partial.len() + parsed.text.len() <= line_bytes_max {
            partial.push_str(parsed.text);
        }
        if !parsed.partial {
            let whole = std::mem::take(partial);
            let mut labels = self.labels.to_builder();
            labels.set("stream", parsed.stream);
            round.add(labels.build(), parsed.ts_ns, whole);
        }
    }
}

impl Round {
    fn add(&mut self, labels: Labels, ts_ns: i64, line: String) {
        self.bytes += line.len() + 16;
        self.streams.entry(labels).or_default().push((ts_ns, line));
    }
}

#[cfg(test)]
mod tests;
