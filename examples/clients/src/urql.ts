/** urql with its normalized cache: a cache by id, retries, polling. */

import { Client as UrqlClient, CombinedError, fetchExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { retryExchange } from "@urql/exchange-retry";

import type { Client, User } from "./client";
import { gatewayFetch, passing, type Mode, type Origin } from "./gateway";
import { UserDocument, UsersDocument } from "./generated/graphql";

export function urqlClient(url: string, mode?: Mode, note?: (origin: Origin) => void): UrqlClient {
  const retrying = retryExchange({
    initialDelayMs: 200,
    maxDelayMs: 5_000,
    maxNumberAttempts: 6,
    retryIf: worthRetrying,
  });
  return new UrqlClient({
    url,
    fetch: gatewayFetch(mode, note),
    exchanges: [cache(), retrying, fetchExchange],
  });
}

function worthRetrying(error: CombinedError): boolean {
  if (error.networkError) return (error.response?.status ?? 500) >= 500;
  return passing(error.graphQLErrors);
}

// a user that came in a list answers user(id:), too
function cache() {
  return cacheExchange({
    resolvers: {
      Query: {
        user: (_, args, known) => {
          const user = { __typename: "User", id: args.id as string };
          return known.resolve(user, "id") ? user : known.resolve("Query", "user", args);
        },
      },
    },
  });
}

/** The client as the programs beside this file ask it. */
export function urql(url: string, mode?: Mode, note?: (origin: Origin) => void): Client {
  const client = urqlClient(url, mode, note);

  async function user(id: string): Promise<User | null> {
    const { data, error } = await client.query(UserDocument, { id }).toPromise();
    if (error) throw error;
    return data?.user ?? null;
  }

  async function users(ids: string[]): Promise<(User | null)[]> {
    const { data, error } = await client.query(UsersDocument, { ids }).toPromise();
    if (error) throw error;
    return data?.users ?? [];
  }

  function cachedUser(id: string): User | null {
    return client.readQuery(UserDocument, { id })?.data?.user ?? null;
  }

  function follow(id: string, seen: (user: User) => void): void {
    client.query(UserDocument, { id }).subscribe(({ data }) => {
      if (data?.user) seen(data.user);
    });
    setInterval(() => client.query(UserDocument, { id }, { requestPolicy: "network-only" }).toPromise(), 1_000);
  }

  function codesOf(error: unknown): unknown[] {
    return error instanceof CombinedError ? error.graphQLErrors.map(({ extensions }) => extensions.code) : [];
  }

  return { user, users, cachedUser, follow, codesOf };
}
