import { escapedValue } from '../parts/complete';

/** Whether the query asks for lines, as far as one can tell without parsing it; the answer's type decides. */
export function asksForLines(query: string): boolean {
  return withoutComments(query).trimStart().replace(/^\(+\s*/, '').startsWith('{');
}

function withoutComments(query: string): string {
  return query.replace(/^\s*#.*$/gm, '');
}

/**
 * Adds a condition to a log query: in the selector for a label of the stream, else as a label filter at the end.
 * `equal` false adds the opposite.
 */
export function addCondition(query: string, name: string, value: string, equal: boolean, isStreamLabel: boolean): string {
  const condition = `${name}${equal ? '=' : '!='}"${escapedValue(value)}"`;
  if (!isStreamLabel) return `${query.trimEnd()} | ${condition}`;
  const end = selectorEnd(query);
  if (end < 0) return `{${condition}}`;
  const before = query.slice(0, end).trimEnd();
  const comma = /[{,]$/.test(before) ? '' : ', ';
  return before + comma + condition + query.slice(end);
}

/** Where the first selector's `}` stands, strings skipped. */
function selectorEnd(query: string): number {
  let mark = '';
  for (let i = 0; i < query.length; i++) {
    const c = query[i] ?? '';
    if (mark) {
      if (c === '\\' && mark !== '`') i++;
      else if (c === mark) mark = '';
    } else if (c === '"' || c === '`') mark = c;
    else if (c === '}') return i;
  }
  return -1;
}
