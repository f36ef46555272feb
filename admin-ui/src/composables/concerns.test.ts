import { describe, expect, it } from "vitest";
import type { Condition } from "@/api/types";
import { concerns } from "./concerns";

const rule = (when: Condition | null) => ({ name: "r", when });
const channel = (op: string, value: unknown): Condition => ({ field: "channel", op, value });

describe("rules that concern a channel", () => {
  it("are those that name it, or none", () => {
    expect(concerns(rule(null), "a1")).toBe(true);
    expect(concerns(rule(channel("eq", "a1")), "a1")).toBe(true);
    expect(concerns(rule(channel("eq", "b1")), "a1")).toBe(false);
    expect(concerns(rule({ field: "header.channelcode", op: "matches", value: "a*" }), "a1")).toBe(true);
    expect(concerns(rule(channel("matches", "a.")), "a1")).toBe(false);
    expect(concerns(rule(channel("in", ["x", "a1"])), "a1")).toBe(true);
  });
  it("are told apart through groups, with what is not known taken as possible", () => {
    const unknown: Condition = { field: "body.max_tokens", op: "gt", value: 1 };
    expect(concerns(rule({ all: [channel("eq", "b1"), unknown] }), "a1")).toBe(false);
    expect(concerns(rule({ any: [channel("eq", "b1"), unknown] }), "a1")).toBe(true);
    expect(concerns(rule({ not: channel("eq", "a1") }), "a1")).toBe(false);
    expect(concerns(rule({ not: { all: [channel("eq", "a1"), unknown] } }), "a1")).toBe(true);
  });
  it("may be made from a template", () => {
    expect(concerns({ name: "r", template: "t", with: {} }, "a1")).toBe(true);
  });
});
