// node server.mjs <which> <port> <config>: one of Node's GraphQL servers over the view's own hashes, each as its documentation has it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { crc32 } from 'node:zlib';
import Redis from 'ioredis';

const [which, port, path] = process.argv.slice(2);
const config = JSON.parse(readFileSync(path, 'utf8'));
const redis = new Redis(config.redis, { enableAutoPipelining: true });

// what the gateway's layout.py does: where a row is, and what was cut from a value
const key = (id) => `${config.start}${config.tags[crc32(id) % config.tags.length]}${config.end}${id}`;
const shown = ({ prefix }, stored) => {
  if (prefix === null) return JSON.parse(stored);
  if (stored.startsWith('~')) return stored.length === 1 ? null : JSON.parse(stored.slice(1));
  return JSON.parse(`${prefix}${stored}"`);
};
async function row(id, info) {
  const asked = info.fieldNodes[0].selectionSet.selections.map((node) => config.fields[node.name.value]).filter(Boolean);
  const stored = await redis.hmget(key(id), config.marker, ...asked.map(({ code }) => code));
  if (stored[0] === null) return null;
  const made = { id };
  asked.forEach((field, place) => { made[field.name] = shown(field, stored[place + 1]); });
  return made;
}
const resolvers = {
  Query: {
    user: (_, { id }, __, info) => row(id, info),
    users: (_, { ids }, __, info) => Promise.all(ids.map((id) => row(id, info))),
  },
};

async function mercurius(jit) {
  const { default: Fastify } = await import('fastify');
  const { default: plugin } = await import('mercurius');
  const app = Fastify({ logger: false });
  app.register(plugin, { schema: config.sdl, resolvers, jit });
  await app.listen({ port: Number(port), host: '127.0.0.1' });
}

async function apollo() {
  const { ApolloServer } = await import('@apollo/server');
  const { startStandaloneServer } = await import('@apollo/server/standalone');
  await startStandaloneServer(new ApolloServer({ typeDefs: config.sdl, resolvers }), { listen: { port: Number(port), host: '127.0.0.1' } });
}

async function yoga() {
  const { createSchema, createYoga } = await import('graphql-yoga');
  const server = createServer(createYoga({ schema: createSchema({ typeDefs: config.sdl, resolvers }), logging: false, graphiql: false }));
  await new Promise((listening) => server.listen(Number(port), '127.0.0.1', listening));
}

const start = { 'mercurius-jit': () => mercurius(1), mercurius: () => mercurius(0), apollo, yoga };
await start[which]();
