/** Builds the page into the Python package, with a record of what it was built from. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** Files and folders of sources; tests/test_web_page.py hashes those named in the record. */
const SOURCES = ["index.html", "package-lock.json", "package.json", "public", "src", "tsconfig.json", "vite.config.ts", "../vscode/src/parts.ts"];

function sha256(data: Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}

function filesOf(path: string): string[] {
  const found = readdirSync(".", { withFileTypes: true }).find((entry) => entry.name === path);
  if (!found?.isDirectory()) {
    return [path];
  }
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function hashes(folder: string, names: string[]): Record<string, string> {
  return Object.fromEntries(names.sort().map((name) => [name, sha256(readFileSync(join(folder, name)))]));
}

/** The licences of the packages that are in the page, which their terms want beside it. */
function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_options, bundle) {
      const modules = Object.values(bundle).flatMap((chunk) => (chunk.type === "chunk" ? chunk.moduleIds : []));
      const packages = modules.flatMap((id) => /^.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)?.slice(0, 2) ?? []);
      const found = new Map<string, string>();
      for (let at = 0; at < packages.length; at += 2) {
        found.set(packages[at + 1] as string, packages[at] as string);
      }
      const texts = [...found].sort().map(([name, folder]) => {
        const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string };
        return `${name} ${version}\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
      });
      this.emitFile({ type: "asset", fileName: "licences.txt", source: texts.join(`\n${"-".repeat(80)}\n\n`) });
    },
  };
}

function record(): Plugin {
  let folder = "";
  return {
    name: "record",
    configResolved: (config) => {
      folder = config.build.outDir;
    },
    closeBundle: () => {
      const files = readdirSync(folder).filter((name) => name !== "build.json");
      const made = { files: hashes(folder, files), sources: hashes(".", SOURCES.flatMap(filesOf)) };
      writeFileSync(join(folder, "build.json"), `${JSON.stringify(made, null, 1)}\n`);
    },
  };
}

export default defineConfig({
  base: "/page/",
  build: {
    outDir: "../../codegen25/serve/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rollupOptions: { output: { entryFileNames: "page.js", assetFileNames: "page[extname]" } },
  },
  plugins: [licences(), record()],
});
