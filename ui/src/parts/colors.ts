/** Readable on light and on dark; neighbours differ. Red is kept for errors. */
export const PALETTE = [
  '#4f7df3', '#e0782f', '#2fa36b', '#b05cc0', '#b8921f', '#1f9fb8',
  '#8a63d2', '#6b8e23', '#a0714f', '#3f6fb0', '#12908e', '#8a7f9e',
];

export const seriesColor = (index: number) => PALETTE[index % PALETTE.length] ?? '#888';

/** The same name has the same colour everywhere. */
export function nameColor(name: string): string {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  return seriesColor(hash >>> 0);
}
