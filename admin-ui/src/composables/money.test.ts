import { describe, expect, it } from "vitest";
import { money } from "./money";

describe("money", () => {
  it("never makes a small cost look like none", () => {
    expect([0, 1, 42, 1_500, 250_000, 12_345_678, 1_234_567_890_000].map((n) => money(n, ""))).toEqual([
      "0", "0.000001", "0.000042", "0.0015", "0.25", "12.35", "1,234,567.89",
    ]);
  });
  it("names its currency", () => {
    expect(money(1_000_000, "EUR")).toBe("1.00 EUR");
  });
});
