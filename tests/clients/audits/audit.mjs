// Runs every audit of graphql-http against the URL that is given, and prints a JSON array: of each its id, name, status and reason.
// The header is what a program sends by GET where no page of another site may ask; audits do not know of it.
import { serverAudits } from 'graphql-http';

const [url, ...headers] = process.argv.slice(2);
const own = Object.fromEntries(headers.map((header) => header.split('=')));
const fetchFn = (address, init = {}) => fetch(address, { ...init, headers: { ...own, ...init.headers } });
const results = await Promise.all(serverAudits({ url, fetchFn }).map(({ fn }) => fn()));
console.log(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
