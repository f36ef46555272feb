// Accounts, sessions, tokens.
import { call, get, path } from "./http";
import type { Account, AccountChange, AccountList, CreatedAccount, CreatedToken, NewRole, Role, RoleList, SetPassword, SignInWays, TokenList } from "./schema";
import type { Session } from "./types";

export const session = () => call<Session>("GET", "/session", { quiet: true });
export const signInWays = () => call<SignInWays>("GET", "/login/ways", { quiet: true });
export const login = (name: string, password: string) => call<Session>("POST", "/login", { body: { name, password }, quiet: true });
export const logout = () => call<void>("POST", "/logout", { quiet: true });
export const changePassword = (current: string, next: string) => call<void>("PUT", "/session/password", { body: { current, new: next } });

export const accounts = () => get<AccountList>("/accounts");
export const createAccount = (body: { name: string; display_name?: string; roles: string[]; channels?: string[] }) =>
  call<CreatedAccount>("POST", "/accounts", { body });
export const patchAccount = (name: string, body: AccountChange) => call<Account>("PATCH", path("accounts", name), { body });
export const removeAccount = (name: string) => call<void>("DELETE", path("accounts", name));
export const resetPassword = (name: string) => call<SetPassword>("POST", path("accounts", name, "password"), { body: {} });
export const roles = () => get<RoleList>("/roles");
export const createRole = (body: NewRole) => call<Role>("POST", "/roles", { body });
export const replaceRole = (name: string, body: NewRole) => call<Role>("PUT", path("roles", name), { body });
export const removeRole = (name: string) => call<void>("DELETE", path("roles", name));
export const tokens = () => get<TokenList>("/tokens", { account: "*" });
export const createToken = (body: { label: string; expires_in: string | null }) => call<CreatedToken>("POST", "/tokens", { body });
export const removeToken = (id: string) => call<void>("DELETE", path("tokens", id));
