import { useEffect, useState } from 'preact/hooks';
import type { Range } from '../time';
import { inputText, momentMs, rangeOf, timeText } from '../time';

const PRESETS = ['5m', '15m', '1h', '6h', '24h'];
const EVERY_S = [0, 5, 15, 60];

interface Props {
  params: { from?: string; to?: string };
  onChange: (range: Range) => void;
  onRefresh: () => void;
}

export function RangePicker({ params, onChange, onRefresh }: Props) {
  const range = rangeOf(params);
  const preset = range.to === 'now' ? PRESETS.find((p) => range.from === `now-${p}`) : undefined;
  const [open, setOpen] = useState(false);
  return (
    <div class="range">
      <div class="segments" role="group" aria-label="Time range">
        {PRESETS.map((p) => (
          <button
            type="button"
            key={p}
            aria-pressed={p === preset}
            title={`Last ${p}`}
            onClick={() => {
              setOpen(false);
              onChange({ from: `now-${p}`, to: 'now' });
            }}
          >
            {p}
          </button>
        ))}
        <button
          type="button"
          aria-pressed={preset === undefined}
          aria-expanded={open}
          title={preset === undefined ? rangeText(range) : 'From one time to another'}
          onClick={() => setOpen(!open)}
        >
          {preset === undefined ? rangeText(range) : 'Custom'}
        </button>
      </div>
      {open && (
        <CustomRange
          range={range}
          onApply={(changed) => {
            setOpen(false);
            onChange(changed);
          }}
        />
      )}
      <Refresh onRefresh={onRefresh} />
    </div>
  );
}

/** `11-20 14:03:00 – 14:08:00`. */
function rangeText({ from, to }: Range): string {
  const [start, end] = [from, to].map((text) => {
    const ms = /^\d+$/.test(text) ? momentMs(text, 0) : undefined;
    return ms === undefined ? text : timeText(ms).slice(5, 19);
  });
  const sameDay = start?.slice(0, 6) === end?.slice(0, 6) && end?.length === 14;
  return `${start} – ${sameDay ? end?.slice(6) : end}`;
}

function CustomRange({ range, onApply }: { range: Range; onApply: (range: Range) => void }) {
  const shown = (text: string) => {
    const ms = momentMs(text, Date.now());
    return ms === undefined ? '' : inputText(ms);
  };
  const [from, setFrom] = useState(shown(range.from));
  const [to, setTo] = useState(shown(range.to));
  const [start, end] = [Date.parse(from), Date.parse(to)];
  return (
    <form
      class="custom-range"
      onSubmit={(event) => {
        event.preventDefault();
        if (start < end) onApply({ from: String(start), to: String(end) });
      }}
    >
      <label>
        From <input type="datetime-local" step="1" value={from} onInput={(e) => setFrom(e.currentTarget.value)} />
      </label>
      <label>
        To <input type="datetime-local" step="1" value={to} onInput={(e) => setTo(e.currentTarget.value)} />
      </label>
      <button type="submit" disabled={!(start < end)}>
        Apply
      </button>
    </form>
  );
}

function Refresh({ onRefresh }: { onRefresh: () => void }) {
  const [every_s, setEvery] = useState(0);
  useEffect(() => {
    if (every_s === 0) return undefined;
    const timer = setInterval(() => document.hidden || onRefresh(), every_s * 1000);
    return () => clearInterval(timer);
  }, [every_s, onRefresh]);
  return (
    <div class="segments">
      <button type="button" onClick={onRefresh} title="Ask again">
        ↻ Refresh
      </button>
      <select aria-label="Refresh by itself" value={every_s} onChange={(e) => setEvery(Number(e.currentTarget.value))}>
        {EVERY_S.map((s) => (
          <option value={s} key={s}>
            {s === 0 ? 'off' : s < 60 ? `${s}s` : `${s / 60}m`}
          </option>
        ))}
      </select>
    </div>
  );
}
