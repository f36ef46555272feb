import { describe, expect, it } from "vitest";
import type { UsageSeries } from "@/api/types";
import { csv, figures, nameOf, type UsageLine } from "./usage";

const line = (fields: Partial<UsageLine>): UsageLine => ({ channel: null, model: null, total: {} as UsageLine["total"], values: {}, ...fields });

describe("usage", () => {
  it("is summed up from the counters behind a figure", () => {
    const values = { input_tokens: [1, 2], output_tokens: [10, 20], limit: [3], rule: [4], cost_micro: [1_500_000] };
    expect(figures(values, "total_tokens")).toEqual([11, 22]);
    expect(figures(values, "refused")).toEqual([7]);
    expect(figures(values, "cost")).toEqual([1.5]);
    expect(figures(values, "errors")).toEqual([]);
  });
  it("is named by what it is told apart by", () => {
    expect(nameOf(line({ channel: "c", model: "m" }))).toBe("c · m");
    expect(nameOf(line({ model: "m", version: "v2" }))).toBe("m@v2");
    expect(nameOf(line({ model: "m", deployment: "m/p" }))).toBe("m/p");
    expect(nameOf(line({ experiment: "e", group: "g" }))).toBe("e = g");
    expect(nameOf(line({}))).toBe("");
  });
  it("is exported so that nothing is taken for a formula", () => {
    const series = [line({ channel: "=evil", values: { requests: [5] } })];
    const found = { step: 60, from: 0, to: 60, scope: "instance", note: null, times: [0], series, others: null } as UsageSeries;
    const [head, row] = csv(found, "USD").split("\r\n");
    expect(head).toContain('"channel","model","version","deployment"');
    expect(row).toBe('"1970-01-01T00:00:00.000Z","\'=evil","","","","","",0,0,0,0,0,5,0,0,0,0,"USD"');
  });
});
