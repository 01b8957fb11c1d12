/** Asks for one user and for a list, then the client's own cache, and prints what came as JSON. */

import type { Origin } from "./gateway";
import { asked, opened, type Asked } from "./program";

async function main(given: Asked): Promise<void> {
  const origins: Origin[] = [];
  const client = opened(given, (origin) => origins.push(origin));
  try {
    const user = await client.user(given.ids.at(0)!);
    const users = await client.users(given.ids);
    const cached = client.cachedUser(given.ids.at(-1)!);
    print({ user, users, cached, origins });
  } catch (error) {
    print({ codes: client.codesOf(error), message: String(error), origins });
    process.exitCode = 1;
  }
}

function print(answer: object): void {
  console.log(JSON.stringify(answer, null, 2));
}

void main(asked());
