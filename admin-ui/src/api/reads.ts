// What is only read: usage, limits, requests, deployments, the instance, explanations, counts.
import { call, get, path } from "./http";
import type { AuditRow, DeploymentState, Explanation, Instance, LiveLimit, RequestLine, UsageSeries } from "./types";

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

export interface Counted {
  tokens: number;
  text_tokens: number;
  beside_texts: number;
  images: number;
  bound: number;
  estimated: boolean;
  rule: string;
  version: string;
  tokenizer: string;
  wanted_tokenizer: string;
  factor: number;
}

export interface ModelCounting {
  model: string;
  rule: string;
  version: string;
  tokenizer: string;
  wanted_tokenizer: string;
  estimated: boolean;
  factor: number;
  learned: { samples: number; factor: number; error: number } | null;
}

export const series = (query: SeriesQuery, signal?: AbortSignal) => get<UsageSeries>("/usage/series", { ...query }, signal);
export const requests = (query: RequestQuery, signal?: AbortSignal) =>
  get<{ requests: RequestLine[]; next: number | null }>("/requests", { ...query }, signal);
export const deployments = (query: { model?: string; provider?: string; trouble?: boolean } = {}) =>
  get<{ deployments: DeploymentState[]; total: number; now_ms: number }>("/deployments", query);
export const deploymentHistory = (id: string) =>
  get<{ history: { at_ms: number; outcome: string; latency_us: number; reason: string; verdict: string }[]; probed: boolean }>(
    "/deployments/" + id.split("/").map(encodeURIComponent).join("/") + "/history",
  );
export const channelLimits = (code: string) => get<{ limits: LiveLimit[] }>(path("channels", code, "limits"));
export const allLimits = (offset: number, limit: number) =>
  get<{ channels: { channel: string; name: string; enabled: boolean; limits: LiveLimit[] }[]; total: number; global: LiveLimit[] }>("/limits", { offset, limit });
export const instance = () => get<Instance>("/instance");
export const tokenizers = () => get<{ models: ModelCounting[]; on_board: string[]; files: string[] }>("/tokenizers");
export const count = (name: string, body: { text?: string; body?: unknown; path?: string; rule?: unknown }) =>
  call<{ counted: Counted; learned: { samples: number; error: number } | null }>("POST", path("tokenizers", name, "count"), { body });
export const explain = (body: { method: string; path: string; headers: Record<string, string>; body: unknown; client_ip?: string }) =>
  call<{ explanation: Explanation }>("POST", "/explain", { body });
export const audit = (query: { before?: number | null; limit?: number; actor?: string; resource?: string; outcome?: string; search?: string }) =>
  get<{ items: AuditRow[]; next: number | null; count: number; head: string }>("/audit", query);
export const verifyAudit = () => get<{ intact: boolean; rows: number; faults: { seq: number; reason: string }[] }>("/audit/verify");
