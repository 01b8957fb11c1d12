/** A user in React, with urql. Needs a Provider, a Suspense and an error boundary above it. */

import { useQuery } from "urql";

import { UserDocument } from "../generated/graphql";

const SUSPENDED = { suspense: true };

export function UrqlUser({ id }: { id: string }) {
  const [{ data, error }] = useQuery({ query: UserDocument, variables: { id }, context: SUSPENDED });
  if (error) throw error;
  if (!data?.user) return <p>There is no such user.</p>;
  const { username, followerCount, joinedAt } = data.user;
  return <p>{`${username}, since ${new Date(joinedAt).getUTCFullYear()}: ${followerCount} followers`}</p>;
}
