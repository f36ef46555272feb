// Language and colours: what the browser remembers, by default what it asks for.
import { defineStore } from "pinia";
import { ref, watch } from "vue";
import { i18n, type Language } from "@/i18n";

type Theme = "light" | "dark" | "auto";

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing forgets the choice with the page.
  }
}

export const usePreferences = defineStore("preferences", () => {
  const language = ref<Language>((stored("tollgate.language") as Language | null) ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
  const theme = ref<Theme>((stored("tollgate.theme") as Theme | null) ?? "auto");
  /** Whether the walk through the console was taken, or declined. */
  const toured = ref(stored("tollgate.tour") === "done");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = ref(false);

  function paint(): void {
    dark.value = theme.value === "dark" || (theme.value === "auto" && system.matches);
    document.documentElement.classList.toggle("dark", dark.value);
  }

  watch(theme, (value) => { store("tollgate.theme", value); paint(); }, { immediate: true });
  watch(toured, (done) => { if (done) store("tollgate.tour", "done"); });
  watch(language, (value) => {
    store("tollgate.language", value);
    i18n.global.locale.value = value;
    document.documentElement.lang = value === "zh" ? "zh-CN" : "en";
  }, { immediate: true });
  system.addEventListener("change", paint);

  return { language, theme, dark, toured };
});
