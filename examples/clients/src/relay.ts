/** Relay: a store by id, retries, polling. */

import {
  createOperationDescriptor,
  Environment,
  fetchQuery,
  getRequest,
  graphql,
  Network,
  RecordSource,
  ROOT_TYPE,
  Store,
  type FetchFunction,
  type GraphQLResponse,
  type MissingFieldHandler,
} from "relay-runtime";

import type { relayUserQuery } from "./__generated__/relayUserQuery.graphql";
import type { relayUsersQuery } from "./__generated__/relayUsersQuery.graphql";
import type { Client, User } from "./client";
import { gatewayFetch, passing, type GatewayError, type Mode, type Origin } from "./gateway";

const ATTEMPTS = 6;

export function relayEnvironment(url: string, mode?: Mode, note?: (origin: Origin) => void): Environment {
  return new Environment({
    network: Network.create(network(url, gatewayFetch(mode, note))),
    store: new Store(new RecordSource()),
    getDataID: (fields, type) => (typeof fields.id === "string" ? `${type}:${fields.id}` : null),
    missingFieldHandlers: [userById],
  });
}

/** What the gateway said was wrong. Relay itself would only show nulls. */
export class GatewayRefusal extends Error {
  constructor(readonly errors: readonly GatewayError[]) {
    super(errors.map(({ message }) => message).join("\n"));
  }
}

function network(url: string, ask: typeof fetch): FetchFunction {
  const headers = { "content-type": "application/json" };

  async function once(body: string): Promise<GraphQLResponse> {
    const response = await ask(url, { method: "POST", headers, body });
    const answer = await response.json();
    if (answer.errors) throw new GatewayRefusal(answer.errors);
    return answer;
  }

  return async ({ text, name }, variables) => {
    const body = JSON.stringify({ query: text, variables, operationName: name });
    for (let attempt = 1; ; attempt++) {
      try {
        return await once(body);
      } catch (error) {
        if (attempt === ATTEMPTS || !worthRetrying(error)) throw error;
        await pause(Math.random() * 200 * 2 ** attempt);
      }
    }
  };
}

function worthRetrying(error: unknown): boolean {
  return !(error instanceof GatewayRefusal) || passing(error.errors);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((passed) => setTimeout(passed, milliseconds));
}

// a user that came in a list answers user(id:), too
const userById: MissingFieldHandler = {
  kind: "linked",
  handle: (field, record, { id }) =>
    record?.getType() === ROOT_TYPE && field.name === "user" ? `User:${id}` : undefined,
};

const userQuery = graphql`
  query relayUserQuery($id: ID!) {
    user(id: $id) {
      id
      username
      name
      joinedAt
      followerCount
    }
  }
`;

const usersQuery = graphql`
  query relayUsersQuery($ids: [ID!]!) {
    users(ids: $ids) {
      id
      username
      name
      joinedAt
      followerCount
    }
  }
`;

/** The client as the programs beside this file ask it. */
export function relay(url: string, mode?: Mode, note?: (origin: Origin) => void): Client {
  const environment = relayEnvironment(url, mode, note);

  async function user(id: string): Promise<User | null> {
    const data = await fetchQuery<relayUserQuery>(environment, userQuery, { id }).toPromise();
    return asUser(data?.user);
  }

  async function users(ids: string[]): Promise<(User | null)[]> {
    const data = await fetchQuery<relayUsersQuery>(environment, usersQuery, { ids }).toPromise();
    return data?.users.map(asUser) ?? [];
  }

  function cachedUser(id: string): User | null {
    const operation = createOperationDescriptor(getRequest(userQuery), { id });
    if (environment.check(operation).status !== "available") return null;
    const data = environment.lookup(operation.fragment).data as relayUserQuery["response"];
    return asUser(data.user);
  }

  // not by networkCacheConfig.poll: with a network that returns promises it repeats the first answer for ever
  function follow(id: string, seen: (user: User) => void): void {
    const ask = () =>
      fetchQuery<relayUserQuery>(environment, userQuery, { id }).subscribe({
        next: (data) => {
          const user = asUser(data.user);
          if (user) seen(user);
        },
        error: console.error,
      });
    ask();
    setInterval(ask, 1_000);
  }

  // for Relay a field that is not there may be undefined or null
  function asUser(user: relayUserQuery["response"]["user"]): User | null {
    return user ? { ...user, name: user.name ?? null } : null;
  }

  function codesOf(error: unknown): unknown[] {
    return error instanceof GatewayRefusal ? error.errors.map(({ extensions }) => extensions?.code) : [];
  }

  return { user, users, cachedUser, follow, codesOf };
}
