/** A colour of the theme in force, for what is painted and not styled. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
