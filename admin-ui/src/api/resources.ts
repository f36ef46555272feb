// Resources of the configuration: entries of documents, changed under optimistic locking.
import { call, get, path, type CallOptions } from "./http";
import type { Channel, CountingRule, Effective, Item, MadeKey, Model, Page, Provider, Removed, Rule, RuleTemplate, Settings, Template, Written } from "./types";

export interface ListQuery {
  search?: string;
  sort?: string;
  order?: "asc" | "desc";
  limit?: number;
  after?: string | null;
  enabled?: boolean | null;
  [field: string]: CallOptions["query"] extends infer Q ? (Q extends Record<string, infer V> ? V : never) : never;
}

export interface Resource<V> {
  name: string;
  list(query?: ListQuery, signal?: AbortSignal): Promise<Page<V>>;
  read(id: string): Promise<Item<V>>;
  create(value: V, dryRun?: boolean): Promise<Written<V>>;
  replace(id: string, value: V, etag: string, dryRun?: boolean): Promise<Written<V>>;
  patch(id: string, patch: object, etag: string): Promise<Written<V>>;
  remove(id: string, etag: string): Promise<Removed>;
}

function resource<V>(name: string): Resource<V> {
  const dry = (dryRun?: boolean) => (dryRun ? { query: { dry_run: true } } : {});
  return {
    name,
    list: (query, signal) => get<Page<V>>(path(name), query, signal),
    read: (id) => get<Item<V>>(path(name, id)),
    create: (value, dryRun) => call("POST", path(name), { body: value, ...dry(dryRun) }),
    replace: (id, value, etag, dryRun) => call("PUT", path(name, id), { body: value, etag, ...dry(dryRun) }),
    patch: (id, patch, etag) => call("PATCH", path(name, id), { body: patch, etag }),
    remove: (id, etag) => call("DELETE", path(name, id), { etag }),
  };
}

export const channels = {
  ...resource<Channel>("channels"),
  effective: (value: Channel) => call<Effective>("POST", "/channels/effective", { body: value }),
  addKey: (code: string, body: { id?: string; expires_at?: string }) =>
    call<MadeKey>("POST", path("channels", code, "keys"), { body }),
  rotateKey: (code: string, id: string, grace: string) =>
    call<MadeKey>("POST", path("channels", code, "keys", id, "rotate"), { body: { grace } }),
  removeKey: (code: string, id: string) => call<Removed>("DELETE", path("channels", code, "keys", id)),
};
export const templates = resource<Template>("templates");
export const models = resource<Model>("models");
export const providers = resource<Provider>("providers");
export const rules = resource<Rule>("rules");
export const countingRules = resource<CountingRule>("counting-rules");
export const ruleTemplates = resource<RuleTemplate>("rule-templates");

const only = (): never => {
  throw new Error("there is one set of settings");
};
/** The settings as a resource with one entry, so that a form over them is like any other. */
export const settings: Resource<Settings> = {
  name: "settings",
  list: only,
  create: only,
  remove: only,
  read: () => get<Item<Settings>>("/settings"),
  replace: (_id, value, etag, dryRun) => call("PUT", "/settings", { body: value, etag, ...(dryRun ? { query: { dry_run: true } } : {}) }),
  patch: (_id, patch, etag) => call("PATCH", "/settings", { body: patch, etag }),
};
