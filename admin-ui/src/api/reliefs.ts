// What stands in the documents of emergency actions: blocked channels, and limits that have more for a while.
import { ApiError } from "./http";
import type { Owner } from "./operations";
import { channels, models, settings, type Resource } from "./resources";
import type { Relief } from "./types";

export interface ToppedUp {
  owner: Owner;
  limit: string;
  /** In the limit's own unit. */
  add: number;
  until_ms: number;
}

/** Those of a list that hold now. */
export function holding(owner: Owner, reliefs: readonly Relief[] | undefined, now = Date.now()): ToppedUp[] {
  return (reliefs ?? []).flatMap(({ limit, add = 0, until }) => {
    const until_ms = until ? Date.parse(until) : 0;
    return add > 0 && until_ms > now ? [{ owner, limit, add, until_ms }] : [];
  });
}

/** Channels that are refused, the first so many of them. */
export async function blockedChannels(limit: number): Promise<{ codes: string[]; all: number }> {
  const page = await channels.list({ enabled: false, limit });
  return { codes: page.items.map((i) => i.id), all: page.matched };
}

async function of<V extends { relief?: Relief[] }>(resource: Resource<V>, owner: (id: string) => Owner): Promise<ToppedUp[]> {
  // The search looks through whole entries, and nothing else in them has a field of this name.
  const page = await resource.list({ search: '"until"', limit: 200 });
  return page.items.flatMap((i) => holding(owner(i.id), i.value.relief));
}

/** Limits that have more than they are written with, whosever they are; of what somebody may read. */
export async function toppedUp(may: (resource: string) => boolean): Promise<ToppedUp[]> {
  const parts = await Promise.all([
    may("channels") ? of(channels, (name) => ({ kind: "channel", name })) : [],
    may("models") ? of(models, (name) => ({ kind: "model", name })) : [],
    may("settings") ? settings.read("settings").then((found) => holding({ kind: "all" }, found.value.relief), refused) : [],
  ]);
  return parts.flat();
}

/** Nothing for those who may not see it. */
function refused(error: unknown): ToppedUp[] {
  if (error instanceof ApiError && error.status === 403) return [];
  throw error;
}
