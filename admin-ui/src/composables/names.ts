// Words for names that the API gives; a name that no text knows yet stands for itself.
import { useI18n } from "vue-i18n";

export function useNames() {
  const { t, te } = useI18n();
  return {
    resource: (name: string): string => (te(`resource.${name}`) ? t(`resource.${name}`) : name),
    deed: (name: string): string => (te(`deed.${name}`) ? t(`deed.${name}`) : name),
    gauge: (name: string): string => (te(`gauge.${name}`) ? t(`gauge.${name}`) : name),
  };
}
