/** Renders the React component of a client, as a server does, and prints the HTML. */

import { ApolloProvider } from "@apollo/client/react";
import type { ReactElement } from "react";
import { prerenderToNodeStream } from "react-dom/static";
import { RelayEnvironmentProvider } from "react-relay";
import { Provider as UrqlProvider } from "urql";

import { apolloClient } from "./apollo";
import { asked, type Asked } from "./program";
import { ApolloUser } from "./react/ApolloUser";
import { RelayUser } from "./react/RelayUser";
import { UrqlUser } from "./react/UrqlUser";
import { relayEnvironment } from "./relay";
import { urqlClient } from "./urql";

type Page = (url: string, id: string) => ReactElement;

const PAGES: Record<Asked["name"], Page> = {
  apollo: (url, id) => (
    <ApolloProvider client={apolloClient(url)}>
      <ApolloUser id={id} />
    </ApolloProvider>
  ),
  relay: (url, id) => (
    <RelayEnvironmentProvider environment={relayEnvironment(url)}>
      <RelayUser id={id} />
    </RelayEnvironmentProvider>
  ),
  urql: (url, id) => (
    <UrqlProvider value={urqlClient(url)}>
      <UrqlUser id={id} />
    </UrqlProvider>
  ),
};

async function main({ name, url, ids }: Asked): Promise<void> {
  const { prelude } = await prerenderToNodeStream(PAGES[name](url, ids.at(0)!));
  for await (const piece of prelude) process.stdout.write(piece);
  process.stdout.write("\n");
  // Relay keeps what a component asked for, and so the process, for five minutes
  process.exit(0);
}

void main(asked());
