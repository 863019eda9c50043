import { useMemo } from 'preact/hooks';
import { traces } from '../api';
import { useAsk } from '../parts/ask';
import { nameColor } from '../parts/colors';
import { Notice, Notices } from '../parts/notice';
import { escapedValue } from '../parts/complete';
import { routeHash } from '../route';
import { counted, durationText, timeText } from '../time';
import { type Trace, buildTrace } from './tree';
import { Waterfall } from './waterfall';

export function TraceView({ id, tick, onBack }: { id: string; tick: number; onBack: () => void }) {
  const asked = useAsk(`${id} ${tick}`, (signal) => traces.byId(id, signal));
  const trace = useMemo(() => asked.data && buildTrace(asked.data.data), [asked.data]);
  return (
    <>
      <div class="toolbar">
        <button type="button" onClick={onBack}>
          ← Results
        </button>
        <span class="mono">{id}</span>
        {trace && <span class="dim">{summary(trace)}</span>}
        {asked.loading && <span class="dim">Loading…</span>}
      </div>
      <Notices error={asked.error} warnings={asked.data?.warnings} />
      {trace && trace.orphans > 0 && (
        <Notice kind="warning">A parent that is not there is named by {counted(trace.orphans, 'span')}: the trace may not be whole.</Notice>
      )}
      {trace && trace.spans.length > 0 && (
        <>
          <ul class="services" aria-label="Services">
            {trace.services.map(({ name, spans, errors }) => (
              <li key={name}>
                <span class="service" style={{ '--service': nameColor(name) }}>
                  {name}
                </span>{' '}
                {counted(spans, 'span')}{errors > 0 && <span class="error-text">, {errors} failed</span>}{' '}
                <a href={logsHash(name, trace)}>logs</a>
              </li>
            ))}
          </ul>
          <Waterfall trace={trace} logsOf={(service) => [logsHash(service, trace), logsHash(service, trace, id)]} />
        </>
      )}
    </>
  );
}

function summary({ spans, services, duration_ns, start_ns }: Trace): string {
  const start = timeText(Number(start_ns / 1_000_000n));
  return `${start}, ${durationText(duration_ns)}, ${counted(spans.length, 'span')} of ${counted(services.length, 'service')}`;
}

const AROUND_MS = 60_000;

/** Lines of that service around the trace; with an id those that carry it. */
function logsHash(service: string, { start_ns, duration_ns }: Trace, traceId?: string): string {
  const startMs = Number(start_ns / 1_000_000n);
  const q = `{service_name="${escapedValue(service)}"}${traceId ? ` | trace_id="${traceId.padStart(32, '0')}"` : ''}`;
  const from = String(startMs - AROUND_MS);
  const to = String(Math.ceil(startMs + duration_ns / 1e6) + AROUND_MS);
  return routeHash({ tab: 'logs', params: { q, from, to } });
}
