// Both languages of one text stand beside each other, so that none can be forgotten.
import { createI18n } from "vue-i18n";
import { texts } from "./all";

export type Language = "en" | "zh";
export type Texts = Record<string, readonly [en: string, zh: string]>;

function of(place: 0 | 1): Record<string, string> {
  return Object.fromEntries(Object.entries<readonly [string, string]>(texts).map(([key, pair]) => [key, pair[place]]));
}

export const i18n = createI18n({ legacy: false, locale: "en" as Language, fallbackLocale: "en", flatJson: true, messages: { en: of(0), zh: of(1) } });
