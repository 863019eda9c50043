// The last queries of each language, in this browser.

const ENTRIES_MAX = 30;

export function history(language: string): string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(`triptych.history.${language}`) ?? '[]');
    return Array.isArray(stored) ? stored.filter((entry) => typeof entry === 'string') : [];
  } catch {
    return [];
  }
}

export function remember(language: string, query: string) {
  const entries = [query, ...history(language).filter((entry) => entry !== query)].slice(0, ENTRIES_MAX);
  try {
    localStorage.setItem(`triptych.history.${language}`, JSON.stringify(entries));
  } catch {
    // Storage is full or forbidden: there is no history then.
  }
}
