import { createRouter, createWebHistory, type RouteRecordRaw } from "vue-router";

/** What the menu shows: `resource` is what an account must be allowed to read. */
declare module "vue-router" {
  interface RouteMeta {
    title?: string;
    resource?: string;
  }
}

const routes: RouteRecordRaw[] = [
  { path: "/", name: "overview", component: () => import("@/views/Overview.vue"), meta: { title: "nav.overview" } },
  { path: "/channels", name: "channels", component: () => import("@/views/channels/List.vue"), meta: { title: "nav.channels", resource: "channels" } },
  { path: "/channels/new", name: "channel-new", component: () => import("@/views/channels/Form.vue"), meta: { title: "nav.channels", resource: "channels" } },
  { path: "/channels/:id", name: "channel", component: () => import("@/views/channels/Detail.vue"), props: true, meta: { title: "nav.channels", resource: "channels" } },
  { path: "/channels/:id/edit", name: "channel-edit", component: () => import("@/views/channels/Form.vue"), props: true, meta: { title: "nav.channels", resource: "channels" } },
  { path: "/templates", name: "templates", component: () => import("@/views/channels/Templates.vue"), meta: { title: "nav.templates", resource: "templates" } },
  { path: "/models", name: "models", component: () => import("@/views/models/List.vue"), meta: { title: "nav.models", resource: "models" } },
  { path: "/models/new", name: "model-new", component: () => import("@/views/models/Form.vue"), meta: { title: "nav.models", resource: "models" } },
  { path: "/models/:id", name: "model", component: () => import("@/views/models/Detail.vue"), props: true, meta: { title: "nav.models", resource: "models" } },
  { path: "/models/:id/edit", name: "model-edit", component: () => import("@/views/models/Form.vue"), props: true, meta: { title: "nav.models", resource: "models" } },
  { path: "/providers", name: "providers", component: () => import("@/views/providers/List.vue"), meta: { title: "nav.providers", resource: "providers" } },
  { path: "/experiments", name: "experiments", component: () => import("@/views/models/Experiments.vue"), meta: { title: "nav.experiments", resource: "usage" } },
  { path: "/rules", name: "rules", component: () => import("@/views/rules/List.vue"), meta: { title: "nav.rules", resource: "rules" } },
  { path: "/counting", name: "counting", component: () => import("@/views/counting/Counting.vue"), meta: { title: "nav.counting", resource: "counting_rules" } },
  { path: "/usage", name: "usage", component: () => import("@/views/Usage.vue"), meta: { title: "nav.usage", resource: "usage" } },
  { path: "/requests", name: "requests", component: () => import("@/views/Requests.vue"), meta: { title: "nav.requests", resource: "requests" } },
  { path: "/alerts", name: "alerts", component: () => import("@/views/system/Alerts.vue"), meta: { title: "nav.alerts", resource: "alerts" } },
  { path: "/instances", name: "instances", component: () => import("@/views/system/Instances.vue"), meta: { title: "nav.instances", resource: "instance" } },
  { path: "/history", name: "history", component: () => import("@/views/system/History.vue"), meta: { title: "nav.history", resource: "documents" } },
  { path: "/audit", name: "audit", component: () => import("@/views/system/Audit.vue"), meta: { title: "nav.audit", resource: "audit" } },
  { path: "/accounts", name: "accounts", component: () => import("@/views/system/Accounts.vue"), meta: { title: "nav.accounts", resource: "accounts" } },
  { path: "/settings", name: "settings", component: () => import("@/views/system/Settings.vue"), meta: { title: "nav.settings", resource: "settings" } },
  { path: "/signed-in", name: "signed-in", component: () => import("@/views/SignedIn.vue"), meta: { title: "login.in" } },
  { path: "/:rest(.*)*", name: "nowhere", component: () => import("@/views/Nowhere.vue") },
];

export const router = createRouter({ history: createWebHistory(), routes });
