// Ways to sign in, and what the address says of one that has just failed at an identity provider.
import { ref } from "vue";
import type { Router } from "vue-router";
import { ApiError } from "@/api/http";
import { signInWays } from "@/api/accounts";
import type { OidcWay } from "@/api/types";

/** What `?sign_in=` may say. */
export const FAILURES = ["provider", "refused", "expired", "no_role", "account"];

/** The identity provider, once it is asked for. */
export function useProvider() {
  const oidc = ref<OidcWay | null>(null);
  async function load(): Promise<void> {
    try {
      oidc.value = (await signInWays()).oidc;
    } catch (error) {
      // The password is always there.
      if (!(error instanceof ApiError)) throw error;
    }
  }
  return { oidc, load };
}

/** Where the browser is sent, and comes back from to a place of ours. */
export const wayTo = (way: OidcWay, back: string): string => `${way.path}?back=${encodeURIComponent(back)}`;

/** Takes the failure out of the address, so that it is said once. The router has to have read the address first: it would write its own again. */
export function takeFailure(router: Router): string {
  const failure = new URL(location.href).searchParams.get("sign_in") ?? "";
  if (!failure) return "";
  void router.isReady().then(() => {
    const { path, query, hash } = router.currentRoute.value;
    return router.replace({ path, hash, query: Object.fromEntries(Object.entries(query).filter(([name]) => name !== "sign_in")) });
  });
  return FAILURES.includes(failure) ? failure : "refused";
}
