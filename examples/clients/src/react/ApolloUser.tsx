/** A user in React, with Apollo Client. Needs an ApolloProvider, a Suspense and an error boundary above it. */

import { useSuspenseQuery } from "@apollo/client/react";

import { UserDocument } from "../generated/graphql";

export function ApolloUser({ id }: { id: string }) {
  const { data } = useSuspenseQuery(UserDocument, { variables: { id } });
  if (!data.user) return <p>There is no such user.</p>;
  const { username, followerCount, joinedAt } = data.user;
  return <p>{`${username}, since ${new Date(joinedAt).getUTCFullYear()}: ${followerCount} followers`}</p>;
}
