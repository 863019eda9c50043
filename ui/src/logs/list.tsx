import { memo } from './memo';
import { useState } from 'preact/hooks';
import { LabelTable } from '../parts/labels';
import { routeHash } from '../route';
import { clockText, timeText } from '../time';
import { type Entry, levelOf, traceIdOf } from './entries';

/** Narrows the query to a value, or away from it. */
export type OnCondition = (name: string, value: string, equal: boolean, isStreamLabel: boolean) => void;

export function EntryList({ entries, onCondition }: { entries: Entry[]; onCondition?: OnCondition }) {
  const days = new Set(entries.length > 0 ? [day(entries[0]), day(entries.at(-1))] : []);
  return (
    <ol class="entries" aria-label={`${entries.length} lines`}>
      {entries.map((entry) => (
        <EntryRow key={entry.key} entry={entry} withDate={days.size > 1} onCondition={onCondition} />
      ))}
    </ol>
  );
}

const ms = (entry: Entry) => Number(entry.ts_ns / 1_000_000n);
const day = (entry?: Entry) => entry && timeText(ms(entry)).slice(0, 10);

interface RowProps {
  entry: Entry;
  withDate: boolean;
  onCondition?: OnCondition;
}

const EntryRow = memo(function EntryRow({ entry, withDate, onCondition }: RowProps) {
  const [open, setOpen] = useState(false);
  const level = levelOf(entry);
  const traceId = traceIdOf(entry);
  const time = withDate ? timeText(ms(entry)) : clockText(ms(entry));
  return (
    <li class={`entry level-${level}`}>
      <div class="entry-line">
        <button
          type="button"
          class="entry-toggle"
          aria-expanded={open}
          aria-label={`${time} ${level}: labels`}
          onClick={() => setOpen(!open)}
        >
          <span class="mono">{time}</span>
        </button>
        <span class="entry-text mono" onClick={() => getSelection()?.isCollapsed !== false && setOpen(!open)}>
          {entry.line}
        </span>
        {traceId && (
          <a class="trace-link" href={routeHash({ tab: 'traces', params: { trace: traceId } })} title={`Trace ${traceId}`}>
            trace
          </a>
        )}
      </div>
      {open && <Details entry={entry} onCondition={onCondition} />}
    </li>
  );
}, (a, b) => a.entry.key === b.entry.key && a.withDate === b.withDate);

function Details({ entry, onCondition }: { entry: Entry; onCondition?: OnCondition }) {
  const actions = (isStreamLabel: boolean) =>
    onCondition &&
    ((name: string, value: string) => (
      <>
        <button type="button" title={`Only ${name}=${value}`} onClick={() => onCondition(name, value, true, isStreamLabel)}>
          +
        </button>
        <button type="button" title={`Without ${name}=${value}`} onClick={() => onCondition(name, value, false, isStreamLabel)}>
          −
        </button>
      </>
    ));
  const groups = [
    { title: 'Stream labels', labels: entry.labels, isStreamLabel: true },
    { title: 'Structured metadata', labels: entry.metadata, isStreamLabel: false },
    { title: 'Parsed', labels: entry.parsed, isStreamLabel: false },
  ];
  return (
    <div class="entry-details">
      <p class="dim">
        {timeText(ms(entry))} ({String(entry.ts_ns)} ns)
      </p>
      {groups.map(
        ({ title, labels, isStreamLabel }) =>
          Object.keys(labels).length > 0 && (
            <section key={title}>
              <h3>{title}</h3>
              <LabelTable labels={labels} action={actions(isStreamLabel)} />
            </section>
          ),
      )}
    </div>
  );
}
