// Figures of usage over time: what they are made of, what a line is called, and all of it as CSV.
import type { UsageSeries } from "@/api/types";

export type UsageLine = UsageSeries["series"][number];
export const METRICS = ["total_tokens", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "requests", "refused", "errors", "bill", "cost"] as const;
/** What only the instance that is asked knows, with latencies, and not by channel. */
export const PARTS = ["version", "deployment", "group"];

export const isMoney = (metric: string): boolean => metric === "cost" || metric === "bill";

/** One figure by bucket; money in units of the currency. */
export function figures(values: Record<string, number[]>, metric: string): number[] {
  const of = (key: string) => values[key] ?? [];
  const sum = (...keys: string[]) => of(keys[0] ?? "").map((_, i) => keys.reduce((n, k) => n + (of(k)[i] ?? 0), 0));
  if (metric === "total_tokens") return sum("input_tokens", "output_tokens");
  if (metric === "refused") return sum("limit", "rule");
  if (metric === "errors") return sum("upstream", "timeout", "internal");
  if (isMoney(metric)) return of(`${metric}_micro`).map((n) => n / 1e6);
  return of(metric);
}

export const total = (line: Pick<UsageLine, "values">, metric: string): number => figures(line.values, metric).reduce((a, b) => a + b, 0);

/** All lines of an answer, those that are taken together among them. */
export const linesOf = (found: UsageSeries | null): UsageLine[] => [...(found?.series ?? []), ...(found?.others ? [found.others] : [])];

/** What a line is about; empty if it is about everything. */
export function nameOf(line: UsageLine): string {
  if (line.experiment) return `${line.experiment} = ${line.group ?? ""}`;
  if (line.deployment) return line.deployment;
  const model = line.version ? `${line.model ?? ""}@${line.version}` : line.model;
  return [line.channel, model].filter(Boolean).join(" · ");
}

const NAMES = ["channel", "model", "version", "deployment", "experiment", "group"] as const;

function cell(value: string | number): string {
  if (typeof value === "number") return String(value);
  // A spreadsheet would take these for formulas.
  return `"${(/^[=+\-@]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
}

/** A line for each bucket of each series. */
export function csv(found: UsageSeries, currency: string): string {
  const header = ["time", ...NAMES, ...METRICS, "currency"];
  const body = found.series.flatMap((line) => {
    const columns = METRICS.map((metric) => figures(line.values, metric));
    return found.times.map((time, i) => [new Date(time * 1_000).toISOString(), ...NAMES.map((name) => line[name] ?? ""), ...columns.map((c) => c[i] ?? 0), currency]);
  });
  return [header, ...body].map((row) => row.map(cell).join(",")).join("\r\n");
}
