import type { Labels, Sample, Series } from '../api';

export interface PlotSeries {
  name: string;
  labels: Labels;
  points: Sample[];
}

/** Undefined where there is nothing to draw: NaN and infinities leave a gap. */
export function sampleNumber(text: string): number | null {
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}

/**
 * Columns as uPlot takes them: all times of the grid, then one column per series. The grid is whole even where no series has
 * a sample, so that a gap is seen as one.
 */
export function columns(series: PlotSeries[], startMs: number, endMs: number, step_s: number) {
  const stepMs = step_s * 1000;
  const times = new Set<number>();
  for (const { points } of series) for (const [t] of points) times.add(Math.round(t * 1000));
  const first = Math.min(...[...times].slice(0, 1), endMs);
  // The server chooses where its steps begin; the grid goes through its first sample.
  const offset = ((first % stepMs) + stepMs) % stepMs;
  for (let t = Math.ceil((startMs - offset) / stepMs) * stepMs + offset; t <= endMs; t += stepMs) times.add(t);
  const sorted = [...times].sort((a, b) => a - b);
  const positions = new Map(sorted.map((t, i) => [t, i]));
  const rows = series.map(({ points }) => {
    const row: (number | null)[] = Array.from({ length: sorted.length }, () => null);
    for (const [t, value] of points) row[positions.get(Math.round(t * 1000)) ?? 0] = sampleNumber(value);
    return row;
  });
  return { times: sorted.map((t) => t / 1000), rows };
}

export function matrixSeries(result: Series[], name: (labels: Labels) => string): PlotSeries[] {
  return result.map(({ metric, values, value }) => ({
    name: name(metric),
    labels: metric,
    points: values ?? (value ? [value] : []),
  }));
}

const PREFIXES: [number, string][] = [
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
];

/** `1.25M`, `0.0031`. */
export function shortNumber(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  const [scale, prefix] = PREFIXES.find(([least]) => size >= least) ?? [1, ''];
  if (size !== 0 && size < 1e-4) return value.toExponential(2);
  return `${Number((value / scale).toPrecision(4))}${prefix}`;
}
