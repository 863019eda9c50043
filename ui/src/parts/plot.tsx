import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { seriesColor } from './colors';
import { type PlotSeries, columns, shortNumber } from './plot-data';

/** More lines than this nobody tells apart, and the browser feels them. */
const SERIES_SHOWN = 40;

interface Props {
  series: PlotSeries[];
  startMs: number;
  endMs: number;
  step_s: number;
  /** Dragging over the plot chooses a range. */
  onZoom?: (startMs: number, endMs: number) => void;
}

export function Plot({ series, startMs, endMs, step_s, onZoom }: Props) {
  const [all, setAll] = useState(false);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [hover, setHover] = useState<number>();
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  const scheme = useScheme();
  const shown = useMemo(() => (all ? series : series.slice(0, SERIES_SHOWN)), [series, all]);
  const { times, rows } = useMemo(() => columns(shown, startMs, endMs, step_s), [shown, startMs, endMs, step_s]);

  // Before the browser paints: the plot of the last answer never stands beside the numbers of this one.
  useLayoutEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const options = plotOptions(element, shown, [startMs / 1000, endMs / 1000], setHover, onZoom);
    const made = new uPlot(options, [times, ...rows], element);
    chart.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: plotHeight() }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      chart.current = undefined;
    };
  }, [rows, scheme]);

  useLayoutEffect(() => {
    shown.forEach(({ name }, i) => chart.current?.setSeries(i + 1, { show: !hidden.has(name) }));
  }, [hidden, rows, scheme]);

  const toggle = (name: string, alone: boolean) =>
    setHidden((before) => {
      if (alone) {
        const others = shown.map((s) => s.name).filter((other) => other !== name);
        return others.every((other) => before.has(other)) ? new Set() : new Set(others);
      }
      const after = new Set(before);
      if (!after.delete(name)) after.add(name);
      return after;
    });
  const valueAt = (i: number) => {
    const row = rows[i];
    return row ? shortNumber(hover === undefined ? row.findLast((v) => v !== null) : row[hover]) : '';
  };

  return (
    <div class="plot">
      <div ref={place} class="plot-canvas" role="img" aria-label={`Plot of ${series.length} series`} />
      <ul class="legend" aria-label="Series: click hides one, with Shift all others">
        {shown.map(({ name }, i) => (
          <li key={name}>
            <button
              type="button"
              aria-pressed={!hidden.has(name)}
              title="Click: hide or show. Shift+click: this one alone."
              onClick={(event) => toggle(name, event.shiftKey)}
            >
              <span class="swatch" style={{ background: seriesColor(i) }} />
              <span class="legend-name">{name}</span>
              <span class="legend-value">{valueAt(i)}</span>
            </button>
          </li>
        ))}
      </ul>
      {series.length > shown.length && (
        <p class="more">
          {shown.length} of {series.length} series are drawn.{' '}
          <button type="button" onClick={() => setAll(true)}>
            Draw all
          </button>
        </p>
      )}
    </div>
  );
}

const plotHeight = () => Math.max(220, Math.min(420, Math.round(innerHeight * 0.42)));

/** Labels of the time axis by the distance of its ticks, 24 hours: which distance, format, and the second line where year, month or day change. */
const CLOCK: (string | number | null)[][] = [
  [86_400, '{YYYY}-{MM}-{DD}', null, null, null, null, null, null, 1],
  [60, '{HH}:{mm}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [1, '{HH}:{mm}:{ss}', '\n{YYYY}-{MM}-{DD}', null, '\n{MM}-{DD}', null, null, null, 1],
  [0.001, ':{ss}.{fff}', '\n{YYYY}-{MM}-{DD} {HH}:{mm}', null, '\n{MM}-{DD} {HH}:{mm}', null, '\n{HH}:{mm}', null, 1],
];

function plotOptions(
  element: HTMLElement,
  series: PlotSeries[],
  range: [number, number],
  onHover: (index: number | undefined) => void,
  onZoom: Props['onZoom'],
): uPlot.Options {
  const style = getComputedStyle(element);
  const axis: uPlot.Axis = {
    stroke: style.getPropertyValue('--dim'),
    grid: { stroke: style.getPropertyValue('--line'), width: 1 },
    ticks: { stroke: style.getPropertyValue('--line'), width: 1 },
    font: '12px system-ui, sans-serif',
  };
  return {
    width: element.clientWidth,
    height: plotHeight(),
    legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, focus: { prox: 24 } },
    focus: { alpha: 0.35 },
    scales: { x: { time: true, range } },
    axes: [{ ...axis, values: CLOCK }, { ...axis, size: 64, values: (_, ticks) => ticks.map(shortNumber) }],
    series: [
      {},
      ...series.map(({ name }, i) => ({
        label: name,
        stroke: seriesColor(i),
        fill: series.length === 1 ? `${seriesColor(i)}22` : undefined,
        width: 1.5,
      })),
    ],
    hooks: {
      setCursor: [(u) => onHover(u.cursor.idx ?? undefined)],
      setSelect: [
        (u) => {
          if (u.select.width < 4) return;
          const [start, end] = [u.select.left, u.select.left + u.select.width].map((x) => u.posToVal(x, 'x') * 1000);
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          if (start !== undefined && end !== undefined) onZoom?.(Math.round(start), Math.round(end));
        },
      ],
    },
  };
}

/** Changes when the system goes from light to dark: a canvas does not notice by itself. */
function useScheme(): boolean {
  const query = '(prefers-color-scheme: dark)';
  const [dark, setDark] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const listen = () => setDark(list.matches);
    list.addEventListener('change', listen);
    return () => list.removeEventListener('change', listen);
  }, []);
  return dark;
}
