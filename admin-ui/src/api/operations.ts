// Emergency actions and the history of the configuration.
import { ApiError, call, get, path } from "./http";

export const blockChannel = (code: string, reason: string) => call<unknown>("POST", path("emergency", "channels", code, "block"), { body: { reason } });
export const unblockChannel = (code: string) => call<unknown>("POST", path("emergency", "channels", code, "unblock"), { body: {} });
export const maintenance = (on: boolean, message: string) => call<unknown>("POST", "/emergency/maintenance", { body: { on, message } });

export interface Version {
  number: number;
  unix_ms: number;
  author: string;
  message: string;
  /** Names of the documents that differ from the version before. */
  changed: string[];
}

export interface Member {
  instance: string;
  address: string;
  api: string;
  program: string;
  version: number;
  generation: number;
  in_flight: number;
  draining: boolean;
  refusing: boolean;
}

export const versions = (query: { before?: number | null; limit?: number }) =>
  get<{ versions: Version[]; head: number | null; in_force: number | null }>("/versions", query);

/** A document as it was in a version; null if the version had none of that name. */
async function documentOf(version: number, name: string): Promise<string | null> {
  if (version < 1) return null;
  try {
    return JSON.stringify(await get<unknown>(path("versions", String(version), "documents", name)), null, 2);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

export const versionDiff = (version: Version) =>
  Promise.all(
    version.changed.map(async (name) => ({
      name,
      before: await documentOf(version.number - 1, name),
      after: await documentOf(version.number, name),
    })),
  );
export const rollBack = (version: number, message: string) => call<unknown>("POST", path("versions", String(version), "rollback"), { body: { message } });

export const instances = () => get<{ own: string; version: number; converged: boolean; failure: string | null; instances: Member[] }>("/instances");
export const drain = (on: boolean) => call<{ draining: boolean; in_flight: number }>(on ? "PUT" : "DELETE", "/drain");
