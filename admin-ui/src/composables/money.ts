// Amounts of money: millionths of a currency's unit.
import { ref, watch, type Ref } from "vue";
import { ApiError } from "@/api/http";
import { currency as read } from "@/api/reads";

/** An amount as people read it: small ones with as many places as they need, so that no cost looks like none. */
export function money(micro: number, currency: string): string {
  const amount = micro / 1e6;
  const places = amount !== 0 && Math.abs(amount) < 0.01 ? 6 : Math.abs(amount) < 1 ? 4 : 2;
  const text = new Intl.NumberFormat("en-US", { minimumFractionDigits: amount === 0 ? 0 : 2, maximumFractionDigits: places }).format(amount);
  return currency ? `${text} ${currency}` : text;
}

const known = ref("");
let asked = 0;
/** How long an answer holds: prices change seldom, and many figures on one page want the same. */
const HOLDS = 60_000;

/** The configuration's currency; empty until it is known. It is asked for once it is `wanted`. */
export function useCurrency(wanted: () => boolean = () => true): Ref<string> {
  watch(wanted, async (now) => {
    if (!now || Date.now() - asked < HOLDS) return;
    asked = Date.now();
    try {
      known.value = await read();
    } catch (error) {
      // Amounts are shown without it; who may not know it would ask once for every figure.
      if (!(error instanceof ApiError)) throw error;
    }
  }, { immediate: true });
  return known;
}
