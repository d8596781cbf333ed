// A short load of what the platform is for, with the duplicates of real people: students pay, visitors register,
// accountants approve. Thresholds fail the run; every operation that was answered 202 is logged, for loadtest/check.
//
// RUN: a word of this run. GATEWAY_URL. STUDENTS: a file with an array of {registration_id, amount_due, currency,
// access_token}. ACCOUNTANTS: one of {access_token}. BATCHES: ids, with commas. VUS (20), VISITORS (400).
import http from 'k6/http';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter } from 'k6/metrics';

const gateway = __ENV.GATEWAY_URL;
const run = __ENV.RUN;
const vus = Number(__ENV.VUS || 20);
const visitors = Number(__ENV.VISITORS || 400);
const batches = __ENV.BATCHES.split(',');
const students = new SharedArray('students', () => JSON.parse(open(__ENV.STUDENTS)));
const accountants = JSON.parse(open(__ENV.ACCOUNTANTS));

const accepted = new Counter('operations_accepted');
const repeated = new Counter('duplicates_sent');

http.setResponseCallback(http.expectedStatuses(200, 202));

export const options = {
  scenarios: {
    payments: { executor: 'shared-iterations', exec: 'pay', vus, iterations: students.length, maxDuration: '5m' },
    registrations: { executor: 'shared-iterations', exec: 'register', vus, iterations: visitors, maxDuration: '5m' },
    approvals: { executor: 'per-vu-iterations', exec: 'approve', vus: accountants.length, iterations: 1, maxDuration: '5m' },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    'http_req_duration{scenario:payments}': ['p(95)<1000'],
    'http_req_duration{scenario:registrations}': ['p(95)<1000'],
    operations_accepted: [`count>=${students.length + visitors}`],
  },
};

function headers(token, key) {
  const all = { 'content-type': 'application/json' };
  if (token) all.authorization = `Bearer ${token}`;
  if (key) all['idempotency-key'] = key;
  return { headers: all };
}

// Checks that a command is safe with the broker, and logs its operation.
function take(response, name) {
  const ok = check(response, { [`${name}: 202 with an operation`]: (r) => r.status === 202 && r.json('id').startsWith('op_') });
  if (!ok) return null;
  accepted.add(1);
  console.log(response.json('id'));
  return response.json('id');
}

// One command as people send it: 15 % click twice at once, 10 % send it again after a while, both under one key.
function send(path, body, token, key, name) {
  const url = `${gateway}${path}`;
  const text = JSON.stringify(body);
  const chance = Math.random();
  if (chance < 0.15) {
    repeated.add(1);
    const request = ['POST', url, text, headers(token, key)];
    const [first, second] = http.batch([request, request]).map((response) => take(response, name));
    check(null, { 'two clicks are one operation': () => first === second });
    return first;
  }
  const id = take(http.post(url, text, headers(token, key)), name);
  if (chance < 0.25) {
    repeated.add(1);
    sleep(0.3);
    const again = take(http.post(url, text, headers(token, key)), name);
    check(null, { 'sent again is the same operation': () => id === again });
  }
  return id;
}

function settled(id, token) {
  const response = http.get(`${gateway}/v1/operations/${id}?wait=20`, headers(token));
  return response.status === 200 ? response.json() : { state: 'unreadable' };
}

export function pay() {
  const n = exec.scenario.iterationInTest;
  const student = students[n];
  const body = {
    registration_id: student.registration_id,
    method: 'bank_transfer',
    transaction_id: `UTR-${run}-${n}`,
    amount: student.amount_due,
    currency: student.currency,
  };
  const id = send('/v1/payments', body, student.access_token, `pay-${run}-${n}`, 'payment');
  if (!id || n % 10 > 0) return;
  const first = settled(id, student.access_token);
  check(first, { 'payment: settled as a success': (o) => o.state === 'succeeded' });
  if (n % 20 > 0) return;
  // A reload: another key, the same bank reference, typed differently. Accepted at the edge, refused by the workers.
  const other = http.post(
    `${gateway}/v1/payments`,
    JSON.stringify({ ...body, transaction_id: ` utr ${run} ${n} ` }),
    headers(student.access_token, `reload-${run}-${n}`),
  );
  const second = settled(take(other, 'reloaded payment'), student.access_token);
  check(second, { 'the same reference again is rejected': (o) => o.state === 'rejected' });
}

export function register() {
  const n = exec.scenario.iterationInTest;
  const body = {
    batch_id: batches[n % batches.length],
    email: `visitor-${run}-${n}@load.example.org`,
    full_name: `Visitor ${n}`,
  };
  const id = send('/v1/registrations', body, null, `register-${run}-${n}`, 'registration');
  if (!id || n % 10 > 0) return;
  // Full is an answer, not an error.
  check(settled(id, null), { 'registration: settled': (o) => o.state === 'succeeded' || o.state === 'rejected' });
}

// Both accountants go through the same list, so that many payments are decided by both at once.
export function approve() {
  const token = accountants[exec.vu.idInTest % accountants.length].access_token;
  let quiet = 0;
  while (quiet < 5) {
    const list = http.get(`${gateway}/v1/payments?status=submitted&limit=100`, headers(token));
    const items = list.status === 200 ? list.json('items') : [];
    if (items.length > 0) {
      quiet = 0;
      const body = { items: items.map((payment) => ({ payment_id: payment.id, verdict: 'approve' })) };
      const response = http.post(`${gateway}/v1/payments/decisions`, JSON.stringify(body), headers(token));
      check(response, { 'approvals: 202': (r) => r.status === 202 });
      if (response.status === 202) response.json('items').forEach((operation) => console.log(operation.id));
    } else {
      quiet += 1;
    }
    sleep(1);
  }
}
