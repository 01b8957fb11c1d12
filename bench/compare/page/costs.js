// What costs.py computes, in the browser: the same names, and a test holds them alike. Knows no page.
const SERVERS = ["gateway", "projector", "redis", "postgres"];
const given = JSON.parse(document.getElementById("model").textContent);

function money(work, prices) {
  const of = {
    gateway: prices.gateway_vcpu_hour,
    projector: prices.gateway_vcpu_hour,
    redis: prices.redis_vcpu_hour,
    postgres: prices.postgres_vcpu_hour,
  };
  if (SERVERS.some((server) => work[server] === null)) return null;
  return SERVERS.reduce((sum, server) => sum + (work[server] * of[server]) / 3600, 0);
}

const perMonth = (use) => given.million / (use.reads_per_second * 3600 * given.hours_of_month);

function cost(model, prices, use) {
  const read = money(model.read, prices);
  const write = money(model.write, prices);
  if (read === null || write === null || model.memory === null) return null;
  const told = {
    reads: read * given.million,
    changes: (write * given.million) / use.reads_per_write,
    memory: (model.memory / given.gigabyte) * prices.gb_month * perMonth(use),
    beside: (model.mode === "view" ? prices.view_month : 0) * perMonth(use),
  };
  return { total: told.reads + told.changes + told.memory + told.beside, ...told };
}

const cheaper = (difference, view, other) => (difference > 0 ? other.mode : view.mode);

function breakEvenRatio(view, other, prices, use) {
  const ours = cost(view, prices, use);
  const theirs = cost(other, prices, use);
  if (!ours || !theirs) return null;
  const changes = (ours.changes - theirs.changes) * use.reads_per_write;
  const rest = ours.total - ours.changes - (theirs.total - theirs.changes);
  const below = cheaper(changes || rest, view, other);
  const above = cheaper(rest || changes, view, other);
  return { at: below === above ? null : -changes / rest, below, above };
}

function crossing(theirs, ours, view, other) {
  for (let place = 1; place < theirs.length; place += 1) {
    const [from, to] = [theirs[place - 1], theirs[place]];
    const [before, after] = [from[1] - ours, to[1] - ours];
    if (before < 0 !== after < 0) {
      const at = from[0] + ((to[0] - from[0]) * before) / (before - after);
      return { at, below: cheaper(-before, view, other), above: cheaper(-after, view, other) };
    }
  }
  const always = cheaper(ours - theirs[0][1], view, other);
  return { at: null, below: always, above: always };
}

function mixed(cache, sql, server, share) {
  const measured = cache.read[server];
  let miss = server === "redis" || server === "projector" ? measured : sql.read[server];
  if (measured === null || miss === null || !cache.hits) return null;
  const missed = 1 - cache.hits;
  let hit = (measured - missed * miss) / cache.hits;
  if (hit < 0) [hit, miss] = [0, measured / missed];
  return hit + (1 - share) * (miss - hit);
}

function withHits(cache, sql, share) {
  const read = Object.fromEntries(SERVERS.map((server) => [server, mixed(cache, sql, server, share)]));
  return { ...cache, read };
}

function breakEvenSkew(view, cache, sql, hits, prices, use) {
  const ours = cost(view, prices, use);
  const told = hits.map(([skew, share]) => [skew, cost(withHits(cache, sql, share), prices, use)]);
  if (!ours || !told.length || told.some(([, one]) => one === null)) return null;
  return crossing(told.map(([skew, one]) => [skew, one.total]), ours.total, view, cache);
}

function breakEvenKept(view, cache, prices, use) {
  const ours = cost(view, prices, use);
  const theirs = cost(cache, prices, use);
  if (!ours || !theirs || cache.full === null) return null;
  const allKept = (cache.full / given.gigabyte) * prices.gb_month * perMonth(use);
  const empty = theirs.total - theirs.memory;
  return crossing([[0, empty], [1, empty + allKept]], ours.total, view, cache);
}
