import { useEffect, useState } from 'preact/hooks';
import { type LogResult, type Series, logs, toNs } from '../api';
import { useAsk } from '../parts/ask';
import type { Spot } from '../parts/complete';
import { seriesName } from '../parts/labels';
import { Notice, Notices } from '../parts/notice';
import { Plot } from '../parts/plot';
import { type PlotSeries, matrixSeries } from '../parts/plot-data';
import { QueryBox } from '../parts/query-box';
import type { TabProps } from '../route';
import { type Range, type Span, alignSpan, counted, rangeOf, resolveRange, stepSeconds } from '../time';
import { LabelBrowser } from './browser';
import { type Entry, entriesOf, mergeEntries, sizeText } from './entries';
import { addCondition, asksForLines } from './filter';
import { EntryList } from './list';
import { useTail } from './tail';
import { Volume } from './volume';

const EXAMPLES = [
  '{service_name=~".+"}',
  '{service_name=~".+"} |= "error"',
  '{service_name=~".+"} | logfmt | level="error"',
  'sum by (service_name) (rate({service_name=~".+"}[1m]))',
];
const LIMITS = [100, 500, 1000, 5000];
const POINTS_MAX = 300;
const BARS_MAX = 80;

interface Shown {
  /** Changes with each answer. */
  key: string;
  span: Span;
  step_s: number;
  entries?: Entry[];
  series?: PlotSeries[];
  result: LogResult;
  warnings: string[];
  infos: string[];
}

export function Logs({ params, set, tick, refresh }: TabProps) {
  const query = params.q ?? '';
  const limit = Number(params.limit) || 100;
  const range = rangeOf(params);
  const live = params.live === '1' && query !== '';
  const [browsing, setBrowsing] = useState(false);
  const key = query && !live ? JSON.stringify([query, limit, range, tick]) : undefined;

  const asked = useAsk<Shown>(key, async (signal) => {
    const span = resolveRange(range, Date.now());
    const step_s = stepSeconds(span, POINTS_MAX);
    const asksLines = asksForLines(query);
    const used = asksLines ? span : alignSpan(span, step_s);
    const ends = { start: toNs(used.startMs), end: toNs(used.endMs) };
    const { data, warnings, infos } = await logs.range(query, ends, limit, step_s, signal);
    const shown = { key: key ?? '', span: used, step_s, result: data, warnings, infos };
    if (data.resultType === 'streams') return { ...shown, entries: entriesOf(data.result) };
    if (data.resultType === 'matrix') return { ...shown, series: matrixSeries(data.result, seriesName) };
    return shown;
  });
  const zoom = (from: number, to: number) => set({ from: String(from), to: String(to) });
  const onRun = (q: string) => set({ q });
  const { data: shown } = asked;

  return (
    <section aria-label="Logs">
      <QueryBox
        language="LogQL"
        value={query}
        placeholder={'LogQL, such as {service_name="checkout"} |= "timeout"'}
        examples={EXAMPLES}
        loading={asked.loading}
        onRun={onRun}
        candidates={(spot) => candidates(spot, range)}
      />
      <div class="toolbar">
        <button type="button" aria-pressed={live} disabled={!query} onClick={() => set({ live: live ? '' : '1' })}>
          <span class={live ? 'dot live' : 'dot'} /> Live
        </button>
        <button type="button" aria-expanded={browsing} onClick={() => setBrowsing(!browsing)}>
          Labels
        </button>
        <label>
          Lines{' '}
          <select value={limit} onChange={(event) => set({ limit: event.currentTarget.value })}>
            {LIMITS.map((n) => (
              <option key={n} value={n}>
                {n}
              </option>
            ))}
          </select>
        </label>
        {shown && !live && <span class="dim">{summary(shown)}</span>}
      </div>
      {browsing && <LabelBrowser range={range} tick={tick} onPick={onRun} />}
      {live ? (
        <Live query={query} />
      ) : (
        <>
          <Notices error={asked.error} warnings={shown?.warnings} infos={shown?.infos} />
          {query && asksForLines(query) && <VolumeOf query={query} range={range} tick={tick} onZoom={zoom} />}
          {shown?.entries && (
            <Lines
              key={shown.key}
              query={query}
              shown={shown}
              first={shown.entries}
              limit={limit}
              onCondition={(...condition) => onRun(addCondition(query, ...condition))}
            />
          )}
          {shown?.series && shown.series.length > 0 && (
            <Plot series={shown.series} {...shown.span} step_s={shown.step_s} onZoom={zoom} />
          )}
          {shown && shown.result.result.length === 0 && (
            <Notice kind="info">
              Nothing matches in this time range. <button onClick={refresh}>Ask again</button>
            </Notice>
          )}
        </>
      )}
      {!query && <p class="empty">Write a query, choose an example, or pick a label under Labels.</p>}
    </section>
  );
}

function summary({ entries, series, result }: Shown): string {
  const { totalBytesProcessed: bytes = 0, execTime = 0 } = result.stats?.summary ?? {};
  const found = entries ? counted(entries.length, 'line') : `${series?.length ?? 0} series`;
  return `${found}, ${sizeText(bytes)} read in ${(execTime * 1000).toFixed(0)} ms`;
}

/** What was found, and as much older as one asks for. */
function Lines(props: {
  query: string;
  shown: Shown;
  first: Entry[];
  limit: number;
  onCondition: (name: string, value: string, equal: boolean, isStreamLabel: boolean) => void;
}) {
  const { query, shown, first, limit } = props;
  const [state, setState] = useState({ entries: first, loading: false, whole: first.length < limit, warnings: [] as string[] });
  const [error, setError] = useState<Error>();
  const oldest = state.entries.at(-1);
  const loadOlder = async () => {
    if (!oldest) return;
    setError(undefined);
    setState((s) => ({ ...s, loading: true }));
    try {
      // The end is exclusive: one nanosecond more brings the lines of the oldest time again, and the merge drops them.
      const ends = { start: toNs(shown.span.startMs), end: String(oldest.ts_ns + 1n) };
      const { data, warnings } = await logs.range(query, ends, limit, shown.step_s);
      const older = data.resultType === 'streams' ? entriesOf(data.result) : [];
      setState((s) => {
        const entries = mergeEntries(s.entries, older);
        const stuck = older.length >= limit && entries.length === s.entries.length;
        const more = stuck ? [`more than ${limit} lines have the same time: choose more lines to go on`] : [];
        return { entries, loading: false, whole: older.length < limit, warnings: [...warnings, ...more] };
      });
    } catch (problem) {
      setError(problem instanceof Error ? problem : new Error(String(problem)));
      setState((s) => ({ ...s, loading: false }));
    }
  };
  return (
    <>
      <EntryList entries={state.entries} onCondition={props.onCondition} />
      <Notices error={error} warnings={state.warnings} />
      {state.entries.length > 0 && !state.whole && (
        <p class="more">
          <button type="button" disabled={state.loading} onClick={() => void loadOlder()}>
            {state.loading ? 'Loading…' : `Load ${limit} older lines`}
          </button>
        </p>
      )}
    </>
  );
}

function VolumeOf(props: { query: string; range: Range; tick: number; onZoom: (startMs: number, endMs: number) => void }) {
  const { query, range, tick, onZoom } = props;
  const asked = useAsk(JSON.stringify([query, range, tick]), async (signal) => {
    const span = resolveRange(range, Date.now());
    const step_s = stepSeconds(span, BARS_MAX);
    const aligned = alignSpan(span, step_s);
    const ends = { start: toNs(aligned.startMs + step_s * 1000), end: toNs(aligned.endMs) };
    const counting = `sum by (level, detected_level) (count_over_time(${query} [${step_s}s]))`;
    const { data, warnings } = await logs.range(counting, ends, 0, step_s, signal);
    return { series: data.resultType === 'matrix' ? data.result : ([] as Series[]), ...aligned, step_s, warnings };
  });
  // What is wrong with the query itself is said once, by the lines.
  if (!asked.data) return null;
  return (
    <>
      <Notices warnings={asked.data.warnings} />
      <Volume {...asked.data} onZoom={onZoom} />
    </>
  );
}

function Live({ query }: { query: string }) {
  const tail = useTail(query);
  useEffect(() => scrollTo({ top: 0 }), [query]);
  const text = { connecting: 'Connecting…', open: 'Following: new lines appear on top.', ended: 'Ended.' }[tail.state];
  return (
    <>
      {tail.error && <Notice kind="error">{tail.error}</Notice>}
      <p class="dim" role="status">
        {text} {counted(tail.entries.length, 'line')}
      </p>
      <EntryList entries={tail.entries} />
    </>
  );
}

async function candidates(spot: Spot, range: Range): Promise<string[]> {
  const span = resolveRange(range, Date.now());
  if (spot.kind === 'value') return (await logs.labelValues(spot.label ?? '', span)).data ?? [];
  if (spot.kind === 'label') return (await logs.labelNames(span)).data ?? [];
  return WORDS;
}

/** LogQL's words outside of braces. */
const WORDS = (
  'json logfmt pattern regexp unpack line_format label_format drop keep decolorize unwrap rate count_over_time ' +
  'bytes_rate bytes_over_time sum_over_time avg_over_time max_over_time min_over_time quantile_over_time ' +
  'first_over_time last_over_time absent_over_time sum avg max min count topk bottomk sort sort_desc by without'
).split(' ');
