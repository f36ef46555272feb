// What is only read: usage, limits, requests, deployments, the instance, explanations, counts.
import { call, get, path } from "./http";
import type {
  AllLimits,
  AuditPage,
  AuditVerdict,
  ChannelLimits,
  CountAnswer,
  DeploymentHistory,
  DeploymentList,
  Explained,
  Instance,
  RequestPage,
  TokenizerList,
  UsageSeries,
} from "./schema";

export interface SeriesQuery {
  from: number;
  to: number;
  step: number;
  group_by: string;
  channel?: string;
  model?: string;
  top?: number;
}

export interface RequestQuery {
  before?: number | null;
  limit?: number;
  channel?: string;
  model?: string;
  class?: string;
  status?: number | null;
  deployment?: string;
  from_ms?: number | null;
  to_ms?: number | null;
  id?: string;
}

export const series = (query: SeriesQuery, signal?: AbortSignal) => get<UsageSeries>("/usage/series", { ...query }, signal);
export const requests = (query: RequestQuery, signal?: AbortSignal) =>
  get<RequestPage>("/requests", { ...query }, signal);
export const deployments = (query: { model?: string; provider?: string; trouble?: boolean } = {}) =>
  get<DeploymentList>("/deployments", query);
export const deploymentHistory = (id: string) =>
  get<DeploymentHistory>(
    "/deployments/" + id.split("/").map(encodeURIComponent).join("/") + "/history",
  );
export const channelLimits = (code: string) => get<ChannelLimits>(path("channels", code, "limits"));
export const allLimits = (offset: number, limit: number) =>
  get<AllLimits>("/limits", { offset, limit });
export const instance = () => get<Instance>("/instance");
export const tokenizers = () => get<TokenizerList>("/tokenizers");
export const count = (name: string, body: { text?: string; body?: unknown; path?: string; rule?: unknown }) =>
  call<CountAnswer>("POST", path("tokenizers", name, "count"), { body });
export const explain = (body: { method: string; path: string; headers: Record<string, string>; body: unknown; client_ip?: string }) =>
  call<Explained>("POST", "/explain", { body });
export const audit = (query: { before?: number | null; limit?: number; actor?: string; resource?: string; outcome?: string; search?: string }) =>
  get<AuditPage>("/audit", query);
export const verifyAudit = () => get<AuditVerdict>("/audit/verify");
