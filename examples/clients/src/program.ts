/** The command line of the programs: `CLIENT URL [MODE] [IDS]`. */

import { apollo } from "./apollo";
import type { Client } from "./client";
import type { Mode, Origin } from "./gateway";
import { relay } from "./relay";
import { urql } from "./urql";

const CLIENTS = { apollo, relay, urql };
const MODES = ["default", "view", "cache-aside", "cache-invalidate", "sql"] as const;

export interface Asked {
  name: keyof typeof CLIENTS;
  url: string;
  mode: Mode | undefined;
  ids: string[];
}

/** What the arguments ask for. Ends the process with 2 if they are wrong. */
export function asked(): Asked {
  const [name, url, mode = "default", ids = "1,2,3"] = process.argv.slice(2);
  const names = Object.keys(CLIENTS) as Asked["name"][];
  if (!isOne(names, name) || !url?.startsWith("http") || !isOne(MODES, mode)) {
    console.error(`Say CLIENT URL [MODE] [IDS]. CLIENT: ${names.join(", ")}. MODE: ${MODES.join(", ")}. IDS: such as 1,2,3.`);
    process.exit(2);
  }
  return { name, url, mode: mode === "default" ? undefined : mode, ids: ids.split(",") };
}

export function opened({ name, url, mode }: Asked, note?: (origin: Origin) => void): Client {
  return CLIENTS[name](url, mode, note);
}

function isOne<T extends string>(words: readonly T[], word: string | undefined): word is T {
  return words.includes(word as T);
}
