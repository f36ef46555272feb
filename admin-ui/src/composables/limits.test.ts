import { describe, expect, it } from "vitest";
import { kept, metricOf, MOST, namedBy, shown } from "./limits";

describe("limits", () => {
  it("have money in units where people are, and in millionths where documents are", () => {
    expect([shown("cost", 10_000_000), shown("cost", 1), shown("requests", 50)]).toEqual([10, 0.000001, 50]);
    expect([kept("cost", 10), kept("cost", 0.1 + 0.2), kept("cost", 1.0000014), kept("requests", 50)]).toEqual([10_000_000, 300_000, 1_000_001, 50]);
  });
  it("are never more than a document may say", () => {
    expect(kept("cost", 600_000)).toBe(MOST);
  });
  it("count what their own names say, and nothing that a given name looks like", () => {
    expect(["cost/1h:each model", "connections", "requests/1s", "of all", "cost of lunch"].map(metricOf)).toEqual(["cost", "connections", "requests", null, null]);
  });
  it("are taken apart by the names that they have by themselves", () => {
    expect(namedBy("cost/24h")).toEqual({ metric: "cost", window: "24h", model: "", each: false });
    expect(namedBy("connections")).toEqual({ metric: "connections", window: "", model: "", each: false });
    expect(namedBy("output_tokens/10m:org/model:free")).toEqual({ metric: "output_tokens", window: "10m", model: "org/model:free", each: false });
    expect(namedBy("requests/1s:each model")).toEqual({ metric: "requests", window: "1s", model: "", each: true });
    expect(namedBy("requests/1s:each gpt-*")).toEqual({ metric: "requests", window: "1s", model: "gpt-*", each: true });
    expect(["few", "cost of lunch"].map(namedBy)).toEqual([null, null]);
  });
});
