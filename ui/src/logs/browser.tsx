import { useState } from 'preact/hooks';
import { logs } from '../api';
import { useAsk } from '../parts/ask';
import { escapedValue } from '../parts/complete';
import { Notices } from '../parts/notice';
import { type Range, resolveRange } from '../time';

const VALUES_SHOWN = 200;

/** Labels and their values; a click on a value asks for its streams. */
export function LabelBrowser({ range, tick, onPick }: { range: Range; tick: number; onPick: (query: string) => void }) {
  const [label, setLabel] = useState<string>();
  const [filter, setFilter] = useState('');
  const rangeKey = JSON.stringify([range, tick]);
  const names = useAsk(rangeKey, async (signal) => {
    const answer = await logs.labelNames({ ...resolveRange(range, Date.now()), signal });
    return { ...answer, data: answer.data ?? [] };
  });
  const values = useAsk(label && `${label} ${rangeKey}`, async (signal) => {
    const answer = await logs.labelValues(label ?? '', { ...resolveRange(range, Date.now()), signal });
    return { ...answer, data: answer.data ?? [] };
  });
  const matching = (values.data?.data ?? []).filter((v) => v.toLowerCase().includes(filter.toLowerCase()));
  return (
    <div class="browser">
      <Notices error={names.error ?? values.error} warnings={names.data?.warnings} />
      <div class="browser-names" role="group" aria-label="Labels">
        {names.data?.data.length === 0 && <span class="dim">No labels in this time range.</span>}
        {names.data?.data.map((name) => (
          <button type="button" key={name} aria-pressed={name === label} onClick={() => setLabel(name)}>
            {name}
          </button>
        ))}
      </div>
      {label !== undefined && values.data && (
        <div>
          <input
            type="search"
            aria-label={`Filter values of ${label}`}
            placeholder={`${values.data.data.length} values of ${label}`}
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
          <div class="browser-values" role="group" aria-label={`Values of ${label}`}>
            {matching.slice(0, VALUES_SHOWN).map((value) => (
              <button type="button" key={value} onClick={() => onPick(`{${label}="${escapedValue(value)}"}`)}>
                {value}
              </button>
            ))}
            {matching.length > VALUES_SHOWN && <span class="dim">and {matching.length - VALUES_SHOWN} more</span>}
          </div>
        </div>
      )}
    </div>
  );
}
