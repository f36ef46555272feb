// What stands in the documents of emergency actions: blocked channels, and limits that have more for a while.
import { ApiError } from "./http";
import type { Owner } from "./operations";
import { channels, models, settings, type Resource } from "./resources";
import { limitsOf } from "./reads";
import type { Relief } from "./types";
import { metricOf } from "@/composables/limits";

export interface ToppedUp {
  owner: Owner;
  limit: string;
  /** What it counts; empty if that is not known. */
  metric: string;
  /** In the limit's own unit: money in millionths. */
  add: number;
  until_ms: number;
}

/** Those of a list that hold now. What a limit counts is found among the owner's, or in the name that it has by itself. */
export function holding(owner: Owner, reliefs: readonly Relief[] | undefined, limits: readonly { name: string; metric: string }[] = [], now = Date.now()): ToppedUp[] {
  return (reliefs ?? []).flatMap(({ limit, add = 0, until }) => {
    const until_ms = until ? Date.parse(until) : 0;
    return add > 0 && until_ms > now ? [{ owner, limit, metric: limits.find((known) => known.name === limit)?.metric ?? metricOf(limit) ?? "", add, until_ms }] : [];
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
  return Promise.all(parts.flat().map(counted));
}

/** With what its limit counts, which only the limit itself says once somebody has named it. */
async function counted(relief: ToppedUp): Promise<ToppedUp> {
  if (relief.metric) return relief;
  const limits = await limitsOf(relief.owner).catch((error: unknown) => {
    // The amount is shown as it stands.
    if (!(error instanceof ApiError)) throw error;
    return [];
  });
  return { ...relief, metric: limits.find((known) => known.name === relief.limit)?.metric ?? "" };
}

/** Nothing for those who may not see it. */
function refused(error: unknown): ToppedUp[] {
  if (error instanceof ApiError && error.status === 403) return [];
  throw error;
}
