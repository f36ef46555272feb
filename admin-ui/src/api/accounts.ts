// Accounts, sessions, tokens.
import { call, get, path } from "./http";
import type { Account, Session, Token } from "./types";

export const session = () => call<Session>("GET", "/session", { quiet: true });
export const login = (name: string, password: string) => call<Session>("POST", "/login", { body: { name, password }, quiet: true });
export const logout = () => call<void>("POST", "/logout", { quiet: true });
export const changePassword = (current: string, next: string) => call<void>("PUT", "/session/password", { body: { current, new: next } });

export const accounts = () => get<{ items: Account[] }>("/accounts");
export const createAccount = (body: { name: string; display_name?: string; roles: string[]; channels?: string[] }) =>
  call<Account & { password?: string }>("POST", "/accounts", { body });
export const patchAccount = (name: string, body: Partial<Account>) => call<Account>("PATCH", path("accounts", name), { body });
export const removeAccount = (name: string) => call<void>("DELETE", path("accounts", name));
export const resetPassword = (name: string) => call<{ password: string | null }>("POST", path("accounts", name, "password"), { body: {} });
export const roles = () => get<{ items: { name: string; description: string; builtin?: boolean; permissions: Record<string, string[]> }[] }>("/roles");
export const tokens = () => get<{ items: Token[] }>("/tokens", { account: "*" });
export const createToken = (body: { label: string; expires_in: string | null }) => call<Token & { token: string }>("POST", "/tokens", { body });
export const removeToken = (id: string) => call<void>("DELETE", path("tokens", id));
