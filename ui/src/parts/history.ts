// The last queries of each language, in this browser.

import { store, stored } from '../stored';

const ENTRIES_MAX = 30;

export function history(language: string): string[] {
  try {
    const entries: unknown = JSON.parse(stored(`history.${language}`) ?? '[]');
    return Array.isArray(entries) ? entries.filter((entry) => typeof entry === 'string') : [];
  } catch {
    return [];
  }
}

export function remember(language: string, query: string) {
  const entries = [query, ...history(language).filter((entry) => entry !== query)].slice(0, ENTRIES_MAX);
  store(`history.${language}`, JSON.stringify(entries));
}
