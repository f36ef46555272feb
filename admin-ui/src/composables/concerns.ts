// Which rules may have something to say about a channel: those that name it, and those that name none.
import type { Condition, Rule } from "@/api/types";

function glob(pattern: string, text: string): boolean {
  const source = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${source}$`).test(text);
}

/** Whether a comparison holds for the channel; null where it is about something else, or nobody can say here. */
function holds(c: Condition, code: string): boolean | null {
  if (c.field !== "channel" && c.field !== "header.channelcode") return null;
  if (c.op === "eq") return c.value === code;
  if (c.op === "ne") return c.value !== code;
  if (c.op === "matches" && typeof c.value === "string") return glob(c.value, code);
  if (c.op === "in" && Array.isArray(c.value)) return c.value.includes(code);
  return null;
}

/** Three-valued: true and false are sure, null is "may be". */
function decide(c: Condition | null | undefined, code: string): boolean | null {
  if (!c) return true;
  if (c.all) {
    const parts = c.all.map((part) => decide(part, code));
    return parts.includes(false) ? false : parts.includes(null) ? null : true;
  }
  if (c.any) {
    const parts = c.any.map((part) => decide(part, code));
    return parts.includes(true) ? true : parts.includes(null) ? null : false;
  }
  if (c.not) {
    const inner = decide(c.not, code);
    return inner === null ? null : !inner;
  }
  return holds(c, code);
}

/** Whether a rule can match requests of a channel. What a template's conditions come to is not known here: it can. */
export const concerns = (rule: Rule, code: string): boolean => Boolean(rule.template) || decide(rule.when, code) !== false;
