// HTTP client of the gateways. After a 503 it repeats the request under the same key (nine of ten clients wait as long
// as Retry-After says, one does not), and it logs the responses for loadtest/check:
//
//   op_… accepted         a 202: the operation must be settled
//   op_… reported STATE   a long poll returned this state: it must be the one in the database
//   refused REFERENCE     a 4xx: no payment may have this bank reference
//
// Invariant: a response has a wanted status, or is a 503 with Retry-After, or is counted as unexpected. With FAULTS=1,
// for runs in which gateways are killed, a response may also be lost: then it is unknown whether the request arrived,
// and it is sent again under the same key.
//
// GATEWAY_URL: one URL, or several with commas. PATIENCE_SECONDS (120): the longest time for which a client repeats a
// request or waits for a result. ACCEPT_P95_MS, ACCEPT_P99_MS, TOLD_P99_MS: thresholds.
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
const shedWithoutRetryAfter = new Rate('answers_503_without_retry_after');
const acceptMs = new Trend('accept_ms', true);
const learnedMs = new Trend('accept_to_told_ms', true);

// Adds 0 to all counters, in setup(): a threshold on a metric without samples would always pass.
export function initialiseCounters(...counters) {
  [accepted, learned, repeated, shed, lost, givenUp, ...counters].forEach((counter) => counter.add(0));
}

// Thresholds of every scenario. The limits are wide: they detect faults; loadtest/bench measures speed.
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
  // One name for all URLs of a route, since k6 keeps a time series for each name.
  return { headers, tags: { name } };
}

// Counts a response. `ok`: its status is wanted; `again`: the request is to be repeated.
function classify(response, { name }, wanted) {
  const ok = wanted.includes(response.status);
  const is503 = response.status === 503;
  const mayRetry = is503 && Number(response.headers['Retry-After']) > 0;
  const isLost = response.status === 0;
  const again = mayRetry || (isLost && faults);
  if (is503) shed.add(1);
  if (isLost) lost.add(1);
  shedWithoutRetryAfter.add(is503 && !mayRetry);
  unexpected.add(!ok && !again, { name });
  if (!ok && !again) {
    const body = String(response.body).slice(0, 300);
    console.warn(`unexpected ${name}: ${response.status} ${response.error || ''} ${body}`);
  }
  return { ok, again };
}

function pauseBeforeRetry(response) {
  const retryAfter = Number(response.headers['Retry-After']) || 1;
  const impatient = exec.vu.idInTest % 10 === 9;
  sleep(impatient ? 0.1 + 0.2 * Math.random() : retryAfter * (1 + 0.2 * Math.random()));
}

// Sends until the request need not be repeated; null where no response had a wanted status.
function send(method, path, text, request, wanted) {
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    const response = http.request(method, address(path), text, parameters(request));
    const { ok, again } = classify(response, request, wanted);
    if (ok) return response;
    if (!again) return null;
    pauseBeforeRetry(response);
  }
  givenUp.add(1);
  return null;
}

export function get(path, request, wanted = [200]) {
  return send('GET', path, null, request, wanted);
}

function recordAccepted(response, { name }) {
  const id = response.json('id');
  check(id, { 'a 202 names its operation': (text) => String(text).startsWith('op_') });
  acceptMs.add(response.timings.duration, { name });
  accepted.add(1);
  console.log(`${id} accepted`);
  return { id, at: Date.now() };
}

// Sends one command; null where it was not accepted, which is counted already.
export function command(path, body, request) {
  const response = send('POST', path, JSON.stringify(body), request, [202]);
  return response && recordAccepted(response, request);
}

// Sends a bulk command; returns its operations.
export function commands(path, body, request) {
  const response = send('POST', path, JSON.stringify(body), request, [202]);
  const ids = response ? response.json('items').map((operation) => operation.id) : [];
  ids.forEach((id) => console.log(`${id} accepted`));
  accepted.add(ids.length);
  return ids.map((id) => ({ id, at: Date.now() }));
}

// Sends several requests at the same moment, [path, body, request] each; those that get a 503 are repeated one by one.
export function sendTogether(requests) {
  const post = ([path, body, request]) => ['POST', address(path), JSON.stringify(body), parameters(request)];
  return http.batch(requests.map(post)).map((response, n) => {
    const [path, body, request] = requests[n];
    const { ok, again } = classify(response, request, [202]);
    if (ok) return recordAccepted(response, request);
    if (!again) return null;
    pauseBeforeRetry(response);
    return command(path, body, request);
  });
}

// Sends one command as people do, under one key: 15 % click twice at the same moment, 10 % abort within 40 ms and send
// it again, without knowing whether the first arrived.
export function sendWithRepeats(path, body, request) {
  const dice = Math.random();
  if (dice < chance.twoClicks) {
    repeated.add(1);
    const [first, second] = sendTogether([[path, body, request], [path, body, request]]);
    check(null, { 'two clicks are one operation': () => first && second && first.id === second.id });
    return first || second;
  }
  if (dice < chance.twoClicks + chance.impatience) return sendImpatiently(path, body, request);
  return command(path, body, request);
}

function sendImpatiently(path, body, request) {
  repeated.add(1);
  const timeout = `${Math.ceil(40 * Math.random())}ms`;
  const hurry = { ...parameters({ ...request, name: `${request.name} (impatient)` }), timeout, responseCallback: null };
  const hasty = http.post(address(path), JSON.stringify(body), hurry);
  const operation = command(path, body, request);
  if (hasty.status === 202) {
    check(null, { 'sent again is the same operation': () => operation && hasty.json('id') === operation.id });
  } else if (hasty.status !== 0) {
    classify(hasty, request, [202]);
  }
  return operation;
}

// Sends an invalid request, which must get a 4xx at once and leave no payment with this bank reference.
export function sendInvalid(path, text, request, reference) {
  const response = send('POST', path, text, request, [400, 422]);
  if (!response) return;
  check(response, {
    'a bad request gets a problem document': (r) => r.headers['Content-Type'] === 'application/problem+json',
    'a bad request is not retryable': (r) => r.json('retryable') === false,
    'a bad request is refused at once': (r) => r.timings.duration < 1000,
  });
  console.log(`refused ${reference}`);
}

// Long polls until the operation is settled, and returns it.
export function awaitResult(operation, token) {
  if (!operation) return { state: 'not accepted' };
  const request = { name: 'GET /v1/operations/{id}', token };
  const deadline = Date.now() + patienceMs;
  while (Date.now() < deadline) {
    const response = get(`/v1/operations/${operation.id}?wait=20`, request);
    if (!response) return { state: 'unreadable' };
    const settled = response.json();
    if (settled.state !== 'pending') {
      learnedMs.add(Date.now() - operation.at);
      learned.add(1);
      console.log(`${operation.id} reported ${settled.state}`);
      return settled;
    }
    pauseBeforeRetry(response);
  }
  givenUp.add(1);
  return { state: 'pending' };
}

// Last part of the problem type of a rejected operation; null for others.
export function reason(operation) {
  return operation.state === 'rejected' ? operation.problem.type.split('/').pop() : null;
}

export function sleepUntil(time) {
  const left = time - Date.now();
  if (left > 0) sleep(left / 1000);
}
