import type { FoundTrace } from '../api';
import { nameColor } from '../parts/colors';
import { type Params, routeHash } from '../route';
import { durationText, nsToMs, timeText } from '../time';

interface Props {
  found: FoundTrace[];
  params: Params;
  onOpen: (id: string) => void;
}

export function Results({ found, params, onOpen }: Props) {
  const longest = Math.max(1, ...found.map((trace) => trace.durationMs ?? 0));
  return (
    <div class="scroll">
      <table class="results rows">
        <thead>
          <tr>
            <th scope="col">Trace</th>
            <th scope="col">Start</th>
            <th scope="col">Service and name of the root</th>
            <th scope="col">Spans</th>
            <th scope="col" class="number">
              Duration
            </th>
          </tr>
        </thead>
        <tbody>
          {found.map((trace) => (
            <tr key={trace.traceID} onClick={() => onOpen(trace.traceID)}>
              <td>
                <a class="mono" href={routeHash({ tab: 'traces', params: { ...params, trace: trace.traceID } })}>
                  {trace.traceID.slice(0, 12)}
                </a>
              </td>
              <td class="nowrap dim">{trace.startTimeUnixNano && timeText(nsToMs(trace.startTimeUnixNano))}</td>
              <td>
                <span class="service" style={{ '--service': nameColor(trace.rootServiceName ?? '') }}>
                  {trace.rootServiceName}
                </span>{' '}
                {trace.rootTraceName}
              </td>
              <td class="nowrap">
                <Counts trace={trace} />
              </td>
              <td class="number nowrap">
                {durationText((trace.durationMs ?? 0) * 1e6)}
                <span class="meter" style={{ width: `${((trace.durationMs ?? 0) / longest) * 100}%` }} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Counts({ trace }: { trace: FoundTrace }) {
  const services = Object.values(trace.serviceStats ?? {});
  const spans = services.reduce((sum, s) => sum + (s.spanCount ?? 0), 0);
  const errors = services.reduce((sum, s) => sum + (s.errorCount ?? 0), 0);
  const matched = (trace.spanSets ?? []).reduce((sum, set) => sum + (set.matched ?? 0), 0);
  return (
    <>
      {spans > 0 ? `${matched} of ${spans} match` : `${matched} match`}
      {errors > 0 && <span class="error-text"> {errors} failed</span>}
    </>
  );
}
