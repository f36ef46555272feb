import vue from "@vitejs/plugin-vue";
import Components from "unplugin-vue-components/vite";
import { ElementPlusResolver } from "unplugin-vue-components/resolvers";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

// `npm run dev` shows the sources beside a daemon that `make run` started.
const daemon = process.env.TOLLGATE_API ?? "http://127.0.0.1:9180";

export default defineConfig({
  plugins: [vue(), Components({ dirs: [], dts: "src/components.d.ts", resolvers: [ElementPlusResolver({ importStyle: "css" })] })],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    target: "es2022",
    // Fonts and pictures as files: the page's policy allows no other source than its own host.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "/api": { target: daemon, changeOrigin: true } } },
});
