import { describe, expect, it } from "vitest";
import { tidy } from "./draft";

describe("what a form saves", () => {
  it("leaves out what says nothing", () => {
    expect(tidy({ name: "a", note: "", price: null, limits: [{ max: 1, name: null }], tags: [] })).toEqual({ name: "a", limits: [{ max: 1 }], tags: [] });
  });
  it("keeps empty values where they are compared with, or given", () => {
    const rule = { name: "r", when: { field: "body.user", op: "eq", value: null }, with: { text: "" }, parameters: [{ name: "text", default: "" }] };
    expect(tidy(rule)).toEqual(rule);
  });
});
