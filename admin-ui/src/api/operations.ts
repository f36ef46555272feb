// Emergency actions and the history of the configuration.
import { ApiError, call, get, path } from "./http";
import type { BackupList, Cluster, Draining, EmergencyState, Joining, Member, Own, Published, Restored, Schedule, ScheduleList, VersionDiff, VersionLine, VersionList, Written } from "./schema";

/** Whose limits are meant. */
export type Owner = { kind: "channel" | "model"; name: string } | { kind: "all" };
const limitsOf = (owner: Owner) => (owner.kind === "all" ? "/emergency/limits" : path("emergency", `${owner.kind}s`, owner.name, "limits"));

export const emergency = () => get<EmergencyState>("/emergency");
export const blockChannel = (code: string, reason: string, end_streams: boolean) => call<Written>("POST", path("emergency", "channels", code, "block"), { body: { reason, end_streams } });
export const unblockChannel = (code: string, reason: string) => call<Written>("POST", path("emergency", "channels", code, "unblock"), { body: { reason } });
export const endStreams = (owner: Owner, reason: string) =>
  call<Written>("POST", owner.kind === "channel" ? path("emergency", "channels", owner.name, "end-streams") : "/emergency/end-streams", { body: { reason } });
export const resetLimit = (owner: Owner, limit: string, reason: string) => call<Written>("POST", `${limitsOf(owner)}/reset`, { body: { limit, reason } });
/** Adds to a limit's maximum for a while, instead of what was added before; 0 takes that away. */
export const topUp = (owner: Owner, limit: string, add: number, lasting: string, reason: string) =>
  call<Written>("POST", `${limitsOf(owner)}/top-up`, { body: { limit, add, for: lasting, reason } });
export const maintenance = (body: { on: boolean; message?: string; retry_after?: string | null; end_streams?: boolean; reason: string }) => call<Written>("POST", "/emergency/maintenance", { body });

export type Version = VersionLine;
export type { Member };

export const versions = (query: { before?: number | null; limit?: number; document?: string }) =>
  get<VersionList>("/versions", query);

/** A document as it was in a version; null if the version had none of that name. */
export async function documentOf(version: number, name: string): Promise<string | null> {
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
export const rollBack = (version: number, message: string) => call<Published>("POST", path("versions", String(version), "rollback"), { body: { message } });

/** Changes what stands in an instance's own document, so that any instance can do it for any other. */
export const changeInstance = (id: string, body: { weight?: number; drain?: boolean; reason?: string }) => call<Own>("PATCH", path("instances", id), { body });
export const removeInstance = (id: string) => call<Own>("DELETE", path("instances", id));
export const joining = (id: string, advertise: string) => get<Joining>(path("instances", id, "configuration"), { advertise });
export const instances = () => get<Cluster>("/instances");
export const drain = (on: boolean) => call<Draining>(on ? "PUT" : "DELETE", "/drain");

export type { Schedule };
export const schedules = () => get<ScheduleList>("/schedules");
export const cancelSchedule = (id: string) => call<Schedule>("DELETE", path("schedules", id));
/** Keeps documents until it is time to publish them. */
export const createSchedule = (body: { at_ms: number; documents: Record<string, unknown>; message: string }) => call<Schedule>("POST", "/schedules", { body });
/** Keeps what makes a former version's documents of the present ones until its time. */
export async function rollBackLater(version: number, present: number, at_ms: number, message: string): Promise<Schedule> {
  const { documents } = await get<VersionDiff>(path("versions", String(version), "diff"), { from: present });
  const texts = await Promise.all(documents.map(async ({ document }) => [document, JSON.parse((await documentOf(version, document)) ?? "null") as unknown] as const));
  return createSchedule({ at_ms, documents: Object.fromEntries(texts), message });
}

export const backups = () => get<BackupList>("/backups");
export const removeBackup = (name: string) => call<void>("DELETE", path("backups", name));
/** Makes the gateway what it was; the accounts too, if wanted. */
export const restore = (archive: unknown, accounts: boolean) => call<Restored>("POST", "/backup/restore", { body: archive, query: { accounts } });
