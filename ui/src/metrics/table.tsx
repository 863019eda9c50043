import { useState } from 'preact/hooks';
import type { MetricResult, Sample } from '../api';
import { seriesName } from '../parts/labels';
import { timeText } from '../time';

const ROWS_SHOWN = 500;

export function ResultTable({ result }: { result: MetricResult }) {
  const [all, setAll] = useState(false);
  if (result.resultType === 'scalar' || result.resultType === 'string') {
    return <Rows rows={[[result.resultType, result.result]]} />;
  }
  const rows = result.result.flatMap(({ metric, value, values }): [string, Sample][] => {
    const last = value ?? values?.at(-1);
    return last ? [[seriesName(metric), last]] : [];
  });
  return (
    <>
      <Rows rows={all ? rows : rows.slice(0, ROWS_SHOWN)} />
      {!all && rows.length > ROWS_SHOWN && (
        <p class="more">
          {ROWS_SHOWN} of {rows.length} rows.{' '}
          <button type="button" onClick={() => setAll(true)}>
            Show all
          </button>
        </p>
      )}
    </>
  );
}

function Rows({ rows }: { rows: [string, Sample][] }) {
  return (
    <div class="scroll">
      <table class="results">
        <thead>
          <tr>
            <th scope="col">Series</th>
            <th scope="col">Time</th>
            <th scope="col" class="number">
              Value
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, [time, value]]) => (
            <tr key={name}>
              <td class="mono">{name}</td>
              <td class="dim nowrap">{timeText(time * 1000)}</td>
              <td class="number mono">{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
