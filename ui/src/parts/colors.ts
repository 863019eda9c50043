/** Readable on light and on dark; neighbours differ. */
export const PALETTE = [
  '#4f7df3', '#e0782f', '#2fa36b', '#c94f7c', '#8a63d2', '#b8921f',
  '#1f9fb8', '#d1495b', '#6b8e23', '#a0612f', '#5b6ee1', '#12908e',
];

export const seriesColor = (index: number) => PALETTE[index % PALETTE.length] ?? '#888';

/** The same name has the same colour everywhere. */
export function nameColor(name: string): string {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  return seriesColor(hash >>> 0);
}
