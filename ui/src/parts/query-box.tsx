import { useEffect, useRef, useState } from 'preact/hooks';
import { type Spot, escapedValue, ranked, spotAt } from './complete';
import { history, remember } from './history';

const SUGGESTIONS_MAX = 12;

interface Props {
  /** Names the history. */
  language: string;
  value: string;
  placeholder: string;
  examples: string[];
  loading: boolean;
  onRun: (query: string) => void;
  /** Everything that may stand at that spot. */
  candidates?: (spot: Spot) => Promise<string[]>;
}

export function QueryBox({ language, value, placeholder, examples, loading, onRun, candidates }: Props) {
  const [text, setText] = useState(value);
  const input = useRef<HTMLTextAreaElement>(null);
  const suggest = useSuggestions(candidates);
  useEffect(() => setText(value), [value]);

  const run = (query: string) => {
    suggest.close();
    setText(query);
    if (query.trim() === '') return;
    remember(language, query.trim());
    onRun(query.trim());
  };
  const accept = (chosen: string) => {
    const { spot } = suggest;
    const element = input.current;
    if (!spot || !element) return;
    const inserted = spot.kind === 'value' ? escapedValue(chosen) : chosen;
    const cursor = spot.from + inserted.length;
    setText(text.slice(0, spot.from) + inserted + text.slice(spot.from + spot.word.length));
    suggest.close();
    requestAnimationFrame(() => {
      element.focus();
      element.setSelectionRange(cursor, cursor);
    });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run(text);
    } else if (suggest.items.length > 0) {
      if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
        event.preventDefault();
        suggest.move(event.key === 'ArrowDown' ? 1 : -1);
      } else if (event.key === 'Escape') {
        suggest.close();
      } else if ((event.key === 'Tab' || event.key === 'Enter') && suggest.chosen !== undefined) {
        event.preventDefault();
        accept(suggest.chosen);
      }
    }
  };

  return (
    <form
      class="query"
      onSubmit={(event) => {
        event.preventDefault();
        run(text);
      }}
    >
      <div class="query-line">
        <div class="query-input">
          <textarea
            ref={input}
            aria-label={`${language} query`}
            placeholder={placeholder}
            value={text}
            rows={Math.min(12, text.split('\n').length)}
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
            onInput={(event) => {
              setText(event.currentTarget.value);
              suggest.open(event.currentTarget.value, event.currentTarget.selectionStart);
            }}
            onKeyDown={onKeyDown}
            onBlur={() => setTimeout(suggest.close, 150)}
          />
          {suggest.items.length > 0 && (
            <ul class="suggestions" role="listbox">
              {suggest.items.map((item, i) => (
                <li key={item} role="option" aria-selected={i === suggest.at} onMouseDown={() => accept(item)}>
                  {item}
                </li>
              ))}
            </ul>
          )}
        </div>
        <button type="submit" class="primary" title="Ctrl+Enter or Cmd+Enter">
          {loading ? 'Running…' : 'Run'}
        </button>
      </div>
      <Hints label="Try" queries={examples} onPick={run} />
      <History language={language} onPick={run} />
    </form>
  );
}

function Hints({ label, queries, onPick }: { label: string; queries: string[]; onPick: (query: string) => void }) {
  return (
    <div class="hints">
      <span>{label}</span>
      {queries.map((query) => (
        <button type="button" class="hint" key={query} onClick={() => onPick(query)}>
          {query}
        </button>
      ))}
    </div>
  );
}

function History({ language, onPick }: { language: string; onPick: (query: string) => void }) {
  const [queries, setQueries] = useState<string[]>([]);
  return (
    <details class="history" onToggle={() => setQueries(history(language))}>
      <summary>History</summary>
      <Hints label={queries.length === 0 ? 'Nothing was asked yet' : ''} queries={queries} onPick={onPick} />
    </details>
  );
}

/** The list below the cursor: which spot it is for, what is in it, which one is chosen. */
function useSuggestions(candidates: Props['candidates']) {
  const [shown, setShown] = useState<{ spot?: Spot; items: string[]; at: number }>({ items: [], at: -1 });
  const turn = useRef(0);
  const close = () => {
    turn.current++;
    setShown({ items: [], at: -1 });
  };
  const open = (text: string, cursor: number) => {
    const mine = ++turn.current;
    const spot = spotAt(text, cursor);
    if (!candidates || !spot || (spot.kind === 'name' && spot.word.length < 1)) return close();
    candidates(spot).then(
      (all) => {
        if (mine !== turn.current) return;
        setShown({ spot, items: ranked(all, spot.word, SUGGESTIONS_MAX), at: -1 });
      },
      // Suggestions are a comfort; the query itself will say what is wrong.
      close,
    );
  };
  const move = (by: number) =>
    setShown((s) => ({ ...s, at: (s.at + by + s.items.length + (s.at < 0 && by < 0 ? 1 : 0)) % s.items.length }));
  return { ...shown, chosen: shown.items[shown.at], open, close, move };
}
