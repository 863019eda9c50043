import { useMemo, useRef, useState } from 'preact/hooks';
import { nameColor } from '../parts/colors';
import { durationText } from '../time';
import { SpanDetails } from './span-details';
import { type Trace, type TreeSpan, visibleSpans } from './tree';

const ROW_PX = 26;
/** Only rows in sight are in the page: traces of ten thousand spans scroll as small ones do. */
const ROWS_AROUND = 20;

interface Props {
  trace: Trace;
  /** Links to the logs of a service: around the trace, and with its id. */
  logsOf: (service: string) => [string, string];
}

export function Waterfall({ trace, logsOf }: Props) {
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const [chosen, setChosen] = useState<string | undefined>(trace.spans[0]?.id);
  const [top, setTop] = useState(0);
  const view = useRef<HTMLDivElement>(null);
  const rows = useMemo(() => visibleSpans(trace.spans, folded), [trace, folded]);
  const span = rows.find(({ id }) => id === chosen);

  const fold = (id: string, shut: boolean) =>
    setFolded((before) => {
      const after = new Set(before);
      if (shut) after.add(id);
      else after.delete(id);
      return after;
    });
  const onKeyDown = (event: KeyboardEvent) => {
    const at = rows.findIndex(({ id }) => id === chosen);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
      if (next) setChosen(next.id);
      scrollIntoSight(view.current, to);
    } else if (span && span.descendants > 0 && (event.key === 'ArrowLeft' || event.key === 'ArrowRight')) {
      event.preventDefault();
      fold(span.id, event.key === 'ArrowLeft');
    }
  };

  const first = Math.max(0, Math.floor(top / ROW_PX) - ROWS_AROUND);
  const last = Math.min(rows.length, Math.ceil((top + innerHeight) / ROW_PX) + ROWS_AROUND);
  return (
    <div class="waterfall">
      <Scale duration_ns={trace.duration_ns} />
      <div
        ref={view}
        class="waterfall-rows"
        role="tree"
        aria-label="Spans"
        tabIndex={0}
        aria-activedescendant={chosen && `span-${chosen}`}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
        onKeyDown={onKeyDown}
      >
        <div style={{ height: `${rows.length * ROW_PX}px`, position: 'relative' }}>
          {rows.slice(first, last).map((row, i) => (
            <Row
              key={row.id}
              span={row}
              duration_ns={trace.duration_ns}
              top={(first + i) * ROW_PX}
              isChosen={row.id === chosen}
              isFolded={folded.has(row.id)}
              onChoose={() => setChosen(row.id)}
              onFold={() => fold(row.id, !folded.has(row.id))}
            />
          ))}
        </div>
      </div>
      {span && <SpanDetails span={span} logs={logsOf(span.service)} />}
    </div>
  );
}

function scrollIntoSight(view: HTMLElement | null, row: number) {
  if (!view) return;
  const [top, bottom] = [row * ROW_PX, (row + 1) * ROW_PX];
  if (top < view.scrollTop) view.scrollTop = top;
  else if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight;
}

function Scale({ duration_ns }: { duration_ns: number }) {
  return (
    <div class="waterfall-scale" aria-hidden="true">
      {[0, 0.25, 0.5, 0.75].map((part) => (
        <span key={part} style={{ left: `${part * 100}%` }}>
          {part === 0 ? '0' : durationText(Math.round(duration_ns * part))}
        </span>
      ))}
      <span class="scale-end">{durationText(duration_ns)}</span>
    </div>
  );
}

interface RowProps {
  span: TreeSpan;
  duration_ns: number;
  top: number;
  isChosen: boolean;
  isFolded: boolean;
  onChoose: () => void;
  onFold: () => void;
}

/** Deeper than this, rows keep their place: names stay readable. */
const INDENT_MAX = 14;

function Row({ span, duration_ns, top, isChosen, isFolded, onChoose, onFold }: RowProps) {
  const whole = Math.max(1, duration_ns);
  const left = (span.start_ns / whole) * 100;
  const width = (span.duration_ns / whole) * 100;
  const label = durationText(span.duration_ns);
  return (
    <div
      class={`span-row${isChosen ? ' chosen' : ''}${span.isError ? ' failed' : ''}`}
      style={{ top: `${top}px`, height: `${ROW_PX}px`, '--service': nameColor(span.service) }}
      role="treeitem"
      id={`span-${span.id}`}
      aria-level={span.depth + 1}
      aria-selected={isChosen}
      aria-expanded={span.descendants > 0 ? !isFolded : undefined}
      aria-label={`${span.service} ${span.name} ${label}${span.isError ? ' failed' : ''}`}
      title={`${span.service}: ${span.name} (${label})`}
      onClick={onChoose}
    >
      <div class="span-name" style={{ paddingLeft: `${Math.min(span.depth, INDENT_MAX) * 12 + 4}px` }}>
        <span
          class="fold"
          onClick={(event) => {
            event.stopPropagation();
            if (span.descendants > 0) onFold();
          }}
        >
          {span.descendants === 0 ? '' : isFolded ? '▸' : '▾'}
        </span>
        {span.isError && <span class="error-text">✕ </span>}
        <b>{span.service}</b> {span.name}
        {isFolded && <span class="dim"> +{span.descendants}</span>}
      </div>
      <div class="span-lane">
        <span class="span-bar" style={{ left: `${left}%`, width: `max(2px, ${width}%)` }} />
        <span class="span-duration" style={left + width > 80 ? { right: `${100 - left}%` } : { left: `${left + width}%` }}>
          {label}
        </span>
      </div>
    </div>
  );
}
