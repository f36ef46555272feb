// Words for names that the API gives; a name that no text knows yet stands for itself.
import { useI18n } from "vue-i18n";

export function useNames() {
  const { t, te } = useI18n();
  const of = (group: string, name: string): string => (te(`${group}.${name}`) ? t(`${group}.${name}`) : name);
  return {
    of,
    resource: (name: string): string => of("resource", name),
    deed: (name: string): string => of("deed", name),
    gauge: (name: string): string => of("gauge", name),
  };
}
