// What is only read: usage, limits, requests, deployments, the instance, explanations, counts.
import { call, get, path } from "./http";
import type { Owner } from "./operations";
import type {
  AllLimits,
  AuditPage,
  AuditVerdict,
  ChannelLimits,
  CountAnswer,
  DeploymentHistory,
  DeploymentList,
  DocumentList,
  ExperimentList,
  ExperimentOutcome,
  Explained,
  Instance,
  Latencies,
  LiveLimit,
  RequestPage,
  ShadowResults,
  TokenizerList,
  Usage,
  UsageSeries,
} from "./schema";

export interface SeriesQuery {
  from: number;
  to: number;
  step: number;
  group_by: string;
  channel?: string;
  model?: string;
  scope?: string;
  top?: number;
}

export interface RequestQuery {
  before?: string | null;
  scope?: string;
  limit?: number;
  channel?: string;
  model?: string;
  class?: string;
  status?: number | null;
  deployment?: string;
  experiment?: string;
  group?: string;
  flag?: string;
  from_ms?: number | null;
  to_ms?: number | null;
  id?: string;
  attempts?: boolean;
}

export const series = (query: SeriesQuery, signal?: AbortSignal) => get<UsageSeries>("/usage/series", { ...query }, signal);
export const requests = (query: RequestQuery, signal?: AbortSignal) =>
  get<RequestPage>("/requests", { ...query }, signal);
export const deployments = (query: { model?: string; provider?: string; trouble?: boolean; limit?: number } = {}) =>
  get<DeploymentList>("/deployments", query);
export const deploymentHistory = (id: string) =>
  get<DeploymentHistory>(
    "/deployments/" + id.split("/").map(encodeURIComponent).join("/") + "/history",
  );
export const channelLimits = (code: string) => get<ChannelLimits>(path("channels", code, "limits"));
export const allLimits = (offset: number, limit: number) =>
  get<AllLimits>("/limits", { offset, limit });
/** The limits that belong to a channel, a model, or everything. A model's are seen through any channel. */
export async function limitsOf(owner: Owner): Promise<LiveLimit[]> {
  if (owner.kind === "channel") return (await channelLimits(owner.name)).limits.filter((l) => l.scope === "channel" || l.scope === "channel_model");
  const all = await allLimits(0, 1);
  if (owner.kind === "all") return all.global;
  const [through] = all.channels;
  return through ? (await get<ChannelLimits>(path("channels", through.channel, "limits"), { model: owner.name })).limits.filter((l) => l.scope === "model") : [];
}
export const instance = () => get<Instance>("/instance");
export const tokenizers = () => get<TokenizerList>("/tokenizers");
export const count = (name: string, body: { text?: string; body?: unknown; path?: string; rule?: unknown }) =>
  call<CountAnswer>("POST", path("tokenizers", name, "count"), { body });
export const explain = (body: { method: string; path: string; headers: Record<string, string>; body: unknown; client_ip?: string }) =>
  call<Explained>("POST", "/explain", { body });
export const audit = (query: { before?: number | null; limit?: number; actor?: string; resource?: string; outcome?: string; search?: string }) =>
  get<AuditPage>("/audit", query);
export const verifyAudit = () => get<AuditVerdict>("/audit/verify");
export const latencies = (query: { channel?: string; model?: string }) => get<Latencies>("/latency", query);
export const experiments = () => get<ExperimentList>("/experiments");
export const experimentResults = (name: string, query: { step: number; from?: number; to?: number }) =>
  get<ExperimentOutcome>(path("experiments", name), query);
/** What a rule in shadow mode would have done since then, Unix seconds. */
export const shadowResults = (rule: string, from: number) => get<ShadowResults>(path("rules", rule, "shadow"), { from });
export const documents = () => get<DocumentList>("/documents");
/** The currency of all prices in force, by its three letters. */
export const currency = () => get<Usage>("/usage", { step: 600, from: Math.floor(Date.now() / 1_000) }).then((usage) => usage.currency);
