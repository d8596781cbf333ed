// One client of the gateway. It takes a 503 for what it says (nine in ten wait as long as Retry-After asks, one does
// not), repeats under the same key, and logs what it was answered, for loadtest/check:
//
//   op_… accepted       a 202: it must be settled
//   op_… told STATE     what a long poll said became of it: it must stand in the database
//   refused REFERENCE   a 4xx: nothing may have come of it
//
// Invariant: an answer is either wanted where it came, or a 503 with Retry-After, or it is counted as unexpected. With
// FAULTS=1, for runs in which gateways are killed, an answer may also be lost: then it is not known whether the
// request arrived, and it is sent again under the same key.
//
// GATEWAY_URL: one, or several with commas. PATIENCE_SECONDS (120): the longest that somebody goes on trying, or waits
// for a result.
import http from 'k6/http';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';

const gateways = __ENV.GATEWAY_URL.split(',');
const faults = __ENV.FAULTS === '1';
const patienceMs = Number(__ENV.PATIENCE_SECONDS || 120) * 1000;
const chance = {
  twoClicks: 0.15,
  impatience: 0.1,
};

const accepted = new Counter('operations_accepted');
const learned = new Counter('operations_learned');
const repeated = new Counter('duplicates_sent');
const shed = new Counter('answers_503');
const lost = new Counter('answers_lost');
const givenUp = new Counter('clients_given_up');
const unexpected = new Rate('unexpected_answers');
const unexcused = new Rate('answers_503_without_retry_after');
const acceptMs = new Trend('accept_ms', true);
const learnedMs = new Trend('accept_to_told_ms', true);

// A threshold on a metric without samples would pass whatever it asks: to be called in setup().
export function countFromZero(...counters) {
  [accepted, learned, repeated, shed, lost, givenUp, ...counters].forEach((counter) => counter.add(0));
}

// What every scenario asks. The limits are wide: they tell broken from whole, loadtest/bench tells fast from slow.
export const thresholds = {
  checks: ['rate==1'],
  unexpected_answers: ['rate==0'],
  answers_503_without_retry_after: ['rate==0'],
  clients_given_up: ['count==0'],
  accept_ms: [`p(95)<${__ENV.ACCEPT_P95_MS || 1000}`, `p(99)<${__ENV.ACCEPT_P99_MS || 2500}`],
  accept_to_told_ms: [`p(99)<${__ENV.TOLD_P99_MS || 10000}`],
};

export const share = (part) => Math.random() < part;

function address(path) {
  return `${gateways[exec.vu.idInTest % gateways.length]}${path}`;
}

function parameters({ name, token, key, etag }) {
  const headers = { 'content-type': 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  if (key) headers['idempotency-key'] = key;
  if (etag) headers['if-none-match'] = etag;
  // One name for all addresses of a route: k6 keeps a time series a name.
  return { headers, tags: { name } };
}

// Says whether the answer will do, or else whether to come again, and counts it.
function judge(response, { name }, wanted) {
  const ok = wanted.includes(response.status);
  const is503 = response.status === 503;
  const excused = is503 && Number(response.headers['Retry-After']) > 0;
  const isLost = response.status === 0;
  const again = excused || (isLost && faults);
  if (is503) shed.add(1);
  if (isLost) lost.add(1);
  unexcused.add(is503 && !excused);
  unexpected.add(!ok && !again, { name });
  if (!ok && !again) {
    const body = String(response.body).slice(0, 300);
    console.warn(`unexpected ${name}: ${response.status} ${response.error || ''} ${body}`);
  }
  return { ok, again };
}

function comeAgain(response) {
  const asked = Number(response.headers['Retry-After']) || 1;
  const impolite = exec.vu.idInTest % 10 === 9;
  sleep(impolite ? 0.1 + 0.2 * Math.random() : asked * (1 + 0.2 * Math.random()));
}

// Sends until the answer is not "come again"; null where it never was one of those wanted.
function send(method, path, text, asked, wanted) {
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    const response = http.request(method, address(path), text, parameters(asked));
    const { ok, again } = judge(response, asked, wanted);
    if (ok) return response;
    if (!again) return null;
    comeAgain(response);
  }
  givenUp.add(1);
  return null;
}

export function read(path, asked, wanted = [200]) {
  return send('GET', path, null, asked, wanted);
}

function take(response, { name }) {
  const id = response.json('id');
  check(id, { 'a 202 names its operation': (text) => String(text).startsWith('op_') });
  acceptMs.add(response.timings.duration, { name });
  accepted.add(1);
  console.log(`${id} accepted`);
  return { id, at: Date.now() };
}

// One command; null where it was not accepted, which is counted already.
export function command(path, body, asked) {
  const response = send('POST', path, JSON.stringify(body), asked, [202]);
  return response && take(response, asked);
}

// Many at once: the operations of a bulk command.
export function commands(path, body, asked) {
  const response = send('POST', path, JSON.stringify(body), asked, [202]);
  const ids = response ? response.json('items').map((operation) => operation.id) : [];
  ids.forEach((id) => console.log(`${id} accepted`));
  accepted.add(ids.length);
  return ids.map((id) => ({ id, at: Date.now() }));
}

// Several requests of the same moment, [path, body, asked] each; those that are shed are sent again one by one.
export function together(requests) {
  const sent = requests.map(([path, body, asked]) => ['POST', address(path), JSON.stringify(body), parameters(asked)]);
  return http.batch(sent).map((response, n) => {
    const [path, body, asked] = requests[n];
    const { ok, again } = judge(response, asked, [202]);
    if (ok) return take(response, asked);
    if (!again) return null;
    comeAgain(response);
    return command(path, body, asked);
  });
}

// One command as people send it, under one key: 15 % click twice at once, 10 % lose patience within a moment and send it
// again, not knowing whether the first arrived.
export function clumsily(path, body, asked) {
  const dice = Math.random();
  if (dice < chance.twoClicks) {
    repeated.add(1);
    const [first, second] = together([[path, body, asked], [path, body, asked]]);
    check(null, { 'two clicks are one operation': () => first && second && first.id === second.id });
    return first || second;
  }
  if (dice < chance.twoClicks + chance.impatience) return impatiently(path, body, asked);
  return command(path, body, asked);
}

function impatiently(path, body, asked) {
  repeated.add(1);
  const timeout = `${Math.ceil(40 * Math.random())}ms`;
  const hurry = { ...parameters({ ...asked, name: `${asked.name} (impatient)` }), timeout, responseCallback: null };
  const hasty = http.post(address(path), JSON.stringify(body), hurry);
  const operation = command(path, body, asked);
  if (hasty.status === 202) {
    check(null, { 'sent again is the same operation': () => operation && hasty.json('id') === operation.id });
  } else if (hasty.status !== 0) {
    judge(hasty, asked, [202]);
  }
  return operation;
}

// What must be refused at once, and leave no trace under this reference.
export function refusedAtOnce(path, text, asked, reference) {
  const response = send('POST', path, text, asked, [400, 422]);
  if (!response) return;
  check(response, {
    'a bad request is told as a problem': (r) => r.headers['Content-Type'] === 'application/problem+json',
    'a bad request is not to be repeated': (r) => r.json('retryable') === false,
    'a bad request is refused at once': (r) => r.timings.duration < 1000,
  });
  console.log(`refused ${reference}`);
}

// Long polls until the operation is settled, and says how it is.
export function learn(operation, token) {
  if (!operation) return { state: 'not accepted' };
  const asked = { name: 'GET /v1/operations/{id}', token };
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    const response = read(`/v1/operations/${operation.id}?wait=20`, asked);
    if (!response) return { state: 'unreadable' };
    const told = response.json();
    if (told.state !== 'pending') {
      learnedMs.add(Date.now() - operation.at);
      learned.add(1);
      console.log(`${operation.id} told ${told.state}`);
      return told;
    }
    comeAgain(response);
  }
  givenUp.add(1);
  return { state: 'pending' };
}

// The last part of a problem's type, where it was rejected.
export function reason(told) {
  return told.state === 'rejected' ? told.problem.type.split('/').pop() : null;
}

export function sleepUntil(time) {
  const left = time - Date.now();
  if (left > 0) sleep(left / 1000);
}
