// What this browser keeps. Storage may be full or forbidden: then nothing is kept, and everything else works.

export function stored(name: string): string | undefined {
  try {
    return localStorage.getItem(`triptych.${name}`) ?? undefined;
  } catch {
    return undefined;
  }
}

export function store(name: string, value: string) {
  try {
    localStorage.setItem(`triptych.${name}`, value);
  } catch {
    // See above.
  }
}
