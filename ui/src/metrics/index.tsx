import { type Answer, type MetricResult, metrics } from '../api';
import { useAsk } from '../parts/ask';
import type { Spot } from '../parts/complete';
import { Notice, Notices } from '../parts/notice';
import { Plot } from '../parts/plot';
import { matrixSeries } from '../parts/plot-data';
import { QueryBox } from '../parts/query-box';
import { seriesName } from '../parts/labels';
import type { TabProps } from '../route';
import { type Range, type Span, alignSpan, rangeOf, resolveRange, stepSeconds } from '../time';
import { FUNCTIONS } from './functions';
import { ResultTable } from './table';

const EXAMPLES = [
  'up',
  'sum by (job) (up)',
  'rate(triptych_wal_written_bytes_total[5m])',
  'topk(10, count by (__name__) ({__name__=~".+"}))',
];
const POINTS_MAX = 300;

interface Shown extends Answer<MetricResult> {
  span: Span;
  step_s: number;
  view: 'graph' | 'table';
}

export function Metrics({ params, set, tick }: TabProps) {
  const query = params.q ?? '';
  const view = params.view === 'table' ? 'table' : 'graph';
  const range = rangeOf(params);
  const key = query ? JSON.stringify([query, view, range, tick]) : undefined;
  const asked = useAsk<Shown>(key, async (signal) => {
    const span = resolveRange(range, Date.now());
    if (view === 'table') {
      return { ...(await metrics.instant(query, span.endMs, signal)), span, step_s: 0, view };
    }
    const step_s = stepSeconds(span, POINTS_MAX);
    const aligned = alignSpan(span, step_s);
    return { ...(await metrics.range(query, step_s, { ...aligned, signal })), span: aligned, step_s, view };
  });
  const { data: shown } = asked;
  return (
    <section aria-label="Metrics">
      <QueryBox
        language="PromQL"
        value={query}
        placeholder={'PromQL, such as sum by (job) (rate(http_requests_total[5m]))'}
        examples={EXAMPLES}
        loading={asked.loading}
        onRun={(q) => set({ q })}
        candidates={(spot) => candidates(spot, range)}
      />
      <div class="toolbar">
        <div class="segments" role="group" aria-label="View">
          <button type="button" aria-pressed={view === 'graph'} onClick={() => set({ view: '' })}>
            Graph
          </button>
          <button type="button" aria-pressed={view === 'table'} onClick={() => set({ view: 'table' })}>
            Table
          </button>
        </div>
        {shown && <span class="dim">{summary(shown)}</span>}
      </div>
      <Notices error={asked.error} warnings={shown?.warnings} infos={shown?.infos} />
      {shown && <Result shown={shown} onZoom={(from, to) => set({ from: String(from), to: String(to) })} />}
      {!query && <Empty />}
    </section>
  );
}

function Empty() {
  return <p class="empty">Write a query or choose an example. Names are suggested as you type.</p>;
}

function summary({ data, step_s, view }: Shown): string {
  const count = Array.isArray(data.result) && typeof data.result[0] === 'object' ? data.result.length : undefined;
  const series = count === undefined ? data.resultType : `${count} series`;
  return view === 'graph' ? `${series}, a point every ${step_s} s` : series;
}

function Result({ shown, onZoom }: { shown: Shown; onZoom: (startMs: number, endMs: number) => void }) {
  const { data, span, step_s, view } = shown;
  if (data.result.length === 0) return <Notice kind="info">Nothing matches in this time range.</Notice>;
  if (view === 'table' || data.resultType !== 'matrix') return <ResultTable result={data} />;
  return <Plot series={plotSeries(data)} {...span} step_s={step_s} onZoom={onZoom} />;
}

/** The same answer gives the same list: the plot is made anew when the list changes. */
const madeSeries = new WeakMap<object, ReturnType<typeof matrixSeries>>();
function plotSeries(data: MetricResult & { resultType: 'matrix' }) {
  let made = madeSeries.get(data);
  if (!made) madeSeries.set(data, (made = matrixSeries(data.result, seriesName)));
  return made;
}

/** Lists that were asked for a moment ago, per range. */
const lists = new Map<string, { at: number; list: Promise<string[]> }>();
const LIST_KEPT_MS = 30_000;

function candidates(spot: Spot, range: Range): Promise<string[]> {
  const now = Date.now();
  const span = resolveRange(range, now);
  const ask = async () => {
    if (spot.kind === 'value') return (await metrics.labelValues(spot.label ?? '', span, spot.metric)).data;
    if (spot.kind === 'label') return (await metrics.labelNames(span, spot.metric)).data;
    return [...(await metrics.labelValues('__name__', span)).data, ...FUNCTIONS];
  };
  const key = JSON.stringify([spot.kind, spot.label, spot.metric, range]);
  const kept = lists.get(key);
  if (kept && now - kept.at < LIST_KEPT_MS) return kept.list;
  const list = ask();
  lists.set(key, { at: now, list });
  list.catch(() => lists.delete(key));
  return list;
}
