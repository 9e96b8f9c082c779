/** The status page's server: who is answered, with what, and what only a token may. */
import { request } from 'node:http';
import t, { type Test } from 'tap';
import { type PageProvider, startPage } from '../../control/page/server.ts';

const token = 'a-token-of-sixteen-characters-or-more';
const port = 19_478;
let reloads = 0;

const provider: PageProvider = {
  status: () => ({ state: 'redirecting' }),
  flows: (query) => {
    if (query.get('sort') === 'beauty') throw new RangeError('sort is bytes');
    return { matching: 1, flows: [] };
  },
  explain: async (words, direction) => {
    if (direction === '') throw new Error('which end is this host?');
    return { words, direction };
  },
  reload: async () => {
    reloads++;
    return { ok: true, changed: [], refused: [], warnings: [] };
  },
};

type Answer = { status: number; headers: Record<string, unknown>; body: string };

function ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path, method, headers, agent: false };
    request(options, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    })
      .on('error', reject)
      .end();
  });
}

async function open(t: Test, given: string | undefined) {
  const page = await startPage({ address: '127.0.0.1', port, token: given }, provider);
  t.teardown(() => page.close());
}

t.test('the page and its files, under a policy that lets nothing else in', async (t) => {
  await open(t, undefined);
  const { body, headers, status } = await ask('/');
  t.equal(status, 200);
  t.match(headers['content-security-policy'], /^default-src 'none'; .*script-src 'self'/);
  t.notMatch(headers['content-security-policy'], 'unsafe');
  t.match(headers, { 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
  t.notMatch(headers, { 'access-control-allow-origin': /./ });
  t.notMatch(body, / (style|on[a-z]+)=/, 'nothing inline, which the policy would refuse');
  for (const [, file] of body.matchAll(/(?:href|src)="(page\.\w+)"/g)) {
    t.equal((await ask(`/${file}`)).status, 200, file);
  }
  t.notMatch((await ask('/page.js')).body, /innerHTML|insertAdjacentHTML|document\.write|eval\(/);
  t.equal((await ask('/../../etc/passwd')).status, 404);
  t.equal((await ask('/', {}, 'POST')).status, 405);
});

t.test('a name that is made to resolve here is not answered', async (t) => {
  await open(t, undefined);
  for (const host of ['evil.example', 'evil.example:19478', '127.0.0.1.evil.example']) {
    t.equal((await ask('/api/status', { host })).status, 421, host);
  }
  for (const host of ['localhost', 'localhost:8080', '127.0.0.1:19478', '[::1]:9']) {
    t.equal((await ask('/api/status', { host })).status, 200, host);
  }
});

t.test('what it tells', async (t) => {
  await open(t, undefined);
  const tells = async (path: string) => JSON.parse((await ask(path)).body);
  t.same(await tells('/api/status'), { status: { state: 'redirecting' }, writable: false });
  t.same(await tells('/api/flows?limit=20'), { matching: 1, flows: [] });
  t.match(await tells('/api/flows?sort=beauty'), { error: 'sort is bytes' });
  t.match(await tells('/api/flows?limit=100000'), { error: /200 at most/ });
  t.same(await tells('/api/explain?protocol=tcp&from=10.1.0.9:1&to=10.2.0.7:2&direction=egress'), {
    words: ['tcp', '10.1.0.9:1', 'to', '10.2.0.7:2'],
    direction: 'egress',
  });
  t.match(await tells('/api/explain'), { error: /which end/ });
});

t.test('only a token reloads', async (t) => {
  await open(t, token);
  const reload = (authorization?: string) =>
    ask('/api/reload', authorization === undefined ? {} : { authorization }, 'POST');
  t.equal((await reload()).status, 401);
  t.equal((await reload(`Bearer ${token}x`)).status, 401);
  t.equal((await reload(`Bearer ${token.replace('a', 'b')}`)).status, 401);
  t.equal((await ask(`/api/reload?token=${token}`, {}, 'POST')).status, 401);
  t.equal(reloads, 0);
  t.equal((await reload(`Bearer ${token}`)).status, 200);
  t.equal(reloads, 1);
  t.match(JSON.parse((await ask('/api/status')).body), { writable: true });
});

t.test('without one nobody does, and an address that is taken is told', async (t) => {
  await open(t, undefined);
  t.equal((await ask('/api/reload', { authorization: `Bearer ${token}` }, 'POST')).status, 403);
  t.equal(reloads, 1);
  await t.rejects(startPage({ address: '127.0.0.1', port, token: undefined }, provider), {
    code: 'ERR_LISTEN_ADDRESS',
    message: /127\.0\.0\.1:19478 \(EADDRINUSE\)/,
  });
});
