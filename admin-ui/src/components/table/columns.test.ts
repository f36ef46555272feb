import { describe, expect, it } from "vitest";
import { offsets, rowAt } from "./columns";

describe("rows near the window", () => {
  const known = new Map([[1, 100]]);
  const places = offsets(4, (i) => known.get(i), 50);

  it("begin where those above end", () => {
    expect([...places]).toEqual([0, 50, 150, 200, 250]);
  });
  it("are found by their height", () => {
    expect([-10, 0, 49, 50, 149, 150, 249, 250, 9_999].map((y) => rowAt(places, y))).toEqual([0, 0, 0, 1, 1, 2, 3, 3, 3]);
  });
  it("are none of an empty list", () => {
    expect([...offsets(0, () => 1, 1)]).toEqual([0]);
    expect(rowAt(offsets(0, () => 1, 1), 5)).toBe(0);
  });
});
