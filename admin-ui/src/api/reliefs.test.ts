import { describe, expect, it } from "vitest";
import { holding } from "./reliefs";

describe("limits with more for a while", () => {
  const owner = { kind: "channel", name: "c" } as const;
  const now = Date.parse("2026-01-01T12:00:00Z");
  it("are those whose time is not over", () => {
    const reliefs = [
      { limit: "a", add: 5, until: "2026-01-01T12:10:00Z" },
      { limit: "b", add: 5, until: "2026-01-01T11:50:00Z" },
      { limit: "c", add: 0, until: "2026-01-01T12:10:00Z" },
      { limit: "d", reset: "2026-01-01T11:00:00Z" },
    ];
    expect(holding(owner, reliefs, [], now)).toEqual([{ owner, limit: "a", metric: "", add: 5, until_ms: now + 600_000 }]);
    expect(holding(owner, undefined, [], now)).toEqual([]);
  });
  it("say what they count, by the limit or by a name that it has by itself", () => {
    const until = "2026-01-01T12:10:00Z";
    const metrics = (limits: { name: string; metric: string }[]) => holding(owner, [{ limit: "daily", add: 1, until }, { limit: "cost/24h", add: 1, until }], limits, now).map((relief) => relief.metric);
    expect(metrics([{ name: "daily", metric: "cost" }])).toEqual(["cost", "cost"]);
    expect(metrics([])).toEqual(["", "cost"]);
  });
});
