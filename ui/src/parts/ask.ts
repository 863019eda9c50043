import { useEffect, useState } from 'preact/hooks';

export interface Asked<T> {
  /** The last answer, kept while the next one is on its way. */
  data?: T;
  error?: Error;
  loading: boolean;
}

/**
 * Asks whenever `key` changes, and cancels the question before. No key, no question.
 * Everything `ask` reads has to be in the key.
 */
export function useAsk<T>(key: string | undefined, ask: (signal: AbortSignal) => Promise<T>): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ loading: key !== undefined });
  useEffect(() => {
    if (key === undefined) {
      setAsked({ loading: false });
      return;
    }
    const abort = new AbortController();
    setAsked((before) => ({ data: before.data, loading: true }));
    ask(abort.signal).then(
      (data) => !abort.signal.aborted && setAsked({ data, loading: false }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setAsked({ error: error instanceof Error ? error : new Error(String(error)), loading: false });
      },
    );
    return () => abort.abort();
  }, [key]);
  return asked;
}
