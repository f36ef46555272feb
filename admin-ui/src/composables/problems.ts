// What is wrong with the documents; the same of many entries is said once.

export interface Problem {
  reason: string;
  severity?: string;
  document?: string;
  path?: string;
}

export interface Gathered {
  reason: string;
  severity: string;
  places: string[];
}

export function gathered(problems: readonly Problem[]): Gathered[] {
  const found = new Map<string, Gathered>();
  for (const p of problems) {
    const known = found.get(p.reason) ?? { reason: p.reason, severity: p.severity ?? "warning", places: [] };
    known.places.push(`${p.document ?? ""} ${p.path ?? ""}`.trim());
    found.set(p.reason, known);
  }
  return [...found.values()];
}
