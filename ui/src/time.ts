// Times as people write them and as the APIs take them. Milliseconds unless the name says otherwise.

export interface Range {
  /** `now`, `now-1h`, milliseconds since the epoch, or ISO 8601. */
  from: string;
  to: string;
}

export interface Span {
  startMs: number;
  endMs: number;
}

export const RANGE_DEFAULT: Range = { from: 'now-1h', to: 'now' };

const UNITS_MS: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/** `1h30m`, `250ms`; undefined where it is not a duration. */
export function durationMs(text: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ms|[smhdw]))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhdw])/g)) {
    total += Number(number) * (UNITS_MS[unit ?? ''] ?? NaN);
  }
  return total;
}

export function momentMs(text: string, nowMs: number): number | undefined {
  const trimmed = text.trim();
  if (trimmed === 'now') return nowMs;
  const relative = /^now-(.+)$/.exec(trimmed);
  if (relative) {
    const back = durationMs(relative[1] ?? '');
    return back === undefined ? undefined : nowMs - back;
  }
  const ms = /^\d{10,16}$/.test(trimmed) ? Number(trimmed) : Date.parse(trimmed);
  return Number.isFinite(ms) ? ms : undefined;
}

export function rangeOf(params: { from?: string; to?: string }): Range {
  return { from: params.from || RANGE_DEFAULT.from, to: params.to || RANGE_DEFAULT.to };
}

/** Throws with a text for people where a moment cannot be read or the range is empty. */
export function resolveRange(range: Range, nowMs: number): Span {
  const startMs = momentMs(range.from, nowMs);
  const endMs = momentMs(range.to, nowMs);
  if (startMs === undefined) throw new Error(`"${range.from}" is not a time`);
  if (endMs === undefined) throw new Error(`"${range.to}" is not a time`);
  if (startMs >= endMs) throw new Error('the range ends before it starts');
  return { startMs, endMs };
}

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];

/** A round step, in seconds, that gives at most so many points. */
export function stepSeconds({ startMs, endMs }: Span, pointsMax: number): number {
  const least = (endMs - startMs) / 1000 / pointsMax;
  return STEPS_S.find((step) => step >= least) ?? Math.ceil(least / 86_400) * 86_400;
}

/** Both ends on multiples of the step, so that a plot does not flicker from one refresh to the next. */
export function alignSpan({ startMs, endMs }: Span, step_s: number): Span {
  const step = step_s * 1000;
  return { startMs: Math.floor(startMs / step) * step, endMs: Math.ceil(endMs / step) * step };
}

export function durationText(ns: number): string {
  if (ns < 1000) return `${ns} ns`;
  if (ns < 1e6) return `${digits(ns / 1e3)} µs`;
  if (ns < 1e9) return `${digits(ns / 1e6)} ms`;
  if (ns < 60e9) return `${digits(ns / 1e9)} s`;
  const seconds = Math.round(ns / 1e9);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h} h ${m} m` : `${m} m ${s} s`;
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

const pad = (value: number, width = 2) => String(value).padStart(width, '0');

/** `14:03:21.250`, in the browser's time zone. */
export function clockText(ms: number): string {
  const t = new Date(ms);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}.${pad(t.getMilliseconds(), 3)}`;
}

/** `2026-11-20 14:03:21.250`. */
export function timeText(ms: number): string {
  const t = new Date(ms);
  return `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${clockText(ms)}`;
}

/** What an `<input type="datetime-local">` holds. */
export function inputText(ms: number): string {
  return timeText(Math.floor(ms / 1000) * 1000).replace(' ', 'T').slice(0, 19);
}

/** `1 span`, `1,234 spans`. */
export function counted(count: number, thing: string): string {
  return `${count.toLocaleString('en')} ${thing}${count === 1 ? '' : 's'}`;
}

/** Nanoseconds as the APIs write them, a decimal text, to milliseconds. */
export function nsToMs(ns: string): number {
  return Number(BigInt(ns) / 1000n) / 1000;
}
