// What lines of the request log say by themselves.
import type { RequestLine } from "@/api/types";

export const flagsOf = (line: RequestLine): string[] => line.flags.split(",").filter(Boolean);
/** Whether it is an attempt that another one followed, and not what became of a request. */
export const isAttempt = (line: RequestLine): boolean => flagsOf(line).includes("attempt");
export const levelOf = (line: RequestLine): "good" | "warn" | "bad" => (line.class === "ok" ? "good" : ["limit", "rule", "abort", "client"].includes(line.class) ? "warn" : "bad");
