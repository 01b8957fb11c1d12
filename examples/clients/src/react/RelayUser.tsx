/** A user in React, with Relay. Needs a RelayEnvironmentProvider, a Suspense and an error boundary above it. */

import { graphql, useFragment, useLazyLoadQuery } from "react-relay";

import type { RelayUser_user$key } from "./__generated__/RelayUser_user.graphql";
import type { RelayUserQuery } from "./__generated__/RelayUserQuery.graphql";

export function RelayUser({ id }: { id: string }) {
  const query = graphql`
    query RelayUserQuery($id: ID!) {
      user(id: $id) {
        ...RelayUser_user
      }
    }
  `;
  const { user } = useLazyLoadQuery<RelayUserQuery>(query, { id });
  return user ? <Shown user={user} /> : <p>There is no such user.</p>;
}

function Shown({ user }: { user: RelayUser_user$key }) {
  const fragment = graphql`
    fragment RelayUser_user on User {
      username
      followerCount
      joinedAt
    }
  `;
  const { username, followerCount, joinedAt } = useFragment(fragment, user);
  return <p>{`${username}, since ${new Date(joinedAt).getUTCFullYear()}: ${followerCount} followers`}</p>;
}
