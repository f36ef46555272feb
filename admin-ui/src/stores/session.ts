// Who is signed in and what they may do. When a session ends in the middle of something, a dialog asks for the password
// and the call that failed is made again: no form is lost.
import { defineStore } from "pinia";
import { computed, ref } from "vue";
import * as api from "@/api/accounts";
import { ApiError, setHooks } from "@/api/http";
import type { Session } from "@/api/types";

export type SessionState = "unknown" | "out" | "in";

export const useSession = defineStore("session", () => {
  const state = ref<SessionState>("unknown");
  const session = ref<Session>({ signed_in: false });
  const asking = ref(false);
  let waiting: ((signedIn: boolean) => void)[] = [];

  const account = computed(() => session.value.account ?? null);
  /** Whether only some channels are seen, so that nothing over all of them can be done. */
  const limited = computed(() => !(account.value?.channels ?? ["*"]).includes("*"));

  function take(next: Session): void {
    session.value = next;
    state.value = next.signed_in ? "in" : "out";
  }

  async function load(): Promise<void> {
    try {
      take(await api.session());
    } catch {
      take({ signed_in: false });
    }
  }

  function goOn(next: Session): void {
    take(next);
    asking.value = false;
    for (const resolve of waiting.splice(0)) resolve(true);
  }

  async function login(name: string, password: string): Promise<void> {
    goOn(await api.login(name, password));
  }

  /** Goes on if the same account has signed in meanwhile, in another window. */
  async function resume(): Promise<void> {
    const next = await api.session().catch((error: unknown) => {
      if (!(error instanceof ApiError)) throw error;
      return null;
    });
    if (next?.signed_in && next.account?.name === account.value?.name) goOn(next);
  }

  async function logout(): Promise<void> {
    await api.logout().catch((error: unknown) => {
      if (!(error instanceof ApiError)) throw error;
    });
    take({ signed_in: false });
  }

  function signIn(): Promise<boolean> {
    if (state.value !== "in") return Promise.resolve(false);
    asking.value = true;
    return new Promise((resolve) => waiting.push(resolve));
  }

  function giveUp(): void {
    asking.value = false;
    const pending = waiting;
    waiting = [];
    for (const resolve of pending) resolve(false);
    take({ signed_in: false });
  }

  function may(resource: string, action: string): boolean {
    const permissions: Record<string, string[]> = session.value.permissions ?? {};
    const allowed = [...(permissions[resource] ?? []), ...(permissions["*"] ?? [])];
    return allowed.includes(action) || allowed.includes("*");
  }

  setHooks({ csrf: () => session.value.csrf ?? null, signIn });
  return { state, session, account, limited, asking, load, login, resume, logout, giveUp, may };
});
