import { type Answer, type FoundTrace, type TracesMetric, traces } from '../api';
import { useAsk } from '../parts/ask';
import type { Spot } from '../parts/complete';
import { seriesName } from '../parts/labels';
import { Notice, Notices } from '../parts/notice';
import { Plot } from '../parts/plot';
import type { PlotSeries } from '../parts/plot-data';
import { QueryBox } from '../parts/query-box';
import type { TabProps } from '../route';
import { type Range, type Span, alignSpan, counted, rangeOf, resolveRange, stepSeconds } from '../time';
import { Results } from './results';
import { TraceView } from './trace-view';
import { valueText } from './tree';

const EXAMPLES = [
  '{}',
  '{ status = error }',
  '{ duration > 100ms && kind = server }',
  '{ kind = server } | rate() by (resource.service.name)',
];
const LIMITS = [20, 100, 500];
const POINTS_MAX = 240;

type Shown = { span: Span; step_s: number } & (
  | { found: Answer<FoundTrace[]>; series?: undefined }
  | { found: Answer<TracesMetric[]>; series: PlotSeries[] }
);

export function Traces({ params, set, tick }: TabProps) {
  const query = params.q ?? '';
  const limit = Number(params.limit) || 20;
  const range = rangeOf(params);
  const key = query && !params.trace ? JSON.stringify([query, limit, range, tick]) : undefined;
  const asked = useAsk<Shown>(key, async (signal) => {
    const span = resolveRange(range, Date.now());
    if (!asksForNumbers(query)) {
      return { found: await traces.search(query, limit, { ...span, signal }), span, step_s: 0 };
    }
    const step_s = stepSeconds(span, POINTS_MAX);
    const aligned = alignSpan(span, step_s);
    const found = await traces.metrics(query, step_s, { ...aligned, signal });
    return { found, series: found.data.map(plotSeries), span: aligned, step_s };
  });
  const onRun = (text: string) => {
    // A trace id may be pasted as it is.
    if (/^[0-9a-f]{16,32}$/i.test(text)) set({ trace: text.toLowerCase() });
    else set({ q: text, trace: '' });
  };
  const { data: shown } = asked;
  return (
    <section aria-label="Traces">
      <QueryBox
        language="TraceQL"
        value={query}
        placeholder={'TraceQL, such as { resource.service.name = "checkout" && status = error }, or a trace id'}
        examples={EXAMPLES}
        loading={asked.loading}
        onRun={onRun}
        candidates={(spot) => candidates(spot, range)}
      />
      {params.trace ? (
        <TraceView key={params.trace} id={params.trace} tick={tick} onBack={() => set({ trace: '' })} />
      ) : (
        <>
          <div class="toolbar">
            <label>
              Traces{' '}
              <select value={limit} onChange={(event) => set({ limit: event.currentTarget.value })}>
                {LIMITS.map((n) => (
                  <option key={n} value={n}>
                    {n}
                  </option>
                ))}
              </select>
            </label>
            {shown && <span class="dim">{summary(shown, limit)}</span>}
          </div>
          <Notices error={asked.error} warnings={shown?.found.warnings} infos={shown?.found.infos} />
          {shown?.found.data.length === 0 && <Notice kind="info">Nothing matches in this time range.</Notice>}
          {shown?.series && shown.series.length > 0 && (
            <Plot
              series={shown.series}
              {...shown.span}
              step_s={shown.step_s}
              onZoom={(from, to) => set({ from: String(from), to: String(to) })}
            />
          )}
          {shown && !shown.series && shown.found.data.length > 0 && (
            <Results found={shown.found.data} onOpen={(trace) => set({ trace })} params={params} />
          )}
          {!query && <p class="empty">Write a query, choose an example, or paste a trace id.</p>}
        </>
      )}
    </section>
  );
}

/** Whether the pipeline ends in a metrics function, and so has a plot. */
function asksForNumbers(query: string): boolean {
  return /\|\s*(rate|count_over_time|(sum|min|max|avg|quantile|histogram)_over_time|compare)\s*\(/.test(query);
}

function summary({ found, series }: Shown, limit: number): string {
  if (series) return `${series.length} series`;
  const count = found.data.length;
  return count >= limit ? `the first ${count} traces; there may be more` : counted(count, 'trace');
}

function plotSeries({ labels, samples = [] }: TracesMetric): PlotSeries {
  const named = Object.fromEntries(labels.map(({ key, value }) => [key, valueText(value)]));
  return {
    name: seriesName(named),
    labels: named,
    points: samples.map(({ timestampMs, value }) => [Number(timestampMs) / 1000, String(value ?? 0)]),
  };
}

const INTRINSICS = (
  'name status statusMessage kind duration rootName rootServiceName traceDuration nestedSetParent ' +
  'trace:id trace:duration trace:rootName trace:rootService span:id span:name span:status span:kind span:duration ' +
  'event:name link:traceID instrumentation:name'
).split(' ');
const WORDS = 'rate count_over_time quantile_over_time histogram_over_time avg min max sum count by select'.split(' ');

async function candidates(spot: Spot, range: Range): Promise<string[]> {
  const span = resolveRange(range, Date.now());
  if (spot.kind === 'name') return WORDS;
  if (spot.kind === 'value') {
    const { tagValues = [] } = await traces.tagValues(spot.label ?? '', span);
    return tagValues.map(({ value }) => value);
  }
  const { scopes = [] } = await traces.tagNames(span);
  const scoped = scopes.filter(({ name }) => name !== 'intrinsic');
  return [...scoped.flatMap(({ name, tags = [] }) => tags.map((tag) => `${name}.${tag}`)), ...INTRINSICS];
}
