import type { Series } from '../api';
import { clockText, counted } from '../time';
import { LEVELS, type Level, levelNamed } from './entries';

export interface Bucket {
  /** Its end: a count at t covers (t - step, t]. */
  endMs: number;
  counts: Partial<Record<Level, number>>;
  total: number;
}

/** Counts per step and level, from the series of `sum by (level, detected_level) (count_over_time(..))`. */
export function buckets(series: Series[]): Bucket[] {
  const byEnd = new Map<number, Bucket>();
  for (const { metric, values = [] } of series) {
    const level = levelNamed(metric.level ?? metric.detected_level);
    for (const [t, text] of values) {
      const endMs = Math.round(t * 1000);
      const count = Number(text);
      const bucket = byEnd.get(endMs) ?? { endMs, counts: {}, total: 0 };
      bucket.counts[level] = (bucket.counts[level] ?? 0) + count;
      bucket.total += count;
      byEnd.set(endMs, bucket);
    }
  }
  return [...byEnd.values()].sort((a, b) => a.endMs - b.endMs);
}

interface Props {
  series: Series[];
  startMs: number;
  endMs: number;
  step_s: number;
  onZoom: (startMs: number, endMs: number) => void;
}

/** How many lines there are over time, stacked by level; a click on a bar goes there. */
export function Volume({ series, startMs, endMs, step_s, onZoom }: Props) {
  const stepMs = step_s * 1000;
  const all = buckets(series);
  const most = Math.max(1, ...all.map((b) => b.total));
  const total = all.reduce((sum, b) => sum + b.total, 0);
  const x = (ms: number) => ((ms - startMs) / (endMs - startMs)) * 100;
  return (
    <figure class="volume">
      <div class="volume-bars">
        {all.map((bucket) => {
          const label = `${clockText(bucket.endMs - stepMs).slice(0, 8)}: ${counted(bucket.total, 'line')}`;
          return (
            <button
              type="button"
              key={bucket.endMs}
              title={[label, ...levelCounts(bucket)].join('\n')}
              aria-label={label}
              style={{ left: `${x(bucket.endMs - stepMs)}%`, width: `${(stepMs / (endMs - startMs)) * 100}%` }}
              onClick={() => onZoom(bucket.endMs - stepMs, bucket.endMs)}
            >
              {LEVELS.map((level) => {
                const count = bucket.counts[level];
                return count ? <span class={`fill-${level}`} style={{ height: `${(count / most) * 100}%` }} /> : null;
              })}
            </button>
          );
        })}
      </div>
      <figcaption>
        <span>{clockText(startMs).slice(0, 8)}</span>
        <span>{counted(total, 'line')}, highest bar {most.toLocaleString('en')}</span>
        <span>{clockText(endMs).slice(0, 8)}</span>
      </figcaption>
    </figure>
  );
}

const levelCounts = ({ counts }: Bucket) => LEVELS.filter((l) => counts[l]).map((l) => `${l}: ${counts[l]}`);
