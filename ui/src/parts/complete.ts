// What can stand where the cursor is, in PromQL, LogQL and TraceQL alike: a name, a label in braces, or a label's value.

export interface Spot {
  kind: 'name' | 'label' | 'value';
  /** What is typed already, and where it begins in the text. */
  word: string;
  from: number;
  /** Of a value: which label's. */
  label?: string;
  /** The metric in front of the braces, where there is one. */
  metric?: string;
}

/** Undefined inside of ordinary strings and comments. */
export function spotAt(text: string, cursor: number): Spot | undefined {
  let brace = -1;
  let quote: { mark: string; at: number } | undefined;
  for (let i = 0; i < cursor; i++) {
    const c = text[i] ?? '';
    if (quote) {
      if (c === '\\' && quote.mark !== '`') i++;
      else if (c === quote.mark) quote = undefined;
    } else if (c === '"' || c === '`' || c === "'") quote = { mark: c, at: i };
    else if (c === '{') brace = i;
    else if (c === '}') brace = -1;
  }
  const metric = brace < 0 ? undefined : /([A-Za-z_:][\w:]*)\s*$/.exec(text.slice(0, brace))?.[1];
  if (quote) {
    const label = /([\w.:/-]+)\s*(=~|!~|!=|=)\s*$/.exec(text.slice(0, quote.at))?.[1];
    if (brace < 0 || !label) return undefined;
    return { kind: 'value', word: text.slice(quote.at + 1, cursor), from: quote.at + 1, label, metric };
  }
  const word = /[A-Za-z_.:][\w.:-]*$/.exec(text.slice(0, cursor))?.[0] ?? '';
  const from = cursor - word.length;
  // `=abc` and `[5m` are values, not names.
  if (/[\d[=~<>]$/.test(text.slice(0, from))) return undefined;
  return brace < 0 ? { kind: 'name', word, from } : { kind: 'label', word, from, metric };
}

/** Best first: those that begin with the word, then those that contain it. */
export function ranked(candidates: readonly string[], word: string, max: number): string[] {
  const wanted = word.toLowerCase();
  const begins: string[] = [];
  const contains: string[] = [];
  for (const candidate of candidates) {
    const at = candidate.toLowerCase().indexOf(wanted);
    if (candidate === word || at < 0) continue;
    (at === 0 ? begins : contains).push(candidate);
    if (begins.length >= max) break;
  }
  return [...begins, ...contains].slice(0, max);
}

/** Inside of quotes a value must not end them. */
export function escapedValue(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
