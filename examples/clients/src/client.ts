/** What each of the three clients can do, so that one program can ask them all. */

import type { UserQuery } from "./generated/graphql";

export type User = NonNullable<UserQuery["user"]>;

export interface Client {
  user(id: string): Promise<User | null>;
  users(ids: string[]): Promise<(User | null)[]>;
  /** From the client's own cache; null where it does not know the user. */
  cachedUser(id: string): User | null;
  /** Asks once a second, for ever. */
  follow(id: string, seen: (user: User) => void): void;
  /** The codes of an error that the client has thrown; none if the gateway did not say it. */
  codesOf(error: unknown): unknown[];
}
