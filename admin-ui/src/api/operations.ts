// Emergency actions and the history of the configuration.
import { call, get, path } from "./http";

export const blockChannel = (code: string, reason: string) => call<unknown>("POST", path("emergency", "channels", code, "block"), { body: { reason } });
export const unblockChannel = (code: string) => call<unknown>("POST", path("emergency", "channels", code, "unblock"), { body: {} });
export const endStreams = (code: string) => call<unknown>("POST", path("emergency", "channels", code, "end-streams"), { body: {} });
export const resetLimit = (channel: string, key: string) => call<unknown>("POST", "/emergency/limits/reset", { body: { channel, key } });
export const topUpLimit = (channel: string, key: string, units: number) => call<unknown>("POST", "/emergency/limits/top-up", { body: { channel, key, units } });
export const maintenance = (on: boolean, message: string) => call<unknown>("POST", "/emergency/maintenance", { body: { on, message } });

export interface Version {
  version: number;
  at_ms: number;
  author: string;
  message: string;
  documents: string[];
  generation?: number;
}

export const versions = (query: { before?: number | null; limit?: number }) => get<{ items: Version[]; next: number | null }>("/history", query);
export const versionDiff = (version: number) =>
  get<{ documents: { name: string; before: string | null; after: string | null }[] }>(path("history", String(version), "diff"));
export const rollBack = (version: number, message: string) => call<unknown>("POST", path("history", String(version), "rollback"), { body: { message } });
