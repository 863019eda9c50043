import { useEffect, useState } from 'preact/hooks';
import { type Stream, logs, toNs } from '../api';
import { type Entry, entriesOf, mergeEntries } from './entries';

/** A page that follows for hours keeps the newest lines alone. */
const ENTRIES_KEPT = 2000;
const PAST_LINES = 100;
const AGAIN_AFTER_MS = 2000;
/** The server's own errors end a tail; everything else is worth another try. */
const SERVER_ERROR = 1011;

export interface Tail {
  entries: Entry[];
  state: 'connecting' | 'open' | 'ended';
  error?: string;
}

/** Follows a query over a WebSocket while `query` is there, and connects again where it left off. */
export function useTail(query: string | undefined): Tail {
  const [tail, setTail] = useState<Tail>({ entries: [], state: 'connecting' });
  useEffect(() => {
    setTail({ entries: [], state: 'connecting' });
    if (query === undefined) return undefined;
    let socket: WebSocket;
    let timer: ReturnType<typeof setTimeout>;
    let over = false;
    let opened = false;
    let since_ns = toNs(Date.now() - 300_000);

    const connect = () => {
      socket = new WebSocket(logs.tailAddress(query, since_ns, PAST_LINES));
      socket.onopen = () => {
        opened = true;
        setTail((t) => ({ ...t, state: 'open', error: undefined }));
      };
      socket.onmessage = ({ data }: MessageEvent<string>) => {
        const { streams } = JSON.parse(data) as { streams?: Stream[] };
        const arrived = entriesOf(streams ?? []);
        const newest = arrived[0];
        if (!newest) return;
        // The line itself is asked for again, so that others of its nanosecond are not lost; the merge drops it.
        if (newest.ts_ns > BigInt(since_ns)) since_ns = String(newest.ts_ns);
        setTail((t) => ({ ...t, entries: mergeEntries(arrived, t.entries, ENTRIES_KEPT) }));
      };
      socket.onclose = ({ code, reason }) => {
        if (over) return;
        if (code === SERVER_ERROR || !opened) {
          setTail((t) => ({ ...t, state: 'ended', error: reason || 'the server refused to follow this query' }));
          return;
        }
        setTail((t) => ({ ...t, state: 'connecting' }));
        timer = setTimeout(connect, AGAIN_AFTER_MS);
      };
    };
    connect();
    return () => {
      over = true;
      clearTimeout(timer);
      socket.close();
    };
  }, [query]);
  return tail;
}
