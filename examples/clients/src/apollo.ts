/** Apollo Client: a cache by id, retries, polling. */

import { ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache, ServerError } from "@apollo/client";
import { RetryLink } from "@apollo/client/link/retry";
import { map } from "rxjs";

import type { Client, User } from "./client";
import { errorsIn, gatewayFetch, passing, type Mode, type Origin } from "./gateway";
import { UserDocument, UsersDocument } from "./generated/graphql";

export function apolloClient(url: string, mode?: Mode, note?: (origin: Origin) => void): ApolloClient {
  // RetryLink sees what is thrown, and an answer with errors is none of that yet
  const failing = new ApolloLink((operation, forward) =>
    forward(operation).pipe(
      map((result) => {
        if (passing(result.errors)) throw new CombinedGraphQLErrors(result);
        return result;
      }),
    ),
  );
  const retrying = new RetryLink({
    delay: { initial: 200, max: 5_000, jitter: true },
    attempts: { max: 6, retryIf: worthRetrying },
  });
  const http = new HttpLink({ uri: url, fetch: gatewayFetch(mode, note) });
  return new ApolloClient({ link: ApolloLink.from([retrying, failing, http]), cache: cache() });
}

function worthRetrying(error: unknown): boolean {
  if (CombinedGraphQLErrors.is(error)) return passing(error.errors);
  return !ServerError.is(error) || error.statusCode >= 500;
}

// a user that came in a list answers user(id:), too
function cache(): InMemoryCache {
  return new InMemoryCache({
    typePolicies: {
      Query: {
        fields: {
          user: {
            read: (known, { args, toReference }) =>
              known === undefined ? toReference({ __typename: "User", id: args?.id }) : known,
          },
        },
      },
    },
  });
}

/** The client as the programs beside this file ask it. */
export function apollo(url: string, mode?: Mode, note?: (origin: Origin) => void): Client {
  const client = apolloClient(url, mode, note);

  async function user(id: string): Promise<User | null> {
    const { data } = await client.query({ query: UserDocument, variables: { id } });
    return data?.user ?? null;
  }

  async function users(ids: string[]): Promise<(User | null)[]> {
    const { data } = await client.query({ query: UsersDocument, variables: { ids } });
    return data?.users ?? [];
  }

  function cachedUser(id: string): User | null {
    return client.readQuery({ query: UserDocument, variables: { id } })?.user ?? null;
  }

  function follow(id: string, seen: (user: User) => void): void {
    const polled = client.watchQuery({ query: UserDocument, variables: { id }, pollInterval: 1_000 });
    polled.subscribe(({ data }) => {
      if (data?.user) seen(data.user as User);
    });
  }

  function codesOf(error: unknown): unknown[] {
    // what is refused before it is executed, such as BAD_MODE, comes with status 400
    const refused = ServerError.is(error) ? errorsIn(error.bodyText) : [];
    const errors = CombinedGraphQLErrors.is(error) ? error.errors : refused;
    return errors.map(({ extensions }) => extensions?.code);
  }

  return { user, users, cachedUser, follow, codesOf };
}
